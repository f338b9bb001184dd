//! `davit system df`: what takes space. storaged measures; runtimed knows which containers run.

use std::collections::HashMap;

use davit_contracts::runtime::{Container, ListRequest};
use davit_contracts::storage::{DiskUsageRequest, DiskUsageResponse};

use crate::app::App;
use crate::args::system::DfArgs;
use crate::error::Outcome;
use crate::output::format::Format;
use crate::output::{self, words};
use crate::view::usage;

/// `davit system df`
pub async fn df(app: &App, args: &DfArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), false)?;
    let mut answer =
        app.storage(app.storage_system().await?.disk_usage(DiskUsageRequest { verbose: true })).await?;
    let all = ListRequest { all: true, ..ListRequest::default() };
    let containers = app.runtime(app.containers().await?.list(all)).await?.containers;
    count_running(&mut answer, &containers);
    if !args.verbose {
        output::print(&format.show(&usage::rows(&answer), &usage::COLUMNS, "Type")?);
        return Ok(());
    }
    let sizes: HashMap<&str, u64> = answer.snapshot.iter().map(|s| (s.key.as_str(), s.bytes)).collect();
    let now = words::now();
    let tables = usage::verbose(&answer, &containers, &sizes, now);
    match args.format.as_deref() {
        None | Some("" | "table") => {
            for (title, columns, rows) in &tables {
                output::line(format!("{title} space usage:\n"));
                output::line(format.show(rows, columns, "ID")?);
            }
        }
        Some(_) => {
            let key = |title: &str| title.replace("Local ", "");
            let object = tables.into_iter().map(|(title, _, rows)| (key(title), rows.into())).collect();
            output::print(&format.show(&[serde_json::Value::Object(object)], &[], "ID")?);
        }
    }
    Ok(())
}

/// What runs is in use; what of the others could go.
fn count_running(answer: &mut DiskUsageResponse, containers: &[Container]) {
    let runs = |c: &&Container| {
        let status = c.state.as_ref().map_or("", |s| s.status.as_str());
        matches!(status, "running" | "paused" | "restarting")
    };
    let running: Vec<&str> = containers.iter().filter(runs).map(|c| c.id.as_str()).collect();
    let used: u64 =
        answer.snapshot.iter().filter(|s| running.contains(&s.key.as_str())).map(|s| s.bytes).sum();
    let total = answer.containers.get_or_insert_default();
    total.count = containers.len() as u64;
    total.active = running.len() as u64;
    total.reclaimable = total.bytes.saturating_sub(used);
}
