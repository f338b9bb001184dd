//! `davit.runtime.v1` over the domain: requests in, domain calls, answers and the one error mapping out.

mod containers;
mod events;
mod execs;
mod health;
mod pods;
mod stats;

use std::sync::Arc;

use davit_contracts::client::MAX_MESSAGE;
use davit_contracts::runtime::containers_server::ContainersServer;
use davit_contracts::runtime::events_server::EventsServer;
use davit_contracts::runtime::execs_server::ExecsServer;
use davit_contracts::runtime::pods_server::PodsServer;
pub use tonic::service::Routes;

use crate::engine::Engine;
use crate::error::RuntimeError;
pub use health::Health;

/// All services of the contract.
pub fn routes(engine: &Arc<Engine>) -> Routes {
    let service = Service { engine: Arc::clone(engine) };
    Routes::new(ContainersServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ExecsServer::new(service.clone()))
        .add_service(EventsServer::new(service.clone()))
        .add_service(PodsServer::new(service))
}

impl From<RuntimeError> for tonic::Status {
    fn from(e: RuntimeError) -> Self {
        davit_contracts::Error::from(e).into()
    }
}

/// The implementation of every service.
#[derive(Debug, Clone)]
pub struct Service {
    engine: Arc<Engine>,
}
