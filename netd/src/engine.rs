//! The engine: one thread that owns all state and makes all changes, one after another.
//!
//! Requests come as closures over a channel, so a change never meets another half way, and nothing here needs a lock.
//! The kernel takes network changes one at a time too (the rtnl lock): more threads would only wait elsewhere. DNS is
//! not here; it reads snapshots that the engine publishes.
//!
//! ```text
//! server --closure--> engine thread --> store (redb), journal (files)      truth
//!                                   --> bridges, veths, sandboxes, rules   kernel
//!                                   --> names                              snapshot for DNS
//! ```

mod attach;
mod bases;
mod check;
mod collisions;
mod connect;
mod detach;
mod ends;
pub mod error;
mod explain;
mod foreign;
mod forwarding;
mod guard;
mod host;
mod networks;
mod plan;
mod policy;
mod reconcile;
mod rules;
mod siblings;
mod stages;
mod sweep;
mod wiring;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use davit_contracts::id::{EndpointId, NetworkId};
use tokio::sync::oneshot;

use crate::dns::Names;
use crate::driver::Base;
use crate::endpoint::Sandbox;
use crate::endpoint::journal::Journal;
use crate::firewall::{Choice, Firewall, Guard, Mark, Member};
use crate::ipam::Pool;
use crate::netlink::watch::RouteWatch;
use crate::netlink::{Protocol, Socket};
use crate::network::Network;
use crate::network::pools::Pools;
use crate::network::store::Store;
use crate::publish::Ports;
use crate::settings::Forwarding;
use sweep::Sweeper;

pub use attach::{AttachSpec, Attached, EndpointSpec};
pub use check::Drift;
pub use ends::End;
pub use error::EngineError;
pub use explain::{Explained, Explanation, Hop, Inquiry, Question, Verdict};
pub use host::{HostInterface, HostView};
pub use networks::Listed;
pub(crate) use reconcile::chain;

/// How long the default bridge and the rules outlive the last endpoint: the next container of a series finds them.
const LINGER: Duration = Duration::from_millis(500);

/// How long changes of the host's routes are gathered.
const SETTLE: Duration = Duration::from_millis(200);

/// Where this instance keeps its state, and the mark of its kernel objects.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Durable state: state/network.
    pub state: PathBuf,
    /// State that ends with the machine: run/network.
    pub run: PathBuf,
    /// The nftables table.
    pub table: String,
    /// The interface group of our interfaces.
    pub group: u32,
    /// Whether the loopback of the network namespace that netd runs in is not the host's: so with a plain user's instance.
    pub apart: bool,
    /// Where subnets are chosen from.
    pub pools: Pools,
    /// For whom the host forwards.
    pub forwarding: Forwarding,
}

impl Instance {
    /// The instance with this state. Two instances in one network namespace leave each other alone: their marks follow
    /// from where their state is.
    pub fn new(state: PathBuf, run: PathBuf) -> Self {
        let hash = fnv(state.as_os_str().as_encoded_bytes());
        let table = match state.to_str() {
            Some("/var/lib/davit/network") => "davit".to_owned(),
            _ => format!("davit-{hash:06x}"),
        };
        Self {
            state,
            run,
            table,
            group: 0x0a00_0000 | hash,
            apart: false,
            pools: Pools::default(),
            forwarding: Forwarding::default(),
        }
    }
}

impl Instance {
    /// What marks its firewall rules.
    pub fn mark(&self) -> Mark {
        Mark { table: self.table.clone(), group: self.group }
    }
}

/// FNV-1a, folded to 24 bits.
fn fnv(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    (hash >> 24) ^ (hash & 0x00ff_ffff)
}

/// All state of netd; see the module's docs for who may touch it.
#[derive(Debug)]
pub struct Engine {
    instance: Instance,
    store: Store,
    journal: Journal,
    /// Attachments of plugins whose records are gone, until DEL was run for them.
    leftovers: Journal,
    socket: Socket,
    firewall: Firewall,
    names: Names,
    sweeper: Sweeper,
    ports: Ports,
    networks: BTreeMap<NetworkId, Network>,
    sandboxes: HashMap<String, Sandbox>,
    /// By network: one for each of its subnets.
    pools: HashMap<NetworkId, Vec<Pool>>,
    /// Bridges that were seen.
    bases: HashMap<NetworkId, Base>,
    /// What is wrong with networks.
    problems: BTreeMap<NetworkId, Vec<String>>,
    /// Networks that the firewall's table knows.
    walled: BTreeSet<NetworkId>,
    /// Whose forwarding is ours.
    forwarded: Guard,
    /// Whether there is a table, or may be one.
    table: bool,
    /// Endpoints that the policies' tables know, with their networks.
    members: BTreeMap<EndpointId, (NetworkId, Member)>,
    /// Whether there are tables of policies, or may be.
    policies: bool,
    sequence: u64,
    /// Since when nothing is attached though something is still there for it.
    idle: Option<Instant>,
}

impl Engine {
    /// Opens state and kernel, and brings both in line with one another.
    pub fn open(instance: Instance, choice: Choice) -> Result<Self, EngineError> {
        let mut me = Self {
            store: Store::open(&instance.state.join("networks.redb"))?,
            journal: Journal::open(instance.run.join("sandboxes"))?,
            leftovers: Journal::open(instance.run.join("leftovers"))?,
            socket: Socket::open(Protocol::Route)?,
            firewall: Firewall::open(instance.mark(), choice, &instance.run.join("firewall"))
                .map_err(EngineError::Firewall)?,
            names: Names::start(instance.apart).map_err(EngineError::Thread)?,
            sweeper: Sweeper::start(instance.group)?,
            ports: Ports::default(),
            networks: BTreeMap::new(),
            sandboxes: HashMap::new(),
            pools: HashMap::new(),
            bases: HashMap::new(),
            problems: BTreeMap::new(),
            walled: BTreeSet::new(),
            forwarded: Guard::default(),
            table: false,
            members: BTreeMap::new(),
            policies: true,
            sequence: 0,
            idle: None,
            instance,
        };
        me.reconcile()?;
        me.names.open();
        me.note_problems();
        Ok(me)
    }
}

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// Sends requests to the engine's thread. Cheap to clone; the thread lives as long as the process.
#[derive(Debug, Clone)]
pub struct Client {
    jobs: mpsc::Sender<Job>,
}

impl Client {
    /// Starts the thread.
    pub fn start(engine: Engine) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        guard::start(&engine.firewall, &jobs)?;
        match RouteWatch::open() {
            Ok(watch) => guard_subnets(watch, jobs.clone())?,
            Err(error) => {
                tracing::warn!(%error, "a route of the host that comes to overlap a network is noticed at the next start");
            }
        }
        thread::Builder::new()
            .name("netd-engine".into())
            .stack_size(512 << 10)
            .spawn(move || run(engine, &queue))?;
        Ok(Self { jobs })
    }

    /// Runs `work` on the engine's thread and waits for it.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            // A caller that went away does not undo what it asked for.
            let _ = answer.send(work(engine));
        });
        self.jobs.send(job).map_err(|_| EngineError::Stopped)?;
        answered.await.map_err(|_| EngineError::Stopped)?
    }
}

impl Engine {
    /// The firewall's backend: its name, and what it writes to.
    pub fn firewall(&self) -> (&'static str, String) {
        (self.firewall.name(), self.firewall.describe())
    }
}

/// A thread that has the engine compare its subnets with the host's addresses and routes when these have changed.
fn guard_subnets(watch: RouteWatch, jobs: mpsc::Sender<Job>) -> std::io::Result<()> {
    // On a host with very many routes a look takes longer than the next change: one waits at most, or requests would wait
    // behind them all.
    let waits = Arc::new(AtomicBool::new(false));
    let guard = move || {
        while watch.next_change().is_ok() {
            let begins = waits.clone();
            let look = move |engine: &mut Engine| {
                begins.store(false, Ordering::Relaxed);
                engine.note_problems();
            };
            if !waits.swap(true, Ordering::Relaxed) && jobs.send(Box::new(look)).is_err() {
                return;
            }
            // Routing daemons change many at a time; one look at them all is enough.
            thread::sleep(SETTLE);
        }
        tracing::warn!("changes of the host's routes are not heard of any more");
    };
    thread::Builder::new().name("netd-routes".into()).stack_size(128 << 10).spawn(guard).map(drop)
}

fn run(mut engine: Engine, queue: &mpsc::Receiver<Job>) {
    loop {
        let job = match engine.idle {
            None => queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(since) => queue.recv_timeout(LINGER.saturating_sub(since.elapsed())),
        };
        match job {
            Ok(job) => job(&mut engine),
            Err(mpsc::RecvTimeoutError::Timeout) => engine.clear_idle(),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_differ_by_where_their_state_is() {
        let of = |p: &str| Instance::new(p.into(), "/run".into());
        assert_eq!(of("/var/lib/davit/network").table, "davit");
        assert_ne!(of("/tmp/a").table, of("/tmp/b").table);
        assert_ne!(of("/tmp/a").group, of("/tmp/b").group);
    }
}
