//! The stream of figures: one round a second over the containers that were named, or that are there.

use std::sync::Arc;
use std::time::Duration;

use davit_contracts::runtime::{StatsRequest, StatsResponse};
use tokio::sync::mpsc;
use tonic::Status;

use crate::container::handle::Handle;
use crate::container::record::Record;
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::usage;

/// From the beginning of one round to that of the next.
const EVERY: Duration = Duration::from_secs(1);

/// Refuses unknown names; then sends until the client has gone, or once.
pub fn begin(
    engine: &Arc<Engine>,
    request: StatsRequest,
) -> Result<mpsc::Receiver<Result<StatsResponse, Status>>, RuntimeError> {
    let named: Result<Vec<Handle>, _> = request.containers.iter().map(|c| engine.registry.find(c)).collect();
    let (named, engine) = (named?, Arc::clone(engine));
    let (out, stream) = mpsc::channel(256);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let records = chosen(&engine, &request, &named);
            let none_left = records.is_empty() && !named.is_empty();
            let figures = tokio::task::spawn_blocking(move || usage::of(&records)).await;
            let end = StatsResponse::default();
            for one in figures.unwrap_or_default().into_iter().chain([end]) {
                if out.send(Ok(one)).await.is_err() {
                    return;
                }
            }
            if !request.stream || none_left {
                return;
            }
        }
    });
    Ok(stream)
}

fn chosen(engine: &Engine, request: &StatsRequest, named: &[Handle]) -> Vec<Arc<Record>> {
    if !named.is_empty() {
        return named.iter().map(Handle::view).filter(|v| !v.gone).map(|v| v.record).collect();
    }
    let views = engine.registry.all().into_iter().map(|h| h.view());
    let mut found: Vec<_> =
        views.filter(|v| !v.gone && (request.all || v.status().is_alive())).map(|v| v.record).collect();
    found.sort_by_key(|r| std::cmp::Reverse(r.container.created_unix_ns));
    found
}
