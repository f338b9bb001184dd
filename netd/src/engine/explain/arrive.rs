//! At the target: its interface, its way back, and who listens there.

use super::sockets::{self, Bound};
use super::{Packet, Place, REPAIR, Scene, Step, Walk, scene, visit};
use crate::driver::inside::InsideError;
use crate::endpoint::{Endpoint, Sandbox};
use crate::firewall::{self, ForeignChain, Transport};
use crate::netlink::view::Fate;

/// How many listening ports a hint names.
const NAMED: usize = 6;

impl Walk<'_> {
    /// Into a sandbox by one of its interfaces.
    pub(super) fn arrive(&mut self, sandbox: &Sandbox, endpoint: &Endpoint, packet: Packet) -> Step {
        let back = packet.source.unwrap_or(packet.to);
        let seen = visit(sandbox, |socket| scene(socket, back))?;
        let name = &endpoint.interface;
        // A container may have given it another name.
        let at = seen.addresses.iter().find(|a| a.net.addr() == packet.to);
        let wrong = match at.and_then(|a| seen.link(a.index)) {
            Some(link) if link.up => None,
            Some(link) => Some(format!("its interface {} is down", link.name)),
            None if seen.links.iter().any(|l| l.name == *name) => {
                Some(format!("its interface {name} has lost the address {}", packet.to))
            }
            None => Some(format!("its interface {name} is gone")),
        };
        if let Some(what) = wrong {
            return Err(self.stop("target", &sandbox.name, what, REPAIR));
        }
        self.way_back(sandbox, &seen, packet)?;
        self.target(Place::Sandbox(sandbox), packet)
    }

    fn way_back(&mut self, sandbox: &Sandbox, seen: &Scene, packet: Packet) -> Step {
        let Some(source) = packet.source else { return Ok(()) };
        match &seen.route {
            Ok(route) if route.fate == Fate::Unicast => {
                let by = seen.link(route.index).map_or("?", |l| l.name.as_str());
                self.pass("route", &sandbox.name, format!("its answers to {source} leave by {by}"));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) => {
                let what = format!("it has no route back to {source}");
                let hint = "its networks are internal, or its default route was removed";
                Err(self.stop("route", &sandbox.name, what, hint))
            }
        }
    }

    /// Whether somebody listens.
    pub(super) fn target(&mut self, place: Place<'_>, packet: Packet) -> Step {
        if packet.port == 0 {
            self.pass("target", place.name(), format!("{} is there; no port was asked for", packet.to));
            return Ok(());
        }
        if packet.transport == Transport::Sctp {
            self.note("target", place.name(), "who listens for sctp is not looked at");
            return Ok(());
        }
        let (bound, chains) = match place {
            Place::Host => {
                let mark = self.engine.instance.mark();
                (sockets::bound(packet.transport), firewall::foreign_chains(1, &mark))
            }
            Place::Sandbox(sandbox) => visit(sandbox, |_| -> Result<_, InsideError> {
                // Of the resolver's table, which is called that in each container.
                let mark = firewall::Mark { table: "davit".into(), group: 0 };
                Ok((sockets::bound(packet.transport), firewall::foreign_chains(1, &mark)))
            })?,
        };
        if let Some(first) = chains.unwrap_or_default().iter().find(|c| c.routed) {
            self.note("rule", place.name(), own_rules(first));
        }
        if let Some(by) = bound.iter().find(|b| b.meets(packet.to, packet.port)) {
            self.pass("target", place.name(), format!("somebody listens on {}", by.shown(packet.transport)));
            return Ok(());
        }
        let (what, hint) = nobody(&bound, packet);
        Err(self.stop("target", place.name(), what, hint))
    }
}

fn own_rules(chain: &ForeignChain) -> String {
    let by = if chain.drops { ", which drops what no rule of it lets through" } else { "" };
    format!("it has firewall rules of its own, which are not looked at: {}{by}", chain.name)
}

fn nobody(bound: &[Bound], packet: Packet) -> (String, String) {
    let (port, transport) = (packet.port, packet.transport);
    if let Some(elsewhere) = bound.iter().find(|b| b.at.port() == port) {
        let what =
            format!("its program listens on {} only, not on {}", elsewhere.shown(transport), packet.to);
        let hint = if elsewhere.only_v6 && elsewhere.at.ip().is_unspecified() {
            "let the program listen on 0.0.0.0 too, or on [::] without IPV6_V6ONLY (nginx: ipv6only=off)"
        } else {
            "let the program listen on 0.0.0.0 or [::]"
        };
        return (what, hint.to_owned());
    }
    let mut ports: Vec<u16> =
        bound.iter().filter(|b| !b.at.ip().is_loopback()).map(|b| b.at.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    let hint = match ports.len() {
        0 => "is its program running?".to_owned(),
        n => {
            let named: Vec<String> =
                ports.iter().take(NAMED).map(|p| format!("{p}/{}", transport.name())).collect();
            format!("it listens on {}{}", named.join(", "), if n > NAMED { ", ..." } else { "" })
        }
    };
    (format!("nobody listens on {port}/{}", transport.name()), hint)
}
