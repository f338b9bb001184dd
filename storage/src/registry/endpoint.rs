//! One server that is asked: a registry or a mirror of it. Knows how to reach it, what to show it, and when to ask again.
//!
//! Shared by all parallel downloads or uploads of an operation, so that one token serves all of them. Credentials go to
//! this server and to the token server that it names; an address on another host gets none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::answer;
use super::auth::Authorization;
use super::backoff::Backoff;
use super::error::{RegistryError, is_passing};
use super::tls;
use super::{Access, Origin};
use crate::reference::DEFAULT_DOMAIN;

/// Further attempts of a request to a server that has answered before.
const ATTEMPTS: u32 = 5;
/// Of one that has not: a mistyped name shall not keep a person waiting.
const FIRST_ATTEMPTS: u32 = 2;
/// Blobs are often elsewhere; more steps than this are a circle.
const REDIRECTS: usize = 8;
/// Of an error's body.
const MAX_WORDS: usize = 64 << 10;

/// A request, made again when it must be.
pub(super) struct Ask {
    pub(super) method: Method,
    /// Below `/v2/`, or an address that the server gave.
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Option<bytes::Bytes>,
    /// For errors: "manifest latest".
    pub(super) what: String,
}

impl Ask {
    pub(super) fn new(method: Method, path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None, what: what.into() }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<bytes::Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }
}

/// See the module.
pub(super) struct Endpoint {
    /// Host and port, as people know it.
    pub(super) name: String,
    /// The repository as this server knows it.
    pub(super) repository: String,
    /// Whether others are asked when it fails.
    pub(super) mirror: bool,
    pub(super) access: Access,
    pub(super) client: Client,
    /// The same without a bound on the time until an answer comes: uploads watch themselves.
    pub(super) uploader: Client,
    pub(super) timeout: Duration,
    pub(super) authorization: tokio::sync::Mutex<Authorization>,
    /// "https://host:port", in the order in which they are tried; the one that answered alone once one has.
    bases: Mutex<Vec<String>>,
    answered: AtomicBool,
    gone: AtomicBool,
}

impl Endpoint {
    /// Sets up, without a connection yet.
    pub(super) fn new(
        domain: &str,
        repository: String,
        access: Access,
        mirror: bool,
        origin: Origin<'_>,
    ) -> Result<Self, RegistryError> {
        let own = origin.settings.registry(domain);
        let host = if domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { domain };
        let loopback = is_loopback(domain);
        let insecure = access.skip_tls_verify || origin.settings.insecure(domain);
        let trust = tls::Trust {
            registry: domain,
            certs_d: &origin.config_dir.join("certs.d"),
            ca_pem: &access.ca_pem,
            ca_file: own.ca_file.as_deref(),
            skip_verify: insecure || own.skip_tls_verify,
        };
        let tls = trust.client_config()?;
        let timeout = own.timeout();
        let builder = || {
            let builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("davit/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(timeout.min(Duration::from_secs(15)))
                .redirect(reqwest::redirect::Policy::limited(REDIRECTS));
            if loopback { builder.no_proxy() } else { builder }
        };
        let bases = if access.plain_http || own.plain_http {
            vec![format!("http://{host}")]
        } else if loopback || insecure {
            vec![format!("https://{host}"), format!("http://{host}")]
        } else {
            vec![format!("https://{host}")]
        };
        Ok(Self {
            name: domain.to_owned(),
            repository,
            mirror,
            access,
            client: builder().read_timeout(timeout).build().map_err(RegistryError::Client)?,
            uploader: builder().build().map_err(RegistryError::Client)?,
            timeout,
            authorization: tokio::sync::Mutex::default(),
            bases: Mutex::new(bases),
            answered: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        })
    }

    /// Asks until there is an answer that stays: success, or a refusal that asking again will not change.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Response, RegistryError> {
        self.insist(ask, true).await
    }

    /// The same, but a refusal for want of credentials is an answer like others.
    pub(super) async fn ask_as_is(&self, ask: &Ask) -> Result<Response, RegistryError> {
        self.insist(ask, false).await
    }

    async fn insist(&self, ask: &Ask, answer_challenges: bool) -> Result<Response, RegistryError> {
        let answered = self.answered.load(Ordering::Relaxed);
        let mut backoff = Backoff::new(match (self.mirror, answered) {
            // There is somebody else to ask.
            (true, _) => 0,
            (false, true) => ATTEMPTS,
            (false, false) => FIRST_ATTEMPTS,
        });
        loop {
            let failure = match self.authorized(ask, answer_challenges).await {
                Ok(response) if !is_passing(response.status()) => return Ok(response),
                Ok(response) => self.refusal(response, &ask.what).await,
                Err(e) => e,
            };
            let Some(pause) = failure.passing().and_then(|asked| backoff.next(asked)) else {
                return Err(failure);
            };
            tracing::info!(error = %failure, ms = pause.as_millis(), "asking the registry again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Shows what it wants to see. A token may have expired since it was given, so that one refusal is no refusal.
    async fn authorized(&self, ask: &Ask, answer_challenges: bool) -> Result<Response, RegistryError> {
        let shown = self.authorization.lock().await.clone();
        let response = self.send(ask, shown.value.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !answer_challenges {
            return Ok(response);
        }
        let fresh = self.renew(response, shown.generation).await?;
        self.send(ask, Some(&fresh)).await
    }

    /// Answers the challenge of a refusal.
    pub(super) async fn renew(&self, refused: Response, shown: u64) -> Result<String, RegistryError> {
        let challenges: Vec<String> = refused
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        let refusal = self.refusal(refused, "access").await;
        let mut authorization = self.authorization.lock().await;
        if authorization.generation == shown {
            let value = self.authorize(&challenges, refusal).await?;
            *authorization = Authorization { value: Some(value), generation: shown + 1 };
        }
        Ok(authorization.value.clone().unwrap_or_default())
    }

    /// Tries each base until one answers; remembers it.
    async fn send(&self, ask: &Ask, authorization: Option<&str>) -> Result<Response, RegistryError> {
        let mut failure = None;
        for base in self.bases() {
            let url = self.address(&base, &ask.path)?;
            let mut request = self.client.request(ask.method.clone(), url.clone());
            for (name, value) in &ask.headers {
                request = request.header(name, value);
            }
            if let Some(authorization) = authorization.filter(|_| is_at(&url, &base)) {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(body) = &ask.body {
                request = request.body(body.clone());
            }
            match request.send().await {
                // A server of plain HTTP may answer the TLS greeting with "400 Bad Request", which is no answer.
                Ok(response) => {
                    self.answers_at(base);
                    return Ok(response);
                }
                Err(e) => {
                    tracing::debug!(%url, error = ?e, "no answer");
                    let broken = self.broken(&e);
                    if !matches!(broken, RegistryError::Unreachable { .. }) {
                        // It does speak TLS: plain HTTP would only get a confusing answer.
                        return Err(broken);
                    }
                    failure = Some(broken);
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.wrong("no address to try")))
    }

    /// The base that answered, or those that are tried.
    pub(super) fn bases(&self) -> Vec<String> {
        self.bases.lock().expect("no one panics with the bases locked").clone()
    }

    fn answers_at(&self, base: String) {
        if !self.answered.swap(true, Ordering::Relaxed) {
            *self.bases.lock().expect("no one panics with the bases locked") = vec![base];
        }
    }

    /// A path below `/v2/`, or an address that the server gave: absolute, or absolute on the same server.
    pub(super) fn address(&self, base: &str, path: &str) -> Result<Url, RegistryError> {
        let text = if path.starts_with("http://") || path.starts_with("https://") {
            path.to_owned()
        } else if path.starts_with('/') {
            format!("{base}{path}")
        } else {
            format!("{base}/v2/{path}")
        };
        Url::parse(&text).map_err(|_| self.wrong(&format!("'{path}' is no address")))
    }

    /// Whether the registry itself is spoken to without encryption.
    pub(super) fn is_open(&self) -> bool {
        self.bases().iter().all(|b| b.starts_with("http://"))
    }

    /// Not worth asking again in this operation.
    pub(super) fn give_up(&self, why: &dyn std::fmt::Display) {
        tracing::info!(mirror = %self.name, error = %why, "a mirror is left out");
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Whether it was given up.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn wrong(&self, why: &str) -> RegistryError {
        RegistryError::Protocol { registry: self.name.clone(), why: why.to_owned() }
    }

    /// What a client's failure means.
    pub(super) fn broken(&self, error: &reqwest::Error) -> RegistryError {
        if error.is_redirect() {
            return self.wrong("it sends us from address to address without end");
        }
        let mut why = error.to_string();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(e) = next {
            why = e.to_string();
            if let Some(rustls::Error::InvalidCertificate(c)) = e.downcast_ref::<rustls::Error>() {
                return RegistryError::Certificate { registry: self.name.clone(), why: c.to_string() };
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
        self.unreachable(lower_os_error(why))
    }

    pub(super) fn unreachable(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Unreachable { registry: self.name.clone(), why: why.into() }
    }

    /// What a status that is no success means, with the registry's own words.
    pub(super) async fn refusal(&self, response: Response, what: &str) -> RegistryError {
        let status = response.status();
        let retry_after = answer::retry_after(response.headers());
        let mut says = answer::says(&beginning(response).await);
        if says.is_empty() {
            // An answer to HEAD has no body: distribution's words for the status.
            says = match status {
                StatusCode::UNAUTHORIZED => "unauthorized: authentication required".into(),
                StatusCode::FORBIDDEN => "denied: requested access to the resource is denied".into(),
                _ => says,
            };
        }
        let known = self.access.has_credentials();
        let registry = self.name.clone();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Unauthorized { registry, repository: self.repository.clone(), says, known }
            }
            StatusCode::TOO_MANY_REQUESTS => {
                RegistryError::RateLimited { registry, says, retry_after, known }
            }
            status => RegistryError::Status { registry, status, what: what.to_owned(), says },
        }
    }
}

/// The beginning of a body, as far as it comes within a few seconds.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < MAX_WORDS {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            bytes.extend_from_slice(&chunk);
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    bytes.truncate(MAX_WORDS);
    bytes
}

/// Whether an address is on the server of `base`.
pub(super) fn is_at(url: &Url, base: &str) -> bool {
    Url::parse(base).is_ok_and(|b| b.origin() == url.origin())
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
pub(super) fn is_loopback(domain: &str) -> bool {
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

    #[test]
    fn an_address_belongs_to_a_server_by_scheme_host_and_port() {
        let at = |url: &str| is_at(&Url::parse(url).unwrap(), "https://reg.x");
        assert!(at("https://reg.x/v2/") && at("https://reg.x:443/v2/"));
        assert!(!at("http://reg.x/v2/") && !at("https://reg.x.evil/") && !at("https://reg.x:5000/"));
    }
}
