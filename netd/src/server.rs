//! The two services of davit.network.v1: each call is translated, run by the engine, and translated back.

mod convert;
mod endpoints;
mod filters;
mod networks;
mod view;

use davit_contracts::Error;
use davit_contracts::network::endpoints_server::EndpointsServer;
use davit_contracts::network::networks_server::NetworksServer;
use tonic::Status;
use tonic::service::Routes;

use crate::engine::{Client, EngineError};
use crate::foreign::Sandboxes;

/// Both services, over one engine.
#[derive(Debug, Clone)]
pub struct Service {
    engine: Client,
    sandboxes: Sandboxes,
}

/// The routes for a gRPC server.
pub fn routes(engine: Client, sandboxes: Sandboxes) -> Routes {
    let service = Service { engine, sandboxes };
    let networks = NetworksServer::new(service.clone());
    Routes::new(networks).add_service(EndpointsServer::new(service))
}

/// The one mapping of errors to statuses. Logged here, once, when it is not the caller's doing.
fn status(error: &EngineError) -> Status {
    let full = Error::from_error(error.kind(), error).with_subject(error.subject()).with_hint(error.hint());
    if error.kind() == davit_contracts::Kind::Internal {
        tracing::error!(error = %full, "request failed");
    }
    full.into()
}
