//! Writing to a registry: blobs that are there, mounted or uploaded, and manifests.
//!
//! ```text
//! HEAD ──there──> done
//!   └─> POST ?mount=&from= ──201──> mounted
//!         └─202─> PATCH ──> PUT ?digest= ──> uploaded
//!                   └─cut─> GET upload: how much has come? ──> PATCH of the rest
//! ```
//!
//! What goes out is made by a thread that reads, and hashes on the way: its digest is known, and compared, before the
//! registry is asked to keep it. Memory holds a few chunks of each upload.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answer;
use super::backoff::Backoff;
use super::endpoint::{Ask, Endpoint, is_at};
use super::{RegistryError, Session};
use crate::content::ContentError;
use crate::digest::{Digest, Hashing};
use crate::error::Error;

/// Cuts and refusals that one upload survives.
const ATTEMPTS: u32 = 5;
/// What the thread hands over at once, and how many of them wait.
const CHUNK: usize = 128 << 10;
const CHUNKS: usize = 4;
const BYTES: &str = "application/octet-stream";

/// Opens the bytes of an upload from their start; called again after a cut.
pub type Opener = Arc<dyn Fn() -> Result<Box<dyn Read + Send>, Error> + Send + Sync>;

/// A blob to be sent.
pub struct Upload {
    /// What people call it.
    pub label: String,
    /// What it must be; unknown when it is compressed on the way.
    pub expected: Option<(Digest, u64)>,
    /// Its bytes.
    pub open: Opener,
}

/// A blob that the registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Of the bytes that went out.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// Why an attempt ended.
enum Stop {
    /// It may go on, from what has come.
    Cut(RegistryError),
    /// The registry knows nothing of the upload: from the start.
    Lost(RegistryError),
    /// It stays so.
    Final(Error),
}

impl Session {
    /// The size of a blob, when the repository has it.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let endpoint = self.registry();
        let what = format!("blob {}", digest.short());
        let path = format!("{}/blobs/{digest}", endpoint.repository);
        let response = endpoint.ask(&Ask::new(Method::HEAD, path, &what)).await?;
        match response.status() {
            StatusCode::OK => {
                let length =
                    response.headers().get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
                Ok(Some(length.unwrap_or(0)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(endpoint.refusal(response, &what).await),
        }
    }

    /// Takes a blob over from another repository of the registry; whether it could.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        let endpoint = self.registry();
        let path = format!("{}/blobs/uploads/?mount={digest}&from={from}", endpoint.repository);
        let ask = Ask::new(Method::POST, path, "a mount").header(CONTENT_LENGTH, "0");
        let response = endpoint.ask(&ask).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // It began an upload instead.
        if let (StatusCode::ACCEPTED, Ok(location)) = (response.status(), location(endpoint, &response)) {
            endpoint.cancel(location.as_str()).await;
        }
        Ok(false)
    }

    /// Sends a blob.
    pub async fn upload(&self, upload: &Upload) -> Result<Uploaded, Error> {
        let endpoint = self.registry();
        let mut backoff = Backoff::new(ATTEMPTS);
        let mut at: Option<(Url, u64)> = None;
        loop {
            let (location, offset) = match at.take() {
                Some(at) => at,
                None => (endpoint.begin(&upload.label).await?, 0),
            };
            let mut last = location.clone();
            let (failure, lost) = match endpoint.send_from(upload, &mut last, offset).await {
                Ok(uploaded) => return Ok(uploaded),
                Err(Stop::Final(e)) => {
                    endpoint.cancel(last.as_str()).await;
                    return Err(e);
                }
                Err(Stop::Cut(e)) => (e, false),
                Err(Stop::Lost(e)) => (e, true),
            };
            let Some(pause) = backoff.next(failure.passing().unwrap_or_default()) else {
                endpoint.cancel(last.as_str()).await;
                return Err(failure.into());
            };
            tracing::info!(layer = %upload.label, error = %failure, "the upload was cut");
            tokio::time::sleep(pause).await;
            if !lost {
                at = endpoint.received(&last).await?;
            }
        }
    }

    /// Sends a small blob, unless it is there.
    pub async fn upload_bytes(&self, bytes: Vec<u8>, label: &str) -> Result<(), Error> {
        let digest = Digest::of(&bytes);
        if self.blob_size(&digest).await?.is_some() {
            return Ok(());
        }
        let expected = Some((digest, bytes.len() as u64));
        let bytes = bytes::Bytes::from(bytes);
        let open: Opener = Arc::new(move || Ok(Box::new(io::Cursor::new(bytes.clone()))));
        self.upload(&Upload { label: label.to_owned(), expected, open }).await.map(drop)
    }

    /// Gives a manifest its tag.
    pub async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<(), RegistryError> {
        let endpoint = self.registry();
        let digest = Digest::of(&bytes);
        let what = format!("manifest {tag}");
        let path = format!("{}/manifests/{tag}", endpoint.repository);
        let ask = Ask::new(Method::PUT, path, &what).header(CONTENT_TYPE, media_type).body(bytes);
        let response = endpoint.ask(&ask).await?;
        if !response.status().is_success() {
            return Err(endpoint.refusal(response, &what).await);
        }
        match response.headers().get("docker-content-digest").and_then(|d| d.to_str().ok()) {
            Some(other) if other != digest.as_str() => {
                Err(endpoint.wrong(&format!("it keeps the manifest as {other}, not as {digest}")))
            }
            _ => Ok(()),
        }
    }
}

impl Endpoint {
    /// Opens an upload.
    async fn begin(&self, label: &str) -> Result<Url, RegistryError> {
        let what = format!("an upload of {label}");
        let path = format!("{}/blobs/uploads/", self.repository);
        let ask = Ask::new(Method::POST, path, &what).header(CONTENT_LENGTH, "0");
        let response = self.ask(&ask).await?;
        if response.status() == StatusCode::ACCEPTED {
            return location(self, &response);
        }
        Err(self.refusal(response, &what).await)
    }

    /// Gives an upload up, as far as the registry can be told.
    async fn cancel(&self, location: &str) {
        let ask = Ask::new(Method::DELETE, location, "the end of an upload");
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), self.ask(&ask)).await;
    }

    /// How much of an upload has come; None when the registry does not know it any more.
    async fn received(&self, at: &Url) -> Result<Option<(Url, u64)>, RegistryError> {
        let response = self.ask(&Ask::new(Method::GET, at.as_str(), "the state of an upload")).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let range = response.headers().get(RANGE).and_then(|r| r.to_str().ok());
        let received = range.and_then(answer::received);
        let next = location(self, &response).unwrap_or_else(|_| at.clone());
        Ok(received.map(|n| (next, n)))
    }

    /// Sends what the registry lacks, then asks it to keep the whole. `at` is where the upload is now.
    async fn send_from(&self, upload: &Upload, at: &mut Url, offset: u64) -> Result<Uploaded, Stop> {
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        let sent = Arc::new(AtomicU64::new(0));
        let (open, expected, label) =
            (Arc::clone(&upload.open), upload.expected.clone(), upload.label.clone());
        let counter = Arc::clone(&sent);
        let feeding = tokio::task::spawn_blocking(move || {
            feed(&open, offset, expected.as_ref(), &label, &chunks, &counter)
        });
        let answer = self.patch(upload, at, offset, receiver, &sent).await;
        // The thread's failure is the cause of whatever the connection says of the end.
        let fed = feeding.await.map_err(|e| Stop::Final(e.into()))?;
        let uploaded = match (fed, answer) {
            (Err(Fed::Failed(e)), _) => return Err(Stop::Final(e)),
            (_, Err(stop)) => return Err(stop),
            (Err(Fed::Unwanted), Ok(())) => {
                return Err(Stop::Cut(self.unreachable("it answers before the layer has been sent")));
            }
            (Ok(uploaded), Ok(())) => uploaded,
        };
        self.keep(at, &uploaded, &upload.label).await?;
        Ok(uploaded)
    }

    async fn patch(
        &self,
        upload: &Upload,
        at: &mut Url,
        offset: u64,
        chunks: mpsc::Receiver<io::Result<bytes::Bytes>>,
        sent: &AtomicU64,
    ) -> Result<(), Stop> {
        let shown = self.authorization.lock().await.clone();
        let mut request = self.uploader.patch(at.clone()).header(CONTENT_TYPE, BYTES);
        if let Some((_, size)) = &upload.expected {
            let rest = size.saturating_sub(offset);
            request = request.header(CONTENT_LENGTH, rest.to_string());
            if offset > 0 && rest > 0 {
                request = request.header(CONTENT_RANGE, format!("{offset}-{}", size - 1));
            }
        }
        if let Some(value) = shown.value.filter(|_| self.bases().iter().any(|b| is_at(at, b))) {
            request = request.header(AUTHORIZATION, value);
        }
        let answer = request.body(Body::wrap_stream(ReceiverStream::new(chunks))).send();
        let response = tokio::select! {
            response = answer => response.map_err(|e| Stop::Cut(self.broken(&e)))?,
            () = self.silence(sent) => return Err(Stop::Cut(self.unreachable("it takes nothing any more"))),
        };
        match response.status() {
            status if status.is_success() => {
                if let Ok(next) = location(self, &response) {
                    *at = next;
                }
                Ok(())
            }
            StatusCode::UNAUTHORIZED => {
                // The token expired while the layer before it went out.
                self.renew(response, shown.generation).await.map_err(|e| Stop::Final(e.into()))?;
                Err(Stop::Cut(self.unreachable("the token has expired")))
            }
            // Not there any more, or at another byte than we think.
            StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
                Err(Stop::Lost(self.refusal(response, &upload.label).await))
            }
            _ => match self.refusal(response, &format!("layer {}", upload.label)).await {
                e if e.passing().is_some() => Err(Stop::Cut(e)),
                e => Err(Stop::Final(e.into())),
            },
        }
    }

    /// Returns when nothing has been taken for as long as a silence is borne.
    async fn silence(&self, sent: &AtomicU64) {
        let mut before = u64::MAX;
        loop {
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
            tokio::time::sleep(self.timeout).await;
        }
    }

    /// Ends an upload: the registry compares the digest and keeps the blob.
    async fn keep(&self, at: &Url, uploaded: &Uploaded, label: &str) -> Result<(), Stop> {
        let mut url = at.clone();
        url.query_pairs_mut().append_pair("digest", uploaded.digest.as_str());
        let what = format!("layer {label}");
        let ask = Ask::new(Method::PUT, url.as_str(), &what).header(CONTENT_LENGTH, "0");
        let final_error = |e: RegistryError| Stop::Final(e.into());
        let response = self.ask(&ask).await.map_err(final_error)?;
        if response.status().is_success() {
            return Ok(());
        }
        // When the answer to an earlier attempt was lost the upload is gone, and the blob there.
        let lost = response.status() == StatusCode::NOT_FOUND;
        let refusal = self.refusal(response, &what).await;
        if !lost {
            return Err(Stop::Final(refusal.into()));
        }
        let path = format!("{}/blobs/{}", self.repository, uploaded.digest);
        match self.ask(&Ask::new(Method::HEAD, path, &what)).await {
            Ok(there) if there.status().is_success() => Ok(()),
            _ => Err(Stop::Lost(refusal)),
        }
    }
}

/// Where an upload goes on.
fn location(endpoint: &Endpoint, response: &Response) -> Result<Url, RegistryError> {
    let wrong = || endpoint.wrong("it begins an upload without saying where");
    let text = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).ok_or_else(wrong)?;
    response.url().join(text).map_err(|_| wrong())
}

/// Why the thread stopped.
enum Fed {
    /// The connection has ended.
    Unwanted,
    /// Our own bytes cannot be read, or are not what they should be.
    Failed(Error),
}

/// Reads all, hands over what follows `offset`, and tells what all of it was.
fn feed(
    open: &Opener,
    offset: u64,
    expected: Option<&(Digest, u64)>,
    label: &str,
    chunks: &mpsc::Sender<io::Result<bytes::Bytes>>,
    sent: &AtomicU64,
) -> Result<Uploaded, Fed> {
    let failed = |source: io::Error| {
        // Ends the request, which must not look complete.
        let _ = chunks.blocking_send(Err(io::Error::other("given up")));
        Fed::Failed(ContentError::Source { what: format!("layer {label}"), source }.into())
    };
    let mut from = Hashing::new(open().map_err(Fed::Failed)?);
    let mut skip = offset;
    loop {
        let mut chunk = bytes::BytesMut::zeroed(CHUNK);
        let n = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        chunk.truncate(n);
        let known = skip.min(n as u64);
        skip -= known;
        let _ = chunk.split_to(known as usize);
        if !chunk.is_empty() {
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            chunks.blocking_send(Ok(chunk.freeze())).map_err(|_| Fed::Unwanted)?;
        }
    }
    let (_, digest, size) = from.finish();
    if let Some((wanted, length)) = expected {
        let what = format!("layer {label} in this store");
        let wrong = if size != *length {
            Some(ContentError::WrongSize { what, expected: *length, found: size })
        } else if digest != *wanted {
            Some(ContentError::WrongDigest { what, expected: wanted.clone(), found: digest.clone() })
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let _ = chunks.blocking_send(Err(io::Error::other("given up")));
            return Err(Fed::Failed(wrong.into()));
        }
    }
    Ok(Uploaded { digest, size })
}
