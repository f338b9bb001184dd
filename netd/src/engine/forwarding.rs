//! The host's forwarding: turned on for the first network that leads out, remembered as ours, and guarded.
//!
//! ```text
//! it was off: note (run/forwarding.json) -> the guard's rules -> the setting      it was on: nothing of this
//! ```
//! In this order a kill leaves the host guarded or not forwarding. The note ends with the machine, as the setting does.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Engine, EngineError};
use crate::failpoint::pass;
use crate::firewall::Guard;
use crate::firewall::guard::There;
use crate::netlink::view::{self, Link};
use crate::settings::Forwarding;
use crate::sysctl;

/// The settings: IPv4, IPv6.
const SETTINGS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
/// `RTF_DEFAULT | RTF_ADDRCONF` (linux/ipv6_route.h): a default route that came with a router advertisement.
const ADVERTISED: u32 = 0x0001_0000 | 0x0004_0000;

impl Engine {
    /// Reads whose forwarding is ours, and writes the guard's rules. Forwarding that somebody turned off is not.
    pub(super) fn restore_forwarding(&mut self) {
        let path = self.forwarding_note();
        let text = fs::read(&path).unwrap_or_default();
        let mut noted: Guard = serde_json::from_slice(&text).unwrap_or_else(|error| {
            if !text.is_empty() {
                // Guarded rather than open: whoever needs it open says so.
                tracing::warn!(path = %path.display(), %error, "the note of whose forwarding is ours is damaged");
            }
            Guard::default()
        });
        for ipv6 in [false, true] {
            if noted.there(ipv6).is_some() && !is_on(ipv6) {
                noted.forget(ipv6);
            }
        }
        self.forwarded = noted;
        let outcome = self.note_forwarding().and_then(|()| self.apply_guard());
        if let Err(error) = outcome {
            let error = super::reconcile::chain(&error);
            tracing::error!(error, "the host may forward for strangers; the next change tries again");
        }
    }

    /// Turns on what the networks need that lead out.
    pub(super) fn forward(&mut self) -> Result<(), EngineError> {
        for (setting, value) in self.wanted_settings() {
            let ipv6 = setting == SETTINGS[1];
            if sysctl::get(setting)? != value {
                self.forwarded.note(ipv6, self.of_others(ipv6)?);
                self.note_forwarding()?;
                self.apply_guard()?;
                if ipv6 {
                    keep_advertised_routes()?;
                }
                sysctl::ensure(setting, value)?;
                self.tell(ipv6);
            }
        }
        Ok(())
    }

    fn tell(&self, ipv6: bool) {
        let version = if ipv6 { "IPv6" } else { "IPv4" };
        if self.instance.forwarding == Forwarding::Open {
            tracing::warn!(
                "the host forwards {version} now, for whoever sends it packets: netd.toml says so"
            );
        } else {
            tracing::info!(
                "the host forwards {version} for its networks now, and not for others (netd.toml: forwarding)"
            );
        }
    }

    /// The guard as it should be in the kernel.
    pub(super) fn wanted_guard(&self) -> Guard {
        match self.instance.forwarding {
            Forwarding::Guarded => self.forwarded.clone(),
            Forwarding::Open => Guard::default(),
        }
    }

    pub(super) fn apply_guard(&self) -> Result<(), EngineError> {
        self.firewall.guard(&self.wanted_guard()).map_err(EngineError::Firewall)
    }

    /// Writes the guard again after somebody else took it away.
    pub(super) fn mend_guard(&self) {
        if self.wanted_guard().is_empty() || self.firewall.is_guarded() {
            return;
        }
        match self.apply_guard() {
            Ok(()) => tracing::debug!("rules that keep strangers out are written again"),
            Err(error) => {
                tracing::error!(%error, "somebody removed rules that keep strangers out; they are missing");
            }
        }
    }

    fn forwarding_note(&self) -> PathBuf {
        self.instance.run.join("forwarding.json")
    }

    fn note_forwarding(&self) -> Result<(), EngineError> {
        let path = self.forwarding_note();
        let failed = |source: io::Error| EngineError::Note { path: path.clone(), source };
        if self.forwarded.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
                _ => Ok(()),
            };
        }
        let draft = path.with_extension("draft");
        let text = serde_json::to_vec(&self.forwarded).expect("names of bridges are text");
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(failed)?;
        pass("forwarding.noted");
        Ok(())
    }

    /// The interfaces that packets of an IP version came and went by, those that would have been forwarded between. A bridge
    /// that has no address of the version may be given one later, with rules of whoever does.
    fn of_others(&self, ipv6: bool) -> Result<There, EngineError> {
        let addresses = view::addresses(&self.socket)?;
        let has_address = |l: &Link| {
            addresses.iter().any(|a| a.index == l.index && a.global && a.net.addr().is_ipv6() == ipv6)
        };
        let mut there = There::default();
        for link in self.links_of_others()? {
            if link.kind == "bridge" {
                if !has_address(&link) {
                    continue;
                }
                there.bridges.insert(link.name.clone());
            }
            there.interfaces.insert(link.name);
        }
        Ok(there)
    }

    /// The interfaces outside our group but for the loopback and ports of bridges, by which nothing is routed.
    fn links_of_others(&self) -> Result<Vec<Link>, EngineError> {
        let mut all = view::links(&self.socket)?;
        let bridges: BTreeSet<u32> = all.iter().filter(|l| l.kind == "bridge").map(|l| l.index).collect();
        all.retain(|l| {
            l.group != self.instance.group
                && l.name != "lo"
                && l.master.is_none_or(|master| !bridges.contains(&master))
        });
        Ok(all)
    }
}

fn is_on(ipv6: bool) -> bool {
    sysctl::get(SETTINGS[usize::from(ipv6)]).is_ok_and(|value| value != "0")
}

/// A host that forwards takes router advertisements only with `accept_ra` 2, and drops the default routes that it has from
/// them: without this it would lose its own way out.
fn keep_advertised_routes() -> Result<(), EngineError> {
    let table = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    for interface in advertised(&table) {
        let setting = format!("net/ipv6/conf/{interface}/accept_ra");
        if sysctl::get(&setting).is_ok_and(|value| value == "1") {
            tracing::info!(
                interface,
                "its default route comes from router advertisements, which are taken from now on though the host forwards"
            );
            sysctl::ensure(&setting, "2")?;
        }
    }
    Ok(())
}

/// The interfaces with default routes from router advertisements, as the kernel lists them: destination, prefix length,
/// source, prefix length, next hop, metric, references, uses, flags, interface.
fn advertised(table: &str) -> BTreeSet<&str> {
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
            (flags & ADVERTISED == ADVERTISED).then_some(*fields.get(9)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_of_advertisements_are_told_from_others() {
        let line = |flags: &str, interface: &str| {
            format!(
                "{0} 00 {0} 00 fe800000000000000000000000000001 00000400 00000001 00000000 {flags} {interface}",
                "0".repeat(32)
            )
        };
        let table = [line("00450003", "eth0"), line("00000003", "eth1"), line("00040001", "eth2")].join("\n");
        assert_eq!(advertised(&table).into_iter().collect::<Vec<_>>(), ["eth0"]);
        assert!(advertised("nonsense\n").is_empty());
    }
}
