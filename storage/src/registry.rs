//! Speaking to registries: the OCI distribution protocol over HTTPS, and HTTP where docker would use it.
//!
//! One [`Session`] serves one operation on one repository: it knows the registry and its mirrors (see [`endpoint`]), asks
//! again when that may help (see [`backoff`]), and answers challenges (see [`auth`]). Everything that comes is bounded and
//! verified by who asked for it.

use std::path::Path;
use std::sync::Arc;

use reqwest::header::{ACCEPT, CONTENT_RANGE, LINK, RANGE};
use reqwest::{Method, Response, StatusCode};

use crate::content::read_bounded;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci;
use crate::reference::Reference;
use crate::settings::Settings;

mod answer;
mod auth;
mod backoff;
mod blob;
mod endpoint;
mod error;
mod login;
mod tls;
mod upload;

pub use blob::BlobReader;
pub use error::RegistryError;
pub use login::login;
pub use upload::{Upload, Uploaded};

use endpoint::{Ask, Endpoint};

/// Of a list of tags: more is no repository that a person wants to have.
const MAX_TAGS: usize = 10_000;
/// Of one page of the list.
const MAX_PAGE: u64 = 4 << 20;

/// What an operation was told about its registry.
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
    /// Take any certificate, and HTTP when HTTPS does not answer.
    pub skip_tls_verify: bool,
    /// A further authority.
    pub ca_pem: Vec<u8>,
    /// What tokens are asked for, in distribution's words; set by the session.
    pub scopes: Vec<String>,
}

impl Access {
    fn has_credentials(&self) -> bool {
        !self.username.is_empty() || !self.identity_token.is_empty()
    }
}

/// The configuration that all conversations share.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// storaged.toml.
    pub settings: &'a Settings,
    /// Where certs.d is.
    pub config_dir: &'a Path,
}

/// A conversation about one repository.
#[derive(Clone)]
pub struct Session {
    /// Mirrors in their order, then the registry itself.
    endpoints: Vec<Arc<Endpoint>>,
}

/// A blob's body, and where in the blob it begins.
struct Body {
    response: Response,
    start: u64,
    endpoint: Arc<Endpoint>,
}

impl Session {
    /// For reading, from mirrors first.
    pub fn to_pull(reference: &Reference, access: Access, origin: Origin<'_>) -> Result<Self, RegistryError> {
        let path = reference.path();
        let mut endpoints = Vec::new();
        for mirror in origin.settings.registry(reference.domain()).mirrors {
            let repository = format!("{}{path}", mirror.prefix);
            let access = Access {
                plain_http: mirror.plain_http,
                scopes: vec![format!("repository:{repository}:pull")],
                ..Access::default()
            };
            endpoints.push(Arc::new(Endpoint::new(&mirror.domain, repository, access, true, origin)?));
        }
        let access = Access { scopes: vec![format!("repository:{path}:pull")], ..access };
        endpoints.push(Arc::new(Endpoint::new(reference.domain(), path.to_owned(), access, false, origin)?));
        Ok(Self { endpoints })
    }

    /// For writing, and for mounting blobs from the repositories `from` of the same registry.
    pub fn to_push(
        reference: &Reference,
        from: &[String],
        access: Access,
        origin: Origin<'_>,
    ) -> Result<Self, RegistryError> {
        let path = reference.path();
        let mut scopes = vec![format!("repository:{path}:pull,push")];
        scopes.extend(from.iter().map(|f| format!("repository:{f}:pull")));
        let access = Access { scopes, ..access };
        let endpoint = Endpoint::new(reference.domain(), path.to_owned(), access, false, origin)?;
        Ok(Self { endpoints: vec![Arc::new(endpoint)] })
    }

    /// Whether somebody else than the registry itself was asked.
    pub fn has_mirrors(&self) -> bool {
        self.endpoints.iter().any(|e| e.mirror)
    }

    /// The same without mirrors.
    #[must_use]
    pub fn without_mirrors(&self) -> Self {
        Self { endpoints: vec![Arc::clone(self.registry())] }
    }

    fn registry(&self) -> &Arc<Endpoint> {
        self.endpoints.last().expect("a session has its registry")
    }

    /// Mirrors that still answer, then the registry.
    fn asked(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|e| !e.is_gone())
    }

    /// A manifest or index by tag or digest. The bytes are verified when a digest was asked for.
    pub async fn manifest(&self, reference: &Reference, identifier: &str) -> Result<Vec<u8>, Error> {
        for endpoint in self.asked() {
            match manifest_of(endpoint, reference, identifier).await {
                Err(e) if endpoint.mirror => {
                    // A mirror that lacks one image may have another; one that does not answer is not asked again.
                    if !matches!(e, Error::Registry(RegistryError::NotFound { .. })) {
                        endpoint.give_up(&e);
                    }
                }
                other => return other,
            }
        }
        Err(self.registry().wrong("no address to try").into())
    }

    /// A small blob, verified.
    pub async fn config(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut tries = 0;
        loop {
            let body = self.body(digest, 0).await?;
            let endpoint = Arc::clone(&body.endpoint);
            let outcome = match small(&endpoint, body.response, oci::MAX_CONFIG, "the config").await {
                Ok(bytes) => {
                    crate::content::verify(&bytes, digest, "the config").map(|()| bytes).map_err(Error::from)
                }
                Err(e) => Err(e),
            };
            match outcome {
                Err(e) if endpoint.mirror => endpoint.give_up(&e),
                // A cut; small enough to begin again.
                Err(Error::Registry(RegistryError::Unreachable { .. })) if tries < 3 => tries += 1,
                other => return other,
            }
        }
    }

    /// The body of a blob from `offset` on, or from an earlier byte when the server knows no ranges.
    async fn body(&self, digest: &Digest, offset: u64) -> Result<Body, RegistryError> {
        for endpoint in self.asked() {
            match body_of(endpoint, digest, offset).await {
                Err(e) if endpoint.mirror => {
                    if !matches!(e, RegistryError::NoBlob(_)) {
                        endpoint.give_up(&e);
                    }
                }
                other => return other,
            }
        }
        Err(self.registry().wrong("no address to try"))
    }

    /// All tags of the repository, as the registry itself lists them.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>, Error> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let endpoint = self.registry();
        let mut path = format!("{}/tags/list", endpoint.repository);
        let mut all = Vec::new();
        while all.len() < MAX_TAGS {
            let response = endpoint.ask(&Ask::new(Method::GET, &path, "the list of tags")).await?;
            if response.status() != StatusCode::OK {
                return Err(missing(
                    endpoint,
                    response,
                    &reference.familiar_repository(),
                    "the list of tags",
                )
                .await
                .into());
            }
            let link = response.headers().get(LINK).and_then(|l| l.to_str().ok());
            let next = link.and_then(answer::next_page).map(str::to_owned);
            let bytes = small(endpoint, response, MAX_PAGE, "the list of tags").await?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|_| endpoint.wrong("its list of tags cannot be read"))?;
            let tags = page.tags.unwrap_or_default();
            let empty = tags.is_empty();
            all.extend(tags);
            match next {
                Some(next) if !empty => path = next,
                _ => break,
            }
        }
        Ok(all)
    }
}

async fn manifest_of(endpoint: &Endpoint, reference: &Reference, identifier: &str) -> Result<Vec<u8>, Error> {
    let what = format!("manifest {identifier}");
    let path = format!("{}/manifests/{identifier}", endpoint.repository);
    let ask = Ask::new(Method::GET, path, &what).header(ACCEPT, oci::ACCEPT);
    let mut cuts = 0;
    let bytes = loop {
        let response = endpoint.ask(&ask).await?;
        if response.status() != StatusCode::OK {
            return Err(missing(endpoint, response, &reference.familiar(), &what).await.into());
        }
        match small(endpoint, response, oci::MAX_MANIFEST, "the manifest").await {
            // Small enough to begin again.
            Err(Error::Registry(RegistryError::Unreachable { .. })) if cuts < 3 && !endpoint.mirror => {
                cuts += 1;
            }
            other => break other?,
        }
    };
    if let Ok(expected) = Digest::parse(identifier) {
        crate::content::verify(&bytes, &expected, "the manifest")?;
    }
    Ok(bytes)
}

async fn body_of(endpoint: &Arc<Endpoint>, digest: &Digest, offset: u64) -> Result<Body, RegistryError> {
    let what = format!("blob {}", digest.short());
    let whole = Ask::new(Method::GET, format!("{}/blobs/{digest}", endpoint.repository), &what);
    let body = |response, start| Body { response, start, endpoint: Arc::clone(endpoint) };
    let mut response = None;
    if offset > 0 {
        let part = Ask { path: whole.path.clone(), ..Ask::new(Method::GET, "", &what) };
        let answer = endpoint.ask(&part.header(RANGE, format!("bytes={offset}-"))).await?;
        let start =
            answer.headers().get(CONTENT_RANGE).map(|v| v.to_str().ok().and_then(answer::range_start));
        match (answer.status(), start) {
            (StatusCode::PARTIAL_CONTENT, Some(start)) if start == Some(offset) => {
                return Ok(body(answer, offset));
            }
            // Without saying which: believed, because the digest decides.
            (StatusCode::PARTIAL_CONTENT, None) => return Ok(body(answer, offset)),
            // Another part than was asked for, or no part: from the start then.
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) => {}
            _ => response = Some(answer),
        }
    }
    let response = match response {
        Some(response) => response,
        None => endpoint.ask(&whole).await?,
    };
    match response.status() {
        StatusCode::OK => Ok(body(response, 0)),
        StatusCode::NOT_FOUND => Err(RegistryError::NoBlob(digest.clone())),
        _ => Err(endpoint.refusal(response, &what).await),
    }
}

/// A refusal, 404 in words of its own.
async fn missing(endpoint: &Endpoint, response: Response, reference: &str, what: &str) -> RegistryError {
    let absent = response.status() == StatusCode::NOT_FOUND;
    match endpoint.refusal(response, what).await {
        RegistryError::Status { says, .. } if absent => {
            RegistryError::NotFound { reference: reference.to_owned(), says }
        }
        other => other,
    }
}

/// A body that fits into memory.
async fn small(
    endpoint: &Endpoint,
    mut response: Response,
    limit: u64,
    what: &str,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| endpoint.broken(&e))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            break;
        }
    }
    Ok(read_bounded(bytes.as_slice(), limit, what)?)
}
