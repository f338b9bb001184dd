//! Our chains as the commands print them, beside what they should be.

use super::Iptables;
use super::command::Tool;
use super::script;
use crate::firewall::compare::{Difference, Fault};
use crate::firewall::{FirewallError, Rules};

impl Iptables {
    /// What differs between these rules and our chains.
    pub fn differences(&self, rules: &Rules) -> Result<Vec<Difference>, FirewallError> {
        let mut all = Vec::new();
        for ipv6 in [false, true] {
            if ipv6 && !rules.has_ipv6() {
                continue;
            }
            let tool = self.tool(ipv6)?;
            let text = script::whole(&self.mark, rules, ipv6);
            for (table, names) in script::chains(ipv6) {
                for name in names {
                    let chain = format!("{}-{name}", script::prefix(&self.mark));
                    compare(&chain, &lines_of(&text, &chain), &tool.rules(table, &chain), &mut all);
                }
            }
            for jump in script::jumps(&self.mark, ipv6) {
                if !tool.has(jump.table, jump.chain, &jump.rule)? {
                    let object = format!("firewall rule '{}' in chain {}", jump.rule, jump.chain);
                    let detail = "nothing leads to our rules".to_owned();
                    all.push(Difference { fault: Fault::Missing, object, detail });
                }
            }
        }
        Ok(all)
    }

    /// Whether our chains have as many rules as were written. Only numbers are compared: however a version of the command prints
    /// a rule, mending is never the cause of mending.
    pub(super) fn is_full(&self, tool: &Tool, ipv6: bool) -> bool {
        let forwards = self.published.borrow().iter().copied().collect();
        let rules = Rules { segments: self.segments.borrow().clone(), forwards };
        let text = script::whole(&self.mark, &rules, ipv6);
        script::chains(ipv6).into_iter().all(|(table, names)| {
            let found = tool.table(table);
            names.iter().all(|name| {
                let start = format!("-A {}-{name} ", script::prefix(&self.mark));
                let wanted = text.lines().filter(|l| l.starts_with(&start)).count();
                found.iter().filter(|l| l.starts_with(&start)).count() >= wanted
            })
        })
    }
}

pub(super) fn lines_of(script: &str, chain: &str) -> Vec<String> {
    let start = format!("-A {chain} ");
    script.lines().filter(|l| l.starts_with(&start)).map(str::to_owned).collect()
}

/// A single address is printed with its prefix length.
fn plain(line: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        words.push(word.trim_end_matches("/32").trim_end_matches("/128"));
    }
    words.join(" ")
}

pub(super) fn compare(chain: &str, wanted: &[String], found: &[String], all: &mut Vec<Difference>) {
    let mut left: Vec<String> = found.iter().map(|l| plain(l)).collect();
    let mut tell = |fault, line: &str| {
        let rule = line.trim_start_matches("-A ").trim_start_matches(chain).trim();
        let object = format!("firewall rule '{rule}' in chain {chain}");
        let detail = if fault == Fault::Stray { "it is in a chain of ours, and not ours" } else { "" };
        all.push(Difference { fault, object, detail: detail.to_owned() });
    };
    for line in wanted {
        match left.iter().position(|l| *l == plain(line)) {
            Some(at) => drop(left.remove(at)),
            None => tell(Fault::Missing, line),
        }
    }
    for line in left {
        tell(Fault::Stray, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_and_what_was_added_is_told() {
        let lines = |l: &[&str]| l.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let wanted = lines(&["-A X -d 10.0.0.2 -j DROP", "-A X -j ACCEPT"]);
        let mut all = Vec::new();
        compare("X", &wanted, &lines(&["-A X -d 10.0.0.2/32 -j DROP", "-A X -j ACCEPT"]), &mut all);
        assert_eq!(all, []);
        compare("X", &wanted, &lines(&["-A X -j ACCEPT", "-A X -j LOG"]), &mut all);
        let told: Vec<_> = all.iter().map(|d| (d.fault, d.object.as_str())).collect();
        assert_eq!(
            told,
            [
                (Fault::Missing, "firewall rule '-d 10.0.0.2 -j DROP' in chain X"),
                (Fault::Stray, "firewall rule '-j LOG' in chain X"),
            ]
        );
    }
}
