//! Networks: create, ls, inspect, rm, connect, disconnect, prune.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;

use davit_contracts::network::{
    Bandwidth, CreateNetworkRequest, EndpointSpec, InspectNetworkRequest, ListNetworksRequest,
    PruneNetworksRequest, RemoveNetworkRequest, SetPolicyRequest, Subnet,
};
use davit_contracts::runtime::{ConnectNetworkRequest, DisconnectNetworkRequest};
use davit_contracts::{Kind, id};
use ipnet::IpNet;

use super::{inspect, net_check, net_explain, net_graph};
use crate::app::{App, each};
use crate::args::network::{
    ConnectArgs, CreateArgs, DisconnectArgs, ListArgs, NetworkCommand, PolicyArgs, PruneArgs, RemoveArgs,
};
use crate::error::{Failure, Outcome};
use crate::output;
use crate::output::format::Format;
use crate::parse;
use crate::view;

/// `davit network ...`
pub async fn network(app: &App, command: NetworkCommand) -> Outcome {
    match command {
        NetworkCommand::Create(args) => create(app, &args).await,
        NetworkCommand::Ls(args) => list(app, &args).await,
        NetworkCommand::Inspect(args) => {
            inspect::inspect(app, args.format.as_deref(), Some("network"), &args.names).await
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

async fn create(app: &App, args: &CreateArgs) -> Outcome {
    id::check_name(&args.name).map_err(|e| e.to_string())?;
    let mut options: HashMap<String, String> = args.opt.iter().cloned().collect();
    let cni_config = match options.remove("conflist") {
        Some(path) if args.driver == "cni" => conflist(&path)?,
        Some(_) => return Err("'-o conflist=' goes with '-d cni' only".to_owned().into()),
        None => String::new(),
    };
    let request = CreateNetworkRequest {
        name: args.name.clone(),
        driver: args.driver.clone(),
        subnets: subnets(&args.subnet, &args.gateway, &args.ip_range, &args.aux_address)?,
        ipv6: args.ipv6,
        internal: args.internal,
        attachable: args.attachable,
        options,
        labels: args.label.iter().cloned().collect(),
        disable_dns: args.disable_dns,
        cni_config,
        disable_ipv4: !args.ipv4,
    };
    let network = app.network(app.networks().await?.create(request)).await?;
    if !args.policy.is_empty() || args.policy_default != "allow" {
        let set = SetPolicyRequest {
            network: network.id.clone(),
            rules: args.policy.clone(),
            default_action: args.policy_default.clone(),
        };
        if let Err(e) = app.network(app.networks().await?.set_policy(set)).await {
            let undo = RemoveNetworkRequest { name: network.id, force: false };
            app.network(app.networks().await?.remove(undo)).await?;
            return Err(e);
        }
    }
    output::line(network.id);
    Ok(())
}

/// The largest configuration list that netd takes.
const LARGEST_CONFLIST: u64 = 1 << 20;

/// Reads the CNI configuration list of a cni network.
fn conflist(path: &str) -> Result<String, String> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(LARGEST_CONFLIST + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() as u64 > LARGEST_CONFLIST => Err(format!("{path} is larger than 1 MiB")),
        Ok(text) => Ok(text),
        Err(e) => Err(format!("cannot read the configuration list {path}: {e}")),
    }
}

/// Puts gateways, ranges and reserved addresses to the subnet that holds them.
fn subnets(
    nets: &[IpNet],
    gateways: &[IpAddr],
    ranges: &[IpNet],
    aux: &[(String, String)],
) -> Result<Vec<Subnet>, String> {
    let mut out: Vec<Subnet> =
        nets.iter().map(|net| Subnet { subnet: net.trunc().to_string(), ..Subnet::default() }).collect();
    let home = |what: &str, inside: &dyn Fn(&IpNet) -> bool| {
        nets.iter().position(inside).ok_or_else(|| format!("{what} is in none of the subnets"))
    };
    for gateway in gateways {
        let n = home(&format!("the gateway {gateway}"), &|net| net.contains(gateway))?;
        if !out[n].gateway.is_empty() {
            return Err(format!("the subnet {} has two gateways", out[n].subnet));
        }
        out[n].gateway = gateway.to_string();
    }
    for range in ranges {
        let n = home(&format!("the range {range}"), &|net| net.contains(range))?;
        out[n].ip_range = range.to_string();
    }
    for (name, address) in aux {
        let ip: IpAddr = address.parse().map_err(|_| format!("'{address}' is not an address"))?;
        let n = home(&format!("the address {ip}"), &|net| net.contains(&ip))?;
        out[n].aux_addresses.insert(name.clone(), ip.to_string());
    }
    Ok(out)
}

async fn list(app: &App, args: &ListArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), args.quiet)?;
    let request = ListNetworksRequest { filters: view::filters(&args.filter) };
    let answer = app.network(app.networks().await?.list(request)).await?;
    let mut networks = answer.networks;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<_> = networks.iter().map(|n| view::network::row(n, args.no_trunc)).collect();
    output::print(&format.show(&rows, &view::network::COLUMNS, "ID")?);
    Ok(())
}

async fn remove(app: &App, args: &RemoveArgs) -> Outcome {
    each(&args.networks, |network| async {
        let request = RemoveNetworkRequest { name: network.clone(), force: args.force };
        match app.network(app.networks().await?.remove(request)).await {
            Ok(_) => Ok(network),
            Err(Failure::Told(e)) if args.force && e.kind() == Kind::NotFound => {
                crate::error::tell(&e);
                Ok(String::new())
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
        egress_rate: args.egress_rate.unwrap_or(0),
        ..Bandwidth::default()
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
    let request = PruneNetworksRequest { filters: view::filters(&args.filter) };
    let answer = app.network(app.networks().await?.prune(request)).await?;
    for name in answer.removed {
        output::line(name);
    }
    super::prune::tell_failed(&answer.failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_find_their_subnets() {
        let nets = ["10.0.0.5/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let got = subnets(
            &nets,
            &["fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
            &["10.0.0.128/25".parse().unwrap()],
            &[("printer".into(), "10.0.0.9".into())],
        )
        .unwrap();
        assert_eq!((got[0].subnet.as_str(), got[0].gateway.as_str()), ("10.0.0.0/24", "10.0.0.1"));
        assert_eq!((got[0].ip_range.as_str(), got[1].gateway.as_str()), ("10.0.0.128/25", "fd00::1"));
        assert_eq!(got[0].aux_addresses["printer"], "10.0.0.9");
        assert!(subnets(&nets, &["10.1.0.1".parse().unwrap()], &[], &[]).is_err());
        assert!(subnets(&[], &["10.1.0.1".parse().unwrap()], &[], &[]).is_err());
    }
}
