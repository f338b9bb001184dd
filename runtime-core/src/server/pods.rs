//! Pods, which this version does not have.

use davit_contracts::runtime::pods_server::Pods;
use davit_contracts::runtime::{
    CreatePodRequest, InspectPodRequest, ListPodsRequest, ListPodsResponse, Pod, RemovePodRequest,
    RemovePodResponse,
};
use davit_contracts::{Error, Kind};
use tonic::{Request, Response, Status};

use super::Service;

fn unsupported() -> Status {
    Error::new(Kind::Unsupported, "pods are not supported yet by this version of davit-runtimed").into()
}

#[tonic::async_trait]
impl Pods for Service {
    async fn create(&self, _: Request<CreatePodRequest>) -> Result<Response<Pod>, Status> {
        Err(unsupported())
    }
    async fn list(&self, _: Request<ListPodsRequest>) -> Result<Response<ListPodsResponse>, Status> {
        Err(unsupported())
    }
    async fn inspect(&self, _: Request<InspectPodRequest>) -> Result<Response<Pod>, Status> {
        Err(unsupported())
    }
    async fn remove(&self, _: Request<RemovePodRequest>) -> Result<Response<RemovePodResponse>, Status> {
        Err(unsupported())
    }
}
