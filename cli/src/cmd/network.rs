//! Networks: ls, inspect, rm, connect, disconnect, prune.

use davit_contracts::Kind;
use davit_contracts::network::{
    Bandwidth, EndpointSpec, InspectNetworkRequest, ListNetworksRequest, PruneNetworksRequest,
    RemoveNetworkRequest, SetPolicyRequest,
};
use davit_contracts::runtime::{ConnectNetworkRequest, DisconnectNetworkRequest};

use super::confirm::confirm;
use super::{inspect, net_check, net_create, net_explain, net_graph};
use crate::app::{App, each};
use crate::args::network::{
    ConnectArgs, DisconnectArgs, ListArgs, NetworkCommand, PolicyArgs, PruneArgs, RemoveArgs,
};
use crate::error::{Failure, Outcome};
use crate::output;
use crate::output::format::Format;
use crate::output::words;
use crate::parse;
use crate::view;

/// `davit network ...`
pub async fn network(app: &App, command: NetworkCommand) -> Outcome {
    match command {
        NetworkCommand::Create(args) => net_create::create(app, &args).await,
        NetworkCommand::Ls(args) => list(app, &args).await,
        NetworkCommand::Inspect(args) => {
            inspect::inspect(app, args.format.as_deref(), Some("network"), false, &args.names).await
        }
        NetworkCommand::Rm(args) => remove(app, &args).await,
        NetworkCommand::Connect(args) => connect(app, &args).await,
        NetworkCommand::Disconnect(args) => disconnect(app, &args).await,
        NetworkCommand::Policy(args) => policy(app, &args).await,
        NetworkCommand::Prune(args) => prune(app, &args).await,
        NetworkCommand::Check(args) => net_check::check(app, &args).await,
        NetworkCommand::Explain(args) => net_explain::explain(app, &args).await,
        NetworkCommand::Graph(args) => net_graph::graph(app, &args).await,
    }
}

/// docker's.
const PRUNE_WARNING: &str =
    "WARNING! This will remove all custom networks not used by at least one container.";

async fn list(app: &App, args: &ListArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), args.quiet)?;
    let request = ListNetworksRequest { filters: view::network::filters(&args.filter) };
    let answer = app.network(app.networks().await?.list(request)).await?;
    let mut networks = answer.networks;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<_> = networks.iter().map(|n| view::network::row(n, args.no_trunc)).collect();
    output::print(&format.show(&rows, &view::network::COLUMNS, "ID")?);
    Ok(())
}

async fn remove(app: &App, args: &RemoveArgs) -> Outcome {
    each(&args.networks, |network| async {
        // docker's -f forgives what is missing. Whom a network would be taken from is not for it to decide.
        let request = RemoveNetworkRequest { name: network.clone(), force: false };
        match app.network(app.networks().await?.remove(request)).await {
            Ok(_) => Ok(network),
            Err(Failure::Told(e)) if args.force && e.kind() == Kind::NotFound => {
                crate::error::tell(&e);
                Ok(String::new())
            }
            Err(Failure::Told(e)) if e.kind() == Kind::InUse => {
                Err(e.with_hint("disconnect or remove these containers first").into())
            }
            Err(e) => Err(e),
        }
    })
    .await
}

/// By runtimed, which knows the container also when it does not run.
async fn connect(app: &App, args: &ConnectArgs) -> Outcome {
    let endpoint = EndpointSpec {
        network: args.network.clone(),
        aliases: args.alias.clone(),
        ip: args.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        ip6: args.ip6.map(|ip| ip.to_string()).unwrap_or_default(),
        mac: args.mac_address.clone().unwrap_or_default(),
        interface: args.interface_name.clone().unwrap_or_default(),
        gateway_priority: args.gw_priority,
        links: args.link.clone(),
        bandwidth: limits(args),
        options: args.driver_opt.iter().cloned().collect(),
    };
    let request = ConnectNetworkRequest { container: args.container.clone(), endpoint: Some(endpoint) };
    app.runtime(app.containers().await?.connect_network(request)).await.map(drop)
}

fn limits(args: &ConnectArgs) -> Option<Bandwidth> {
    let limits = Bandwidth {
        ingress_rate: args.ingress_rate.unwrap_or(0),
        ingress_burst: args.ingress_burst.unwrap_or(0),
        egress_rate: args.egress_rate.unwrap_or(0),
        egress_burst: args.egress_burst.unwrap_or(0),
    };
    (limits != Bandwidth::default()).then_some(limits)
}

async fn disconnect(app: &App, args: &DisconnectArgs) -> Outcome {
    let request = DisconnectNetworkRequest {
        container: args.container.clone(),
        network: args.network.clone(),
        force: args.force,
    };
    app.runtime(app.containers().await?.disconnect_network(request)).await.map(drop)
}

/// Sets a policy, or shows it as it would be typed.
async fn policy(app: &App, args: &PolicyArgs) -> Outcome {
    let show = args.rules.is_empty() && args.default.is_none() && !args.clear;
    if show {
        let request = InspectNetworkRequest { name: args.network.clone() };
        let network = app.network(app.networks().await?.inspect(request)).await?;
        for rule in &network.policy {
            output::line(parse::policy::show(rule));
        }
        if !network.policy_default.is_empty() {
            output::line(format!("{} what no rule matches", network.policy_default));
        }
        return Ok(());
    }
    let request = SetPolicyRequest {
        network: args.network.clone(),
        rules: args.rules.clone(),
        default_action: args.default.clone().unwrap_or_default(),
    };
    let network = app.network(app.networks().await?.set_policy(request)).await?;
    output::line(network.name);
    Ok(())
}

async fn prune(app: &App, args: &PruneArgs) -> Outcome {
    let filters = view::network::prune_filters(&args.filter, words::now())?;
    if !args.force && !confirm(PRUNE_WARNING)? {
        return Ok(());
    }
    let answer = app.network(app.networks().await?.prune(PruneNetworksRequest { filters })).await?;
    if !answer.removed.is_empty() {
        output::line("Deleted Networks:");
        answer.removed.iter().for_each(output::line);
    }
    super::prune::tell_failed(&answer.failed)
}
