//! Veth pairs removed behind the caller's back: the kernel takes some 20 ms to unregister a device, which nobody should
//! wait for when a container ends.
//!
//! A thread of its own removes them, one after another. Their addresses stay taken until they are gone. No record is
//! needed meanwhile: after a kill the interfaces bear our mark and no record names them, so the next start removes them.

use std::sync::mpsc;
use std::thread;

use super::{Engine, EngineError};
use crate::driver::{self, Ground, Peer, Unplug};
use crate::endpoint::{Endpoint, Sandbox};
use crate::netlink::{Protocol, Socket, conntrack};
use crate::network::Network;

/// A sandbox that leaves.
#[derive(Debug)]
pub(super) struct Leaving {
    sandbox: Sandbox,
    /// Endpoints on bridges that stay in its namespace, other sandboxes'.
    staying: Vec<Endpoint>,
    /// The networks of all these.
    networks: Vec<Network>,
}

impl Leaving {
    fn unplug(&self, ground: Ground<'_>) {
        for endpoint in self.sandbox.endpoints.iter().filter(|e| e.is_bridged()) {
            let Some(network) = self.network(endpoint) else { continue };
            let Some(driver) = driver::of(network.driver) else { continue };
            let others = self.sandbox.endpoints.iter().chain(&self.staying).filter(|e| e.id != endpoint.id);
            let peer = |endpoint| Some(Peer { network: self.network(endpoint)?, endpoint });
            let peers = &others.filter_map(peer).collect::<Vec<_>>();
            let of = Unplug { network, sandbox: &self.sandbox, endpoint, netns: None, peers };
            if let Err(error) = driver.unplug(ground, &of) {
                let interface = &endpoint.host_interface;
                tracing::warn!(container.id = %self.sandbox.id, interface, %error, "left until the next start");
            }
        }
    }

    fn network(&self, endpoint: &Endpoint) -> Option<&Network> {
        self.networks.iter().find(|n| n.id == endpoint.network)
    }

    /// Connections of its addresses are forgotten, so that nobody's packets go on to an address that another gets.
    fn forget(&self, socket: &Socket) {
        for endpoint in self.sandbox.endpoints.iter().filter(|e| e.is_bridged()) {
            for address in endpoint.addresses() {
                if let Err(error) = conntrack::forget_address(socket, address.addr()) {
                    tracing::warn!(%address, %error, "connections of a gone container are remembered");
                }
            }
        }
    }
}

/// The thread, and what it has not reported yet.
#[derive(Debug)]
pub(super) struct Sweeper {
    jobs: mpsc::Sender<Leaving>,
    done: mpsc::Receiver<Vec<Endpoint>>,
    pending: usize,
}

impl Sweeper {
    /// Starts the thread in the caller's network namespace.
    pub(super) fn start(group: u32) -> Result<Self, EngineError> {
        let socket = Socket::open(Protocol::Route)?;
        let connections = Socket::open(Protocol::Netfilter)?;
        let (jobs, queue) = mpsc::channel::<Leaving>();
        let (report, done) = mpsc::channel();
        let work = move || {
            for leaving in queue {
                leaving.unplug(Ground { socket: &socket, group });
                leaving.forget(&connections);
                let _ = report.send(leaving.sandbox.endpoints);
            }
        };
        thread::Builder::new()
            .name("netd-sweeper".into())
            .stack_size(128 << 10)
            .spawn(work)
            .map_err(EngineError::Thread)?;
        Ok(Self { jobs, done, pending: 0 })
    }
}

impl Engine {
    /// Hands a sandbox's endpoints over; their addresses are free once their interfaces are gone.
    pub(super) fn sweep(&mut self, sandbox: &Sandbox) {
        self.collect_swept();
        if sandbox.endpoints.is_empty() {
            return;
        }
        let staying = self.siblings(sandbox).flat_map(|s| &s.endpoints).filter(|e| e.is_bridged());
        let staying: Vec<_> = staying.cloned().collect();
        let bridged = sandbox.endpoints.iter().filter(|e| e.is_bridged()).chain(&staying);
        let networks = bridged.filter_map(|e| self.networks.get(&e.network)).cloned().collect();
        self.sweeper.pending += 1;
        let leaving = Leaving { sandbox: sandbox.clone(), staying, networks };
        self.sweeper.jobs.send(leaving).expect("the thread lives as long as its queue");
    }

    fn collect_swept(&mut self) {
        while let Ok(endpoints) = self.sweeper.done.try_recv() {
            self.swept(&endpoints);
        }
    }

    fn swept(&mut self, endpoints: &[Endpoint]) {
        self.sweeper.pending -= 1;
        for endpoint in endpoints {
            self.release_addresses(endpoint);
        }
    }

    /// Waits until everything that was handed over is gone; whether there was anything.
    pub(super) fn settle(&mut self) -> bool {
        let any = self.sweeper.pending > 0;
        while self.sweeper.pending > 0 {
            let Ok(endpoints) = self.sweeper.done.recv() else { return any };
            self.swept(&endpoints);
        }
        any
    }
}
