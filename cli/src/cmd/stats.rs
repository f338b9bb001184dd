//! `davit stats`: docker's table, once or again every second.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use davit_contracts::runtime::{StatsRequest, StatsResponse};
use serde_json::Value;

use super::lifecycle::is_interruption;
use crate::app::App;
use crate::args::lifecycle::StatsArgs;
use crate::error::{Failure, Outcome};
use crate::output;
use crate::output::format::Format;
use crate::view::stats::{COLUMNS, row};

/// Home, and each line clears what was there: docker's way to draw the table anew.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Goes on over restarts of the daemon.
pub async fn stats(app: &App, args: &StatsArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), false)?;
    let mut before: HashMap<String, StatsResponse> = HashMap::new();
    let mut shown = false;
    loop {
        match stream(app, args, &format, &mut before, &mut shown).await {
            Err(Failure::Told(e)) if shown && !args.no_stream && is_interruption(&e) => {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            ended => return ended,
        }
    }
}

async fn stream(
    app: &App,
    args: &StatsArgs,
    format: &Format,
    before: &mut HashMap<String, StatsResponse>,
    shown: &mut bool,
) -> Outcome {
    let request =
        StatsRequest { containers: args.containers.clone(), stream: !args.no_stream, all: args.all };
    let mut stream = app.runtime(app.containers().await?.stats(request)).await?;
    let mut round: Vec<StatsResponse> = Vec::new();
    while let Some(one) = stream.message().await.map_err(|s| app.refused("runtimed", s))? {
        if !one.id.is_empty() {
            round.push(one);
            continue;
        }
        show(args, format, &round, before)?;
        *shown = true;
        *before = round.drain(..).map(|r| (r.id.clone(), r)).collect();
    }
    Ok(())
}

fn show(
    args: &StatsArgs,
    format: &Format,
    round: &[StatsResponse],
    before: &HashMap<String, StatsResponse>,
) -> Outcome {
    let rows: Vec<Value> = round.iter().map(|r| row(r, before.get(&r.id), args.no_trunc)).collect();
    let text = format.show(&rows, &COLUMNS, "ID")?;
    let live = !args.no_stream && std::io::stdout().is_terminal();
    if live && matches!(format, Format::Table | Format::TableTemplate(_)) {
        output::print(&format!("{REDRAW}{text}"));
    } else {
        output::print(&text);
    }
    Ok(())
}
