//! The engine's part in networks that plugins make: their endpoints planned, recorded and acknowledged. See
//! [`crate::foreign`] for the order of things.

use davit_contracts::id::EndpointId;

use super::attach::{Attached, EndpointSpec};
use super::stages::Stages;
use super::{Engine, EngineError};
use crate::driver::cni::asked::{self, Asked};
use crate::driver::cni::chain::Attachment;
use crate::driver::cni::list::List;
use crate::driver::cni::{CniNetwork, Foreign, Left, Object, outcome};
use crate::endpoint::{Endpoint, Phase, Sandbox};
use crate::foreign::Work;
use crate::network::{Network, SpecError};
use crate::publish::Wanted;

/// The capability of plugins that publish ports.
const PORTS: &str = "portMappings";

/// Attachments that are to stay: containers and interfaces.
pub type Valid = Vec<(String, String)>;

impl Engine {
    /// The plugins' part of a planned endpoint: what they are asked for.
    pub(super) fn plan_foreign(
        sandbox: &Sandbox,
        wanted: &EndpointSpec,
        network: &Network,
        endpoint: &Endpoint,
    ) -> Result<Box<Foreign>, EngineError> {
        let list = list_of(network)?;
        let asked = Asked {
            ips: [&wanted.ip, &wanted.ip6],
            mac: &wanted.mac,
            aliases: &wanted.aliases,
            bandwidth: endpoint.bandwidth.as_deref(),
        };
        let refused = |r: asked::Refused| EngineError::Capability {
            container: sandbox.name.clone(),
            network: network.name.clone(),
            what: r.what,
            capability: r.capability,
        };
        let asked = asked::arguments(&list, &asked).map_err(refused)?;
        Ok(Box::new(Foreign { asked, ..Foreign::default() }))
    }

    /// Ports of a sandbox that is on no bridge of ours: a plugin publishes them. They are reserved as ours are, so that
    /// a conflict is seen before anything is changed.
    pub(super) fn plan_foreign_ports(
        &mut self,
        sandbox: &mut Sandbox,
        ports: &[Wanted],
    ) -> Result<(), EngineError> {
        let Some(first) = sandbox.endpoints.iter().find(|e| e.foreign.is_some()) else { return Ok(()) };
        let mut taker = None;
        for (at, endpoint) in sandbox.endpoints.iter().enumerate().filter(|(_, e)| e.foreign.is_some()) {
            if taker.is_none() && list_of(&self.networks[&endpoint.network])?.has_capability(PORTS) {
                taker = Some(at);
            }
        }
        let Some(taker) = taker else {
            return Err(EngineError::Capability {
                container: sandbox.name.clone(),
                network: self.networks[&first.network].name.clone(),
                what: "published ports",
                capability: PORTS,
            });
        };
        for wanted in ports {
            let mapping = self.reserve(sandbox, *wanted)?;
            sandbox.ports.push(mapping);
        }
        let mappings = asked::ports(&sandbox.ports);
        if let Some(foreign) = &mut sandbox.endpoints[taker].foreign {
            foreign.asked.insert(PORTS.into(), mappings);
        }
        Ok(())
    }

    /// Ports of a sandbox that came to be on no network through which they are published: the plugins of one that it
    /// joins publish them where they can.
    pub(super) fn plan_ports_anew(
        before: &Sandbox,
        endpoint: &mut Endpoint,
        network: &Network,
    ) -> Result<(), EngineError> {
        let publishes = |e: &Endpoint| e.foreign.as_ref().is_some_and(|f| f.asked.contains_key(PORTS));
        let published = before.gateway_endpoint().is_some() || before.endpoints.iter().any(publishes);
        if let Some(foreign) = &mut endpoint.foreign
            && !published
            && !before.ports.is_empty()
            && list_of(network)?.has_capability(PORTS)
        {
            foreign.asked.insert(PORTS.into(), asked::ports(&before.ports));
        }
        Ok(())
    }

    /// What plugins have to do with a sandbox, on one network or on all.
    pub fn plugin_work(&mut self, id: &str, network: Option<&str>) -> Result<Vec<Work>, EngineError> {
        let network = network.map(|name| self.find_network(name).map(|n| n.id.clone())).transpose()?;
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(Vec::new()) };
        let works = self.works_of(sandbox);
        let ids = sandbox.endpoints.iter().filter(|e| network.as_ref().is_none_or(|n| e.network == *n));
        let ids: Vec<_> = ids.map(|e| e.id.clone()).collect();
        Ok(works.into_iter().filter(|w| ids.contains(&w.endpoint)).collect())
    }

    fn works_of(&self, sandbox: &Sandbox) -> Vec<Work> {
        let netns = sandbox.holder.is_alive().then(|| sandbox.holder.path());
        let work = |endpoint: &Endpoint| {
            let foreign = endpoint.foreign.as_deref()?.clone();
            let Left { network, plugins } = self.left_of(endpoint)?;
            let interface = endpoint.interface.clone();
            Some(Work {
                endpoint: endpoint.id.clone(),
                container: sandbox.name.clone(),
                network,
                plugins,
                at: Attachment { container: sandbox.id.clone(), netns: netns.clone(), interface, foreign },
            })
        };
        sandbox.endpoints.iter().filter_map(work).collect()
    }

    /// Records what plugins made. From here on the sandbox is acknowledged and its names resolve.
    pub fn finish(&mut self, id: &str, results: Vec<(EndpointId, Object)>) -> Result<Attached, EngineError> {
        let unknown = || EngineError::UnknownSandbox(id.to_owned());
        let mut sandbox = self.sandboxes.get(id).cloned().ok_or_else(unknown)?;
        for (endpoint, result) in results {
            let Some(endpoint) = sandbox.endpoints.iter_mut().find(|e| e.id == endpoint) else { continue };
            let got = outcome::read(&result, &endpoint.interface);
            endpoint.mac = got.mac;
            endpoint.ip = got.v4.map(|(address, _)| address);
            endpoint.gateway = got.v4.and_then(|(_, gateway)| gateway);
            endpoint.ip6 = got.v6.map(|(address, _)| address);
            endpoint.gateway6 = got.v6.and_then(|(_, gateway)| gateway);
            endpoint.pending = false;
            if let Some(foreign) = &mut endpoint.foreign {
                foreign.result = Some(result);
            }
        }
        sandbox.phase = Phase::Ready;
        self.keep(&sandbox)?;
        Ok(self.attached(sandbox, Stages::start()))
    }

    /// The plugins of an endpoint, as a leftover has them on record or as its network has them.
    fn left_of(&self, endpoint: &Endpoint) -> Option<Left> {
        if let Some(left) = endpoint.foreign.as_ref()?.left.as_deref() {
            return Some(left.clone());
        }
        let network = self.networks.get(&endpoint.network)?;
        Some(Left { network: network.name.clone(), plugins: network.cni.clone()? })
    }

    /// Keeps in mind what plugins may have made for endpoints whose record goes.
    pub(super) fn leave_behind(&self, sandbox: &Sandbox, endpoints: &[Endpoint]) -> Result<(), EngineError> {
        let mut foreign: Vec<_> = endpoints.iter().filter(|e| e.foreign.is_some()).cloned().collect();
        if foreign.is_empty() {
            return Ok(());
        }
        for endpoint in &mut foreign {
            let left = self.left_of(endpoint).map(Box::new);
            if let Some(foreign) = &mut endpoint.foreign {
                foreign.left = left;
            }
        }
        if let Some(earlier) = self.leftover(&sandbox.id)? {
            let known: Vec<_> = foreign.iter().map(|e| e.id.clone()).collect();
            foreign.extend(earlier.endpoints.into_iter().filter(|e| !known.contains(&e.id)));
        }
        Ok(self.leftovers.write(&Sandbox { endpoints: foreign, ..sandbox.clone() })?)
    }

    /// Takes over what plugins do not remove of a sandbox, on one network or on all: it becomes leftovers. Only when that is
    /// `forced` or nobody holds the sandbox any more; else answers false.
    pub fn give_up(&mut self, id: &str, network: Option<&str>, forced: bool) -> Result<bool, EngineError> {
        let network = network.map(|name| self.find_network(name).map(|n| n.id.clone())).transpose()?;
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(false) };
        if !forced && sandbox.holder.is_alive() {
            return Ok(false);
        }
        let theirs = sandbox.endpoints.iter().filter(|e| network.as_ref().is_none_or(|n| e.network == *n));
        self.leave_behind(sandbox, &theirs.cloned().collect::<Vec<_>>())?;
        Ok(true)
    }

    fn leftover(&self, id: &str) -> Result<Option<Sandbox>, EngineError> {
        Ok(self.leftovers.all()?.into_iter().find(|s| s.id == id))
    }

    /// What is left for plugins to remove.
    pub fn leftovers(&mut self) -> Result<Vec<(String, Vec<Work>)>, EngineError> {
        let mut all = self.leftovers.all()?;
        for sandbox in &mut all {
            // What was attached anew since is not removed by a DEL of the same name.
            let now = self.sandboxes.get(&sandbox.id).map_or(&[][..], |s| &s.endpoints);
            let again =
                |e: &Endpoint| now.iter().any(|n| n.network == e.network && n.interface == e.interface);
            sandbox.endpoints.retain(|e| !again(e));
        }
        all.retain(|sandbox| !sandbox.endpoints.is_empty());
        Ok(all.iter().map(|sandbox| (sandbox.id.clone(), self.works_of(sandbox))).collect())
    }

    /// Networks whose plugins are to be told what is to stay, and that.
    pub fn plugin_garbage(&mut self) -> Result<Vec<(CniNetwork, Valid)>, EngineError> {
        let all = self.networks.values().filter_map(|n| Some((n, n.cni.as_ref().filter(|c| c.gc)?)));
        let valid = |network: &Network| {
            let endpoints = self.endpoints_of(&network.id);
            endpoints.map(|(s, e)| (s.id.clone(), e.interface.clone())).collect::<Vec<_>>()
        };
        Ok(all.map(|(network, cni)| (cni.clone(), valid(network))).collect())
    }

    /// All that plugins made and that lasts.
    pub fn all_plugin_work(&mut self) -> Result<Vec<Work>, EngineError> {
        let ready = self.sandboxes.values().filter(|s| s.has_foreign() && !s.is_unfinished());
        Ok(ready.flat_map(|s| self.works_of(s)).collect())
    }

    /// The plugins have removed these of a sandbox's. What no plugins are known for goes too.
    pub fn forget_leftovers(&mut self, id: &str, gone: &[EndpointId]) -> Result<(), EngineError> {
        let Some(mut sandbox) = self.leftover(id)? else { return Ok(()) };
        sandbox.endpoints.retain(|e| !gone.contains(&e.id) && self.left_of(e).is_some());
        if sandbox.endpoints.is_empty() {
            return Ok(self.leftovers.remove(id)?);
        }
        Ok(self.leftovers.write(&sandbox)?)
    }
}

fn list_of(network: &Network) -> Result<List, EngineError> {
    let config = network.cni.as_ref().map(|c| c.config.as_str()).unwrap_or_default();
    List::parse(config).map_err(|e| SpecError::Cni(e).into())
}
