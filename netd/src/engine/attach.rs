//! Attach: a sandbox wired to its networks, all or nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::ends::End;
use super::stages::Stages;
use super::{Engine, EngineError};
use crate::dns::nameserver::NameServer;
use crate::dns::resolvconf::ResolvConf;
use crate::driver::inside::{self, InsideError, Interface, RESOLVER, Visit};
use crate::endpoint::{Bandwidth, Endpoint, Holder, Phase, Sandbox};
use crate::network::Driver;
use crate::publish::Wanted;

/// How long the mac of a container that ended may stay in use; normally some milliseconds.
const MAC_PATIENCE: Duration = Duration::from_secs(1);

/// A connection as it was asked for; empty texts mean "choose".
#[derive(Debug, Clone, Default)]
pub struct EndpointSpec {
    /// Network: name or id.
    pub network: String,
    /// More names.
    pub aliases: Vec<String>,
    /// IPv4 address.
    pub ip: String,
    /// IPv6 address.
    pub ip6: String,
    /// Ethernet address.
    pub mac: String,
    /// Name inside.
    pub interface: String,
    /// The largest has the default route.
    pub gateway_priority: i32,
    /// `container:alias`.
    pub links: Vec<String>,
    /// Limits.
    pub bandwidth: Bandwidth,
    /// Docker's endpoint options.
    pub options: BTreeMap<String, String>,
}

/// A sandbox as it was asked for.
#[derive(Debug, Clone)]
pub struct AttachSpec {
    /// Container or pod id.
    pub id: String,
    /// Who holds its namespace.
    pub holder: Holder,
    /// Container name.
    pub name: String,
    /// Its hostname.
    pub hostname: String,
    /// Its connections.
    pub endpoints: Vec<EndpointSpec>,
    /// Its published ports.
    pub ports: Vec<Wanted>,
    /// Upstreams in place of the host's.
    pub dns_servers: Vec<NameServer>,
    /// Search domains in place of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Kept.
    pub labels: BTreeMap<String, String>,
    /// Nothing is to listen at 127.0.0.11 inside.
    pub without_resolver: bool,
    /// An attached sandbox of this id is an error.
    pub must_be_new: bool,
    /// Its own settings turn IPv6 off.
    pub without_ipv6: bool,
}

/// An attached sandbox.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Its record.
    pub sandbox: Sandbox,
    /// Names of its networks, in the order of its endpoints.
    pub networks: Vec<String>,
    /// What its resolv.conf is to say.
    pub resolv: ResolvConf,
    /// By which addresses it reaches the host.
    pub host_gateway: Vec<IpAddr>,
    /// Microseconds a stage.
    pub stages: BTreeMap<&'static str, u32>,
    /// What there is of each endpoint; empty where nobody asks.
    pub ends: Vec<End>,
}

impl Engine {
    /// Wires a sandbox. Repeating an acknowledged call answers the same; another holder replaces the first.
    pub fn attach(&mut self, spec: &AttachSpec) -> Result<Attached, EngineError> {
        let mut stages = Stages::start();
        if let Some(present) = self.sandboxes.get(&spec.id) {
            if spec.must_be_new && present.holder.is_alive() {
                return Err(EngineError::Attached(spec.name.clone()));
            }
            if present.holder == spec.holder {
                return Ok(self.attached_at(present.clone(), stages));
            }
            self.detach(&spec.id)?;
        }
        match self.attempt(spec, &mut stages) {
            Ok(sandbox) => Ok(self.attached_at(sandbox, stages)),
            // An address or an interface name may only wait for a former container to be swept.
            Err(EngineError::Address { .. } | EngineError::Wire { .. } | EngineError::Inside { .. })
                if self.settle() =>
            {
                let sandbox = self.attempt(spec, &mut stages)?;
                Ok(self.attached_at(sandbox, stages))
            }
            Err(e) => Err(e),
        }
    }

    fn attempt(&mut self, spec: &AttachSpec, stages: &mut Stages) -> Result<Sandbox, EngineError> {
        self.sequence += 1;
        let mut sandbox = new_sandbox(spec, self.sequence);
        match self.attach_steps(&mut sandbox, spec, stages) {
            Ok(()) => Ok(sandbox),
            Err(e) => {
                for error in self.tear_down(&sandbox) {
                    tracing::warn!(container.id = %sandbox.id, %error, "undoing a failed attach");
                }
                self.note_idle();
                Err(e)
            }
        }
    }

    fn attach_steps(
        &mut self,
        sandbox: &mut Sandbox,
        spec: &AttachSpec,
        stages: &mut Stages,
    ) -> Result<(), EngineError> {
        self.plan(sandbox, spec)?;
        stages.end("plan");
        let on_host = sandbox.endpoints.iter().any(|e| self.networks[&e.network].driver == Driver::Host);
        let netns = if on_host { None } else { Some(open_namespace(sandbox)?) };
        self.journal.write(sandbox)?;
        self.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        stages.end("record");
        if let Some(netns) = &netns {
            for at in 0..sandbox.endpoints.len() {
                if sandbox.endpoints[at].is_wired() {
                    self.plug(sandbox, at, netns.as_fd(), stages)?;
                }
            }
            self.enter(sandbox, netns.as_fd(), stages)?;
            self.await_ready(sandbox.endpoints.iter().filter(|e| e.is_wired()), netns.as_fd())?;
            stages.end("forwarding");
        }
        self.open_ports(sandbox)?;
        stages.end("ports");
        if !sandbox.is_unfinished() {
            sandbox.phase = Phase::Ready;
        }
        self.keep(sandbox)?;
        self.note_idle();
        stages.end("record");
        Ok(())
    }

    /// Records a sandbox as it is now and makes its names known.
    pub(super) fn keep(&mut self, sandbox: &Sandbox) -> Result<(), EngineError> {
        self.journal.write(sandbox)?;
        self.names.publish(sandbox, &self.networks);
        self.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        Ok(())
    }

    /// Base, rules and interface of one endpoint.
    pub(super) fn plug(
        &mut self,
        sandbox: &mut Sandbox,
        at: usize,
        netns: BorrowedFd<'_>,
        stages: &mut Stages,
    ) -> Result<(), EngineError> {
        let endpoint = sandbox.endpoints[at].clone();
        let base = self.ensure_base(&endpoint.network)?;
        stages.end("bridge");
        if endpoint.is_bridged() {
            self.wall(&endpoint.network)?;
            self.police(sandbox, &endpoint)?;
            stages.end("rules");
        }
        if let Some(became) = self.plug_in(sandbox, &endpoint, netns)? {
            sandbox.endpoints[at] = became;
        }
        if self.networks[&endpoint.network].sublink.is_some() {
            sandbox.endpoints[at].mtu = Some(base.mtu);
        }
        stages.end("veth");
        Ok(())
    }

    /// Everything inside the sandbox, in one visit: addresses, routes, the resolver.
    fn enter(
        &mut self,
        sandbox: &mut Sandbox,
        netns: BorrowedFd<'_>,
        stages: &mut Stages,
    ) -> Result<(), EngineError> {
        let wired: Vec<_> = sandbox.endpoints.iter().filter(|e| e.is_wired()).collect();
        let interfaces = wired.iter().filter(|e| e.foreign.is_none()).map(|e| self.interface(e)).collect();
        let routes_in = sandbox.ways();
        let resolver = (!wired.is_empty() && !sandbox.without_resolver).then_some(sandbox.resolver);
        // Whoever keeps a namespace by a path may have put other interfaces into it.
        let yields = sandbox.holder.process().is_none();
        let visit = Visit { interfaces, routes_out: Vec::new(), routes_in, yields, resolver };
        self.visit(sandbox, netns, &visit)?;
        stages.end("inside");
        Ok(())
    }

    /// How an endpoint's interface is set up. On a bridge where all macs follow from addresses no neighbour is ever wrong.
    pub(super) fn interface(&self, endpoint: &Endpoint) -> Interface {
        let network = self.networks.get(&endpoint.network);
        Interface::of(endpoint, network.is_none_or(|n| n.driver != Driver::Bridge || n.other_macs))
    }

    /// Visits a sandbox and serves the resolver that was opened there.
    pub(super) fn visit(
        &mut self,
        sandbox: &mut Sandbox,
        netns: BorrowedFd<'_>,
        visit: &Visit,
    ) -> Result<(), EngineError> {
        let since = Instant::now();
        let visited = loop {
            match inside::visit(netns, visit) {
                // The kernel clears the namespace of a container that ended some time later, and until then the
                // parent of a macvlan network knows its mac.
                Err(InsideError::Netlink(e))
                    if e.errno() == Some(Errno::EADDRINUSE) && since.elapsed() < MAC_PATIENCE =>
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => break other,
            }
        }
        .map_err(|source| EngineError::Inside { container: sandbox.name.clone(), source })?;
        if sandbox.holder.process().is_none() {
            sandbox.yielded.retain(|way| !visit.routes_in.contains(way));
            sandbox.yielded.extend(visited.yielded);
        }
        if let Some(resolver) = visited.resolver {
            let ports = resolver.ports;
            self.names.serve(&sandbox.id, resolver);
            sandbox.resolver = Some(ports);
        }
        Ok(())
    }

    pub(super) fn attached(&self, sandbox: Sandbox, stages: Stages) -> Attached {
        let networks = sandbox
            .endpoints
            .iter()
            .map(|e| self.networks.get(&e.network).map_or_else(String::new, |n| n.name.clone()));
        Attached {
            networks: networks.collect(),
            resolv: self.resolv_conf(&sandbox),
            host_gateway: self.host_gateway(&sandbox),
            stages: stages.finish(),
            ends: Vec::new(),
            sandbox,
        }
    }

    /// Names come from us on a network of one's own, from the host's servers otherwise.
    fn resolv_conf(&self, sandbox: &Sandbox) -> ResolvConf {
        let (search, options) = (&sandbox.dns_search, &sandbox.dns_options);
        if sandbox.resolver.is_some() {
            let host = self.names.host().get();
            return host.with(&[IpAddr::from(RESOLVER).into()], search, options).for_container_names();
        }
        let mut networks = sandbox.endpoints.iter().filter_map(|e| self.networks.get(&e.network));
        let host = if networks.any(|n| n.driver == Driver::Host) {
            ResolvConf::clone(&self.names.host().get())
        } else {
            self.names.host().for_others()
        };
        host.with(&sandbox.dns_servers, search, options)
    }

    /// The addresses by which a sandbox reaches the host: its way out on a bridge, which is the host's own address there.
    fn host_gateway(&self, sandbox: &Sandbox) -> Vec<IpAddr> {
        let driver = |e: &Endpoint| self.networks.get(&e.network).map(|n| n.driver);
        if sandbox.endpoints.iter().any(|e| driver(e) == Some(Driver::Host)) {
            return vec![Ipv4Addr::LOCALHOST.into()];
        }
        let bridged = sandbox.endpoints.iter().filter(|e| driver(e) == Some(Driver::Bridge));
        let best = sandbox.gateway_endpoint().filter(|e| driver(e) == Some(Driver::Bridge));
        let Some(endpoint) = best.or_else(|| bridged.into_iter().find(|e| e.gateway.is_some())) else {
            return Vec::new();
        };
        [endpoint.gateway, endpoint.gateway6].into_iter().flatten().collect()
    }

    /// The whole answer for a sandbox that is there.
    pub fn list_sandboxes(&self) -> Vec<Attached> {
        let mut all: Vec<_> = self.sandboxes.values().cloned().collect();
        all.sort_by_key(|s| s.sequence);
        all.into_iter().map(|s| self.attached(s, Stages::start())).collect()
    }
}

fn new_sandbox(spec: &AttachSpec, sequence: u64) -> Sandbox {
    Sandbox {
        id: spec.id.clone(),
        name: spec.name.clone(),
        hostname: spec.hostname.clone(),
        holder: spec.holder.clone(),
        phase: Phase::Preparing,
        sequence,
        endpoints: Vec::new(),
        ports: Vec::new(),
        waiting: Vec::new(),
        yielded: Vec::new(),
        dns_servers: spec.dns_servers.clone(),
        dns_search: spec.dns_search.clone(),
        dns_options: spec.dns_options.clone(),
        labels: spec.labels.clone(),
        without_resolver: spec.without_resolver,
        without_ipv6: spec.without_ipv6,
        resolver: None,
    }
}

/// Opens a sandbox's namespace, which must not be the host's: its interfaces would be made there.
pub(super) fn open_namespace(sandbox: &Sandbox) -> Result<OwnedFd, EngineError> {
    let gone = |source| EngineError::HolderGone { container: sandbox.name.clone(), source };
    let netns = sandbox.holder.namespace().map_err(gone)?;
    let same = davit_sys::netns::own()
        .ok()
        .and_then(|own| Some((fstat(&own).ok()?, fstat(&netns).ok()?)))
        .is_some_and(|(own, theirs)| (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino));
    if same {
        return Err(EngineError::HostNamespace {
            container: sandbox.name.clone(),
            at: sandbox.holder.path(),
        });
    }
    Ok(netns)
}
