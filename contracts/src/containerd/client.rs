//! A client of one snapshotter behind a socket that speaks containerd's snapshots service: containerd's own socket, or a
//! proxy plugin's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::snapshots as pb;
use super::snapshots::snapshots_client::SnapshotsClient;
use super::{NAMESPACE_KEY, types};
use crate::{Error, Kind, client};

/// A call that waits longer is given up. Snapshotters that copy take their time.
const DEADLINE: Duration = Duration::from_secs(300);

/// Labels of a snapshot.
pub type Labels = HashMap<String, String>;

/// A snapshotter of a containerd.
#[derive(Debug, Clone)]
pub struct Snapshotter {
    socket: PathBuf,
    name: String,
    namespace: MetadataValue<Ascii>,
    client: SnapshotsClient<Channel>,
}

impl Snapshotter {
    /// Connects on first use, and again whenever the other side was replaced. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for a namespace that cannot be a header.
    pub fn lazy(socket: &Path, snapshotter: &str, namespace: &str) -> Result<Self, Error> {
        let value = namespace
            .parse()
            .map_err(|_| Error::new(Kind::InvalidArgument, format!("'{namespace}' is no namespace")))?;
        let client =
            SnapshotsClient::new(client::lazy(socket)).max_decoding_message_size(client::MAX_MESSAGE);
        Ok(Self { socket: socket.to_owned(), name: snapshotter.to_owned(), namespace: value, client })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE_KEY, self.namespace.clone());
        request.set_timeout(DEADLINE);
        request
    }

    /// The status of a call as an error that says who answered it.
    fn error(&self, status: Status) -> Error {
        let unreachable = std::error::Error::source(&status).is_some();
        let socket = self.socket.display();
        if unreachable {
            return Error::new(Kind::Unavailable, format!("the snapshotter at {socket} does not answer"))
                .with_subject(socket.to_string())
                .with_hint("start what serves it, and try again");
        }
        Error::from(status).within(format!("the snapshotter '{}' at {socket}", self.name))
    }

    /// Makes an active snapshot on `parent` ("" for none).
    pub async fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<types::Mount>, Error> {
        let message = pb::PrepareSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let answer = self.client.clone().prepare(self.request(message)).await;
        Ok(answer.map_err(|s| self.error(s))?.into_inner().mounts)
    }

    /// Makes a read-only view of `parent`.
    pub async fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Vec<types::Mount>, Error> {
        let message = pb::ViewSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let answer = self.client.clone().view(self.request(message)).await;
        Ok(answer.map_err(|s| self.error(s))?.into_inner().mounts)
    }

    /// How to mount an active snapshot or a view.
    pub async fn mounts(&self, key: &str) -> Result<Vec<types::Mount>, Error> {
        let message = pb::MountsRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let answer = self.client.clone().mounts(self.request(message)).await;
        Ok(answer.map_err(|s| self.error(s))?.into_inner().mounts)
    }

    /// Turns the active snapshot `key` into the committed `name`.
    pub async fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<(), Error> {
        let message = pb::CommitSnapshotRequest {
            snapshotter: self.name.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels,
            parent: String::new(),
        };
        self.client.clone().commit(self.request(message)).await.map_err(|s| self.error(s))?;
        Ok(())
    }

    /// Removes a snapshot. [`Kind::NotFound`] when there is none, [`Kind::WrongState`] when it has children.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        let message = pb::RemoveSnapshotRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        self.client.clone().remove(self.request(message)).await.map_err(|s| self.error(s))?;
        Ok(())
    }

    /// What is known of a snapshot; `None` when there is none of this name.
    pub async fn stat(&self, key: &str) -> Result<Option<pb::Info>, Error> {
        let message = pb::StatSnapshotRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        match self.client.clone().stat(self.request(message)).await {
            Ok(answer) => Ok(answer.into_inner().info),
            Err(s) if s.code() == tonic::Code::NotFound => Ok(None),
            Err(s) => Err(self.error(s)),
        }
    }

    /// Sets the labels that `info` has and leaves all others.
    pub async fn update(&self, info: pb::Info, paths: &[String]) -> Result<Option<pb::Info>, Error> {
        let message = pb::UpdateSnapshotRequest {
            snapshotter: self.name.clone(),
            info: Some(info),
            update_mask: Some(super::FieldMask { paths: paths.to_vec() }),
        };
        let answer = self.client.clone().update(self.request(message)).await;
        Ok(answer.map_err(|s| self.error(s))?.into_inner().info)
    }

    /// All snapshots that any of the filters matches.
    pub async fn list(&self, filters: &[String]) -> Result<Vec<pb::Info>, Error> {
        let message = pb::ListSnapshotsRequest { snapshotter: self.name.clone(), filters: filters.to_vec() };
        let answer = self.client.clone().list(self.request(message)).await;
        let mut stream = answer.map_err(|s| self.error(s))?.into_inner();
        let mut all = Vec::new();
        while let Some(part) = stream.message().await.map_err(|s| self.error(s))? {
            all.extend(part.info);
        }
        Ok(all)
    }

    /// Bytes and inodes of a snapshot, without its parents'.
    pub async fn usage(&self, key: &str) -> Result<(u64, u64), Error> {
        let message = pb::UsageRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let answer = self.client.clone().usage(self.request(message)).await;
        let usage = answer.map_err(|s| self.error(s))?.into_inner();
        Ok((usage.size.max(0) as u64, usage.inodes.max(0) as u64))
    }
}
