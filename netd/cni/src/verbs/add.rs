//! ADD.

use std::os::fd::AsFd as _;

use davit_contracts::network::{AttachRequest, AttachResponse, DetachRequest, EndpointSpec, Holder};
use davit_contracts::{Error, Kind};
use davit_sys::netns;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;

use super::fit;
use super::identity::{CONFIGURATION, CONTAINER, INTERFACE, sandbox_id};
use super::remove::remove_network;
use crate::call::Attachment;
use crate::config::Config;
use crate::config::dns::Dns;
use crate::config::network::Wanted;
use crate::failure::{Code, Failure};
use crate::netd::{Netd, answer};
use crate::result::{Made, Object, endpoint_of, render};

/// How often a network is made that another ADD, which failed, had just removed again.
const TRIES: u32 = 3;

/// Attaches. One request to netd, unless the network is still to be made.
pub(super) async fn add(at: &Attachment, config: &Config) -> Result<Object, Failure> {
    let netd = Netd::connect(config.socket.as_deref()).await?;
    let mut made = false;
    let outcome = attach_to(&netd, at, config, &mut made).await;
    if outcome.is_err() && made {
        // Others may use it by now; then it stays.
        let _ = remove_network(&netd, config).await;
    }
    outcome
}

/// Attaches, and makes the network when it has to.
async fn attach_to(
    netd: &Netd,
    at: &Attachment,
    config: &Config,
    made: &mut bool,
) -> Result<Object, Failure> {
    let request = request(at, config);
    let mut tries = 0..TRIES;
    let attached = loop {
        match (attach(netd, request.clone()).await, &config.wanted) {
            (Err(error), Some(wanted)) if error.kind() == Kind::NotFound && tries.next().is_some() => {
                *made |= make(netd, config, wanted).await?;
            }
            (other, _) => break other.map_err(|error| refused(at, config, error))?,
        }
    };
    if let Err(failure) = is_meant(config, &attached) {
        // The network was there, and is another than the configuration means.
        let id = sandbox_id(&config.name, &at.container, &at.interface);
        let _ = answer(netd.endpoints().detach(DetachRequest { sandbox_id: id })).await;
        return Err(failure);
    }
    let endpoint = endpoint_of(&attached)?;
    let made = Made {
        endpoint,
        netns: at.netns.as_deref().and_then(|p| p.to_str()).unwrap_or_default(),
        dns: &dns(config, &attached),
    };
    Ok(render(config.version, config.previous.as_ref(), &made))
}

fn request(at: &Attachment, config: &Config) -> AttachRequest {
    let runtime = &config.runtime;
    let name = if at.args.pod.is_empty() { &at.container } else { &at.args.pod };
    let mut aliases = runtime.aliases.clone();
    // The sandbox's own short id goes on behind a container id that is shorter than it.
    aliases.push(at.container.chars().take(12).collect());
    if !at.args.pod.is_empty() && !at.args.namespace.is_empty() && at.args.pod != at.args.namespace {
        aliases.push(format!("{}.{}", at.args.pod, at.args.namespace));
    }
    let address = |v4: bool| {
        let asked = runtime.ips.iter().find(|ip| ip.is_ipv4() == v4).map(ToString::to_string);
        let argument = || Some(at.args.ip.clone()).filter(|ip| !ip.is_empty() && ip.contains(':') != v4);
        asked.or_else(argument).unwrap_or_default()
    };
    let spec = EndpointSpec {
        network: config.network.clone(),
        aliases,
        ip: address(true),
        ip6: address(false),
        mac: if runtime.mac.is_empty() { at.args.mac.clone() } else { runtime.mac.clone() },
        interface: at.interface.clone(),
        bandwidth: runtime.bandwidth,
        ..EndpointSpec::default()
    };
    let own = [(CONFIGURATION, &config.name), (CONTAINER, &at.container), (INTERFACE, &at.interface)];
    let own = own.map(|(key, value)| (key.to_owned(), value.clone()));
    let netns = at.netns.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    AttachRequest {
        sandbox_id: sandbox_id(&config.name, &at.container, &at.interface),
        holder: Some(Holder { netns, ..Holder::default() }),
        name: name.clone(),
        endpoints: vec![spec],
        ports: runtime.ports.clone(),
        dns_servers: if config.resolver { config.dns.nameservers.clone() } else { Vec::new() },
        dns_search: config.dns.search.clone(),
        dns_options: config.dns.options.clone(),
        labels: runtime.labels.clone().into_iter().chain(own).collect(),
        without_resolver: !config.resolver,
        must_be_new: true,
        ..AttachRequest::default()
    }
}

async fn attach(netd: &Netd, request: AttachRequest) -> Result<AttachResponse, Error> {
    answer(netd.endpoints().attach(request)).await
}

/// Whether it was made here: another ADD may make it at the same time.
async fn make(netd: &Netd, config: &Config, wanted: &Wanted) -> Result<bool, Failure> {
    let label = (CONFIGURATION.to_owned(), config.name.clone());
    let request = wanted.request(&config.network, &config.runtime.ranges, [label]);
    match answer(netd.networks().create(request)).await {
        Err(error) if error.kind() == Kind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == Kind::InUse => Err(Failure { code: Code::Config, ..error.into() }),
        other => Ok(other.map(|_| true)?),
    }
}

fn refused(at: &Attachment, config: &Config, error: Error) -> Failure {
    match error.kind() {
        Kind::AlreadyExists => {
            let message = format!("{} of container {} was added already", at.interface, at.container);
            Failure::new(Code::Attached, message).with_details("DEL has to come before another ADD")
        }
        // Only what is wrong with the path itself is about the path.
        Kind::InvalidArgument | Kind::Internal if names_path(at, &error) => {
            Failure::new(Code::Environment, format!("CNI_NETNS cannot be used: {error}"))
        }
        // The specification has ADD refuse an interface that is there. The kernel says it where it is made; looked for only
        // then, since an interface that is on its way out is no mistake.
        Kind::Internal | Kind::InUse if is_there(at) => {
            let message = format!(
                "CNI_IFNAME cannot be '{}': container {} has an interface of that name, which '{}' did not add",
                at.interface, at.container, config.name
            );
            Failure::new(Code::Environment, message).with_details(error.to_string())
        }
        _ => error.into(),
    }
}

fn names_path(at: &Attachment, error: &Error) -> bool {
    at.netns.as_deref().and_then(|path| path.to_str()).is_some_and(|path| path == error.subject())
}

/// Whether the sandbox has the interface. What cannot be looked at has none.
fn is_there(at: &Attachment) -> bool {
    let Some(netns) = at.netns.as_deref().and_then(|path| netns::open(path).ok()) else { return false };
    netns::visit(netns.as_fd(), || if_nametoindex(at.interface.as_str()).is_ok()).unwrap_or(false)
}

/// Whether the network is one that the configuration can mean.
fn is_meant(config: &Config, attached: &AttachResponse) -> Result<(), Failure> {
    let endpoint = endpoint_of(attached)?;
    if endpoint.interface.is_empty() {
        return Err(fit::without_interface(&config.network));
    }
    for address in [&endpoint.ip, &endpoint.ip6] {
        let Ok(address) = address.parse::<IpNet>() else { continue };
        fit::check_subnets(config, &[address.trunc()])?;
    }
    Ok(())
}

/// With our resolver inside, it is the one to ask; else what the configuration says, as it says it.
fn dns(config: &Config, attached: &AttachResponse) -> Dns {
    match &attached.resolv_conf {
        Some(resolv) if config.resolver => Dns {
            nameservers: resolv.nameservers.clone(),
            domain: config.dns.domain.clone(),
            search: resolv.search.clone(),
            options: resolv.options.clone(),
        },
        _ => config.dns.clone(),
    }
}
