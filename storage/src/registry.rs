//! Reading images from registries: the OCI distribution protocol over HTTPS, and HTTP where docker would use it.
//!
//! One [`Session`] serves one pull: it knows the repository, the scheme that answered, and the token.

use std::time::Duration;

use davit_contracts::Kind;
use reqwest::header::{ACCEPT, AUTHORIZATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode};

use crate::content::read_bounded;
use crate::digest::Digest;
use crate::oci;
use crate::reference::{DEFAULT_DOMAIN, Reference};

mod auth;
mod blob;
mod tls;

pub use blob::BlobReader;

/// What a pull was asked to do about its registry.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// For basic authentication and token servers.
    pub username: String,
    /// With the name.
    pub password: String,
    /// docker's refresh token.
    pub identity_token: String,
    /// HTTP only.
    pub plain_http: bool,
    /// Take any certificate.
    pub skip_tls_verify: bool,
    /// A further authority.
    pub ca_pem: Vec<u8>,
    /// HTTPS may fall back to HTTP, as for loopback addresses.
    pub insecure: bool,
}

/// Why a registry did not give what was asked for.
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
    #[error("{reference} does not exist in its registry")]
    NotFound {
        /// As people write it.
        reference: String,
    },
    /// A blob that the manifest names is not there.
    #[error("the registry lacks blob {0} of the image")]
    NoBlob(Digest),
    /// Credentials are missing or wrong.
    #[error("registry {registry} refuses access to {repository}")]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// The repository.
        repository: String,
    },
    /// Too many requests.
    #[error("registry {0} limits the rate of requests")]
    RateLimited(String),
    /// Some other status.
    #[error("registry {registry} answers {status} to a request for {what}")]
    Status {
        /// Host and port.
        registry: String,
        /// The HTTP status.
        status: StatusCode,
        /// Which document.
        what: String,
    },
    /// It does not speak the protocol.
    #[error("registry {registry} gives a wrong answer: {why}")]
    Protocol {
        /// Host and port.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// A certificate file of ours.
    #[error("cannot use the certificates in {0}")]
    BadCertificates(String),
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl RegistryError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::NoBlob(_) => Kind::NotFound,
            Self::Unauthorized { .. } => Kind::Unauthenticated,
            Self::Unreachable { .. }
            | Self::RateLimited(_)
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
            Self::Unauthorized { .. } => {
                "the repository may be private or may not exist; give credentials".into()
            }
            Self::RateLimited(_) => "wait some minutes, or log in".into(),
            _ => String::new(),
        }
    }
}

/// A conversation about one repository.
#[derive(Clone)]
pub struct Session {
    client: Client,
    /// "https://host:port", in the order in which they are tried; the one that answered alone once one has.
    bases: Vec<String>,
    registry: String,
    repository: String,
    access: Access,
    authorization: Option<String>,
}

impl Session {
    /// Sets up, without a connection yet. `certs_d` is the directory with one folder of authorities a registry.
    pub fn new(
        reference: &Reference,
        access: Access,
        certs_d: &std::path::Path,
    ) -> Result<Self, RegistryError> {
        let registry = reference.domain().to_owned();
        let host = if registry == DEFAULT_DOMAIN { "registry-1.docker.io" } else { registry.as_str() };
        let loopback = is_loopback(&registry);
        let lax = access.skip_tls_verify || access.insecure;
        let tls = tls::client_config(&registry, certs_d, &access.ca_pem, lax)?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("davit/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::limited(5));
        if loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(RegistryError::Client)?;
        let bases = if access.plain_http {
            vec![format!("http://{host}")]
        } else if loopback || access.insecure {
            vec![format!("https://{host}"), format!("http://{host}")]
        } else {
            vec![format!("https://{host}")]
        };
        Ok(Self {
            client,
            bases,
            registry,
            repository: reference.path().to_owned(),
            access,
            authorization: None,
        })
    }

    /// A manifest or index by tag or digest, with its digest. The bytes are verified when a digest was asked for.
    pub async fn manifest(
        &mut self,
        reference: &Reference,
        identifier: &str,
    ) -> Result<Vec<u8>, crate::error::Error> {
        let path = format!("manifests/{identifier}");
        let response = self.get(&path, &[(ACCEPT.as_str(), oci::ACCEPT)]).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::NotFound { reference: reference.familiar() }.into());
            }
            status => return Err(self.refusal(status, &format!("manifest {identifier}")).into()),
        }
        let bytes = self.small(response, oci::MAX_MANIFEST, "the manifest").await?;
        if let Ok(expected) = Digest::parse(identifier) {
            crate::content::verify(&bytes, &expected, "the manifest")?;
        }
        Ok(bytes)
    }

    /// A small blob, verified.
    pub async fn config(&mut self, digest: &Digest) -> Result<Vec<u8>, crate::error::Error> {
        let response = self.blob_response(digest, 0).await?;
        let bytes = self.small(response, oci::MAX_CONFIG, "the config").await?;
        crate::content::verify(&bytes, digest, "the config")?;
        Ok(bytes)
    }

    async fn small(
        &self,
        mut response: Response,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, crate::error::Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(&e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                break;
            }
        }
        Ok(read_bounded(bytes.as_slice(), limit, what)?)
    }

    /// The body of a blob from `offset` on.
    async fn blob_response(&mut self, digest: &Digest, offset: u64) -> Result<Response, RegistryError> {
        let range = format!("bytes={offset}-");
        let headers: &[(&str, &str)] = if offset > 0 { &[(RANGE.as_str(), &range)] } else { &[] };
        let response = self.get(&format!("blobs/{digest}"), headers).await?;
        match response.status() {
            StatusCode::OK if offset == 0 => Ok(response),
            StatusCode::PARTIAL_CONTENT if offset > 0 => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::NoBlob(digest.clone())),
            status => Err(self.refusal(status, &format!("blob {}", digest.short()))),
        }
    }

    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Response, RegistryError> {
        let response = self.send(path, headers).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges: Vec<String> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        drop(response);
        self.authorization = Some(self.authorize(&challenges).await?);
        self.send(path, headers).await
    }

    /// Tries each base until one answers; remembers it.
    async fn send(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Response, RegistryError> {
        let mut failure = None;
        for base in self.bases.clone() {
            let url = format!("{base}/v2/{}/{path}", self.repository);
            let mut request = self.client.request(Method::GET, &url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            match request.send().await {
                // A server of plain HTTP may answer the TLS greeting with "400 Bad Request", which is no answer.
                Ok(response) => {
                    self.bases = vec![base];
                    return Ok(response);
                }
                Err(e) => {
                    tracing::debug!(%url, error = ?e, "no answer");
                    let broken = self.broken(&e);
                    if matches!(broken, RegistryError::Certificate { .. }) {
                        // It does speak TLS: plain HTTP would only get a confusing answer.
                        return Err(broken);
                    }
                    failure = Some(broken);
                }
            }
        }
        Err(failure.unwrap_or_else(|| RegistryError::Protocol {
            registry: self.registry.clone(),
            why: "no address to try".into(),
        }))
    }

    fn broken(&self, error: &reqwest::Error) -> RegistryError {
        let mut why = error.to_string();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(e) = next {
            why = e.to_string();
            if let Some(rustls::Error::InvalidCertificate(c)) = e.downcast_ref::<rustls::Error>() {
                return RegistryError::Certificate { registry: self.registry.clone(), why: c.to_string() };
            }
            // An error that is wrapped into an io::Error is not reached by `source`; rustls's is, even twice.
            next = match e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => e.source(),
            };
        }
        if error.is_timeout() {
            why = "it does not answer in time".into();
        }
        RegistryError::Unreachable { registry: self.registry.clone(), why: lower_os_error(why) }
    }

    fn refusal(&self, status: StatusCode, what: &str) -> RegistryError {
        let registry = self.registry.clone();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Unauthorized { registry, repository: self.repository.clone() }
            }
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited(registry),
            status => RegistryError::Status { registry, status, what: what.to_owned() },
        }
    }
}

/// "Connection refused (os error 111)" without what means nothing to a person.
fn lower_os_error(mut why: String) -> String {
    if let Some(at) = why.find(" (os error") {
        why.truncate(at);
        why[..1].make_ascii_lowercase();
    }
    why
}

/// Whether docker would try a registry over plain HTTP: localhost, 127/8, ::1.
fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_name_or_address() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["docker.io", "localhost.example.com", "10.0.0.1:5000", "[2001:db8::1]:5000"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn system_errors_read_as_words() {
        assert_eq!(lower_os_error("Connection refused (os error 111)".into()), "connection refused");
    }
}
