//! Our own table as the kernel has it, beside what it should be. Foreign tables are never read.
//!
//! What should be is taken from the very transaction that would write it, so that a new rule needs nothing here. The
//! kernel answers with the same messages; it adds attributes of its own, and has other numbers for the same registers.

use std::collections::{BTreeMap, BTreeSet};

use super::nftables::foreign::Mark;
use super::nftables::{self, Transaction};
use crate::netlink::message::{attributes, messages};
use crate::netlink::{Batch, Flags, NetlinkError, Socket};

/// `struct nfgenmsg`.
const HEAD: usize = 4;

/// What is wrong with an object of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Wanted and not there.
    Missing,
    /// There and not wanted.
    Stray,
    /// There, and not as wanted.
    Differs,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What is wrong.
    pub fault: Fault,
    /// With what: `firewall chain forward`.
    pub object: String,
    /// More, for a person.
    pub detail: String,
}

/// A rule: its comment, and its expressions as they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    comment: String,
    expressions: Vec<u8>,
}

/// Attributes of a chain that are ours to say: hook, policy, type. None where it is only jumped to.
type Chain = BTreeMap<u16, Vec<u8>>;

/// A table in comparable form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    table: bool,
    chains: BTreeMap<String, Chain>,
    rules: BTreeMap<String, Vec<Rule>>,
    sets: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Tables by family and name.
type Tables = BTreeMap<(u8, String), Contents>;

/// What a transaction would make of the tables that it names.
fn wanted_by(batch: &Batch) -> Tables {
    let mut tables = Tables::new();
    for (kind, _, payload) in messages(batch.bytes()) {
        let (Some(family), Some(body)) = (payload.first(), payload.get(HEAD..)) else { continue };
        if let Some(table) = find(body, 1).filter(|_| kind >= nftables::NEWTABLE) {
            tables.entry((*family, text(table))).or_default().take(kind, body);
        }
    }
    tables
}

impl Contents {
    fn take(&mut self, kind: u16, body: &[u8]) -> Option<()> {
        match kind {
            nftables::NEWTABLE => self.table = true,
            nftables::DELTABLE => *self = Self::default(),
            nftables::NEWCHAIN => {
                let name = text(find(body, 3)?);
                let ours = attributes(body).filter(|(k, _)| matches!(k, 4 | 5 | 7));
                let said = ours.map(|(k, v)| (k, v.to_vec())).collect();
                self.rules.entry(name.clone()).or_default();
                self.chains.insert(name, said);
            }
            nftables::NEWRULE => {
                let comment = find(body, 7).and_then(|data| data.get(2..)).map(text).unwrap_or_default();
                let rule = Rule { comment, expressions: find(body, 4).unwrap_or_default().to_vec() };
                self.rules.entry(text(find(body, 2)?)).or_default().push(rule);
            }
            nftables::NEWSET => drop(self.sets.entry(text(find(body, 2)?)).or_default()),
            nftables::NEWSETELEM => {
                let set = self.sets.entry(text(find(body, 2)?)).or_default();
                for (_, element) in attributes(find(body, 3)?) {
                    let key = find(element, 1).and_then(|key| find(key, 1)).unwrap_or_default();
                    let data = find(element, 2).unwrap_or_default();
                    set.insert(key.to_vec(), find(data, 1).unwrap_or(data).to_vec());
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// Reads the table of a transaction as the kernel has it.
fn read(socket: &Socket, family: u8, table: &str) -> Result<Contents, NetlinkError> {
    let mut found = Contents::default();
    let ask = |what: &str, kind: u16, answer: u16, name_of: Option<&str>| {
        let mut batch = Batch::new();
        batch.push(
            format!("read {what} of firewall table {table}"),
            kind,
            Flags::DUMP,
            &[family, 0, 0, 0],
            |a| {
                a.text(1, table);
                if let Some(name) = name_of {
                    a.text(2, name);
                }
            },
        );
        match socket.dump(&batch, answer) {
            Err(e) if e.is_missing() => Ok(Vec::new()),
            other => other,
        }
    };
    // A dump of tables or chains tells those of others too, by name only.
    let ours = |payload: &Vec<u8>| {
        payload.first() == Some(&family)
            && find(payload.get(HEAD..).unwrap_or_default(), 1).map(text).as_deref() == Some(table)
    };
    for (what, kind, answer) in [
        ("the name", nftables::GETTABLE, nftables::NEWTABLE),
        ("chains", nftables::GETCHAIN, nftables::NEWCHAIN),
        ("rules", nftables::GETRULE, nftables::NEWRULE),
        ("sets", nftables::GETSET, nftables::NEWSET),
    ] {
        for payload in ask(what, kind, answer, None)?.iter().filter(|p| ours(p)) {
            found.take(answer, &payload[HEAD..]);
        }
    }
    let sets: Vec<String> = found.sets.keys().cloned().collect();
    for set in sets {
        for payload in ask("elements", nftables::GETSETELEM, nftables::NEWSETELEM, Some(&set))? {
            found.take(nftables::NEWSETELEM, payload.get(HEAD..).unwrap_or_default());
        }
    }
    Ok(found)
}

/// Whether any of the tables is there that a transaction names.
pub fn exists(socket: &Socket, transaction: Transaction) -> Result<bool, NetlinkError> {
    let tables = wanted_by(&transaction.finish());
    tables.keys().try_fold(false, |any, (family, table)| Ok(any || read(socket, *family, table)?.table))
}

/// What differs between the tables that a transaction would make anew and what the kernel has.
pub fn differences(socket: &Socket, transaction: Transaction) -> Result<Vec<Difference>, NetlinkError> {
    let mut all = Vec::new();
    for ((family, table), wanted) in wanted_by(&transaction.finish()) {
        all.extend(compare(&table, &wanted, &read(socket, family, &table)?));
    }
    Ok(all)
}

/// A chain of somebody else that the kernel asks at a hook: its name, and its policy. Its rules are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// `table filter, chain INPUT`.
    pub name: String,
    /// Its policy is to drop.
    pub drops: bool,
    /// It sees what the host routes.
    pub routed: bool,
    /// It sees what a bridge passes on.
    pub bridged: bool,
}

/// Those at a hook (`NF_INET_*`), but for our own. Of what sees packets of bridges or of one interface only those count that drop.
pub fn foreign_chains(socket: &Socket, hook: u32, mark: &Mark) -> Result<Vec<ForeignChain>, NetlinkError> {
    let mut batch = Batch::new();
    batch.push("list firewall chains", nftables::GETCHAIN, Flags::DUMP, &[0; HEAD], |_| {});
    let chain = |payload: &Vec<u8>| {
        let body = payload.get(HEAD..)?;
        let drops = find(body, 5) == Some(&[0; 4]);
        let (here, family) = match payload[0] {
            1 | 2 | 10 => (true, ""),
            7 => (drops, "bridge "),
            // Hooks of netdev are of one interface, and come before all others.
            5 => (drops, "netdev "),
            // Those of arp have other numbers.
            _ => (false, ""),
        };
        let at = find(find(body, 4)?, 1)?;
        let (table, name) = (text(find(body, 1)?), text(find(body, 3)?));
        let theirs = here && (payload[0] == 5 || at == hook.to_be_bytes()) && !mark.owns(&table);
        theirs.then(|| ForeignChain {
            name: format!("table {family}{table}, chain {name}"),
            drops,
            routed: payload[0] != 7,
            bridged: matches!(payload[0], 5 | 7),
        })
    };
    let mut all: Vec<_> = socket.dump(&batch, nftables::NEWCHAIN)?.iter().filter_map(chain).collect();
    all.sort_by_key(|c: &ForeignChain| !c.drops);
    Ok(all)
}

/// Compares two tables.
fn compare(table: &str, wanted: &Contents, found: &Contents) -> Vec<Difference> {
    if wanted.table && !found.table {
        let object = format!("firewall table {table}");
        return vec![Difference {
            fault: Fault::Missing,
            object,
            detail: "all of its rules are gone".into(),
        }];
    }
    let mut all = Vec::new();
    chains(wanted, found, &mut all);
    for (chain, rules) in &wanted.rules {
        compare_rules(chain, rules, found.rules.get(chain).map_or(&[], Vec::as_slice), &mut all);
    }
    for (set, elements) in &wanted.sets {
        match found.sets.get(set) {
            Some(present) => compare_elements(set, elements, present, &mut all),
            None => all.push(difference(Fault::Missing, format!("firewall set {set}"), "")),
        }
    }
    for set in found.sets.keys().filter(|s| !wanted.sets.contains_key(*s)) {
        all.push(difference(Fault::Stray, format!("firewall set {set}"), "nobody needs it"));
    }
    all
}

fn difference(fault: Fault, object: String, detail: &str) -> Difference {
    Difference { fault, object, detail: detail.to_owned() }
}

fn chains(wanted: &Contents, found: &Contents, all: &mut Vec<Difference>) {
    for (name, said) in &wanted.chains {
        let object = || format!("firewall chain {name}");
        match found.chains.get(name) {
            None => all.push(difference(Fault::Missing, object(), "")),
            Some(present) if !chain_agrees(said, present) => {
                all.push(difference(Fault::Differs, object(), "another hook, priority or policy"));
            }
            Some(_) => {}
        }
    }
    for name in found.chains.keys().filter(|name| !wanted.chains.contains_key(*name)) {
        all.push(difference(Fault::Stray, format!("firewall chain {name}"), "nobody needs it"));
    }
}

fn chain_agrees(wanted: &Chain, found: &Chain) -> bool {
    wanted.is_empty() == found.is_empty()
        && wanted.iter().all(|(kind, value)| found.get(kind).is_some_and(|f| includes(value, f)))
}

fn compare_rules(chain: &str, wanted: &[Rule], found: &[Rule], all: &mut Vec<Difference>) {
    let object = |rule: &Rule| {
        let said = if rule.comment.is_empty() { "without a comment" } else { rule.comment.as_str() };
        format!("firewall rule '{said}' in chain {chain}")
    };
    let agree = |w: &Rule, f: &Rule| w.comment == f.comment && includes(&w.expressions, &f.expressions);
    let mut left: Vec<&Rule> = found.iter().collect();
    let mut order = Vec::new();
    for rule in wanted {
        if let Some(at) = left.iter().position(|f| agree(rule, f)) {
            let met = left.remove(at);
            order.push(found.iter().position(|f| std::ptr::eq(f, met)).unwrap_or_default());
        } else if let Some(at) = left.iter().position(|f| f.comment == rule.comment) {
            left.remove(at);
            all.push(difference(Fault::Differs, object(rule), "it says something else"));
        } else {
            all.push(difference(Fault::Missing, object(rule), ""));
        }
    }
    for rule in left {
        all.push(difference(Fault::Stray, object(rule), "somebody added it"));
    }
    if !order.is_sorted() {
        let object = format!("firewall chain {chain}");
        all.push(difference(Fault::Differs, object, "its rules are in another order"));
    }
}

fn compare_elements(
    set: &str,
    wanted: &BTreeMap<Vec<u8>, Vec<u8>>,
    found: &BTreeMap<Vec<u8>, Vec<u8>>,
    all: &mut Vec<Difference>,
) {
    let keys: BTreeSet<&Vec<u8>> = wanted.keys().chain(found.keys()).collect();
    for key in keys {
        let fault = match (wanted.get(key), found.get(key)) {
            (Some(w), Some(f)) if w == f || includes(w, f) => continue,
            (Some(_), Some(_)) => Fault::Differs,
            (Some(_), None) => Fault::Missing,
            (None, _) => Fault::Stray,
        };
        all.push(difference(fault, format!("firewall element {} of {set}", key_text(key)), ""));
    }
}

/// An interface's name as it is; transport and port where they are the last two words; hexadecimal otherwise.
fn key_text(key: &[u8]) -> String {
    let name = text(key);
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) {
        return name;
    }
    let transport = |n: u8| match n {
        6 => Some("tcp"),
        17 => Some("udp"),
        132 => Some("sctp"),
        _ => None,
    };
    match key {
        [.., protocol, 0, 0, 0, a, b, 0, 0] if transport(*protocol).is_some() => {
            let port = u16::from_be_bytes([*a, *b]);
            let word = transport(*protocol).unwrap_or_default();
            match <[u8; 4]>::try_from(&key[..key.len() - 8]) {
                Ok(ip) => format!("{}:{port}/{word}", std::net::Ipv4Addr::from(ip)),
                Err(_) => format!("{port}/{word}"),
            }
        }
        _ => key.iter().fold(String::new(), |text, b| text + &format!("{b:02x}")),
    }
}

/// Whether everything that `wanted` says is in `found`, attribute by attribute. The kernel adds what was left out.
fn includes(wanted: &[u8], found: &[u8]) -> bool {
    if wanted == found || same_register(wanted, found) {
        return true;
    }
    let (w, f): (Vec<_>, Vec<_>) = (attributes(wanted).collect(), attributes(found).collect());
    if w.is_empty() || whole(&w) != wanted.len().next_multiple_of(4) {
        return false;
    }
    // A list (of expressions) has many attributes of one type: by their order. Others have each once.
    let list = w.len() > 1 && w.iter().all(|(kind, _)| *kind == w[0].0);
    if list || (w.len() == 1 && f.len() > 1 && f.iter().all(|(kind, _)| *kind == w[0].0)) {
        return w.len() == f.len() && w.iter().zip(&f).all(|(a, b)| includes(a.1, b.1));
    }
    // What is zero may be left out.
    let zero = |value: &[u8]| value.iter().all(|b| *b == 0);
    w.iter().all(|(kind, value)| zero(value) || f.iter().any(|(k, v)| k == kind && includes(value, v)))
}

fn whole(attributes: &[(u16, &[u8])]) -> usize {
    attributes.iter().map(|(_, value)| (value.len() + 4).next_multiple_of(4)).sum()
}

/// Registers of four words are told as `NFT_REG_1..4` where they could be.
fn same_register(a: &[u8], b: &[u8]) -> bool {
    let wide = |bytes: &[u8]| {
        let n = u32::from_be_bytes(bytes.try_into().ok()?);
        Some(if (1..=4).contains(&n) { 4 + 4 * n } else { n })
    };
    wide(a).is_some() && wide(a) == wide(b)
}

#[cfg(test)]
mod tests;
