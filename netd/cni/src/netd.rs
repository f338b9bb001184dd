//! netd, as the verbs use it. It is never started from here: whoever calls plugins must not become the parent of a daemon.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use davit_contracts::client::{self, MAX_MESSAGE};
use davit_contracts::error::is_cut;
use davit_contracts::layout::Layout;
use davit_contracts::network::endpoints_client::EndpointsClient;
use davit_contracts::network::networks_client::NetworksClient;
use davit_contracts::plugin::plugin_client::PluginClient;
use davit_contracts::{Error, Kind};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::failure::{Code, Failure};

/// How long netd may take for one request; a caller would rather try again than wait for longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug, Clone)]
pub struct Netd {
    channel: Channel,
}

impl Netd {
    /// Connects to the socket of the configuration, else to the one that the environment means.
    pub async fn connect(socket: Option<&Path>) -> Result<Self, Failure> {
        let path = match socket {
            Some(path) => path.to_owned(),
            None => default_socket()?,
        };
        match client::connect(&path).await {
            Ok(channel) => Ok(Self { channel }),
            Err(error) => Err(unreachable(&path, error)),
        }
    }

    /// Networks.
    pub fn networks(&self) -> NetworksClient<Channel> {
        NetworksClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Sandboxes and endpoints.
    pub fn endpoints(&self) -> EndpointsClient<Channel> {
        EndpointsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The daemon itself.
    pub fn plugin(&self) -> PluginClient<Channel> {
        PluginClient::new(self.channel.clone())
    }
}

/// Waits for an answer, but not for ever.
pub async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if is_cut(&status) => {
            Err(Error::new(Kind::Unavailable, "netd ended while it served the request").with_hint(
                "it is started again by who supervises it; what it had not answered is undone then",
            ))
        }
        Ok(Err(status)) => Err(status.into()),
        Err(_) => {
            Err(Error::new(Kind::Timeout, format!("netd did not answer within {} s", PATIENCE.as_secs())))
        }
    }
}

fn default_socket() -> Result<PathBuf, Failure> {
    let layout = Layout::from_env().map_err(|e| Failure::new(Code::Environment, e.to_string()))?;
    Ok(layout.socket("netd"))
}

/// A socket that is not for us will not be later either, and what is none will not become one.
fn unreachable(path: &Path, error: Error) -> Failure {
    if std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        let message = format!("field socket cannot be '{}': it is no socket", path.display());
        return Failure::new(Code::Config, message);
    }
    let refused = std::os::unix::net::UnixStream::connect(path).err().map(|e| e.kind());
    if refused == Some(io::ErrorKind::PermissionDenied) {
        return Failure::new(Code::Permission, error.to_string())
            .with_details("run as root, or name the socket of an instance of your own with \"socket\"");
    }
    Failure::from(error).with_details("davit-netd has to run; it is not started by its CNI plugin")
}
