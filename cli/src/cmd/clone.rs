//! `davit clone`.

use davit_contracts::Kind;
use davit_contracts::runtime::{
    CloneRequest, CloneResponse, InspectRequest, RemoveRequest, Resources, StartRequest,
};

use super::create::warn;
use crate::app::App;
use crate::args::clone::CloneArgs;
use crate::error::{Failure, Outcome};
use crate::{output, parse};

/// `davit clone`: prints the clone's id, whatever becomes of its start.
pub async fn clone(app: &App, args: &CloneArgs) -> Outcome {
    let request = request(args)?;
    if args.destroy && !args.force {
        still(app, &args.container).await?;
    }
    let made: CloneResponse = {
        let mut containers = app.containers().await?;
        app.runtime(containers.clone_from(request)).await?
    };
    let ports = |warning: &&String| !(args.destroy && warning.contains("only one of them can run"));
    warn(&made.warnings.iter().filter(ports).cloned().collect::<Vec<_>>());
    output::line(&made.id);
    if args.destroy {
        let request = RemoveRequest { container: args.container.clone(), force: args.force, volumes: true };
        app.runtime(app.containers().await?.remove(request)).await?;
    }
    if args.run {
        let request = StartRequest { container: made.id.clone(), hold_for_attach: false };
        warn(&app.runtime(app.containers().await?.start(request)).await?.warnings);
    }
    Ok(())
}

/// Refuses to remove what runs before it is copied.
async fn still(app: &App, name: &str) -> Outcome {
    let request = InspectRequest { container: name.to_owned() };
    let container = app.runtime(app.containers().await?.inspect(request)).await?.container;
    let status = container.and_then(|c| c.state).map(|s| s.status).unwrap_or_default();
    if matches!(status.as_str(), "running" | "paused" | "restarting") {
        let text = format!("container {name} is {status}: stop it before, or use --force with --destroy");
        return Err(Failure::new(Kind::WrongState, text));
    }
    Ok(())
}

fn request(args: &CloneArgs) -> Result<CloneRequest, String> {
    let name = args.name_flag.as_ref().or(args.name.as_ref());
    if let Some(name) = name {
        davit_contracts::id::check_name(name).map_err(|e| e.to_string())?;
    }
    let published = args.publish.iter().map(|text| Ok((text.as_str(), parse::port::publish(text)?)));
    let published = published.collect::<Result<Vec<_>, String>>()?;
    if let Some((one, other)) = parse::port::clash(&published) {
        return Err(format!("-p {one} and -p {other} are for the same port of the host"));
    }
    let resources = Resources {
        nano_cpus: args.cpus.unwrap_or(0),
        cpu_shares: args.cpu_shares.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        memory: args.memory.unwrap_or(0) as i64,
        memory_swap: args.memory_swap.unwrap_or(0),
        pids_limit: args.pids_limit.unwrap_or(0).max(0),
        ..Resources::default()
    };
    Ok(CloneRequest {
        container: args.container.clone(),
        name: name.cloned().unwrap_or_default(),
        hostname: args.hostname.clone().unwrap_or_default(),
        resources: Some(resources),
        replace_ports: !published.is_empty(),
        ports: published.into_iter().flat_map(|(_, mappings)| mappings).collect(),
        no_freeze: !args.pause,
        durable: args.destroy,
    })
}
