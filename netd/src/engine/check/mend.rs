//! What mends a difference.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use davit_contracts::id::NetworkId;
use ipnet::IpNet;

use super::super::attach::open_namespace;
use super::super::stages::Stages;
use super::super::{Engine, EngineError};
use super::bridge::lost_routes;
use super::inside;
use crate::driver::inside::Visit;
use crate::driver::owned::{self, End};
use crate::driver::{Base, bridge};
use crate::endpoint::Sandbox;
use crate::netlink::{Batch, adjust, fdb, neighbours, route, tc, view};
use crate::network::{Driver, Network};
use crate::sysctl;

/// A way to mend. Several differences may have the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mend {
    /// Nothing that netd may do by itself.
    Nothing(&'static str),
    /// Make a network's bridge or parent, or set it as it should be.
    Base(NetworkId),
    /// Take an address from an interface.
    TakeAddress(u32, IpNet),
    /// Take an entry for a neighbour away.
    Neighbour(u32, IpAddr),
    /// Remove an interface.
    RemoveInterface(String),
    /// Write the firewall's table anew.
    Rules,
    /// Write the rules against strangers anew, or remove them.
    Guard,
    /// Write the policies' tables anew.
    Policies,
    /// Remove the firewall's table.
    RemoveRules,
    /// Bind the reserved ports again.
    Reservations,
    /// Write the note of whose forwarding is ours, or remove it.
    Forwarding,
    /// Write a sandbox's record.
    Record(String),
    /// Remove a file that is no record of a sandbox.
    RemoveFile(PathBuf),
    /// Give an address back.
    Release(NetworkId, IpAddr),
    /// Undo an attach whose holder is gone.
    Detach(String),
    /// Make the pair of interfaces of a sandbox's endpoint on a network anew.
    Rewire(String, NetworkId),
    /// Set the host's end of that pair as it should be.
    Port(String, NetworkId),
    /// Set what is inside as it should be.
    Inside(String),
    /// Open the resolver inside again.
    Resolver(String),
}

impl Mend {
    /// What to say when it is still so after mending.
    pub(super) fn why_not(&self) -> &'static str {
        match self {
            Self::Nothing(why) => why,
            _ => "it is so again after it was mended",
        }
    }
}

impl Engine {
    pub(super) fn mend(&mut self, mend: &Mend) -> Result<(), EngineError> {
        match mend {
            Mend::Nothing(_) => Ok(()),
            Mend::Base(id) => self.mend_base(id),
            Mend::TakeAddress(index, address) => {
                let mut batch = Batch::new();
                adjust::delete_address(&mut batch, *index, *address);
                Ok(self.socket.run(&batch)?)
            }
            Mend::Neighbour(index, ip) => {
                let mut batch = Batch::new();
                neighbours::remove(&mut batch, *index, *ip);
                Ok(self.socket.run(&batch)?)
            }
            Mend::RemoveInterface(name) => Ok(bridge::remove_link(&self.socket, name)?),
            Mend::Rules => self.apply_rules(),
            Mend::Guard => self.apply_guard(),
            Mend::Policies => self.apply_policies(),
            Mend::RemoveRules => self.firewall.remove().map_err(EngineError::Firewall),
            Mend::Reservations => Ok(self.ports.reserve_lost()?),
            Mend::Forwarding => self.note_forwarding(),
            Mend::Record(id) => match self.sandboxes.get(id) {
                Some(sandbox) => Ok(self.journal.write(sandbox)?),
                None => Ok(self.journal.remove(id)?),
            },
            Mend::RemoveFile(path) => Ok(self.journal.discard(path)?),
            Mend::Release(network, ip) => {
                self.pools.get_mut(network).into_iter().flatten().for_each(|pool| pool.release(*ip));
                Ok(())
            }
            Mend::Detach(id) => {
                // What plugins made is on record as left over, and theirs to remove after this.
                self.give_up(id, None, false)?;
                self.detach_own(id)?;
                self.settle();
                Ok(())
            }
            Mend::Rewire(id, network) => self.rewire(id, network),
            Mend::Port(id, network) => self.mend_port(id, network),
            Mend::Inside(id) => self.mend_inside(id),
            Mend::Resolver(id) => self.mend_resolver(id),
        }
    }

    /// A bridge as it should be, or a parent that is made when it is missing.
    fn mend_base(&mut self, id: &NetworkId) -> Result<(), EngineError> {
        self.reclaim_bridge(id)?;
        let known = self.bases.remove(id);
        let base = self.ensure_base(id)?;
        let network = &self.networks[id];
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        let mut batch = Batch::new();
        if let Some(mtu) = network.mtu().or(known.map(|b| b.mtu)) {
            adjust::set_mtu(&mut batch, base.index, mtu);
            self.bases.insert(id.clone(), Base { mtu, ..base });
        }
        adjust::set_mac(&mut batch, base.index, bridge::mac(network));
        adjust::set_arp(&mut batch, base.index);
        adjust::unset_stp(&mut batch, base.index);
        if view::link(&self.socket, &network.interface)?.is_some_and(|l| l.vlans) {
            adjust::unset_vlans(&mut batch, base.index);
        }
        route::set_up(&mut batch, base.index);
        self.socket.run(&batch)?;
        let network = &self.networks[id];
        for (setting, value) in self.bridge_settings(network) {
            sysctl::set(&setting, value)?;
        }
        self.mend_bridge_routes(network)?;
        if network.policy.is_some() { self.filter_bridge(network, true) } else { Ok(()) }
    }

    /// Adds the routes to a bridge's networks that somebody took away.
    fn mend_bridge_routes(&self, network: &Network) -> Result<(), EngineError> {
        let (links, addresses) = (view::links(&self.socket)?, view::addresses(&self.socket)?);
        let Some(link) = links.iter().find(|l| l.name == network.interface) else { return Ok(()) };
        let mut batch = Batch::new();
        for address in self.deaf(network, link, &addresses) {
            // Its routes come back with it.
            adjust::delete_address(&mut batch, link.index, address);
            route::add_address(&mut batch, link.index, address);
        }
        for address in lost_routes(network, link, &addresses, &view::routes(&self.socket)?) {
            adjust::add_connected_route(&mut batch, link.index, address);
        }
        if batch.is_empty() { Ok(()) } else { Ok(self.socket.run(&batch)?) }
    }

    /// Gives a network's bridge its name and mark back.
    fn reclaim_bridge(&mut self, id: &NetworkId) -> Result<(), EngineError> {
        let network = &self.networks[id];
        let links = view::links(&self.socket)?;
        let bridge = self.bridge_of(network, &links).filter(|_| network.driver == Driver::Bridge);
        let Some(link) = bridge else { return Ok(()) };
        if link.name != network.interface {
            owned::rename(&self.socket, link, &network.interface)?;
        }
        let mut batch = Batch::new();
        adjust::set_group(&mut batch, link.index, self.instance.group);
        self.socket.run(&batch)?;
        if link.name != network.interface {
            // Its routes were another's.
            self.note_problems();
        }
        Ok(())
    }

    /// Removes what is left of an endpoint's interfaces, makes them again, and sets up what is inside.
    fn rewire(&mut self, id: &str, network: &NetworkId) -> Result<(), EngineError> {
        let Some((mut sandbox, at)) = self.endpoint_at(id, network) else { return Ok(()) };
        let endpoint = sandbox.endpoints[at].clone();
        let netns = open_namespace(&sandbox)?;
        self.ensure_base_anew(network)?;
        self.unplug(&sandbox, &endpoint, Some(netns.as_fd()))?;
        self.free_names(&sandbox, netns.as_fd())?;
        self.plug(&mut sandbox, at, netns.as_fd(), &mut Stages::start())?;
        let interfaces = vec![self.interface(&sandbox.endpoints[at])];
        self.visit(&mut sandbox, netns.as_fd(), &Visit { interfaces, ..Visit::default() })?;
        self.keep(&sandbox)?;
        self.mend_inside(id)?;
        self.await_ready([&endpoint], netns.as_fd())
    }

    /// Gives the interfaces of a namespace their names back: another of ours may have the one that is to be made.
    fn free_names(&self, sandbox: &Sandbox, netns: BorrowedFd<'_>) -> Result<(), EngineError> {
        for one in self.siblings(sandbox).chain([sandbox]) {
            let wanted = self.wanted_inside(one, netns)?;
            inside::rename_back(netns, &wanted)
                .map_err(|source| EngineError::Inside { container: one.name.clone(), source })?;
        }
        Ok(())
    }

    fn endpoint_at(&self, id: &str, network: &NetworkId) -> Option<(Sandbox, usize)> {
        let sandbox = self.sandboxes.get(id)?;
        let at = sandbox.endpoints.iter().position(|e| e.network == *network)?;
        Some((sandbox.clone(), at))
    }

    fn mend_port(&mut self, id: &str, network: &NetworkId) -> Result<(), EngineError> {
        let Some((sandbox, at)) = self.endpoint_at(id, network) else { return Ok(()) };
        let endpoint = &sandbox.endpoints[at];
        let base = self.ensure_base_anew(network)?;
        let links = view::links(&self.socket)?;
        let found = End::find(&links, endpoint, self.instance.group, || self.within(&sandbox));
        let link = match found.map_err(|source| self.of_wire(&sandbox, endpoint, source))? {
            End::Ours(link) => link,
            End::Renamed(link) => {
                owned::rename(&self.socket, link, &endpoint.host_interface)?;
                link
            }
            End::Gone | End::Foreign(_) => return Ok(()),
        };
        let mut batch = Batch::new();
        adjust::set_group(&mut batch, link.index, self.instance.group);
        adjust::set_mtu(&mut batch, link.index, base.mtu);
        adjust::set_master(&mut batch, link.index, base.index);
        match endpoint.bandwidth.as_ref().and_then(|b| b.ingress()) {
            Some(limit) => tc::limit(&mut batch, &endpoint.host_interface, link.index, limit),
            None if tc::limits(&self.socket)?.iter().any(|b| b.index == link.index) => {
                adjust::remove_limit(&mut batch, link.index);
            }
            None => {}
        }
        let mode = bridge::port_mode(&self.networks[network], &sandbox);
        route::set_port_mode(&mut batch, &endpoint.host_interface, mode);
        adjust::set_port_flags(&mut batch, link.index);
        for entry in self.diverted(endpoint, link) {
            fdb::remove(&mut batch, &entry);
        }
        route::set_up(&mut batch, link.index);
        self.socket.run(&batch)?;
        if link.carrier {
            let mut batch = Batch::new();
            adjust::set_forwarding(&mut batch, link.index);
            self.socket.run(&batch)?;
        }
        self.await_ready([endpoint], open_namespace(&sandbox)?.as_fd())
    }

    fn mend_inside(&mut self, id: &str) -> Result<(), EngineError> {
        let Some(sandbox) = self.sandboxes.get(id).cloned() else { return Ok(()) };
        let netns = open_namespace(&sandbox)?;
        let wanted = self.wanted_inside(&sandbox, netns.as_fd())?;
        inside::mend(netns.as_fd(), &wanted)
            .map_err(|source| EngineError::Inside { container: sandbox.name.clone(), source })
    }

    /// Closes our sockets there, opens them again and writes the redirection anew.
    fn mend_resolver(&mut self, id: &str) -> Result<(), EngineError> {
        let Some(mut sandbox) = self.sandboxes.get(id).cloned() else { return Ok(()) };
        let netns = open_namespace(&sandbox)?;
        // On new ports: with the former ones the redirection would be taken to be there.
        self.visit(&mut sandbox, netns.as_fd(), &Visit { resolver: Some(None), ..Visit::default() })?;
        self.keep(&sandbox)
    }
}
