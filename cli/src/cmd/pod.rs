//! Pods: create, add, ps, inspect, rm, and what is done to all containers of one.

use davit_contracts::runtime::{
    AddToPodRequest, Container, CreatePodRequest, InspectPodRequest, KillRequest, ListPodsRequest,
    PauseRequest, Pod, RemovePodRequest, StartPodRequest, StartRequest, StopRequest, UnpauseRequest,
};

use super::create::{CidFile, warn};
use crate::app::{App, each};
use crate::args::pod::{
    AddArgs, CreateArgs, InspectArgs, KillArgs, PodCommand, PsArgs, RemoveArgs, StopArgs,
};
use crate::error::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::words;
use crate::{output, spec, view};

/// `davit pod ...`
pub async fn pod(app: &App, command: PodCommand) -> Outcome {
    match command {
        PodCommand::Create(args) => create(app, &args).await,
        PodCommand::Add(args) => add(app, &args).await,
        PodCommand::Ps(args) => list(app, &args).await,
        PodCommand::Inspect(args) => inspect(app, &args).await,
        PodCommand::Start(args) => each(&args.pods, |pod| start(app, pod)).await,
        PodCommand::Stop(args) => stop(app, &args).await,
        PodCommand::Restart(args) => {
            each(&args.pods, |pod| async {
                stop_one(app, &pod, None).await?;
                start(app, pod).await
            })
            .await
        }
        PodCommand::Kill(args) => kill(app, &args).await,
        PodCommand::Pause(args) => each(&args.pods, |pod| freeze(app, pod, true)).await,
        PodCommand::Unpause(args) => each(&args.pods, |pod| freeze(app, pod, false)).await,
        PodCommand::Rm(args) => remove(app, &args).await,
    }
}

async fn create(app: &App, args: &CreateArgs) -> Outcome {
    let request = CreatePodRequest {
        name: args.name.clone().or_else(|| args.pod.clone()).unwrap_or_default(),
        network: Some(spec::pod_network(args)?),
        labels: args.label.iter().cloned().collect(),
        shared: args.share.clone(),
        hostname: args.hostname.clone().unwrap_or_default(),
        extra_hosts: args.add_host.iter().map(|h| spec::extra_host(h)).collect::<Result<_, _>>()?,
        sysctls: args.sysctl.iter().cloned().collect(),
    };
    let file = CidFile::reserve(args.pod_id_file.as_deref())?;
    let made = app.runtime(app.pods().await?.create(request)).await?;
    warn(&made.warnings);
    file.write(&made.id)?;
    output::line(made.id);
    Ok(())
}

async fn add(app: &App, args: &AddArgs) -> Outcome {
    each(&args.containers, |container| async {
        let request = AddToPodRequest { pod: args.pod.clone(), container: container.clone() };
        app.runtime(app.pods().await?.add(request)).await.map(|_| container)
    })
    .await
}

async fn list(app: &App, args: &PsArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), args.quiet)?;
    let answer = app.runtime(app.pods().await?.list(ListPodsRequest {})).await?;
    let now = words::now();
    let mut rows = Vec::new();
    for pod in &answer.pods {
        if view::pod::passes(pod, &args.filter)? {
            rows.push(view::pod::row(pod, now, args.no_trunc));
        }
    }
    output::print(&format.show(&rows, &view::pod::COLUMNS, "Id")?);
    Ok(())
}

async fn inspect(app: &App, args: &InspectArgs) -> Outcome {
    let mut found = Vec::new();
    let mut failed = false;
    for name in &args.pods {
        match one(app, name).await {
            Ok(pod) => found.push(view::pod::inspect(&pod)),
            Err(e) => {
                e.tell();
                failed = true;
            }
        }
    }
    output::print(&format::inspected(args.format.as_deref(), &found)?);
    if failed { Err(Failure::Code(1)) } else { Ok(()) }
}

async fn one(app: &App, name: &str) -> Outcome<Pod> {
    let request = InspectPodRequest { pod: name.to_owned() };
    Ok(app.runtime(app.pods().await?.inspect(request)).await?.pod.unwrap_or_default())
}

fn is(c: &Container, words: &[&str]) -> bool {
    c.state.as_ref().is_some_and(|s| words.contains(&s.status.as_str()))
}

/// The infra container, and everything that does not run.
async fn start(app: &App, name: String) -> Outcome<String> {
    let request = StartPodRequest { pod: name.clone() };
    warn(&app.runtime(app.pods().await?.start(request)).await?.warnings);
    for c in one(app, &name).await?.containers.iter().filter(|c| is(c, &["created", "exited"])) {
        let request = StartRequest { container: c.id.clone(), hold_for_attach: false };
        app.runtime(app.containers().await?.start(request)).await?;
    }
    Ok(name)
}

async fn stop(app: &App, args: &StopArgs) -> Outcome {
    each(&args.pods, |pod| async {
        stop_one(app, &pod, args.time).await?;
        Ok(pod)
    })
    .await
}

/// The infra container last: until then its namespaces have a holder.
async fn stop_one(app: &App, name: &str, time: Option<u32>) -> Outcome {
    let pod = one(app, name).await?;
    let stop = async |c: &Container, timeout_s: Option<u32>| {
        let request = StopRequest { container: c.id.clone(), timeout_s, signal: String::new() };
        app.runtime(app.containers().await?.stop(request)).await.map(drop)
    };
    let stopped = futures::future::join_all(pod.containers.iter().map(|c| stop(c, time))).await;
    stopped.into_iter().collect::<Outcome<()>>()?;
    match &pod.infra {
        Some(infra) => stop(infra, Some(0)).await,
        None => Ok(()),
    }
}

async fn kill(app: &App, args: &KillArgs) -> Outcome {
    each(&args.pods, |pod| async {
        for c in one(app, &pod).await?.containers.iter().filter(|c| is(c, &["running", "paused"])) {
            let request = KillRequest { container: c.id.clone(), signal: args.signal.clone() };
            app.runtime(app.containers().await?.kill(request)).await?;
        }
        Ok(pod)
    })
    .await
}

async fn freeze(app: &App, name: String, freeze: bool) -> Outcome<String> {
    let word = if freeze { "running" } else { "paused" };
    for c in one(app, &name).await?.containers.iter().filter(|c| is(c, &[word])) {
        let container = c.id.clone();
        let mut containers = app.containers().await?;
        if freeze {
            app.runtime(containers.pause(PauseRequest { container })).await?;
        } else {
            app.runtime(containers.unpause(UnpauseRequest { container })).await?;
        }
    }
    Ok(name)
}

async fn remove(app: &App, args: &RemoveArgs) -> Outcome {
    each(&args.pods, |pod| async {
        let request = RemovePodRequest { pod: pod.clone(), force: args.force };
        app.runtime(app.pods().await?.remove(request)).await.map(|_| pod)
    })
    .await
}
