//! Says hop by hop what lets a packet through or stops it, in the order that the packet meets it. Changes nothing, and
//! sends nothing but the question for a name of the world: the kernel is asked for routes, neighbours, ports of bridges and listening sockets, in the namespaces
//! where they count; what our rules do follows from what they are made of.
//!
//! ```text
//! name     what /etc/hosts or the resolver inside answers, and why
//! leave    route and interface of the source
//! link     a neighbour on the same network: bridge, its two ports
//! wire     a neighbour beside a macvlan's or ipvlan's parent
//! host     published ports, forwarding, the firewall's verdict, address translation, the way out
//! arrive   interface, address and way back of the target; who listens there
//! ```

mod arrive;
mod host;
mod hosts;
mod leave;
mod link;
mod name;
mod sockets;
mod wire;

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use davit_sys::netns;

use super::attach::open_namespace;
use super::{Engine, EngineError};
use crate::dns::inquire::Told;
use crate::driver::inside::InsideError;
use crate::endpoint::{Endpoint, Sandbox};
use crate::firewall::Transport;
use crate::netlink::view::{self, Address, Link, Neighbour, Route};
use crate::netlink::{Protocol, Socket};
use crate::network::options::{distance, nearest};
use crate::network::{Driver, Network};

pub use name::Inquiry;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// A container's name or id, or `host`.
    pub from: String,
    /// A name, an address, or `host`.
    pub to: String,
    /// The port; 0 for none, as of ping.
    pub port: u16,
    /// `tcp`, `udp`; empty for TCP.
    pub protocol: String,
}

/// What a hop does with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Neither; good to know.
    Note,
    /// Lets it through.
    Pass,
    /// Stops it.
    Stop,
}

/// One thing that the packet meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// "name", "route", "neighbour", "bridge", "policy", "rule", "nat", "target".
    pub stage: &'static str,
    /// "web", "host", "network my-bridge".
    pub place: String,
    /// One line.
    pub what: String,
    /// What it does.
    pub verdict: Verdict,
    /// What to do about a stop.
    pub hint: String,
}

/// The whole way, up to the hop that stops the packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// In the order of the packet.
    pub hops: Vec<Hop>,
}

impl Explanation {
    /// Nothing stops it.
    pub fn reaches(&self) -> bool {
        !self.hops.iter().any(|h| h.verdict == Verdict::Stop)
    }
}

/// What came of a request.
#[derive(Debug)]
pub enum Explained {
    /// All of it.
    Whole(Explanation),
    /// This must be asked for first.
    Ask(Inquiry),
}

/// Why a walk ends before the target.
#[derive(Debug)]
enum End {
    /// The last hop says why.
    Told,
    /// A name must be asked for.
    Ask(Inquiry),
    /// The kernel could not be asked.
    Failed(EngineError),
}

impl<E: Into<EngineError>> From<E> for End {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

type Step<T = ()> = Result<T, End>;

/// Where a packet is.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Host,
    Sandbox(&'a Sandbox),
}

impl Place<'_> {
    fn name(self) -> String {
        match self {
            Self::Host => "host".to_owned(),
            Self::Sandbox(sandbox) => sandbox.name.clone(),
        }
    }
}

/// A packet's destination as it is now, and what became of it so far.
#[derive(Debug, Clone, Copy)]
struct Packet {
    to: IpAddr,
    port: u16,
    transport: Transport,
    /// Its source, once a route chose it.
    source: Option<IpAddr>,
    /// Its destination was translated.
    translated: bool,
}

impl Packet {
    /// `10.0.0.2`, `10.0.0.2:80/tcp`.
    fn target(&self) -> String {
        match (self.port, self.to) {
            (0, to) => to.to_string(),
            (port, IpAddr::V4(to)) => format!("{to}:{port}/{}", self.transport.name()),
            (port, IpAddr::V6(to)) => format!("[{to}]:{port}/{}", self.transport.name()),
        }
    }
}

/// A namespace as far as the way to one address goes.
#[derive(Debug)]
struct Scene {
    links: Vec<Link>,
    addresses: Vec<Address>,
    route: Result<Route, std::io::Error>,
    /// The next hop, when the kernel knows something of it.
    neighbour: Option<Neighbour>,
}

impl Scene {
    fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|l| l.index == index)
    }
}

fn scene(socket: &Socket, to: IpAddr) -> Result<Scene, InsideError> {
    let route = view::lookup(socket, to)?;
    let neighbour = match &route {
        Ok(route) => view::neighbour(socket, route.index, route.gateway.unwrap_or(to))?,
        Err(_) => None,
    };
    Ok(Scene { links: view::links(socket)?, addresses: view::addresses(socket)?, route, neighbour })
}

/// A walk under way.
struct Walk<'a> {
    engine: &'a Engine,
    /// Names of the world.
    told: &'a HashMap<String, Told>,
    hops: Vec<Hop>,
}

impl Engine {
    /// Explains the way from one to another. `told`: what was answered of the names that it wanted to be asked for.
    pub fn explain(
        &self,
        question: &Question,
        told: &HashMap<String, Told>,
    ) -> Result<Explained, EngineError> {
        let transport = Transport::named(&question.protocol)
            .ok_or_else(|| EngineError::UnknownProtocol(question.protocol.clone()))?;
        let resident = self.resident(&question.from)?;
        let from = resident.filter(|s| !self.is_on_host(s)).map_or(Place::Host, Place::Sandbox);
        let mut walk = Walk { engine: self, told, hops: Vec::new() };
        let steps = walk.name(from, resident, &question.to).and_then(|to| {
            let packet = Packet { to, port: question.port, transport, source: None, translated: false };
            walk.leave(from, packet)
        });
        match steps {
            Ok(()) | Err(End::Told) => Ok(Explained::Whole(Explanation { hops: walk.hops })),
            Err(End::Ask(inquiry)) => Ok(Explained::Ask(inquiry)),
            Err(End::Failed(e)) => Err(e),
        }
    }

    /// A sandbox by name, id, or the beginning of an id; none is the host.
    fn resident(&self, name: &str) -> Result<Option<&Sandbox>, EngineError> {
        if name == "host" {
            return Ok(None);
        }
        let by_id = |s: &&Sandbox| name.len() >= 4 && s.id.starts_with(name);
        let all = || self.sandboxes.values();
        let found = all().find(|s| s.name == name || s.id == name).or_else(|| all().find(by_id));
        let Some(sandbox) = found else {
            let nearest = nearest(name, all().map(|s| s.name.as_str())).to_owned();
            let close = !nearest.is_empty() && distance(name, &nearest) <= name.len().max(3) / 2;
            return Err(EngineError::NoSuchPlace {
                name: name.to_owned(),
                nearest: close.then_some(nearest),
            });
        };
        Ok(Some(sandbox))
    }

    fn is_on_host(&self, sandbox: &Sandbox) -> bool {
        let of_host = |e: &Endpoint| self.networks.get(&e.network).is_some_and(|n| n.driver == Driver::Host);
        sandbox.endpoints.iter().any(of_host)
    }
}

impl<'a> Walk<'a> {
    fn hop(
        &mut self,
        verdict: Verdict,
        stage: &'static str,
        place: impl Into<String>,
        what: impl Into<String>,
    ) {
        let (place, what) = (place.into(), what.into());
        self.hops.push(Hop { stage, place, what, verdict, hint: String::new() });
    }

    fn pass(&mut self, stage: &'static str, place: impl Into<String>, what: impl Into<String>) {
        self.hop(Verdict::Pass, stage, place, what);
    }

    fn note(&mut self, stage: &'static str, place: impl Into<String>, what: impl Into<String>) {
        self.hop(Verdict::Note, stage, place, what);
    }

    fn stop(
        &mut self,
        stage: &'static str,
        place: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> End {
        self.hop(Verdict::Stop, stage, place, what);
        if let Some(last) = self.hops.last_mut() {
            last.hint = hint.into();
        }
        End::Told
    }

    fn network_of(&self, endpoint: &Endpoint) -> Step<&'a Network> {
        let unknown = || EngineError::UnknownNetwork { name: endpoint.network.to_string(), nearest: None };
        Ok(self.engine.networks.get(&endpoint.network).ok_or_else(unknown)?)
    }
}

/// Runs `work` where the sandbox is.
fn visit<T: Send>(sandbox: &Sandbox, work: impl FnOnce(&Socket) -> Result<T, InsideError> + Send) -> Step<T> {
    let netns: OwnedFd = open_namespace(sandbox)?;
    let inside = netns::visit(netns.as_fd(), || work(&Socket::open(Protocol::Route)?));
    inside
        .map_err(InsideError::from)
        .and_then(|r| r)
        .map_err(|source| End::Failed(EngineError::Inside { container: sandbox.name.clone(), source }))
}

/// `network my-bridge`.
fn of(network: &Network) -> String {
    format!("network {}", network.name)
}

/// What mends what should be there and is not.
const REPAIR: &str = "'davit net check --repair' mends it";
