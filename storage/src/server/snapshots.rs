//! davit.storage.v1.Snapshots. Prepare is on the start path of every container.

use std::sync::Arc;

use davit_contracts::storage as pb;
use tonic::{Request, Response, Status};

use super::streams::Abandoned;
use super::streams::ChunkStream;
use super::trees::{self, CopyOutStream};
use super::{blocking, messages};
use crate::image::prepare::Fork;
use crate::store::Store;

/// The service.
pub(super) struct Snapshots(pub(super) Arc<Store>);

#[tonic::async_trait]
impl pb::snapshots_server::Snapshots for Snapshots {
    type ExportStream = ChunkStream;
    type CopyOutStream = CopyOutStream;

    #[tracing::instrument(skip_all, fields(snapshot.key = %request.get_ref().key))]
    async fn prepare(
        &self,
        request: Request<pb::PrepareRequest>,
    ) -> Result<Response<pb::PrepareResponse>, Status> {
        let started = std::time::Instant::now();
        let r = request.into_inner();
        let response = blocking(&self.0, move |store| {
            let labels = messages::sorted(r.labels);
            let prepared = store.prepare(&r.key, &r.image, labels, r.read_only)?;
            Ok(messages::prepared(prepared))
        })
        .await?;
        tracing::debug!(us = started.elapsed().as_micros(), "prepared");
        Ok(Response::new(response))
    }

    #[tracing::instrument(skip_all, fields(snapshot.key = %request.get_ref().key))]
    async fn fork(&self, request: Request<pb::ForkRequest>) -> Result<Response<pb::PrepareResponse>, Status> {
        let r = request.into_inner();
        let fork = Fork {
            process: trees::process(r.pid, r.pid_start_ticks).map_err(|e| super::status(&e))?,
            key: r.key,
            source: r.source,
            labels: messages::sorted(r.labels),
            durable: r.durable,
        };
        // A call whose caller has gone is dropped here.
        let abandoned = Abandoned::default();
        let stop = Arc::clone(&abandoned.0);
        let response =
            blocking(&self.0, move |store| Ok(messages::prepared(store.fork(&fork, &stop)?))).await?;
        Ok(Response::new(response))
    }

    async fn mounts(
        &self,
        request: Request<pb::MountsRequest>,
    ) -> Result<Response<pb::PrepareResponse>, Status> {
        let key = request.into_inner().key;
        let response = blocking(&self.0, move |store| Ok(messages::prepared(store.prepared(&key)?))).await?;
        Ok(Response::new(response))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveSnapshotRequest>,
    ) -> Result<Response<pb::RemoveSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        blocking(&self.0, move |store| Ok(store.snapshots.remove(&key)?)).await?;
        Ok(Response::new(pb::RemoveSnapshotResponse {}))
    }

    async fn list(
        &self,
        _: Request<pb::ListSnapshotsRequest>,
    ) -> Result<Response<pb::ListSnapshotsResponse>, Status> {
        let snapshots = self.0.snapshots.list().into_iter().map(messages::snapshot).collect();
        Ok(Response::new(pb::ListSnapshotsResponse { snapshots }))
    }

    async fn usage(&self, request: Request<pb::UsageRequest>) -> Result<Response<pb::UsageResponse>, Status> {
        let key = request.into_inner().key;
        let (bytes, inodes) = blocking(&self.0, move |store| Ok(store.snapshots.usage(&key)?)).await?;
        Ok(Response::new(pb::UsageResponse { bytes, inodes }))
    }

    async fn changes(
        &self,
        request: Request<pb::ChangesRequest>,
    ) -> Result<Response<pb::ChangesResponse>, Status> {
        Ok(Response::new(trees::changes(&self.0, request.into_inner()).await?))
    }

    async fn export(&self, request: Request<pb::ExportRequest>) -> Result<Response<ChunkStream>, Status> {
        Ok(Response::new(trees::export(&self.0, request.into_inner())))
    }

    async fn copy_out(
        &self,
        request: Request<pb::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        Ok(Response::new(trees::copy_out(&self.0, request.into_inner())))
    }

    async fn copy_in(
        &self,
        request: Request<tonic::Streaming<pb::CopyInRequest>>,
    ) -> Result<Response<pb::CopyInResponse>, Status> {
        Ok(Response::new(trees::copy_in(&self.0, request.into_inner()).await?))
    }
}
