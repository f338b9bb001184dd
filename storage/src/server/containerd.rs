//! containerd.services.snapshots.v1 over [`Snapshotter`]. containerd names its namespace in the key already, so the header that carries it
//! is not looked at; nor is the snapshotter's name: this socket is only one.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use davit_contracts::containerd::snapshots as pb;
use davit_contracts::containerd::snapshots::snapshots_server::SnapshotsServer;
use davit_contracts::containerd::{Timestamp, types};
use davit_contracts::{Error as ContractError, Kind as ContractKind};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::containerd::{Kind, Record, Snapshotter, SnapshotterError};
use crate::snapshot::driver::Mount;

/// Records in one message of a list.
const AT_ONCE: usize = 100;

/// The service for a socket of its own.
pub fn routes(snapshotter: Arc<Snapshotter>) -> Routes {
    Routes::new(SnapshotsServer::new(Snapshots(snapshotter)))
}

struct Snapshots(Arc<Snapshotter>);

impl Snapshots {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshotter) -> Result<T, SnapshotterError> + Send + 'static,
    ) -> Result<T, Status> {
        let snapshotter = Arc::clone(&self.0);
        let span = tracing::Span::current();
        let done = tokio::task::spawn_blocking(move || span.in_scope(|| work(&snapshotter))).await;
        done.map_err(|_| Status::internal("a task of this daemon failed"))?.map_err(|e| status(&e))
    }

    async fn create(
        &self,
        key: String,
        parent: String,
        kind: Kind,
        labels: HashMap<String, String>,
    ) -> Result<Vec<types::Mount>, Status> {
        let labels = labels.into_iter().collect();
        let mounts = self.blocking(move |s| s.create(&key, &parent, kind, labels)).await?;
        Ok(described(mounts))
    }
}

/// containerd makes its own errors of the codes and shows the text: causes belong into it.
fn status(error: &SnapshotterError) -> Status {
    let kind = error.kind();
    if kind == ContractKind::Internal {
        tracing::error!(%error, cause = std::error::Error::source(error).map(ToString::to_string), "a request failed");
    }
    let whole = ContractError::from_error(kind, error).to_string();
    ContractError::new(kind, whole).into()
}

fn described(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let one = |m: Mount| types::Mount {
        r#type: m.kind.into_owned(),
        source: m.source,
        target: String::new(),
        options: m.options,
    };
    mounts.into_iter().map(one).collect()
}

fn timestamp(unix_ns: i64) -> Timestamp {
    Timestamp { seconds: unix_ns.div_euclid(1_000_000_000), nanos: unix_ns.rem_euclid(1_000_000_000) as i32 }
}

fn info(record: Record) -> pb::Info {
    let kind = match record.kind {
        Kind::Active => pb::Kind::Active,
        Kind::View => pb::Kind::View,
        Kind::Committed => pb::Kind::Committed,
    };
    pb::Info {
        name: record.name,
        parent: record.parent,
        kind: kind as i32,
        created_at: Some(timestamp(record.created_unix_ns)),
        updated_at: Some(timestamp(record.updated_unix_ns)),
        labels: record.labels.into_iter().collect(),
    }
}

#[tonic::async_trait]
impl pb::snapshots_server::Snapshots for Snapshots {
    type ListStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::ListSnapshotsResponse, Status>> + Send>>;

    #[tracing::instrument(skip_all, fields(snapshot.key = %request.get_ref().key))]
    async fn prepare(
        &self,
        request: Request<pb::PrepareSnapshotRequest>,
    ) -> Result<Response<pb::PrepareSnapshotResponse>, Status> {
        let r = request.into_inner();
        let mounts = self.create(r.key, r.parent, Kind::Active, r.labels).await?;
        Ok(Response::new(pb::PrepareSnapshotResponse { mounts }))
    }

    #[tracing::instrument(skip_all, fields(snapshot.key = %request.get_ref().key))]
    async fn view(
        &self,
        request: Request<pb::ViewSnapshotRequest>,
    ) -> Result<Response<pb::ViewSnapshotResponse>, Status> {
        let r = request.into_inner();
        let mounts = self.create(r.key, r.parent, Kind::View, r.labels).await?;
        Ok(Response::new(pb::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<pb::MountsRequest>,
    ) -> Result<Response<pb::MountsResponse>, Status> {
        let key = request.into_inner().key;
        let mounts = described(self.blocking(move |s| s.mounts(&key)).await?);
        Ok(Response::new(pb::MountsResponse { mounts }))
    }

    #[tracing::instrument(skip_all, fields(snapshot.key = %request.get_ref().key))]
    async fn commit(&self, request: Request<pb::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let r = request.into_inner();
        let labels: BTreeMap<_, _> = r.labels.into_iter().collect();
        self.blocking(move |s| s.commit(&r.name, &r.key, &r.parent, labels)).await?;
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<pb::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        self.blocking(move |s| s.remove(&key)).await?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<pb::StatSnapshotRequest>,
    ) -> Result<Response<pb::StatSnapshotResponse>, Status> {
        let record = self.0.stat(&request.into_inner().key).map_err(|e| status(&e))?;
        Ok(Response::new(pb::StatSnapshotResponse { info: Some(info(record)) }))
    }

    async fn update(
        &self,
        request: Request<pb::UpdateSnapshotRequest>,
    ) -> Result<Response<pb::UpdateSnapshotResponse>, Status> {
        let r = request.into_inner();
        let wanted = r.info.unwrap_or_default();
        let paths = r.update_mask.unwrap_or_default().paths;
        let labels: BTreeMap<_, _> = wanted.labels.into_iter().collect();
        let record = self.blocking(move |s| s.update(&wanted.name, &labels, &paths)).await?;
        Ok(Response::new(pb::UpdateSnapshotResponse { info: Some(info(record)) }))
    }

    async fn list(
        &self,
        request: Request<pb::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let all = self.0.list(&request.into_inner().filters).map_err(|e| status(&e))?;
        let mut infos = all.into_iter().map(info);
        let parts = std::iter::from_fn(move || {
            let part: Vec<_> = infos.by_ref().take(AT_ONCE).collect();
            (!part.is_empty()).then_some(Ok(pb::ListSnapshotsResponse { info: part }))
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn usage(&self, request: Request<pb::UsageRequest>) -> Result<Response<pb::UsageResponse>, Status> {
        let key = request.into_inner().key;
        let (bytes, inodes) = self.blocking(move |s| s.usage(&key)).await?;
        Ok(Response::new(pb::UsageResponse { size: bytes as i64, inodes: inodes as i64 }))
    }

    /// What was removed goes in the background; there is nothing that waits for being asked.
    async fn cleanup(&self, _: Request<pb::CleanupRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}
