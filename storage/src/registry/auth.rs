//! Bearer tokens (distribution's token authentication) and basic credentials.
//!
//! The server names its token server, which may be another host; credentials go there too, as with docker, but not
//! unencrypted when the registry itself is spoken to over TLS.

use base64::Engine as _;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;

use super::endpoint::{Endpoint, is_loopback};
use super::error::RegistryError;

/// Answers of token servers are smaller.
const MAX_TOKEN: usize = 1 << 20;

/// What is shown with each request, and the how manieth it is: parallel requests renew it once.
#[derive(Debug, Clone, Default)]
pub(super) struct Authorization {
    pub(super) value: Option<String>,
    pub(super) generation: u64,
}

/// A parsed WWW-Authenticate header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Ask the realm for a token.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// Name and password.
    Basic,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    /// The same in OAuth 2's words.
    #[serde(rename = "access_token")]
    access: Option<String>,
    #[serde(rename = "refresh_token")]
    refresh: Option<String>,
}

/// A token server's answer.
pub(super) struct Granted {
    /// The Authorization header.
    pub(super) value: String,
    /// To be kept instead of a password.
    pub(super) identity_token: String,
}

impl Endpoint {
    /// The value of the Authorization header that answers the challenges; `refusal` when nothing does.
    pub(super) async fn authorize(
        &self,
        challenges: &[String],
        refusal: RegistryError,
    ) -> Result<String, RegistryError> {
        self.grant(challenges, refusal, false).await.map(|g| g.value)
    }

    /// The same; with `offline` a token to keep is asked for.
    pub(super) async fn grant(
        &self,
        challenges: &[String],
        refusal: RegistryError,
        offline: bool,
    ) -> Result<Granted, RegistryError> {
        let parsed: Vec<Challenge> = challenges.iter().filter_map(|c| parse(c)).collect();
        let bearer = parsed.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        if let Some(Challenge::Bearer { realm, service, scope }) = bearer {
            return self.token(realm, service.as_deref(), scope.as_deref(), offline).await;
        }
        if parsed.contains(&Challenge::Basic) && !self.access.username.is_empty() {
            return Ok(Granted { value: self.basic(), identity_token: String::new() });
        }
        Err(refusal)
    }

    fn basic(&self) -> String {
        let pair = format!("{}:{}", self.access.username, self.access.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        offline: bool,
    ) -> Result<Granted, RegistryError> {
        let mut url = Url::parse(realm).map_err(|_| self.wrong("its token server has no valid address"))?;
        self.check_realm(&url)?;
        let mut scopes = self.access.scopes.clone();
        // What the registry itself names, unless it is what we want anyway.
        scopes.extend(
            scope.filter(|s| !s.is_empty() && !scopes.iter().any(|o| covers(o, s))).map(str::to_owned),
        );
        let mut fields: Vec<(&str, &str)> = scopes.iter().map(|s| ("scope", s.as_str())).collect();
        fields.extend(service.map(|s| ("service", s)));
        let request = if self.access.identity_token.is_empty() {
            if offline {
                fields.extend([("offline_token", "true"), ("client_id", "davit")]);
            }
            if !self.access.username.is_empty() {
                fields.push(("account", &self.access.username));
            }
            url.query_pairs_mut().extend_pairs(&fields);
            let request = self.client.get(url);
            if self.access.username.is_empty() {
                request
            } else {
                request.header(AUTHORIZATION, self.basic())
            }
        } else {
            // One field with all scopes: that is how OAuth 2 has it.
            let scope = scopes.join(" ");
            let mut fields = vec![("grant_type", "refresh_token"), ("client_id", "davit"), ("scope", &scope)];
            fields.extend(service.map(|s| ("service", s)));
            fields.push(("refresh_token", &self.access.identity_token));
            let body = form(&fields);
            self.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        };
        let mut response = request.send().await.map_err(|e| self.broken(&e))?;
        if !response.status().is_success() {
            return Err(self.refusal(response, "a token").await);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(&e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_TOKEN {
                return Err(self.wrong("its token server's answer does not end"));
            }
        }
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| self.wrong("its token server does not answer with a token"))?;
        let usable = |t: &String| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic());
        let value = answer.token.or(answer.access).filter(usable);
        let value = value.ok_or_else(|| self.wrong("its token server answers without a token"))?;
        let identity_token = answer.refresh.unwrap_or_default();
        Ok(Granted { value: format!("Bearer {value}"), identity_token })
    }

    /// A registry behind TLS that sends credentials over plain HTTP is not obeyed.
    fn check_realm(&self, realm: &Url) -> Result<(), RegistryError> {
        let encrypted = realm.scheme() == "https";
        let near = realm.host_str().is_some_and(is_loopback);
        if encrypted || near || self.is_open() || !self.access.has_credentials() {
            return Ok(());
        }
        let realm = format!("{}://{}", realm.scheme(), realm.host_str().unwrap_or_default());
        Err(RegistryError::OpenRealm { registry: self.name.clone(), realm })
    }
}

/// Whether a scope with these actions includes another: "repository:a:pull,push" covers "repository:a:pull".
fn covers(own: &str, other: &str) -> bool {
    let (Some((name, actions)), Some((wanted, needed))) = (own.rsplit_once(':'), other.rsplit_once(':'))
    else {
        return own == other;
    };
    name == wanted && needed.split(',').all(|n| actions.split(',').any(|a| a == n))
}

/// Form encoding by way of a URL's query.
fn form(fields: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form.invalid/").expect("a constant address");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// RFC 9110, 11.6.1, one challenge a header line.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = value(after);
        match key.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (out, &quoted[i + 1..]),
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            c => out.push(c),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests {
    use super::super::{Access, Origin};
    use super::*;

    #[test]
    fn challenges_are_read_with_commas_in_quotes() {
        let header =
            r#"Bearer realm="https://auth.x/token",service="reg.x",scope="repository:a/b:pull,push",error=x"#;
        assert_eq!(
            parse(header),
            Some(Challenge::Bearer {
                realm: "https://auth.x/token".into(),
                service: Some("reg.x".into()),
                scope: Some("repository:a/b:pull,push".into())
            })
        );
        assert_eq!(parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(parse("basic"), Some(Challenge::Basic));
        assert_eq!(parse("Negotiate"), None);
        assert_eq!(parse("Bearer service=x"), None);
        assert_eq!(
            parse("Bearer realm=\"unclosed"),
            Some(Challenge::Bearer { realm: "unclosed".into(), service: None, scope: None })
        );
    }

    #[test]
    fn form_fields_are_encoded() {
        assert_eq!(form(&[("a", "x y&z")]), "a=x+y%26z");
    }

    #[test]
    fn a_wider_scope_covers_a_narrower_one() {
        assert!(covers("repository:a/b:pull,push", "repository:a/b:pull"));
        assert!(covers("repository:a:pull", "repository:a:pull"));
        assert!(!covers("repository:a:pull", "repository:a:pull,push"));
        assert!(!covers("repository:a:pull", "repository:b:pull"));
    }

    #[test]
    fn credentials_do_not_go_out_in_the_open() {
        let settings = crate::settings::Settings::default();
        let origin = Origin { settings: &settings, config_dir: std::path::Path::new("/nonexistent") };
        let refuses = |registry: &str, username: &str, realm: &str| {
            let access = Access { username: username.into(), ..Access::default() };
            let endpoint = Endpoint::new(registry, "app".into(), access, false, origin).unwrap();
            endpoint.check_realm(&Url::parse(realm).unwrap()).is_err()
        };
        assert!(refuses("reg.example", "user", "http://auth.example/token"));
        assert!(!refuses("reg.example", "user", "https://auth.example/token"));
        // Without any there is nothing to protect.
        assert!(!refuses("reg.example", "", "http://auth.example/token"));
    }
}
