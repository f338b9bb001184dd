//! `davit.network.v1.Endpoints`.

use davit_contracts::network as proto;
use davit_contracts::network::endpoints_server::Endpoints;
use tonic::{Request, Response, Status};

use super::{Service, convert, status, view};

#[tonic::async_trait]
impl Endpoints for Service {
    async fn attach(
        &self,
        request: Request<proto::AttachRequest>,
    ) -> Result<Response<proto::AttachResponse>, Status> {
        let spec = convert::attach_spec(request.into_inner())?;
        let attached = self.sandboxes.attach(spec).await.map_err(|e| status(&e))?;
        tracing::debug!(container.id = %attached.sandbox.id, stages = ?attached.stages, "attached");
        Ok(Response::new(convert::attached(&attached)))
    }

    async fn detach(
        &self,
        request: Request<proto::DetachRequest>,
    ) -> Result<Response<proto::DetachResponse>, Status> {
        let id = request.into_inner().sandbox_id;
        self.sandboxes.detach(id).await.map_err(|e| status(&e))?;
        Ok(Response::new(proto::DetachResponse {}))
    }

    async fn connect(
        &self,
        request: Request<proto::ConnectRequest>,
    ) -> Result<Response<proto::Endpoint>, Status> {
        let proto::ConnectRequest { sandbox_id, endpoint } = request.into_inner();
        let spec = convert::endpoint_spec(endpoint.unwrap_or_default());
        let connected = self.sandboxes.connect(sandbox_id, spec).await;
        let (sandbox, endpoint, network) = connected.map_err(|e| status(&e))?;
        Ok(Response::new(convert::endpoint(&sandbox, &endpoint, &network)))
    }

    async fn disconnect(
        &self,
        request: Request<proto::DisconnectRequest>,
    ) -> Result<Response<proto::DisconnectResponse>, Status> {
        let proto::DisconnectRequest { sandbox_id, network, force } = request.into_inner();
        self.sandboxes.disconnect(sandbox_id, network, force).await.map_err(|e| status(&e))?;
        Ok(Response::new(proto::DisconnectResponse {}))
    }

    async fn rename(
        &self,
        request: Request<proto::RenameSandboxRequest>,
    ) -> Result<Response<proto::RenameSandboxResponse>, Status> {
        let proto::RenameSandboxRequest { sandbox_id, name } = request.into_inner();
        let renamed =
            self.engine.call(move |e| e.rename(&sandbox_id, &name)).await.map_err(|e| status(&e))?;
        let endpoints = renamed.as_ref().map(convert::endpoints).unwrap_or_default();
        Ok(Response::new(proto::RenameSandboxResponse { endpoints }))
    }

    async fn check(
        &self,
        request: Request<proto::CheckSandboxRequest>,
    ) -> Result<Response<proto::CheckSandboxResponse>, Status> {
        let id = request.into_inner().sandbox_id;
        let checked = self.engine.call(move |e| e.check_attached(&id)).await;
        let (attached, drifts) = checked.map_err(|e| status(&e))?;
        Ok(Response::new(proto::CheckSandboxResponse {
            sandbox: Some(convert::sandbox(&attached)),
            drifts: drifts.into_iter().map(view::drift).collect(),
        }))
    }

    async fn list(
        &self,
        _: Request<proto::ListSandboxesRequest>,
    ) -> Result<Response<proto::ListSandboxesResponse>, Status> {
        let all = self.engine.call(|e| Ok(e.list_sandboxes())).await.map_err(|e| status(&e))?;
        let sandboxes = all.iter().map(convert::sandbox).collect();
        Ok(Response::new(proto::ListSandboxesResponse { sandboxes }))
    }
}
