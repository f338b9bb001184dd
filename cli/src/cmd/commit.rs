//! `davit commit`: an image of a container's changes.

use davit_contracts::runtime::{Container, ContainerSpec, PauseRequest, UnpauseRequest};
use davit_contracts::storage::{CommitRequest, HealthCheck, ImageConfig, ImageDone, InspectImageRequest};

use super::export::{find, named, process};
use super::pull::show;
use crate::app::App;
use crate::args::tree::CommitArgs;
use crate::error::{Failure, Outcome};
use crate::output;

/// `davit commit`. A running container is paused meanwhile, and goes on whatever becomes of the image.
pub async fn commit(app: &App, args: &CommitArgs) -> Outcome {
    let container = find(app, &args.container).await?;
    let request = InspectImageRequest { reference: container.image_id.clone() };
    let image = app.storage(app.images().await?.inspect(request)).await?;
    let spec = container.spec.clone().unwrap_or_default();
    let (pid, pid_start_ticks) = process(app, &container).await?;
    let request = CommitRequest {
        snapshot_key: container.id.clone(),
        reference: args.reference.clone().unwrap_or_default(),
        changes: args.change.clone(),
        author: args.author.clone(),
        message: args.message.clone(),
        config: Some(merged(&spec, image.config.unwrap_or_default())),
        container_id: container.id.clone(),
        pid,
        pid_start_ticks,
    };
    let running = container.state.as_ref().is_some_and(|s| s.status == "running");
    let images =
        if running && args.pause { paused(app, &container, request).await } else { send(app, request).await };
    for image in images.map_err(|e| named(e, &container, &args.container))? {
        output::line(image.image_id);
    }
    Ok(())
}

async fn send(app: &App, request: CommitRequest) -> Outcome<Vec<ImageDone>> {
    let stream = app.storage(app.images().await?.commit(request)).await?;
    show(app, stream, true).await
}

async fn paused(app: &App, container: &Container, request: CommitRequest) -> Outcome<Vec<ImageDone>> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::io("cannot wait for signals", &e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let pause = PauseRequest { container: container.id.clone() };
    app.runtime(app.containers().await?.pause(pause)).await?;
    let result = tokio::select! {
        result = send(app, request) => result,
        _ = interrupt.recv() => Err(Failure::Code(130)),
        _ = terminate.recv() => Err(Failure::Code(143)),
        _ = hang_up.recv() => Err(Failure::Code(129)),
    };
    let unpause = UnpauseRequest { container: container.id.clone() };
    let resumed = app.runtime(app.containers().await?.unpause(unpause)).await;
    let images = result?;
    resumed?;
    Ok(images)
}

/// What the container was run with over what its image says, as docker keeps it.
fn merged(spec: &ContainerSpec, image: ImageConfig) -> ImageConfig {
    let mut config = image;
    match &spec.entrypoint {
        Some(entrypoint) => {
            config.entrypoint = entrypoint.values.iter().filter(|v| !v.is_empty()).cloned().collect();
            config.cmd.clone_from(&spec.command);
        }
        None if !spec.command.is_empty() => config.cmd.clone_from(&spec.command),
        None => {}
    }
    for entry in &spec.env {
        let key = entry.split('=').next().unwrap_or_default();
        let same = |e: &String| e.split('=').next() == Some(key);
        match (config.env.iter().position(same), entry.contains('=')) {
            (Some(at), true) => config.env[at].clone_from(entry),
            (Some(at), false) => drop(config.env.remove(at)),
            (None, true) => config.env.push(entry.clone()),
            (None, false) => {}
        }
    }
    let over = |asked: &String, image: &mut String| {
        if !asked.is_empty() {
            image.clone_from(asked);
        }
    };
    over(&spec.working_dir, &mut config.working_dir);
    over(&spec.user, &mut config.user);
    over(&spec.stop_signal, &mut config.stop_signal);
    config.labels.extend(spec.labels.clone());
    let ports = spec.network.iter().flat_map(|n| &n.ports);
    let ports = ports.map(|p| {
        let protocol = if p.protocol.is_empty() { "tcp" } else { &p.protocol };
        format!("{}/{protocol}", p.container_port)
    });
    let anonymous = spec.mounts.iter().filter(|m| m.r#type == "volume" && m.source.is_empty());
    add_new(&mut config.exposed_ports, ports);
    add_new(&mut config.volumes, anonymous.map(|m| m.target.clone()));
    if let Some(health) = &spec.health {
        config.healthcheck = Some(HealthCheck {
            test: health.test.clone(),
            interval_ns: health.interval_ns,
            timeout_ns: health.timeout_ns,
            start_period_ns: health.start_period_ns,
            retries: health.retries,
            start_interval_ns: health.start_interval_ns,
        });
    }
    config
}

fn add_new(all: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use davit_contracts::runtime::StringList;

    use super::*;

    #[test]
    fn what_was_asked_for_goes_over_what_the_image_says() {
        let words = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let image = || ImageConfig {
            env: words(&["A=1", "B=2"]),
            entrypoint: words(&["/entry"]),
            cmd: words(&["default"]),
            user: "web".into(),
            exposed_ports: words(&["80/tcp"]),
            ..ImageConfig::default()
        };
        let plain = merged(&ContainerSpec::default(), image());
        assert_eq!(plain, image());
        let spec = ContainerSpec {
            command: words(&["sleep", "1"]),
            env: words(&["B=3", "C=4", "A"]),
            working_dir: "/w".into(),
            ..ContainerSpec::default()
        };
        let config = merged(&spec, image());
        assert_eq!((config.entrypoint, config.cmd), (words(&["/entry"]), words(&["sleep", "1"])));
        assert_eq!((config.env, config.user.as_str()), (words(&["B=3", "C=4"]), "web"));
        assert_eq!(config.working_dir, "/w");
        let entry = StringList { values: words(&["/other"]) };
        let config = merged(&ContainerSpec { entrypoint: Some(entry), ..ContainerSpec::default() }, image());
        assert_eq!((config.entrypoint, config.cmd), (words(&["/other"]), Vec::new()));
    }
}
