//! Strangers, by iptables. The jump is the last rule of FORWARD: whatever other programs let through with rules of their own
//! passes, as with a policy of DROP, which is everybody's and stays as it is.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::{Iptables, compare, script};
use crate::firewall::compare::{Difference, Fault};
use crate::firewall::{FirewallError, Guard, Mark};

/// The chains' names without the prefix: whom all packets meet, and those that came by an interface that was there before.
pub const NAMES: [&str; 2] = ["GUARD", "GUARD-KNOWN"];

fn chains(mark: &Mark) -> [String; 2] {
    NAMES.map(|name| format!("{}-{name}", script::prefix(mark)))
}

/// Whether a rule, as the command prints it, is the jump of an instance: each has one, and not all are the very last.
fn is_jump(rule: &str) -> bool {
    let target = rule.trim_end().strip_prefix("-A FORWARD -j ");
    target.is_some_and(|t| t.starts_with("DAVIT") && t.ends_with(NAMES[0]))
}

/// The chains with all their rules, in place of what they held.
fn whole(mark: &Mark, guard: &Guard, ipv6: bool) -> Option<String> {
    let ([x, known], group) = (chains(mark), format!("{:#x}", mark.group));
    let mut text = format!("*filter\n:{x} - [0:0]\n:{known} - [0:0]\n");
    for which in ["src", "dst"] {
        let _ = writeln!(text, "-A {x} -m devgroup --{which}-group {group} -j RETURN");
    }
    // With br_netfilter frames that only cross a bridge are seen here. The extension physdev would turn it on.
    let there = guard.there(ipv6)?;
    for bridge in there.bridges.iter().filter(|b| is_plain(b)) {
        let _ = writeln!(text, "-A {x} -i {bridge} -o {bridge} -j RETURN");
    }
    for interface in there.interfaces.iter().filter(|i| is_plain(i)) {
        let _ = writeln!(text, "-A {x} -i {interface} -j {known}\n-A {known} -o {interface} -j DROP");
    }
    text.push_str("COMMIT\n");
    Some(text)
}

/// Whether a name means itself to the command.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_graphic() && !b"\"'\\".contains(&b))
        && !name.starts_with(['-', '!'])
        && !name.ends_with('+')
}

impl Iptables {
    /// Writes the guard's chains and what leads to them, or removes both.
    pub fn guard(&self, guard: &Guard) -> Result<(), FirewallError> {
        self.guard.borrow_mut().clone_from(guard);
        let [x, known] = chains(&self.mark);
        let jump = format!("-j {x}");
        for (ipv6, tool) in [false, true].into_iter().zip(&self.tools) {
            match (tool, whole(&self.mark, guard, ipv6)) {
                (_, Some(text)) => {
                    let tool = self.tool(ipv6)?;
                    tool.restore(&text)?;
                    tool.ensure_last("filter", "FORWARD", &jump, is_jump)?;
                }
                (Some(tool), None) if tool.has_chain("filter", &x)? => {
                    tool.drop_all("filter", "FORWARD", &jump)?;
                    tool.restore(&format!(
                        "*filter\n:{x} - [0:0]\n:{known} - [0:0]\n-X {x}\n-X {known}\nCOMMIT\n"
                    ))?;
                }
                _ => continue,
            }
            self.touched.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether there is a chain of the guard's, in either IP version.
    pub fn has_guard(&self) -> Result<bool, FirewallError> {
        let [x, _] = chains(&self.mark);
        for tool in self.tools.iter().flatten() {
            if tool.has_chain("filter", &x)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the guard's rules are seen to be there. Numbers are compared, as for others of ours.
    pub fn is_guarded(&self) -> bool {
        let guard = self.guard.borrow();
        [false, true].into_iter().zip(&self.tools).all(|(ipv6, tool)| {
            let Some((text, tool)) = whole(&self.mark, &guard, ipv6).zip(tool.as_ref()) else { return true };
            let chains = chains(&self.mark);
            let full = |x: &String| tool.rules("filter", x).len() >= compare::lines_of(&text, x).len();
            tool.is_last("filter", "FORWARD", &format!("-j {}", chains[0]), is_jump)
                && chains.iter().all(full)
        })
    }

    /// What differs between the guard's rules and what the command prints.
    pub fn guard_differences(&self, guard: &Guard) -> Result<Vec<Difference>, FirewallError> {
        let (mut all, chains) = (Vec::new(), chains(&self.mark));
        let x = &chains[0];
        for (ipv6, tool) in [false, true].into_iter().zip(&self.tools) {
            let Some(tool) = tool else { continue };
            let Some(text) = whole(&self.mark, guard, ipv6) else {
                if tool.has_chain("filter", x)? {
                    let (object, detail) = (format!("firewall chain {x}"), String::new());
                    all.push(Difference { fault: Fault::Stray, object, detail });
                }
                continue;
            };
            for x in &chains {
                compare::compare(x, &compare::lines_of(&text, x), &tool.rules("filter", x), &mut all);
            }
            let object = format!("firewall rule '-j {x}' in chain FORWARD");
            if !tool.has("filter", "FORWARD", &format!("-j {x}"))? {
                let detail = "strangers are forwarded for".to_owned();
                all.push(Difference { fault: Fault::Missing, object, detail });
            } else if !tool.is_last("filter", "FORWARD", &format!("-j {x}"), is_jump) {
                let detail = "it is before rules of others, which it is in the way of".to_owned();
                all.push(Difference { fault: Fault::Differs, object, detail });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::guard::There;

    #[test]
    fn a_version_that_is_not_guarded_has_no_chain() {
        let mark = Mark { table: "davit".into(), group: 0x0a00_0001 };
        let mut guard = Guard::default();
        let bridges = ["br+", "br0"].map(str::to_owned).into();
        guard.note(true, There { bridges, interfaces: ["br+", "br0", "eth0"].map(str::to_owned).into() });
        assert_eq!(whole(&mark, &guard, false), None);
        assert_eq!(
            whole(&mark, &guard, true).unwrap(),
            "*filter\n:DAVIT-GUARD - [0:0]\n:DAVIT-GUARD-KNOWN - [0:0]\n-A DAVIT-GUARD -m devgroup --src-group 0xa000001 -j RETURN\n\
             -A DAVIT-GUARD -m devgroup --dst-group 0xa000001 -j RETURN\n\
             -A DAVIT-GUARD -i br0 -o br0 -j RETURN\n\
             -A DAVIT-GUARD -i br0 -j DAVIT-GUARD-KNOWN\n-A DAVIT-GUARD-KNOWN -o br0 -j DROP\n\
             -A DAVIT-GUARD -i eth0 -j DAVIT-GUARD-KNOWN\n-A DAVIT-GUARD-KNOWN -o eth0 -j DROP\nCOMMIT\n"
        );
    }
}
