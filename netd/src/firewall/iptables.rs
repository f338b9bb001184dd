//! The backend for hosts that need iptables: chains of our own in the host's tables.
//!
//! ```text
//! children  which processes were ours
//! script    our chains and rules as text for iptables-restore
//! command   the commands, each a process of a few milliseconds
//! legacy    a host's iptables-legacy beside the nftables backend
//! sandbox   the resolver's redirection where the kernel has no nf_tables
//! ```
//! One iptables-restore a change and IP version. Without maps a port is a rule, and a packet that begins a connection
//! with the host walks them all: with many published ports nftables is the better choice.

pub mod children;
pub mod command;
mod compare;
pub mod guard;
pub mod legacy;
pub mod sandbox;
pub mod script;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{FirewallError, Forward, Guard, Mark, Rules, Segment};
use children::Children;
use command::Tool;

/// Our chains in the host's tables.
#[derive(Debug)]
pub struct Iptables {
    mark: Mark,
    /// IPv4, and IPv6 where the host has the command.
    tools: [Option<Tool>; 2],
    variant: &'static str,
    /// Whether the jumps to our chains are known to be there: IPv4, IPv6.
    entered: Cell<[bool; 2]>,
    /// What is published: the same rule twice would have to be removed twice.
    published: RefCell<HashSet<Forward>>,
    /// What is written besides.
    segments: RefCell<Vec<Segment>>,
    /// What keeps strangers out.
    guard: RefCell<Guard>,
    children: Children,
    /// Set by each change of ours.
    touched: Arc<AtomicBool>,
}

impl Iptables {
    /// Finds the commands; changes nothing.
    ///
    /// # Errors
    /// There is no command iptables.
    pub fn open(mark: Mark) -> Result<Self, FirewallError> {
        let children = Children::default();
        let v4 = Tool::of(false, children.clone())?;
        let variant = v4.variant();
        Ok(Self {
            mark,
            tools: [Some(v4), Tool::of(true, children.clone()).ok()],
            variant,
            entered: Cell::new([false; 2]),
            published: RefCell::default(),
            segments: RefCell::default(),
            guard: RefCell::default(),
            children,
            touched: Arc::default(),
        })
    }

    /// Which kernel interface the commands write to: `nf_tables` or `legacy`.
    pub fn variant(&self) -> &'static str {
        self.variant
    }

    /// Whether anything was changed since it was last cleared: a glance at sizes alone does not see what somebody takes away
    /// right after we put it there.
    pub fn touched(&self) -> Arc<AtomicBool> {
        self.touched.clone()
    }

    /// The processes of ours, of which a listener hears as of anybody's.
    pub fn children(&self) -> Children {
        self.children.clone()
    }

    fn tool(&self, ipv6: bool) -> Result<&Tool, FirewallError> {
        self.tools[usize::from(ipv6)].as_ref().ok_or_else(|| FirewallError::NoCommand {
            command: "ip6tables".to_owned(),
            reason: "it is not there".to_owned(),
        })
    }

    /// Replaces all our rules.
    pub fn apply(&self, rules: &Rules) -> Result<(), FirewallError> {
        *self.published.borrow_mut() = rules.forwards.iter().copied().collect();
        self.segments.borrow_mut().clone_from(&rules.segments);
        for ipv6 in [false, true] {
            if ipv6 && !rules.has_ipv6() && !self.entered.get()[1] {
                continue;
            }
            let tool = self.tool(ipv6)?;
            tool.restore(&script::whole(&self.mark, rules, ipv6))?;
            self.touched.store(true, Ordering::Relaxed);
            if !self.entered.get()[usize::from(ipv6)] {
                for jump in script::jumps(&self.mark, ipv6) {
                    tool.ensure(jump.table, jump.chain, &jump.rule)?;
                }
                self.note(ipv6, true);
            }
        }
        Ok(())
    }

    fn note(&self, ipv6: bool, entered: bool) {
        let mut now = self.entered.get();
        now[usize::from(ipv6)] = entered;
        self.entered.set(now);
    }

    /// Whether all jumps are still there, and no chain of ours has fewer rules than were written; what is not is made again
    /// by the next [`Iptables::apply`].
    pub fn is_whole(&self) -> bool {
        let mut whole = true;
        for (ipv6, tool) in [false, true].into_iter().zip(&self.tools) {
            let Some(tool) = tool.as_ref().filter(|_| self.entered.get()[usize::from(ipv6)]) else {
                continue;
            };
            let there = |j: &script::Jump| tool.has(j.table, j.chain, &j.rule).unwrap_or(false);
            // Both versions are looked at: one may be flushed without the other.
            let entered = script::jumps(&self.mark, ipv6).iter().all(there);
            self.note(ipv6, entered);
            whole &= entered && self.is_full(tool, ipv6);
        }
        whole
    }

    /// Adds published ports; fine when they are there.
    pub fn publish(&self, forwards: &[Forward]) -> Result<(), FirewallError> {
        let mut published = self.published.borrow_mut();
        let new: Vec<_> = forwards.iter().filter(|f| !published.contains(f)).copied().collect();
        self.change("-A", &new)?;
        published.extend(new);
        Ok(())
    }

    /// Removes published ports.
    pub fn withdraw(&self, forwards: &[Forward]) -> Result<(), FirewallError> {
        self.change("-D", forwards)?;
        self.published.borrow_mut().retain(|f| !forwards.contains(f));
        Ok(())
    }

    fn change(&self, action: &str, forwards: &[Forward]) -> Result<(), FirewallError> {
        for ipv6 in [false, true] {
            let text = script::change(&self.mark, action, forwards, ipv6);
            if !text.is_empty() {
                self.tool(ipv6)?.restore(&text)?;
                self.touched.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Removes all our rules and chains, also when there are none.
    pub fn remove(&self) -> Result<(), FirewallError> {
        for (ipv6, tool) in [false, true].into_iter().zip(&self.tools) {
            let Some(tool) = tool else { continue };
            let present = |(table, names): &(&str, &[&str])| {
                // One that cannot be asked for may be there.
                let there = |n| tool.has_chain(table, &format!("{}-{n}", script::prefix(&self.mark)));
                names.iter().any(|n| there(n).unwrap_or(true))
            };
            if self.entered.get()[usize::from(ipv6)] || script::chains(ipv6).iter().any(present) {
                // Naming a chain makes it: a jump to one that is gone could not be asked for.
                tool.restore(&script::whole(&self.mark, &Rules::default(), ipv6))?;
                for jump in script::jumps(&self.mark, ipv6) {
                    tool.drop_all(jump.table, jump.chain, &jump.rule)?;
                }
                tool.restore(&script::removal(&self.mark, ipv6))?;
            }
            self.note(ipv6, false);
        }
        Ok(())
    }
}
