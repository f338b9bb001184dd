//! `davit.plugin.v1.Plugin`: what a daemon answers about itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use davit_contracts::plugin::health_response::{Check, Status as HealthStatus};
use davit_contracts::plugin::plugin_server::Plugin;
use davit_contracts::plugin::{
    Contract, HealthRequest, HealthResponse, InfoRequest, InfoResponse, ShutdownRequest, ShutdownResponse,
};
use davit_contracts::{Error, Kind};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Gives the checks that make up a daemon's health. Must not block.
pub trait HealthSource: Send + Sync + 'static {
    /// One entry for each thing that the daemon depends on.
    fn checks(&self) -> Vec<Check>;
}

/// A daemon that depends on nothing that could fail.
impl HealthSource for () {
    fn checks(&self) -> Vec<Check> {
        Vec::new()
    }
}

/// A passed check.
pub fn ok(name: &str) -> Check {
    Check { name: name.into(), status: HealthStatus::Ok as i32, message: String::new() }
}

/// Something an operator should know; the daemon works.
pub fn degraded(name: &str, message: impl Into<String>) -> Check {
    Check { name: name.into(), status: HealthStatus::Degraded as i32, message: message.into() }
}

/// Something without which the daemon cannot do its job.
pub fn failed(name: &str, message: impl Into<String>) -> Check {
    Check { name: name.into(), status: HealthStatus::Failed as i32, message: message.into() }
}

/// The service. The same for all daemons.
pub(crate) struct PluginService {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) contracts: Vec<Contract>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) details: BTreeMap<String, String>,
    pub(crate) state_dir: String,
    pub(crate) started_at_unix_ms: i64,
    pub(crate) health: Arc<dyn HealthSource>,
    pub(crate) stop: watch::Sender<bool>,
}

#[tonic::async_trait]
impl Plugin for PluginService {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        // Only what both sides name is compared: a client need not speak all of our contracts.
        for theirs in &request.get_ref().contracts {
            if let Some(ours) = self.contracts.iter().find(|c| c.name == theirs.name)
                && ours.major != theirs.major
            {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "the client speaks {} {}.{}, {} speaks {}.{}",
                        theirs.name, theirs.major, theirs.minor, self.name, ours.major, ours.minor
                    ),
                )
                .with_hint("run daemons and clients of the same major version")
                .into());
            }
        }
        Ok(Response::new(InfoResponse {
            name: self.name.into(),
            version: self.version.into(),
            contracts: self.contracts.clone(),
            capabilities: self.capabilities.clone(),
            pid: std::process::id() as i32,
            started_at_unix_ms: self.started_at_unix_ms,
            state_dir: self.state_dir.clone(),
            details: self.details.clone().into_iter().collect(),
        }))
    }

    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        let checks = self.health.checks();
        let status = checks.iter().map(|c| c.status).max().unwrap_or(0).max(HealthStatus::Ok as i32);
        Ok(Response::new(HealthResponse { status, checks }))
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Result<Response<ShutdownResponse>, Status> {
        tracing::info!("asked to shut down");
        self.stop.send_replace(true);
        Ok(Response::new(ShutdownResponse {}))
    }
}

pub(crate) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
