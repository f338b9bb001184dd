//! davit.storage.v1.System: the store as a whole.

use std::pin::Pin;
use std::sync::Arc;

use davit_contracts::storage as pb;
use tonic::{Request, Response, Status};

use super::{checks, unsupported};
use crate::store::Store;

/// The service.
pub(super) struct System(pub(super) Arc<Store>);

#[tonic::async_trait]
impl pb::system_server::System for System {
    type CheckStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::CheckEvent, Status>> + Send>>;

    async fn disk_usage(
        &self,
        _: Request<pb::DiskUsageRequest>,
    ) -> Result<Response<pb::DiskUsageResponse>, Status> {
        Err(unsupported("tell what takes space"))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        Ok(Response::new(checks::run(Arc::clone(&self.0), request.into_inner())))
    }

    async fn collect(&self, _: Request<pb::CollectRequest>) -> Result<Response<pb::CollectResponse>, Status> {
        Err(unsupported("collect garbage on request"))
    }
}
