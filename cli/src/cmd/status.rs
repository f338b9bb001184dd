//! `davit status`: the three daemons as they are. Starts nothing.

use std::time::Duration;

use davit_contracts::plugin::health_response::Status;
use davit_contracts::plugin::{HealthRequest, HealthResponse, InfoRequest, InfoResponse};
use davit_contracts::version::{NETWORK, PLUGIN, RUNTIME, STORAGE, Version, require};
use davit_contracts::{Error, Kind};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{Outcome, one_line};
use crate::output::{self, format, table, words};
use crate::supervisor::{self, Report};

/// The daemons and the contract each speaks.
pub const DAEMONS: [(&str, Version); 3] = [("storaged", STORAGE), ("netd", NETWORK), ("runtimed", RUNTIME)];

/// A daemon may be slow; one that does not answer for this long is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// One daemon's answers.
pub struct Answers {
    /// `storaged`, ...
    pub name: &'static str,
    wanted: Version,
    info: Result<InfoResponse, Error>,
    health: Result<HealthResponse, Error>,
}

/// Asks all three.
pub async fn ask(app: &App) -> Vec<Answers> {
    let mut out = Vec::new();
    for (name, wanted) in DAEMONS {
        let late = || Error::new(Kind::Timeout, format!("davit-{name} does not answer"));
        let asked = async {
            let mut client = app.plugin(name).await?;
            let contracts = vec![PLUGIN.into(), wanted.into()];
            let info = client.info(InfoRequest { contracts }).await?.into_inner();
            let health =
                client.health(HealthRequest {}).await.map(tonic::Response::into_inner).map_err(Error::from);
            Ok::<_, Error>((info, health))
        };
        let (info, health) = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok((info, health))) => (Ok(info), health),
            Ok(Err(e)) => (Err(e.clone()), Err(e)),
            Err(_) => (Err(late()), Err(late())),
        };
        out.push(Answers { name, wanted, info, health });
    }
    out
}

impl Answers {
    /// `ok`, `degraded`, `failed`, `down` or `incompatible`, and the reasons.
    fn verdict(&self) -> (&'static str, Vec<String>) {
        let info = match &self.info {
            Ok(info) => info,
            Err(e) if e.kind() == Kind::Timeout => return ("failed", vec![one_line(&e.to_string())]),
            Err(e) => return ("down", vec![one_line(&e.to_string())]),
        };
        if let Err(e) = require(&format!("davit-{}", self.name), &info.contracts, self.wanted) {
            return ("incompatible", vec![e.to_string()]);
        }
        let health = match &self.health {
            Ok(health) => health,
            Err(e) => return ("failed", vec![e.to_string()]),
        };
        let reasons = health
            .checks
            .iter()
            .filter(|c| c.status() != Status::Ok)
            .map(|c| format!("{}: {}", c.name, c.message))
            .collect();
        let word = match health.status() {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Failed | Status::Unspecified => "failed",
        };
        (word, reasons)
    }

    fn object(&self, supervised: Option<&supervisor::DaemonReport>, now: i64) -> Value {
        let (health, reasons) = self.verdict();
        let info = self.info.clone().unwrap_or_default();
        let contracts: Vec<String> =
            info.contracts.iter().map(|c| format!("{} {}.{}", c.name, c.major, c.minor)).collect();
        let uptime = if info.started_at_unix_ms == 0 { 0 } else { now / 1_000_000 - info.started_at_unix_ms };
        json!({
            "Name": format!("davit-{}", self.name),
            "Version": info.version,
            "Pid": info.pid,
            "UptimeMs": uptime.max(0),
            "Contracts": contracts,
            "Capabilities": info.capabilities,
            "Driver": info.details.get("driver").cloned().unwrap_or_default(),
            "StateDir": info.state_dir,
            "Details": info.details,
            "Health": health,
            "Reasons": reasons,
            "Restarts": supervised.map(|s| s.restarts),
            "State": supervised.map(|s| s.state.clone()),
        })
    }
}

/// The whole report.
pub fn object(app: &App, answers: &[Answers], report: Option<&Report>) -> Value {
    let now = words::now();
    let daemons: Vec<Value> = answers
        .iter()
        .map(|a| a.object(report.and_then(|r| r.daemons.iter().find(|d| d.name == a.name)), now))
        .collect();
    json!({
        "Supervisor": report.map(|r| json!({"Pid": r.pid, "UptimeMs": r.uptime_ms})),
        "Rootless": app.layout.rootless,
        "StateDir": app.layout.state,
        "RunDir": app.layout.run,
        "ConfigDir": app.layout.config,
        "Limits": report.map(|r| r.limits.clone()).unwrap_or_default(),
        "Daemons": daemons,
    })
}

/// Exit code 1 when a daemon is down, incompatible or has failed. One that is degraded works.
pub async fn status(app: &App, format: Option<&str>) -> Outcome<i32> {
    let answers = ask(app).await;
    let report = supervisor::status(&app.layout).unwrap_or_default();
    let object = object(app, &answers, report.as_ref());
    match format {
        None | Some("" | "table") => output::print(&text(&object, report.as_ref())),
        Some("json") => output::line(object.to_string()),
        Some(template) => output::print(&format::inspected(Some(template), std::slice::from_ref(&object))?),
    }
    let well = |d: &Value| matches!(d["Health"].as_str(), Some("ok" | "degraded"));
    let all = object["Daemons"].as_array().is_some_and(|d| d.iter().all(well));
    if !all && format.is_none() && report.is_none() {
        crate::output::complain!("hint: start the daemons with 'davit up'");
    }
    Ok(i32::from(!all))
}

fn text(object: &Value, report: Option<&Report>) -> String {
    let string = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut rows: Vec<Vec<String>> = vec![
        ["DAEMON", "VERSION", "PID", "UPTIME", "CONTRACTS", "DRIVER", "HEALTH"].map(str::to_owned).to_vec(),
    ];
    let mut notes = Vec::new();
    for d in object["Daemons"].as_array().into_iter().flatten() {
        let up = d["Pid"].as_i64().unwrap_or(0) != 0;
        let list =
            |key: &str| d[key].as_array().into_iter().flatten().map(&string).collect::<Vec<_>>().join(", ");
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        rows.push(vec![
            string(&d["Name"]),
            dash(string(&d["Version"])),
            if up { string(&d["Pid"]) } else { "-".into() },
            if up { words::duration(d["UptimeMs"].as_i64().unwrap_or(0) * 1_000_000) } else { "-".into() },
            dash(list("Contracts")),
            dash(string(&d["Driver"]).split(' ').next().unwrap_or_default().to_owned()),
            string(&d["Health"]),
        ]);
        for reason in d["Reasons"].as_array().into_iter().flatten() {
            notes.push(format!("{}: {}\n", string(&d["Name"]), string(reason)));
        }
        if let Some(note) = supervised_note(report, &string(&d["Name"])) {
            notes.push(note);
        }
    }
    let mut out = table::layout(&rows);
    out.extend(notes);
    for limit in report.iter().flat_map(|r| &r.limits) {
        out.extend(["rootless: ", limit, "\n"]);
    }
    out
}

fn supervised_note(report: Option<&Report>, name: &str) -> Option<String> {
    let daemon = report?.daemons.iter().find(|d| name.ends_with(&d.name))?;
    (!daemon.note.is_empty()).then(|| format!("{name}: {} ({})\n", daemon.note, daemon.state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::plugin::Contract;
    use davit_contracts::plugin::health_response::Check;

    fn answers(major: u32, status: Status) -> Answers {
        let contract = Contract { name: "davit.storage".into(), major, minor: 0 };
        let check = Check { name: "disk".into(), status: status as i32, message: "nearly full".into() };
        Answers {
            name: "storaged",
            wanted: STORAGE,
            info: Ok(InfoResponse { contracts: vec![contract], pid: 7, ..InfoResponse::default() }),
            health: Ok(HealthResponse { status: status as i32, checks: vec![check] }),
        }
    }

    #[test]
    fn verdicts() {
        assert_eq!(answers(1, Status::Ok).verdict(), ("ok", vec![]));
        assert_eq!(
            answers(1, Status::Degraded).verdict(),
            ("degraded", vec!["disk: nearly full".to_owned()])
        );
        let (word, reasons) = answers(2, Status::Ok).verdict();
        assert_eq!(word, "incompatible");
        assert!(reasons[0].contains("2.0") && reasons[0].contains("1.2"), "{reasons:?}");
        let down = Answers {
            info: Err(Error::new(Kind::Unavailable, "x")),
            health: Err(Error::new(Kind::Unavailable, "x")),
            ..answers(1, Status::Ok)
        };
        assert_eq!(down.verdict().0, "down");
    }
}
