//! Registries: Debian's docker-registry on loopback, and servers that lie, stall and cut.
#![allow(clippy::unwrap_used)]

#[path = "../host/private.rs"]
mod host;

mod fake;
mod hostile;
mod login;
mod mirrors;
mod pull;
mod push;
mod real;
mod trust;

use davit_contracts::storage as pb;
use davit_contracts::{Error, client};
use host::Host;

/// A request for an image with everything by default.
fn request(reference: &str) -> pb::PullRequest {
    pb::PullRequest { reference: reference.into(), ..Default::default() }
}

/// A name and a password.
#[allow(clippy::unnecessary_wraps)] // messages want it so
fn auth(username: &str, password: &str) -> Option<pb::RegistryAuth> {
    Some(pb::RegistryAuth { username: username.into(), password: password.into(), ..Default::default() })
}

/// Restarts the daemon with a configuration.
async fn configure(host: &mut Host, toml: &str) {
    host.kill();
    let dir = host.tmp.path().join("config");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("storaged.toml"), toml).unwrap();
    host.start().await;
}

/// What came of a call, and what was said on the way.
struct Told {
    done: Vec<pb::ImageDone>,
    lines: Vec<String>,
}

impl Told {
    fn says(&self, part: &str) -> bool {
        self.lines.iter().any(|l| l.contains(part))
    }
}

async fn told(mut stream: tonic::Streaming<pb::Progress>) -> Result<Told, Error> {
    let mut told = Told { done: Vec::new(), lines: Vec::new() };
    while let Some(progress) = stream.message().await? {
        match progress.event {
            Some(pb::progress::Event::Done(d)) => told.done.push(d),
            Some(pb::progress::Event::Status(s)) => told.lines.push(s.message),
            _ => {}
        }
    }
    Ok(told)
}

async fn push(host: &Host, request: pb::PushRequest) -> Result<Told, Error> {
    told(host.images().push(request).await?.into_inner()).await
}

async fn push_to(host: &Host, reference: &str) -> Result<Told, Error> {
    push(host, pb::PushRequest { reference: reference.into(), ..Default::default() }).await
}

async fn tag(host: &Host, source: &str, target: &str) {
    let request = pb::TagRequest { source: source.into(), target: target.into() };
    host.images().tag(request).await.unwrap();
}

async fn log_in(host: &Host, request: pb::LoginRequest) -> Result<String, Error> {
    let mut registries = pb::registries_client::RegistriesClient::new(client::lazy(&host.socket()));
    Ok(registries.login(request).await?.into_inner().identity_token)
}
