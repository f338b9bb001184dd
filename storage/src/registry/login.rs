//! Checking credentials, as `docker login` does: the registry's root is asked for, and its challenge answered.

use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Method, StatusCode};

use super::auth::Authorization;
use super::endpoint::{Ask, Endpoint};
use super::{Access, Origin, RegistryError};

/// Answers the token to keep instead of the password; empty when the registry gives none.
pub async fn login(domain: &str, access: Access, origin: Origin<'_>) -> Result<String, RegistryError> {
    let endpoint = Endpoint::new(domain, "it".into(), access, false, origin)?;
    let root = Ask::new(Method::GET, "", "its root");
    let mut identity_token = String::new();
    // The first answer says what it wants to see.
    let mut response = endpoint.ask_as_is(&root).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenges: Vec<String> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        let refusal = endpoint.refusal(response, "its root").await;
        let granted = endpoint.grant(&challenges, refusal, true).await.map_err(as_login)?;
        identity_token = granted.identity_token;
        *endpoint.authorization.lock().await = Authorization { value: Some(granted.value), generation: 1 };
        response = endpoint.ask_as_is(&root).await?;
    }
    if response.status().is_success() {
        return Ok(identity_token);
    }
    if response.status() == StatusCode::NOT_FOUND {
        return Err(endpoint.wrong("it has no registry of version 2"));
    }
    Err(as_login(endpoint.refusal(response, "its root").await))
}

fn as_login(e: RegistryError) -> RegistryError {
    match e {
        RegistryError::Unauthorized { registry, says, .. } => RegistryError::BadLogin { registry, says },
        other => other,
    }
}
