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

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError};
use crate::failpoint::pass;
use crate::firewall::Guard;
use crate::firewall::compare::Fault;
use crate::firewall::guard::There;
use crate::netlink::view::{self, Link};
use crate::settings::Forwarding;
use crate::sysctl;

/// The settings: IPv4, IPv6.
const SETTINGS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// What is remembered of whose forwarding is ours.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Of which run of the machine: the setting does not outlive it, and the file may.
    boot: String,
    guard: Guard,
}

impl Default for Note {
    fn default() -> Self {
        Self { boot: boot(), guard: Guard::default() }
    }
}

fn boot() -> String {
    sysctl::get("kernel/random/boot_id").unwrap_or_default()
}

impl Engine {
    /// Reads whose forwarding is ours, and writes the guard's rules. Forwarding that somebody turned off is not.
    pub(super) fn restore_forwarding(&mut self) {
        if let Err(error) = self.read_forwarding().and_then(|()| self.apply_guard()) {
            let error = super::reconcile::chain(&error);
            tracing::error!(error, "the host may forward for strangers; the next change tries again");
        }
    }

    fn read_forwarding(&mut self) -> Result<(), EngineError> {
        let path = self.forwarding_note();
        let noted = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.forwarding_unnoted()?,
            read => match read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other)) {
                Ok(noted) => noted,
                Err(error) => {
                    tracing::warn!(
                        path = %path.display(), %error,
                        "the note of whose forwarding is ours is damaged; what is on counts as ours (netd.toml: forwarding)"
                    );
                    self.all_forwarding()?
                }
            },
        };
        self.forwarded = if noted.boot == boot() { noted.guard } else { Guard::default() };
        for ipv6 in [false, true] {
            if self.forwarded.there(ipv6).is_some() && !is_on(ipv6) {
                self.forwarded.forget(ipv6);
            }
        }
        self.note_forwarding()
    }

    /// Without a note nothing is ours, but where the guard's rules are in the kernel: they are there for what is, so the note
    /// was lost.
    fn forwarding_unnoted(&self) -> Result<Note, EngineError> {
        if !self.firewall.has_guard().map_err(EngineError::Firewall)? {
            return Ok(Note::default());
        }
        tracing::warn!(
            path = %self.forwarding_note().display(),
            "the note of whose forwarding is ours is gone, and rules of ours keep strangers out; what is on counts as ours \
             (netd.toml: forwarding)"
        );
        self.all_forwarding()
    }

    /// What is wrong with the note, if anything is.
    pub(super) fn forwarding_fault(&self) -> Option<Fault> {
        match fs::read(self.forwarding_note()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (!self.forwarded.is_empty()).then_some(Fault::Missing)
            }
            _ if self.forwarded.is_empty() => Some(Fault::Stray),
            read => {
                let noted = read.ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
                (noted != Some(self.wanted_note())).then_some(Fault::Differs)
            }
        }
    }

    fn wanted_note(&self) -> Note {
        Note { boot: boot(), guard: self.forwarded.clone() }
    }

    /// All that is on, as if it were ours: guarded rather than open, since whoever needs it open can say so.
    fn all_forwarding(&self) -> Result<Note, EngineError> {
        let mut guard = Guard::default();
        for ipv6 in [false, true] {
            if is_on(ipv6) {
                guard.note(ipv6, self.of_others(ipv6)?);
            }
        }
        Ok(Note { boot: boot(), guard })
    }

    /// Turns on what the networks need that lead out.
    pub(super) fn forward(&mut self) -> Result<(), EngineError> {
        for (setting, value) in self.wanted_settings() {
            let ipv6 = setting == SETTINGS[1];
            // Any number but 0 is on.
            if sysctl::get(setting)? != "0" {
                continue;
            }
            let ours = !self.forwards_in_part(ipv6)?;
            if ours {
                self.forwarded.note(ipv6, self.of_others(ipv6)?);
                self.note_forwarding()?;
                self.apply_guard()?;
            }
            if ipv6 {
                self.keep_advertisements()?;
            }
            sysctl::ensure(setting, value)?;
            if ours {
                self.tell(ipv6);
            }
        }
        Ok(())
    }

    /// Whether somebody has the host forward what comes in by single interfaces, while the setting for all is off.
    fn forwards_in_part(&self, ipv6: bool) -> Result<bool, EngineError> {
        // For IPv6 `forwarding` of an interface says only that the host is a router there.
        let (version, setting) = if ipv6 { ("ipv6", "force_forwarding") } else { ("ipv4", "forwarding") };
        let on = |link: &Link| {
            sysctl::get(&format!("net/{version}/conf/{}/{setting}", link.name)).is_ok_and(|v| v != "0")
        };
        Ok(self.links_of_others()?.iter().any(on))
    }

    /// A host that forwards takes router advertisements only with `accept_ra` 2, and drops the default routes that it has from
    /// them: without this it would lose its own way out, or never find it.
    fn keep_advertisements(&self) -> Result<(), EngineError> {
        for link in self.links_of_others()? {
            let interface = link.name;
            let setting = |what: &str| format!("net/ipv6/conf/{interface}/{what}");
            let is = |what: &str, value: &str| sysctl::get(&setting(what)).is_ok_and(|v| v == value);
            if is("accept_ra", "1") && is("forwarding", "0") {
                tracing::info!(
                    interface,
                    "router advertisements are taken from now on though the host forwards"
                );
                sysctl::ensure(&setting("accept_ra"), "2")?;
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

    pub(super) fn forwarding_note(&self) -> PathBuf {
        self.instance.run.join("forwarding.json")
    }

    pub(super) fn note_forwarding(&self) -> Result<(), EngineError> {
        let path = self.forwarding_note();
        let failed = |source: io::Error| EngineError::Note { path: path.clone(), source };
        if self.forwarded.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
                _ => Ok(()),
            };
        }
        let draft = path.with_extension("draft");
        let text = serde_json::to_vec(&self.wanted_note()).expect("names of bridges are text");
        fs::create_dir_all(&self.instance.run).map_err(failed)?;
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
