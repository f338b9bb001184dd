//! up, down, version, info.

use davit_contracts::runtime::ListRequest;
use davit_contracts::runtime::containers_client::ContainersClient;
use davit_contracts::storage::ListImagesRequest;
use davit_contracts::version::require;
use davit_contracts::{Error, Kind};
use davit_contracts::{client, plugin::InfoRequest};
use serde_json::{Value, json};

use super::status::{self, DAEMONS};
use crate::app::App;
use crate::args::system::DownArgs;
use crate::error::{Failure, Outcome};
use crate::output::{self, format};
use crate::supervisor;

/// `davit up`: idempotent; fails when a daemon does not come up or speaks another contract.
pub async fn up(app: &App) -> Outcome {
    let supervised = supervisor::status(&app.layout)?.is_some() && supervisor::wait_ready(&app.layout, None)?;
    if !supervised && !all_answer(app).await {
        supervisor::start(&app.layout, None)?;
    }
    for (name, wanted) in DAEMONS {
        let mut client = app.plugin(name).await?;
        let info = app.call(name, client.info(InfoRequest { contracts: vec![wanted.into()] })).await?;
        require(&format!("davit-{name}"), &info.contracts, wanted)?;
    }
    Ok(())
}

/// Daemons may be run by an init system: then no supervisor is wanted.
async fn all_answer(app: &App) -> bool {
    for (name, _) in DAEMONS {
        if app.plugin(name).await.is_err() {
            return false;
        }
    }
    true
}

/// `davit down`: says which containers keep running.
pub async fn down(app: &App, args: &DownArgs) -> Outcome {
    let running = running(app).await;
    while !end(app).await? {
        if !all_answer(app).await {
            output::complain!("the daemons are not running");
            return Ok(());
        }
        // A supervisor that someone else started meanwhile is ended as well.
        if supervisor::status(&app.layout)?.is_none() {
            return Err(Error::new(
                Kind::WrongState,
                "the daemons run, but not under davit's own supervisor",
            )
            .with_hint("stop them where they were started, such as with systemctl")
            .into());
        }
    }
    if !args.quiet && !running.is_empty() {
        output::line(format!(
            "{} keep{} running: {}",
            if running.len() == 1 {
                "1 container".to_owned()
            } else {
                format!("{} containers", running.len())
            },
            if running.len() == 1 { "s" } else { "" },
            running.join(", ")
        ));
    }
    Ok(())
}

/// Ends the supervisor; false when none runs.
async fn end(app: &App) -> Outcome<bool> {
    let layout = app.layout.clone();
    // Not on this thread: our connections must see the daemons' goodbye, or they would wait for us.
    let ended = tokio::task::spawn_blocking(move || supervisor::down(&layout)).await;
    let ended = ended
        .map_err(|e| Failure::new(Kind::Internal, format!("the wait for the supervisor failed: {e}")))?;
    Ok(ended?)
}

/// Names of running containers, if runtimed answers soon; nothing is started for it.
async fn running(app: &App) -> Vec<String> {
    let asked = async {
        let channel = client::connect(&app.layout.socket("runtimed")).await?;
        let answer =
            ContainersClient::new(channel).list(ListRequest::default()).await.map_err(Error::from)?;
        Ok::<_, Error>(answer.into_inner().containers.into_iter().map(|c| c.name).collect())
    };
    match tokio::time::timeout(std::time::Duration::from_secs(3), asked).await {
        Ok(Ok(names)) => names,
        _ => Vec::new(),
    }
}

/// `davit version`: ours, and the daemons' when they run.
pub async fn version(app: &App, format: Option<&str>) -> Outcome {
    let answers = status::ask(app).await;
    let object = status::object(app, &answers, None);
    let contracts: Vec<String> =
        DAEMONS.iter().map(|(_, v)| format!("{} {}.{}", v.name, v.major, v.minor)).collect();
    let client = json!({"Version": env!("CARGO_PKG_VERSION"), "Contracts": contracts});
    let version = json!({"Client": client, "Server": {"Components": object["Daemons"]}});
    match format {
        None | Some("") => {
            output::line(format!("davit      {} ({})", env!("CARGO_PKG_VERSION"), contracts.join(", ")));
            for d in object["Daemons"].as_array().into_iter().flatten() {
                let text = |key: &str| d[key].as_str().unwrap_or_default().to_owned();
                let name = text("Name").trim_start_matches("davit-").to_owned();
                let version = text("Version");
                if version.is_empty() {
                    output::line(format!("{name:10} not running"));
                } else {
                    output::line(format!("{name:10} {version}"));
                }
            }
            Ok(())
        }
        Some("json") => {
            output::line(version.to_string());
            Ok(())
        }
        Some(text) => {
            output::print(&format::inspected(Some(text), &[version])?);
            Ok(())
        }
    }
}

/// `davit info`
pub async fn info(app: &App, format: Option<&str>) -> Outcome {
    let all = ListRequest { all: true, ..ListRequest::default() };
    let containers = app.runtime(app.containers().await?.list(all)).await?.containers;
    let images = app.storage(app.images().await?.list(ListImagesRequest::default())).await?.images;
    let count = |wanted: &[&str]| {
        let is = |c: &&davit_contracts::runtime::Container| {
            c.state.as_ref().is_some_and(|s| wanted.contains(&s.status.as_str()))
        };
        containers.iter().filter(is).count()
    };
    let answers = status::ask(app).await;
    let report = supervisor::status(&app.layout).unwrap_or_default();
    let mut object = status::object(app, &answers, report.as_ref());
    object["ServerVersion"] = json!(env!("CARGO_PKG_VERSION"));
    object["Containers"] = json!(containers.len());
    object["ContainersRunning"] = json!(count(&["running"]));
    object["ContainersPaused"] = json!(count(&["paused"]));
    object["ContainersStopped"] = json!(count(&["exited", "created", "dead"]));
    object["Images"] = json!(images.len());
    object["Driver"] = object["Daemons"][0]["Driver"].clone();
    object["Architecture"] = json!(std::env::consts::ARCH);
    let kernel = |file: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
        json!(text.trim())
    };
    object["KernelVersion"] = kernel("osrelease");
    object["Name"] = kernel("hostname");
    object["NCPU"] = json!(std::thread::available_parallelism().map_or(1, usize::from));
    match format {
        None | Some("") => output::print(&text(&object)),
        Some("json") => output::line(object.to_string()),
        Some(template) => output::print(&format::inspected(Some(template), &[object])?),
    }
    Ok(())
}

fn text(object: &Value) -> String {
    let string = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut lines: Vec<String> = Vec::new();
    for (title, key) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Version", "ServerVersion"),
        ("Storage driver", "Driver"),
        ("Rootless", "Rootless"),
        ("Kernel", "KernelVersion"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("State", "StateDir"),
        ("Sockets", "RunDir"),
        ("Configuration", "ConfigDir"),
    ] {
        lines.push(format!("{title}: {}", string(&object[key])));
    }
    for d in object["Daemons"].as_array().into_iter().flatten() {
        lines.push(format!("{}: {}", string(&d["Name"]), string(&d["Health"])));
        for (key, value) in d["Details"].as_object().into_iter().flatten() {
            lines.push(format!(" {key}: {}", string(value)));
        }
        for reason in d["Reasons"].as_array().into_iter().flatten() {
            lines.push(format!(" {}", string(reason)));
        }
    }
    for limit in object["Limits"].as_array().into_iter().flatten() {
        lines.push(format!("rootless: {}", string(limit)));
    }
    lines.push(String::new());
    lines.join("\n")
}
