//! Compares what should be with what the kernel has, and mends it when asked to.
//!
//! ```text
//! host       bridges, interfaces with our mark, the firewall table, settings, reservations, addresses
//! records    what a restart relies on
//! sandbox    its holder, the host's ends of its interfaces, what is inside it
//! mend       what each difference is mended by; most of it is what an attach or a start does anyway
//! ```
//! A check changes nothing. A repair looks again after it has mended: only what is no longer so counts as repaired. The
//! host is one job of the engine and each sandbox one more, so that an attach never waits for a whole check.

mod around;
mod bridge;
mod host;
mod inside;
mod mend;
mod records;
mod sandbox;

use super::{Engine, EngineError};
use crate::endpoint::Sandbox;
use crate::firewall::compare::{Difference, Fault};
use mend::Mend;

/// What is told of an interface that has the name of one of ours, and is left alone.
const NOT_OURS: &str = "an interface of this name is there that is not ours";

/// One difference, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// What is wrong.
    pub fault: Fault,
    /// With what: "interface dvh0123456789ab", "setting net/ipv4/ip_forward".
    pub object: String,
    /// The network's name, where it is one's.
    pub network: String,
    /// The container's name, where it is one's.
    pub sandbox: String,
    /// More, for a person.
    pub detail: String,
    /// It was mended.
    pub repaired: bool,
    /// Why it could not be.
    pub error: String,
}

impl Drift {
    /// What could not be looked at: it hides nothing of the rest.
    pub fn unseen(what: &str, error: &EngineError) -> Self {
        Found::unseen(what, error).drift
    }
}

/// A difference and what mends it.
#[derive(Debug, Clone)]
struct Found {
    drift: Drift,
    mend: Mend,
}

impl Found {
    fn new(fault: Fault, object: impl Into<String>, detail: impl Into<String>, mend: Mend) -> Self {
        let drift = Drift {
            fault,
            object: object.into(),
            network: String::new(),
            sandbox: String::new(),
            detail: detail.into(),
            repaired: false,
            error: String::new(),
        };
        Self { drift, mend }
    }

    fn of_network(mut self, name: &str) -> Self {
        name.clone_into(&mut self.drift.network);
        self
    }

    fn of_sandbox(mut self, name: &str) -> Self {
        name.clone_into(&mut self.drift.sandbox);
        self
    }

    fn of_known(self, sandbox: Option<&Sandbox>) -> Self {
        match sandbox {
            Some(sandbox) => self.of_sandbox(&sandbox.name),
            None => self,
        }
    }

    /// What could not be looked at.
    fn unseen(what: &str, error: &EngineError) -> Self {
        let detail = super::chain(error);
        Self::new(Fault::Differs, what, detail, Mend::Nothing("it cannot be looked at"))
    }

    fn of_table(difference: Difference, mend: Mend) -> Self {
        Self::new(difference.fault, difference.object, difference.detail, mend)
    }

    /// Whether it is about the same thing.
    fn same(&self, other: &Self) -> bool {
        let key = |f: &Self| (f.drift.fault, f.drift.object.clone(), f.drift.sandbox.clone());
        key(self) == key(other)
    }
}

impl Engine {
    /// Checks the host's side. Also answers the ids of the sandboxes, for [`Self::check_sandbox`]. `detached`: ids of those that
    /// run without being known here.
    pub fn check_host(
        &mut self,
        repair: bool,
        detached: &[String],
    ) -> Result<(Vec<Drift>, Vec<String>), EngineError> {
        self.settle();
        let looked = self.check(repair, |me| me.look_at_host(detached));
        let drifts = looked.unwrap_or_else(|e| vec![Drift::unseen("the host's interfaces", &e)]);
        let mut sandboxes: Vec<_> = self.sandboxes.values().map(|s| (s.sequence, s.id.clone())).collect();
        sandboxes.sort();
        Ok((drifts, sandboxes.into_iter().map(|(_, id)| id).collect()))
    }

    /// Checks one sandbox; nothing when it is gone by now.
    pub fn check_sandbox(&mut self, id: &str, repair: bool) -> Result<Vec<Drift>, EngineError> {
        self.check(repair, |me| Ok(me.look_at_sandbox(id)))
    }

    fn check(
        &mut self,
        repair: bool,
        look: impl Fn(&mut Self) -> Result<Vec<Found>, EngineError>,
    ) -> Result<Vec<Drift>, EngineError> {
        let found = look(self)?;
        if !repair || found.is_empty() {
            return Ok(found.into_iter().map(|f| f.drift).collect());
        }
        let mut done: Vec<(Mend, Option<String>)> = Vec::new();
        for mend in found.iter().map(|f| &f.mend) {
            if !done.iter().any(|(m, _)| m == mend) {
                let error = self.mend(mend).err().map(|e| super::reconcile::chain(&e));
                done.push((mend.clone(), error));
            }
        }
        let left = look(self)?;
        let mut drifts = Vec::new();
        for mut one in found.iter().cloned() {
            one.drift.repaired = !left.iter().any(|l| l.same(&one));
            if one.drift.repaired {
                tracing::info!(object = %one.drift.object, sandbox = %one.drift.sandbox, "repaired");
            } else {
                let told = done.iter().find(|(m, _)| *m == one.mend).and_then(|(_, e)| e.clone());
                one.drift.error = told.unwrap_or_else(|| one.mend.why_not().to_owned());
            }
            drifts.push(one.drift);
        }
        // What was hidden behind something else.
        drifts.extend(left.into_iter().filter(|l| !found.iter().any(|f| f.same(l))).map(|l| l.drift));
        Ok(drifts)
    }
}
