//! storaged and netd as runtimed calls them.
//!
//! One lazily connected channel each; a daemon that was swapped is connected to again by the next call. Every call that runtimed makes
//! is idempotent (by container id), so a call whose connection broke is made again a few times before it fails. The supervisor keeps
//! the socket of a daemon open that does not start: whoever waits asks it now and then whether there is hope.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use davit_contracts::client::{MAX_MESSAGE, lazy};
use davit_contracts::error::DETAIL_KEY;
use davit_contracts::layout::Layout;
use davit_contracts::network::endpoints_client::EndpointsClient;
use davit_contracts::network::networks_client::NetworksClient;
use davit_contracts::storage::snapshots_client::SnapshotsClient;
use davit_contracts::storage::volumes_client::VolumesClient;
use davit_contracts::{Error, Kind};
use davit_supervision::SUSPICIOUS;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::error::RuntimeError;

/// Waits between attempts: long enough for a supervisor to start a daemon anew.
const WAITS_MS: &[u64] = &[20, 50, 100, 200, 400, 800];

/// How long a supervisor may take to put its own daemon in the place of one that somebody else started.
const SUCCESSION: Duration = Duration::from_secs(12);
/// Waits between attempts meanwhile.
const LATE: Duration = Duration::from_millis(250);

/// One daemon.
#[derive(Debug, Clone)]
pub struct Peer {
    name: &'static str,
    socket: PathBuf,
    layout: Layout,
    channel: Channel,
}

impl Peer {
    /// Connects on first use. Must be called inside a tokio runtime.
    pub fn new(name: &'static str, layout: &Layout) -> Self {
        let socket = layout.socket(name);
        Self { name, channel: lazy(&socket), socket, layout: layout.clone() }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Calls until it answers, the transport failed too often, or the supervisor says that it does not start. However long a daemon
    /// that runs takes for its answer, it is waited for.
    pub async fn call<T, F, Fut>(&self, mut attempt: F) -> Result<T, RuntimeError>
    where
        F: FnMut(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let (mut waits, begun) = (WAITS_MS.iter(), Instant::now());
        loop {
            let answer = tokio::select! {
                biased;
                answer = attempt(self.channel.clone()) => answer,
                hopeless = self.despair() => return Err(hopeless),
            };
            let status = match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            if !is_transport(&status) {
                return Err(RuntimeError::Peer(Box::new(Error::from(status))));
            }
            let wait = match waits.next() {
                Some(ms) => Duration::from_millis(*ms),
                None if begun.elapsed() < SUCCESSION && self.is_supervised().await => LATE,
                None => return Err(self.down(&status)),
            };
            tracing::debug!(peer = self.name, error = %status, "the call is made again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Ends with the reason when the supervisor has started it in vain again and again; never without a supervisor.
    async fn despair(&self) -> RuntimeError {
        loop {
            tokio::time::sleep(SUSPICIOUS).await;
            let layout = self.layout.clone();
            let report = tokio::task::spawn_blocking(move || davit_supervision::status(&layout)).await;
            let Ok(Ok(Some(report))) = report else { continue };
            if let Some(note) = report.hopeless(self.name) {
                let log = self.layout.supervisor_log();
                return RuntimeError::PeerHopeless { daemon: self.name, why: note.to_owned(), log };
            }
        }
    }

    /// Whether a supervisor is there, which starts a daemon of its own in place of one that is gone.
    async fn is_supervised(&self) -> bool {
        UnixStream::connect(self.layout.supervisor_socket()).await.is_ok()
    }

    fn down(&self, status: &Status) -> RuntimeError {
        let full = Error::from_error(Kind::Unavailable, status);
        let why = full.causes().last().cloned().unwrap_or_else(|| status.message().to_owned());
        RuntimeError::PeerDown { daemon: self.name, socket: self.socket.clone(), why }
    }
}

/// An error that our own side of the connection made, not the daemon.
fn is_transport(status: &Status) -> bool {
    let detailed = status.metadata().get_bin(DETAIL_KEY).is_some();
    !detailed && (status.code() == Code::Unavailable || std::error::Error::source(status).is_some())
}

/// Both daemons.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Images, snapshots, volumes.
    pub storage: Peer,
    /// Networks, endpoints.
    pub network: Peer,
}

/// A client of storaged's snapshots.
pub fn snapshots(channel: Channel) -> SnapshotsClient<Channel> {
    SnapshotsClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// A client of storaged's volumes.
pub fn volumes(channel: Channel) -> VolumesClient<Channel> {
    VolumesClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// A client of netd's endpoints.
pub fn endpoints(channel: Channel) -> EndpointsClient<Channel> {
    EndpointsClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// A client of netd's networks.
pub fn networks(channel: Channel) -> NetworksClient<Channel> {
    NetworksClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}
