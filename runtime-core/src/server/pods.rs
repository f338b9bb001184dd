//! Pods.

use davit_contracts::runtime::pods_server::Pods;
use davit_contracts::runtime::{
    AddToPodRequest, AddToPodResponse, CreatePodRequest, CreatePodResponse, InspectPodRequest,
    InspectPodResponse, ListPodsRequest, ListPodsResponse, RemovePodRequest, RemovePodResponse,
    StartPodRequest, StartPodResponse,
};
use tonic::{Request, Response, Status};

use super::Service;

#[tonic::async_trait]
impl Pods for Service {
    async fn create(
        &self,
        request: Request<CreatePodRequest>,
    ) -> Result<Response<CreatePodResponse>, Status> {
        let made = self.engine.pod_create(request.into_inner()).await?;
        Ok(Response::new(CreatePodResponse { id: made.id, name: made.name, warnings: made.warnings }))
    }

    async fn add(&self, request: Request<AddToPodRequest>) -> Result<Response<AddToPodResponse>, Status> {
        let AddToPodRequest { pod, container } = request.into_inner();
        self.engine.pod_add(&pod, &container).await?;
        Ok(Response::new(AddToPodResponse {}))
    }

    async fn start(&self, request: Request<StartPodRequest>) -> Result<Response<StartPodResponse>, Status> {
        let warnings = self.engine.pod_up(&request.into_inner().pod).await?;
        Ok(Response::new(StartPodResponse { warnings }))
    }

    async fn list(&self, _: Request<ListPodsRequest>) -> Result<Response<ListPodsResponse>, Status> {
        Ok(Response::new(ListPodsResponse { pods: self.engine.pods() }))
    }

    async fn inspect(
        &self,
        request: Request<InspectPodRequest>,
    ) -> Result<Response<InspectPodResponse>, Status> {
        let (infra, record) = self.engine.pod_find(&request.into_inner().pod)?;
        Ok(Response::new(InspectPodResponse { pod: Some(self.engine.pod_view(&infra, &record)) }))
    }

    async fn remove(
        &self,
        request: Request<RemovePodRequest>,
    ) -> Result<Response<RemovePodResponse>, Status> {
        let RemovePodRequest { pod, force } = request.into_inner();
        Ok(Response::new(RemovePodResponse { id: self.engine.pod_remove(&pod, force).await? }))
    }
}
