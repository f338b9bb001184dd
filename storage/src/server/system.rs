//! davit.storage.v1.System: the store as a whole.

use std::pin::Pin;
use std::sync::Arc;

use davit_contracts::storage as pb;
use tonic::{Request, Response, Status};

use super::{blocking, checks, messages};
use crate::store::Store;

/// The service.
pub(super) struct System(pub(super) Arc<Store>);

#[tonic::async_trait]
impl pb::system_server::System for System {
    type CheckStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::CheckEvent, Status>> + Send>>;

    async fn disk_usage(
        &self,
        request: Request<pb::DiskUsageRequest>,
    ) -> Result<Response<pb::DiskUsageResponse>, Status> {
        let verbose = request.into_inner().verbose;
        let answer =
            blocking(&self.0, move |store| Ok(messages::disk_usage(store, store.disk_usage()?, verbose)));
        Ok(Response::new(answer.await?))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        Ok(Response::new(checks::run(Arc::clone(&self.0), request.into_inner())))
    }

    async fn collect(&self, _: Request<pb::CollectRequest>) -> Result<Response<pb::CollectResponse>, Status> {
        let removed = blocking(&self.0, |store| store.collect_garbage()).await?;
        Ok(Response::new(pb::CollectResponse {
            deleted: removed.deleted,
            reclaimed_bytes: removed.reclaimed,
        }))
    }
}
