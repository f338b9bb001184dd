//! `davit network check`: drift between what should be and what the kernel has.

use davit_contracts::network::{CheckRequest, Drift};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::network_view::CheckArgs;
use crate::error::{Failure, Outcome};
use crate::output::{self, format::Format};

const COLUMNS: [(&str, &str); 6] = [
    ("KIND", "Kind"),
    ("OBJECT", "Object"),
    ("NETWORK", "Network"),
    ("CONTAINER", "Container"),
    ("STATE", "State"),
    ("DETAIL", "Detail"),
];

/// Exit code 1 when drift remains.
pub async fn check(app: &App, args: &CheckArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), false)?;
    let request = CheckRequest { repair: args.repair };
    let drifts = app.network(app.networks().await?.check(request)).await?.drifts;
    let rows: Vec<Value> = drifts.iter().map(row).collect();
    if rows.is_empty() && matches!(format, Format::Table) {
        output::line("Everything is as it should be.");
    } else {
        output::print(&format.show(&rows, &COLUMNS, "Object")?);
    }
    let left = drifts.iter().filter(|d| !d.repaired).count();
    if left == 0 {
        return Ok(());
    }
    if !args.repair {
        crate::output::complain!("hint: 'davit net check --repair' mends what it can");
    }
    Err(Failure::Code(1))
}

fn row(d: &Drift) -> Value {
    let state = match (d.repaired, d.error.is_empty()) {
        (true, _) => "repaired",
        (false, true) => "",
        (false, false) => "NOT repaired",
    };
    let detail = if d.error.is_empty() { d.detail.clone() } else { d.error.clone() };
    json!({
        "Kind": d.kind,
        "Object": d.object,
        "Network": d.network,
        "Container": d.sandbox,
        "State": state,
        "Detail": detail,
        "Repaired": d.repaired,
        "Error": d.error,
    })
}
