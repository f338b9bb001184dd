//! Exec sessions.

use davit_contracts::runtime::execs_server::Execs;
use davit_contracts::runtime::{
    ExecCreateRequest, ExecCreateResponse, ExecInspectRequest, ExecInspectResponse, ExecStartRequest,
    ExecStartResponse,
};
use tonic::{Request, Response, Status};

use super::Service;

#[tonic::async_trait]
impl Execs for Service {
    async fn create(
        &self,
        request: Request<ExecCreateRequest>,
    ) -> Result<Response<ExecCreateResponse>, Status> {
        let exec_id = self.engine.exec_create(request.into_inner())?;
        Ok(Response::new(ExecCreateResponse { exec_id }))
    }

    async fn start(&self, request: Request<ExecStartRequest>) -> Result<Response<ExecStartResponse>, Status> {
        let request = request.into_inner();
        let (socket, pid) = self.engine.exec_start(&request.exec_id, request.hold_for_attach).await?;
        Ok(Response::new(ExecStartResponse { attach_socket: socket.display().to_string(), pid }))
    }

    async fn inspect(
        &self,
        request: Request<ExecInspectRequest>,
    ) -> Result<Response<ExecInspectResponse>, Status> {
        Ok(Response::new(self.engine.exec_inspect(&request.into_inner().exec_id)?))
    }
}
