//! Chains of others on the way of forwarded packets. What our table lets through, another table may still drop: a host
//! whose policy on forward is DROP, as docker, ufw and hardened setups make it, would stop every container.
//!
//! Into each such chain goes, before all other rules, one rule for packets from our interfaces and one for packets to
//! them. They take nothing from what our own chain decides, which has its say all the same: an `accept` holds for one
//! chain only. Of others' chains the hook, priority and policy are read; of their rules nothing but our own comment,
//! by which ours are found again after a kill.

use super::rule::Rule;
use super::{DELRULE, Family, GETCHAIN, GETRULE, HEAD, NEWCHAIN, NEWRULE, Transaction, user_data};
use crate::netlink::message::attributes;
use crate::netlink::{Batch, Flags, NetlinkError, Socket};

/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// firewalld's chain ends with a reject instead of having a policy.
const FIREWALLD: (&str, &str) = ("firewalld", "filter_FORWARD");

/// Whose rules these are.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Our own table, whose chains are not others'.
    pub table: String,
    /// The group of our interfaces.
    pub group: u32,
}

impl Mark {
    /// What our rules say of themselves.
    pub fn comment(&self) -> String {
        format!("{}: its networks pass", self.table)
    }

    /// Whether a table is one of ours.
    pub fn owns(&self, table: &str) -> bool {
        table == self.table || table == self.policy_table() || table == self.guard_table()
    }

    /// The name of the tables of policies.
    pub fn policy_table(&self) -> String {
        format!("{}-policy", self.table)
    }

    /// The name of the table that keeps strangers from using the host as a router.
    pub fn guard_table(&self) -> String {
        format!("{}-guard", self.table)
    }
}

/// A chain as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    family: Family,
    table: String,
    name: String,
    hook: Option<u32>,
    drops: bool,
}

impl Chain {
    /// Whether packets of our networks need a rule of ours to pass it.
    pub fn stops(&self, mark: &Mark) -> bool {
        let firewalld = (self.table.as_str(), self.name.as_str()) == FIREWALLD;
        self.hook == Some(FORWARD)
            && self.family != Family::Bridge
            && !mark.owns(&self.table)
            && (self.drops || firewalld)
    }

    /// Chains that the command iptables keeps must stay such that it can list them.
    fn is_iptables(&self) -> bool {
        matches!(self.family, Family::Ip | Family::Ip6) && self.table == "filter" && self.name == "FORWARD"
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Reads a chain out of a message; `None` when it is of a family that has no forwarded packets of ours.
pub fn parse_chain(payload: &[u8]) -> Option<Chain> {
    let family = Family::of(*payload.first()?)?;
    let mut chain = Chain { family, table: String::new(), name: String::new(), hook: None, drops: false };
    for (kind, value) in attributes(payload.get(HEAD..)?) {
        match kind {
            1 => chain.table = text(value),
            3 => chain.name = text(value),
            4 => chain.hook = attributes(value).find(|(k, _)| *k == 1).and_then(|(_, v)| be32(v)),
            5 => chain.drops = be32(value) == Some(0),
            _ => {}
        }
    }
    Some(chain)
}

/// The kernel's number of a rule that bears our comment.
pub fn parse_own_rule(payload: &[u8], comment: &str) -> Option<u64> {
    let mut handle = None;
    let mut ours = false;
    for (kind, value) in attributes(payload.get(HEAD..)?) {
        match kind {
            3 => handle = value.try_into().ok().map(u64::from_be_bytes),
            7 => ours = value == user_data(comment),
            _ => {}
        }
    }
    handle.filter(|_| ours)
}

fn chains(socket: &Socket) -> Result<Vec<Chain>, NetlinkError> {
    let mut batch = Batch::new();
    batch.push("list firewall chains", GETCHAIN, Flags::DUMP, &[0; HEAD], |_| {});
    Ok(socket.dump(&batch, NEWCHAIN)?.iter().filter_map(|p| parse_chain(p)).collect())
}

fn own_rules(socket: &Socket, chain: &Chain, comment: &str) -> Result<Vec<u64>, NetlinkError> {
    let mut batch = Batch::new();
    let head = [chain.family.number(), 0, 0, 0];
    batch.push(format!("list firewall rules of chain {}", chain.name), GETRULE, Flags::DUMP, &head, |a| {
        a.text(1, &chain.table);
        a.text(2, &chain.name);
    });
    Ok(socket.dump(&batch, NEWRULE)?.iter().filter_map(|p| parse_own_rule(p, comment)).collect())
}

/// Makes sure that others' chains let packets of our networks through. With `own_forward` the chain FORWARD of iptables is
/// not among them: our rules are in it.
pub fn ensure(socket: &Socket, mark: &Mark, own_forward: bool) -> Result<(), NetlinkError> {
    let comment = mark.comment();
    let others = |c: &&Chain| c.stops(mark) && !(own_forward && c.is_iptables());
    for chain in chains(socket)?.iter().filter(others) {
        let present = own_rules(socket, chain, &comment)?;
        if present.len() == 2 {
            continue;
        }
        match write(socket, chain, mark, &present, chain.is_iptables()) {
            // A kernel without iptables' extensions has no iptables either that would have to list them.
            Err(e) if chain.is_iptables() && e.errno() == Some(nix::errno::Errno::ENOENT) => {
                write(socket, chain, mark, &present, false)?;
            }
            other => other?,
        }
        tracing::info!(table = %chain.table, chain = %chain.name, "the chain lets packets of our networks pass now");
    }
    Ok(())
}

/// The chains that drop packets of our networks, though [`ensure`] should have seen to it.
pub fn stopping(socket: &Socket, mark: &Mark, own_forward: bool) -> Result<Vec<String>, NetlinkError> {
    let comment = mark.comment();
    let others = |c: &&Chain| c.stops(mark) && !(own_forward && c.is_iptables());
    let mut found = Vec::new();
    for chain in chains(socket)?.iter().filter(others) {
        if own_rules(socket, chain, &comment)?.len() != 2 {
            found.push(format!("chain {} of table {}", chain.name, chain.table));
        }
    }
    Ok(found)
}

fn write(
    socket: &Socket,
    chain: &Chain,
    mark: &Mark,
    stale: &[u64],
    iptables: bool,
) -> Result<(), NetlinkError> {
    let mut t = Transaction::new(chain.family, &chain.table);
    for handle in stale {
        t.delete_rule(&chain.name, *handle);
    }
    for incoming in [true, false] {
        let rule = Rule::new("");
        let rule = match (iptables, incoming) {
            (true, _) => rule.device_group(mark.group, incoming),
            (false, true) => rule.in_group(mark.group),
            (false, false) => rule.out_group(mark.group),
        };
        t.first_rule(&chain.name, &rule.accept(), &mark.comment());
    }
    socket.run_transaction(&t.finish(), 1)
}

/// Takes our rules out of others' chains, whatever the chains are by now.
pub fn remove(socket: &Socket, mark: &Mark) -> Result<(), NetlinkError> {
    let comment = mark.comment();
    for chain in chains(socket)?.iter().filter(|c| c.hook == Some(FORWARD) && !mark.owns(&c.table)) {
        let present = own_rules(socket, chain, &comment)?;
        if present.is_empty() {
            continue;
        }
        let mut t = Transaction::new(chain.family, &chain.table);
        for handle in &present {
            t.delete_rule(&chain.name, *handle);
        }
        socket.run_transaction(&t.finish(), 1)?;
    }
    Ok(())
}

/// Whether a message tells that a chain came to stop our packets, or that a rule of ours was taken out of one.
pub fn concerns(kind: u16, payload: &[u8], mark: &Mark) -> bool {
    match kind {
        NEWCHAIN => parse_chain(payload).is_some_and(|c| c.stops(mark)),
        DELRULE => parse_own_rule(payload, &mark.comment()).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    fn mark() -> Mark {
        Mark { table: "davit".into(), group: 7 }
    }

    fn chain(family: Family, table: &str, hook: u32, policy: u32) -> Chain {
        let mut batch = Batch::new();
        batch.push("x", NEWCHAIN, Flags::REQUEST, &[family.number(), 0, 0, 0], |a| {
            a.text(1, table);
            a.text(3, "fwd");
            a.nested(4, |a| {
                a.be32(1, hook);
                a.be32(2, 0);
            });
            a.be32(5, policy);
        });
        parse_chain(messages(batch.bytes()).next().unwrap().2).unwrap()
    }

    #[test]
    fn only_others_forward_chains_that_drop_stop_us() {
        assert!(chain(Family::Ip, "filter", FORWARD, 0).stops(&mark()));
        assert!(chain(Family::Inet, "mine", FORWARD, 0).stops(&mark()));
        assert!(!chain(Family::Inet, "mine", FORWARD, 1).stops(&mark()), "it accepts");
        assert!(!chain(Family::Inet, "mine", 1, 0).stops(&mark()), "input");
        assert!(!chain(Family::Inet, "davit", FORWARD, 0).stops(&mark()));
        assert!(!chain(Family::Inet, "davit-policy", FORWARD, 0).stops(&mark()));
        assert!(!chain(Family::Bridge, "mine", FORWARD, 0).stops(&mark()));
        let firewalld = Chain { name: FIREWALLD.1.into(), ..chain(Family::Inet, FIREWALLD.0, FORWARD, 1) };
        assert!(firewalld.stops(&mark()));
    }

    #[test]
    fn our_rules_are_known_by_their_comment_and_removed_by_their_number() {
        let mut t = Transaction::new(Family::Inet, "filter");
        t.first_rule("forward", &Rule::new("").in_group(7).accept(), &mark().comment());
        t.delete_rule("forward", 0x0102);
        let batch = t.finish();
        let all: Vec<_> = messages(batch.bytes()).collect();
        assert_eq!(parse_own_rule(all[1].2, &mark().comment()), None, "it has no number yet");
        let removal = [
            &attribute(1, b"filter\0")[..],
            &attribute(2, b"forward\0"),
            &attribute(3, &[0, 0, 0, 0, 0, 0, 1, 2]),
        ]
        .concat();
        assert_eq!(all[2].2, [&[1, 0, 0, 0][..], &removal].concat());
        let told = [all[1].2, &attribute(3, &[0, 0, 0, 0, 0, 0, 0, 9])].concat();
        assert_eq!(parse_own_rule(&told, &mark().comment()), Some(9));
        assert_eq!(parse_own_rule(&told, "another"), None);
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().div_ceil(4) * 4, 0);
        bytes
    }
}
