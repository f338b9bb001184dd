//! What networks stand on: bridges and parents, made when something needs them; endpoints plugged in and taken away by
//! whichever driver the network has.

use std::os::fd::BorrowedFd;

use davit_contracts::id::NetworkId;

use super::{Engine, EngineError, chain};
use crate::driver::{self, Base, Ground, Peer, Plug, Unplug, inside};
use crate::endpoint::{Endpoint, Sandbox};
use crate::network::sublink::Mode;
use crate::network::{Driver, Network, pools};

impl Engine {
    /// Where drivers work.
    pub(super) fn ground(&self) -> Ground<'_> {
        Ground { socket: &self.socket, group: self.instance.group }
    }

    /// The bridge or parent of a network, made when it is not there.
    pub(super) fn ensure_base(&mut self, id: &NetworkId) -> Result<Base, EngineError> {
        if let Some(base) = self.bases.get(id) {
            return Ok(*base);
        }
        let network = self.networks[id].clone();
        let failed = |source| EngineError::Base { network: network.name.clone(), source };
        let Some(driver) = driver::of(network.driver) else { return Ok(Base { index: 0, mtu: 0 }) };
        let base = if let Some(base) = driver.find(self.ground(), &network).map_err(failed)? {
            base
        } else {
            self.check_still_free(&network)?;
            driver.make(self.ground(), &network).map_err(failed)?
        };
        if driver.is_lasting() {
            self.bases.insert(id.clone(), base);
            // It may have another index than before.
            self.refuse_internal();
        }
        Ok(base)
    }

    /// The same after somebody may have put another interface in its place.
    pub(super) fn ensure_base_anew(&mut self, id: &NetworkId) -> Result<Base, EngineError> {
        let network = &self.networks[id];
        let failed = |source| EngineError::Base { network: network.name.clone(), source };
        let Some(driver) = driver::of(network.driver) else { return self.ensure_base(id) };
        let there = driver.find(self.ground(), network).map_err(failed)?.map(|base| base.index);
        if self.bases.get(id).is_some_and(|known| Some(known.index) != there) {
            self.bases.remove(id);
        }
        self.ensure_base(id)
    }

    /// The host may have come to use a network's subnet while it had no bridge.
    fn check_still_free(&self, network: &Network) -> Result<(), EngineError> {
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        let taken = self.taken(Some(&network.id), &network.subnets)?;
        for subnet in &network.subnets {
            if let Some(t) = pools::conflict(&subnet.subnet, &taken) {
                return Err(EngineError::Overlap { subnet: subnet.subnet, by: t.by.clone() });
            }
        }
        Ok(())
    }

    /// Removes what a network stands on; fine when it is gone.
    pub(super) fn remove_base(&mut self, network: &Network) -> Result<(), EngineError> {
        self.bases.remove(&network.id);
        let Some(driver) = driver::of(network.driver) else { return Ok(()) };
        let parent = |n: &Network| n.sublink.as_ref().map(|s| s.parent.clone());
        let shared = parent(network).is_some_and(|mine| {
            self.networks.values().any(|n| n.id != network.id && parent(n).as_ref() == Some(&mine))
        });
        let failed = |source| EngineError::Base { network: network.name.clone(), source };
        driver.remove(self.ground(), network, shared).map_err(failed)
    }

    /// Refuses a parent that another network has in a way that excludes this one. The kernel keeps the mode of ipvlan
    /// with the parent, so a second one would change the first's.
    pub(super) fn check_parent(&self, wanted: &Network) -> Result<(), EngineError> {
        let Some(mine) = &wanted.sublink else { return Ok(()) };
        for other in self.networks.values().filter(|n| n.id != wanted.id) {
            let Some(theirs) = other.sublink.as_ref().filter(|s| s.parent == mine.parent) else { continue };
            let ipvlan = wanted.driver == Driver::Ipvlan;
            let why = if wanted.driver != other.driver {
                "macvlan and ipvlan exclude one another on a parent"
            } else if mine.mode == Mode::Passthru || theirs.mode == Mode::Passthru {
                "passthru has its parent to itself"
            } else if ipvlan && (mine.mode, mine.flag) != (theirs.mode, theirs.flag) {
                "all ipvlan networks of a parent have the same mode and flag"
            } else {
                continue;
            };
            let (parent, network) = (mine.parent.clone(), other.name.clone());
            return Err(EngineError::ParentTaken { parent, network, why });
        }
        Ok(())
    }

    /// The MTU of a parent, as it is now.
    pub(super) fn parent_mtu(&self, network: &Network) -> Option<u32> {
        network.sublink.as_ref()?;
        let found = driver::of(network.driver)?.find(self.ground(), network);
        found.ok().flatten().map(|base| base.mtu)
    }

    /// Plugs an endpoint in; what it became when its driver chose something of it.
    pub(super) fn plug_in(
        &mut self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        netns: BorrowedFd<'_>,
    ) -> Result<Option<Endpoint>, EngineError> {
        for attempt in 0..2 {
            let base = self.ensure_base(&endpoint.network)?;
            let network = &self.networks[&endpoint.network];
            let Some(driver) = driver::of(network.driver) else { return Ok(None) };
            match driver.plug(self.ground(), &Plug { base, network, sandbox, endpoint, netns }) {
                Ok(became) => return Ok(became),
                // Somebody removed the bridge since we last looked: make it again, once.
                Err(e) if attempt == 0 && e.is_missing() => {
                    self.bases.remove(&endpoint.network);
                }
                Err(source) => return Err(self.of_wire(sandbox, endpoint, source)),
            }
        }
        unreachable!("the second attempt returns")
    }

    /// What a failure about an endpoint's interfaces is told as.
    pub(super) fn of_wire(
        &self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        source: driver::DriverError,
    ) -> EngineError {
        let network = self.networks.get(&endpoint.network).map_or_else(String::new, |n| n.name.clone());
        EngineError::Wire { container: sandbox.name.clone(), network, source }
    }

    /// Waits until packets of these endpoints pass, and tells neighbours that may know their addresses with other macs.
    pub(super) fn await_ready<'a>(
        &self,
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        let mut announced = Vec::new();
        for endpoint in endpoints {
            let network = &self.networks[&endpoint.network];
            let failed = |source| EngineError::Base { network: network.name.clone(), source };
            if let Some(driver) = driver::of(network.driver) {
                driver.await_ready(self.ground(), network, endpoint).map_err(failed)?;
            }
            if endpoint.is_bridged() && self.interface(endpoint).announced {
                announced.push(endpoint.interface.clone());
            }
        }
        if !announced.is_empty()
            && let Err(error) = inside::announce(netns, &announced)
        {
            tracing::warn!(interfaces = ?announced, error = %chain(&error), "neighbours are not told of new macs");
        }
        Ok(())
    }

    /// The other endpoints that have an interface in a sandbox's namespace.
    pub(super) fn peers<'a>(&'a self, sandbox: &'a Sandbox, endpoint: &Endpoint) -> Vec<Peer<'a>> {
        let own = sandbox.endpoints.iter();
        let all = own.chain(self.siblings(sandbox).flat_map(|s| &s.endpoints));
        let others = all.filter(|e| e.id != endpoint.id && e.is_wired());
        others
            .filter_map(|endpoint| Some(Peer { network: self.networks.get(&endpoint.network)?, endpoint }))
            .collect()
    }

    /// Takes an endpoint away, here and now.
    pub(super) fn unplug(
        &self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<(), EngineError> {
        let Some(network) = self.networks.get(&endpoint.network) else { return Ok(()) };
        let Some(driver) = driver::of(network.driver).filter(|_| endpoint.is_wired()) else { return Ok(()) };
        let failed = |source| EngineError::Base { network: network.name.clone(), source };
        let peers = &self.peers(sandbox, endpoint);
        driver.unplug(self.ground(), &Unplug { network, sandbox, endpoint, netns, peers }).map_err(failed)
    }

    /// Whether an endpoint of a record is plugged in.
    pub(super) fn is_plugged(
        &self,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        netns: BorrowedFd<'_>,
    ) -> Result<bool, EngineError> {
        let network = &self.networks[&endpoint.network];
        let failed = |source| EngineError::Base { network: network.name.clone(), source };
        let peers = &self.peers(sandbox, endpoint);
        let of = Unplug { network, sandbox, endpoint, netns: Some(netns), peers };
        driver::of(network.driver).map_or(Ok(true), |d| d.is_plugged(self.ground(), &of).map_err(failed))
    }
}
