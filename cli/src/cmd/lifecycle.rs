//! stop, restart, kill, rm, wait, pause, unpause, rename.

use std::time::Duration;

use davit_contracts::runtime::wait_request::Condition;
use davit_contracts::runtime::{
    KillRequest, ListRequest, PauseRequest, RemoveRequest, RenameRequest, Resources, RestartRequest,
    StopRequest, UnpauseRequest, UpdateRequest, WaitRequest,
};
use davit_contracts::{Kind, id};

use crate::app::{App, at_once, each};
use crate::args::container::{KillArgs, RemoveArgs, RenameArgs, RestartArgs, StopArgs};
use crate::args::lifecycle::{UpdateArgs, WaitArgs};
use crate::error::{Failure, Outcome};
use crate::spec;

/// `davit stop`: several at once, because each may take its whole time.
pub async fn stop(app: &App, args: &StopArgs) -> Outcome {
    let names = named(app, &args.containers, args.all, args.latest, false).await?;
    at_once(&names, |container| async {
        let request = StopRequest {
            container: container.clone(),
            timeout_s: args.time,
            signal: args.signal.clone().unwrap_or_default(),
        };
        match app.runtime(app.containers().await?.stop(request)).await {
            Err(Failure::Told(e)) if args.ignore && e.kind() == Kind::NotFound => Ok(String::new()),
            answer => answer.map(|_| container),
        }
    })
    .await
}

/// `davit restart`
pub async fn restart(app: &App, args: &RestartArgs) -> Outcome {
    at_once(&args.containers, |container| async {
        let signal = args.signal.clone().unwrap_or_default();
        let request = RestartRequest { signal, container: container.clone(), timeout_s: args.time };
        app.runtime(app.containers().await?.restart(request)).await.map(|_| container)
    })
    .await
}

/// `davit kill`
pub async fn kill(app: &App, args: &KillArgs) -> Outcome {
    each(&args.containers, |container| async {
        let request = KillRequest { container: container.clone(), signal: args.signal.clone() };
        app.runtime(app.containers().await?.kill(request)).await.map(|_| container)
    })
    .await
}

/// `davit rm`; with -f a container that does not exist is said but no failure.
pub async fn remove(app: &App, args: &RemoveArgs) -> Outcome {
    let names = named(app, &args.containers, args.all, args.latest, true).await?;
    at_once(&names, |container| async {
        let request =
            RemoveRequest { container: container.clone(), force: args.force, volumes: args.volumes };
        match app.runtime(app.containers().await?.remove(request)).await {
            Ok(_) => Ok(container),
            Err(Failure::Told(e)) if (args.force || args.ignore) && e.kind() == Kind::NotFound => {
                if !args.ignore {
                    crate::error::tell(&e);
                }
                Ok(String::new())
            }
            Err(e) => Err(e),
        }
    })
    .await
}

/// `davit wait`: a daemon that is replaced meanwhile is asked again.
pub async fn wait(app: &App, args: &WaitArgs) -> Outcome {
    let (condition, states) = &conditions(&args.condition)?;
    at_once(&args.containers, |container| async move {
        let mut tries = 0;
        loop {
            let request = WaitRequest {
                container: container.clone(),
                condition: *condition as i32,
                states: states.clone(),
            };
            match app.runtime(app.containers().await?.wait(request)).await {
                Ok(answer) => return Ok(answer.exit_code.to_string()),
                Err(Failure::Told(e)) if is_interruption(&e) && tries < 100 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(e) => return Err(e),
            }
        }
    })
    .await
}

/// docker's three conditions stand alone; of podman's states there may be several, and one is enough.
fn conditions(words: &[String]) -> Result<(Condition, Vec<String>), String> {
    let single = |word: &str| match word {
        "not-running" => Some(Condition::NotRunning),
        "next-exit" => Some(Condition::NextExit),
        "removed" => Some(Condition::Removed),
        _ => None,
    };
    match words {
        [] => Ok((Condition::NotRunning, Vec::new())),
        [word] if single(word).is_some() => Ok((single(word).unwrap_or_default(), Vec::new())),
        _ => match words.iter().find(|w| single(w).is_some()) {
            Some(word) => Err(format!("--condition {word} cannot be combined with others")),
            None => Ok((Condition::States, words.iter().map(|w| ours(w).to_owned()).collect())),
        },
    }
}

/// podman's words that are called otherwise here.
fn ours(state: &str) -> &str {
    match state {
        "configured" | "initialized" => "created",
        other => other,
    }
}

/// The containers that a command is about: those named, all of them, or the latest.
async fn named(app: &App, names: &[String], all: bool, latest: bool, ended: bool) -> Outcome<Vec<String>> {
    match (names, all, latest) {
        ([], false, false) => {
            Err(Failure::Usage("a container is missing: name one, or give --all or --latest".into()))
        }
        ([], true, false) | ([], false, true) => {
            let request =
                ListRequest { all: ended || latest, last: u32::from(latest), ..ListRequest::default() };
            let found = app.runtime(app.containers().await?.list(request)).await?.containers;
            Ok(found.into_iter().map(|c| c.name).collect())
        }
        (names, false, false) => Ok(names.to_vec()),
        _ => Err(Failure::Usage("names, --all and --latest exclude one another".into())),
    }
}

/// `davit update`
pub async fn update(app: &App, args: &UpdateArgs) -> Outcome {
    let (resources, restart) = (resources(args), args.restart.as_deref().map(spec::policy).transpose()?);
    if resources == Resources::default() && restart.is_none() {
        return Err(Failure::Usage("you must provide one or more flags when using this command".into()));
    }
    each(&args.containers, |container| async {
        let request = UpdateRequest {
            container: container.clone(),
            resources: Some(resources.clone()),
            restart: restart.clone(),
        };
        let answer = app.runtime(app.containers().await?.update(request)).await?;
        super::create::warn(&answer.warnings);
        Ok(container)
    })
    .await
}

fn resources(args: &UpdateArgs) -> Resources {
    Resources {
        nano_cpus: args.cpus.unwrap_or(0),
        cpu_shares: args.cpu_shares.unwrap_or(0),
        cpu_quota: args.cpu_quota.unwrap_or(0),
        cpu_period: args.cpu_period.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        memory: args.memory.unwrap_or(0),
        memory_swap: args.memory_swap.unwrap_or(0),
        memory_reservation: args.memory_reservation.unwrap_or(0),
        pids_limit: args.pids_limit.unwrap_or(0),
        blkio_weight: args.blkio_weight.unwrap_or(0),
        ..Resources::default()
    }
}

/// Whether asking again makes sense: the daemon ended meanwhile, or is being started.
pub fn is_interruption(e: &davit_contracts::Error) -> bool {
    e.kind() == Kind::Unavailable
}

/// `davit pause`
pub async fn pause(app: &App, containers: &[String]) -> Outcome {
    each(containers, |container| async {
        let request = PauseRequest { container: container.clone() };
        app.runtime(app.containers().await?.pause(request)).await.map(|_| container)
    })
    .await
}

/// `davit unpause`
pub async fn unpause(app: &App, containers: &[String]) -> Outcome {
    each(containers, |container| async {
        let request = UnpauseRequest { container: container.clone() };
        app.runtime(app.containers().await?.unpause(request)).await.map(|_| container)
    })
    .await
}

/// `davit rename`
pub async fn rename(app: &App, args: &RenameArgs) -> Outcome {
    id::check_name(args.name.strip_prefix('/').unwrap_or(&args.name)).map_err(|e| e.to_string())?;
    let request = RenameRequest { container: args.container.clone(), name: args.name.clone() };
    app.runtime(app.containers().await?.rename(request)).await.map(drop)
}
