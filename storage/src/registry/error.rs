//! What can go wrong between us and a registry, in words for a person.

use std::time::Duration;

use davit_contracts::Kind;
use reqwest::StatusCode;

use crate::digest::Digest;

/// Why a registry did not do what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error("cannot reach registry {registry}: {why}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// The innermost cause.
        why: String,
    },
    /// The server's certificate is not to be trusted.
    #[error("registry {registry} has a certificate that is not trusted: {why}")]
    Certificate {
        /// Host and port.
        registry: String,
        /// What rustls says.
        why: String,
    },
    /// No such repository or tag.
    #[error("{reference} does not exist in its registry{}", after(says))]
    NotFound {
        /// As people write it.
        reference: String,
        /// The registry's own words.
        says: String,
    },
    /// A blob that the manifest names is not there.
    #[error("the registry lacks blob {0} of the image")]
    NoBlob(Digest),
    /// Credentials are missing or wrong.
    #[error("registry {registry} refuses access to {repository}{}", after(says))]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// The repository.
        repository: String,
        /// The registry's own words.
        says: String,
        /// Whether credentials were given.
        known: bool,
    },
    /// A login is refused.
    #[error("registry {registry} refuses the login{}", after(says))]
    BadLogin {
        /// Host and port.
        registry: String,
        /// The registry's own words.
        says: String,
    },
    /// Too many requests.
    #[error("registry {registry} limits the rate of requests{}", after(says))]
    RateLimited {
        /// Host and port.
        registry: String,
        /// The registry's own words.
        says: String,
        /// When it may be asked again, if it says so.
        retry_after: Option<Duration>,
        /// Whether credentials were given.
        known: bool,
    },
    /// Some other status.
    #[error("registry {registry} answers {status} to a request for {what}{}", after(says))]
    Status {
        /// Host and port.
        registry: String,
        /// The HTTP status.
        status: StatusCode,
        /// Which document.
        what: String,
        /// The registry's own words.
        says: String,
    },
    /// It does not speak the protocol.
    #[error("registry {registry} gives a wrong answer: {why}")]
    Protocol {
        /// Host and port.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// Credentials would go over the wire as they are.
    #[error("registry {registry} sends credentials to {realm}, which is not encrypted")]
    OpenRealm {
        /// Host and port.
        registry: String,
        /// The token server's address.
        realm: String,
    },
    /// A certificate file of ours.
    #[error("cannot use the certificates in {0}")]
    BadCertificates(String),
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// A registry's own words behind ours.
fn after(says: &str) -> String {
    if says.is_empty() { String::new() } else { format!(": {says}") }
}

impl RegistryError {
    /// The registry's part in a failure: a download's error reaches us through the reader of its bytes.
    pub fn within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(e) = next {
            if let Some(found) = e.downcast_ref::<Self>() {
                return Some(found);
            }
            // An error that is wrapped into an io::Error is not reached by `source`.
            next = match e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => e.source(),
            };
        }
        None
    }

    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::NoBlob(_) => Kind::NotFound,
            Self::Unauthorized { .. } | Self::BadLogin { .. } | Self::OpenRealm { .. } => {
                Kind::Unauthenticated
            }
            Self::Unreachable { .. }
            | Self::RateLimited { .. }
            | Self::Status { .. }
            | Self::Protocol { .. }
            | Self::Certificate { .. } => Kind::Unavailable,
            Self::BadCertificates(_) => Kind::InvalidArgument,
            Self::Client(_) => Kind::Internal,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreachable { .. } => "check the registry's name and the network".into(),
            Self::Certificate { registry, .. } => {
                format!("put its authority into certs.d/{registry}/ca.crt of the configuration directory")
            }
            Self::Unauthorized { registry, known: false, .. } => {
                format!(
                    "the repository may be private or may not exist; give credentials: davit login {registry}"
                )
            }
            Self::Unauthorized { .. } => {
                "the repository may not exist, or the account that is logged in has no right to it".into()
            }
            Self::BadLogin { .. } => "check the user name and the password, or use an access token".into(),
            Self::RateLimited { registry, retry_after, known, .. } => {
                let when = retry_after.map_or("in some minutes".into(), |t| format!("in {}", words(t)));
                let login =
                    if *known { String::new() } else { format!(", or log in: davit login {registry}") };
                format!("try again {when}{login}")
            }
            Self::Status { status, .. } if status.is_server_error() => {
                "the registry has a problem of its own: try again later".into()
            }
            Self::Status { status, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE => {
                "the registry, or a proxy before it, does not take layers of this size".into()
            }
            Self::OpenRealm { .. } => "the registry is set up wrongly, or is not what it claims to be".into(),
            _ => String::new(),
        }
    }

    /// Whether asking once more may help, and how long the registry wants us to wait before.
    pub(super) fn passing(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { .. } => Some(Duration::ZERO),
            Self::RateLimited { retry_after, .. } => Some(retry_after.unwrap_or_default()),
            Self::Status { status, .. } => is_passing(*status).then_some(Duration::ZERO),
            _ => None,
        }
    }
}

/// Statuses that say nothing of the next request.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// "40 s", "15 min", "3 h".
fn words(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h", s.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_says_when_and_how() {
        let limited = |retry_after, known| RegistryError::RateLimited {
            registry: "docker.io".into(),
            says: "toomanyrequests: slow down".into(),
            retry_after,
            known,
        };
        let e = limited(Some(Duration::from_secs(600)), false);
        assert_eq!(
            e.to_string(),
            "registry docker.io limits the rate of requests: toomanyrequests: slow down"
        );
        assert_eq!(e.hint(), "try again in 10 min, or log in: davit login docker.io");
        assert_eq!(limited(None, true).hint(), "try again in some minutes");
    }
}
