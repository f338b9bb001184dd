//! davit.storage.v1.Registries.

use std::sync::Arc;

use davit_contracts::storage as pb;
use tonic::{Request, Response, Status};

use super::unsupported;
use crate::store::Store;

/// The service.
pub(super) struct Registries(#[allow(dead_code)] pub(super) Arc<Store>);

#[tonic::async_trait]
impl pb::registries_server::Registries for Registries {
    async fn login(&self, _: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        Err(unsupported("log in to registries"))
    }
}
