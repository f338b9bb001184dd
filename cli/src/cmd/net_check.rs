//! `davit network check`: drift between what should be and what the kernel has.

use std::time::Duration;

use davit_contracts::network::{CheckRequest, Drift, InspectNetworkRequest};
use davit_contracts::plugin::HealthRequest;
use davit_contracts::runtime::{CheckNetworksRequest, CheckNetworksResponse};
use davit_contracts::{Error, Kind};
use serde_json::{Value, json};

use crate::app::App;
use crate::args::network_view::CheckArgs;
use crate::error::{Failure, Outcome};
use crate::output::{self, complain, format::Format};

const COLUMNS: [(&str, &str); 6] = [
    ("KIND", "Kind"),
    ("OBJECT", "Object"),
    ("NETWORK", "Network"),
    ("CONTAINER", "Container"),
    ("STATE", "State"),
    ("DETAIL", "Detail"),
];

/// docker has no code for it. 1 says that the check failed, 125 that the command line is wrong.
const DRIFT: i32 = 3;

/// How long an answer is waited for before netd is asked whether it is there at all; and how long it has to say so.
const SUSPICIOUS: Duration = Duration::from_secs(4);

/// How often it is asked before we give up.
const ATTEMPTS: u32 = 4;

/// Exit code 3 when drift remains.
pub async fn check(app: &App, args: &CheckArgs) -> Outcome {
    let format = usage(read(args))?;
    let looked = async {
        let names = members(app, &args.networks).await?;
        Ok::<_, Failure>((names, look(app, args.repair).await?))
    };
    let (names, mut drifts) = answered(app, looked).await?;
    if let Some(names) = names {
        drifts.retain(|d| names.networks.contains(&d.network) || names.containers.contains(&d.sandbox));
    }
    let rows: Vec<Value> = drifts.iter().map(|d| row(d, args.repair)).collect();
    if rows.is_empty() && matches!(format, Format::Table) {
        output::line(if args.networks.is_empty() {
            "Everything is as it should be."
        } else {
            "All that is asked for is as it should be."
        });
    } else {
        output::print(&usage(format.show(&rows, &COLUMNS, "Object"))?);
    }
    if drifts.iter().all(|d| d.repaired) {
        return Ok(());
    }
    if !args.repair {
        complain!("hint: 'davit net check --repair' mends what it can");
    }
    Err(Failure::Code(DRIFT))
}

/// Reads the command line, and tries the template on a row: there may be none to find a mistake by.
fn read(args: &CheckArgs) -> Result<Format, String> {
    if args.repair && !args.networks.is_empty() {
        return Err("--repair mends all networks: name none".to_owned());
    }
    let format = Format::parse(args.format.as_deref(), false)?;
    format.show(&[row(&Drift::default(), false)], &COLUMNS, "Object")?;
    Ok(format)
}

fn usage<T>(outcome: Result<T, String>) -> Outcome<T> {
    outcome.map_err(|text| {
        Failure::Usage(text).tell();
        Failure::Code(125)
    })
}

/// Which names are asked for.
struct Names {
    networks: Vec<String>,
    containers: Vec<String>,
}

async fn members(app: &App, asked: &[String]) -> Outcome<Option<Names>> {
    if asked.is_empty() {
        return Ok(None);
    }
    let mut names = Names { networks: Vec::new(), containers: Vec::new() };
    for name in asked {
        let request = InspectNetworkRequest { name: name.clone() };
        let network = app.network(app.networks().await?.inspect(request)).await?;
        names.networks.push(network.name);
        names.containers.extend(network.endpoints.into_iter().map(|e| e.name));
    }
    Ok(Some(names))
}

/// Containers that netd does not know come first: what it mends it must know.
async fn look(app: &App, repair: bool) -> Outcome<Vec<Drift>> {
    let asked = async {
        let request = CheckNetworksRequest { repair };
        app.runtime(app.containers().await?.check_networks(request)).await
    };
    let CheckNetworksResponse { mut drifts, detached } = asked.await.unwrap_or_else(|failure| {
        failure.tell();
        complain!("warning: containers that netd does not know were not looked for");
        CheckNetworksResponse::default()
    });
    let request = CheckRequest { repair, detached };
    drifts.extend(app.network(app.networks().await?.check(request)).await?.drifts);
    Ok(drifts)
}

/// Awaits the check, which may take long; netd says so itself. One that says nothing is given up.
async fn answered<T>(app: &App, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let mut work = Box::pin(work);
    let mut silent = 0;
    loop {
        if let Ok(outcome) = tokio::time::timeout(SUSPICIOUS, &mut work).await {
            return outcome;
        }
        let ask = async {
            let mut client = app.plugin("netd").await?;
            client.health(HealthRequest {}).await.map_err(Error::from)
        };
        // Whatever it answers, it is there.
        silent = if tokio::time::timeout(SUSPICIOUS, ask).await.is_ok() { 0 } else { silent + 1 };
        if silent == 1 {
            complain!("davit-netd does not answer; waiting for it");
        }
        if silent == ATTEMPTS {
            let error = Error::new(Kind::Timeout, "davit-netd does not answer");
            let hint = format!("see 'davit status' and {}", app.layout.supervisor_log().display());
            return Err(error.with_hint(hint).into());
        }
    }
}

fn row(d: &Drift, repair: bool) -> Value {
    let state = match (repair, d.repaired) {
        (false, _) => "",
        (true, true) => "repaired",
        (true, false) => "NOT repaired",
    };
    let detail = match (d.detail.as_str(), d.error.as_str()) {
        (detail, "") => detail.to_owned(),
        ("", error) => error.to_owned(),
        (detail, error) => format!("{detail} ({error})"),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_stays_beside_the_error_and_a_state_is_of_a_repair() {
        let drift = |detail: &str, error: &str, repaired| Drift {
            detail: detail.into(),
            error: error.into(),
            repaired,
            ..Drift::default()
        };
        let shown = |d: &Drift, repair| {
            let row = row(d, repair);
            (row["State"].as_str().unwrap().to_owned(), row["Detail"].as_str().unwrap().to_owned())
        };
        let of = |state: &str, detail: &str| (state.to_owned(), detail.to_owned());
        assert_eq!(
            shown(&drift("it is down", "no right", false), true),
            of("NOT repaired", "it is down (no right)")
        );
        assert_eq!(shown(&drift("", "no right", false), false), of("", "no right"));
        assert_eq!(shown(&drift("it is down", "", false), true), of("NOT repaired", "it is down"));
        assert_eq!(shown(&drift("it is down", "", true), true), of("repaired", "it is down"));
    }

    #[test]
    fn a_wrong_template_is_found_without_any_row() {
        let args = |format: &str, networks: &[&str]| CheckArgs {
            repair: true,
            format: Some(format.to_owned()),
            networks: networks.iter().map(|n| (*n).to_owned()).collect(),
        };
        assert!(read(&args("{{.Nonsense}}", &[])).is_err());
        assert!(read(&args("{{.Object}}", &["front"])).is_err());
        assert!(read(&args("{{.Object}}", &[])).is_ok());
    }
}
