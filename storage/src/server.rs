//! The contract `davit.storage.v1` over the store: messages in and out, errors mapped once.

use std::sync::Arc;

use davit_contracts::plugin::health_response::Check;
use davit_contracts::storage::images_server::ImagesServer;
use davit_contracts::storage::registries_server::RegistriesServer;
use davit_contracts::storage::snapshots_server::SnapshotsServer;
use davit_contracts::storage::system_server::SystemServer;
use davit_contracts::storage::volumes_server::VolumesServer;
use davit_contracts::{Error as ContractError, Kind};
use davit_daemon_kit::daemon::{self, HealthSource};
use tonic::Status;
use tonic::service::Routes;

use crate::error::Error;
use crate::store::Store;

mod checks;
mod containerd;
mod images;
mod messages;
mod registries;
mod snapshots;
mod streams;
mod system;
mod trees;
mod volumes;

pub use containerd::routes as containerd_routes;

/// Large enough for a chunk of any client; lists go out, not in.
const MAX_REQUEST: usize = 8 << 20;

/// The services of the contract.
pub fn routes(store: &Arc<Store>) -> Routes {
    let images = ImagesServer::new(images::Images(Arc::clone(store)))
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(davit_contracts::client::MAX_MESSAGE);
    let snapshots = SnapshotsServer::new(snapshots::Snapshots(Arc::clone(store)));
    let volumes = VolumesServer::new(volumes::Volumes(Arc::clone(store)));
    let registries = RegistriesServer::new(registries::Registries(Arc::clone(store)));
    let system = SystemServer::new(system::System(Arc::clone(store)));
    Routes::new(images)
        .add_service(snapshots)
        .add_service(volumes)
        .add_service(registries)
        .add_service(system)
}

/// The one mapping of this daemon's errors.
pub(crate) fn status(error: &Error) -> Status {
    let kind = error.kind();
    if kind == Kind::Internal {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(%error, cause, "a request failed");
    } else {
        tracing::debug!(%error, ?kind, "a request was refused");
    }
    ContractError::from_error(kind, error).with_subject(error.subject()).with_hint(error.hint()).into()
}

/// Runs what may touch the disk off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Arc<Store>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    let store = Arc::clone(store);
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(|| work(&store))).await;
    done.map_err(Error::from).and_then(|r| r).map_err(|e| status(&e))
}

/// Health: the state directory can be written, and a driver works.
pub struct Health(pub Arc<Store>);

/// Below this, pulling anything is likely to fail.
const LOW_SPACE: u64 = 256 << 20;

impl HealthSource for Health {
    fn checks(&self) -> Vec<Check> {
        let driver = self.0.snapshots.driver();
        let driver = if driver.name() == "overlay" || !self.0.settings.driver.is_empty() {
            daemon::ok("snapshot-driver")
        } else {
            daemon::degraded("snapshot-driver", format!("{}: {}", driver.name(), driver.reason()))
        };
        let space = match rustix::fs::statvfs(&self.0.state) {
            Ok(fs) if fs.f_bavail * fs.f_frsize < LOW_SPACE => {
                let free = (fs.f_bavail * fs.f_frsize) >> 20;
                daemon::degraded("space", format!("only {free} MiB are free in {}", self.0.state.display()))
            }
            Ok(_) => daemon::ok("space"),
            Err(e) => daemon::failed("space", format!("{}: {e}", self.0.state.display())),
        };
        vec![driver, space]
    }
}
