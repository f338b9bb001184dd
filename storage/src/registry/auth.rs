//! Bearer tokens (distribution's token authentication) and basic credentials.

use base64::Engine as _;
use serde::Deserialize;

use super::{RegistryError, Session};

/// A parsed WWW-Authenticate header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Ask the realm for a token.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// Name and password.
    Basic,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session {
    /// The value of the Authorization header that answers the challenges.
    pub(super) async fn authorize(&self, challenges: &[String]) -> Result<String, RegistryError> {
        let parsed: Vec<Challenge> = challenges.iter().filter_map(|c| parse(c)).collect();
        let bearer = parsed.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        if let Some(Challenge::Bearer { realm, service, scope }) = bearer {
            return self.token(realm, service.as_deref(), scope.as_deref()).await;
        }
        if parsed.contains(&Challenge::Basic) && !self.access.username.is_empty() {
            return Ok(self.basic());
        }
        Err(self.refusal(reqwest::StatusCode::UNAUTHORIZED, "access"))
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
    ) -> Result<String, RegistryError> {
        let wrong = |why: &str| RegistryError::Protocol { registry: self.registry.clone(), why: why.into() };
        let mut url =
            reqwest::Url::parse(realm).map_err(|_| wrong("its token server has no valid address"))?;
        let scope = scope.map_or_else(|| format!("repository:{}:pull", self.repository), str::to_owned);
        let mut fields = vec![("scope", scope.as_str())];
        fields.extend(service.map(|s| ("service", s)));
        let request = if self.access.identity_token.is_empty() {
            url.query_pairs_mut().extend_pairs(&fields);
            let request = self.client.get(url);
            if self.access.username.is_empty() {
                request
            } else {
                request.header(reqwest::header::AUTHORIZATION, self.basic())
            }
        } else {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "davit"),
                ("refresh_token", self.access.identity_token.as_str()),
            ]);
            let body = url::form(&fields);
            self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)
        };
        let response = request.send().await.map_err(|e| self.broken(&e))?;
        if !response.status().is_success() {
            return Err(self.refusal(response.status(), "a token"));
        }
        let token: Token =
            response.json().await.map_err(|_| wrong("its token server does not answer with a token"))?;
        let token = token.token.or(token.access_token).filter(|t| !t.is_empty());
        token.map(|t| format!("Bearer {t}")).ok_or_else(|| wrong("its token server answers without a token"))
    }
}

/// Form encoding by way of a URL's query.
mod url {
    pub(super) fn form(fields: &[(&str, &str)]) -> String {
        let mut url = reqwest::Url::parse("http://form.invalid/").expect("a constant address");
        url.query_pairs_mut().extend_pairs(fields);
        url.query().unwrap_or_default().to_owned()
    }
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
        assert_eq!(url::form(&[("a", "x y&z")]), "a=x+y%26z");
    }
}
