//! Strangers, by iptables. The jump is the last rule of FORWARD: whatever other programs let through with rules of their own
//! passes, as with a policy of DROP, which is everybody's and stays as it is.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::{Iptables, compare, script};
use crate::firewall::compare::{Difference, Fault};
use crate::firewall::{FirewallError, Guard, Mark};

/// The chain's name without the prefix.
pub const NAME: &str = "GUARD";

fn chain(mark: &Mark) -> String {
    format!("{}-{NAME}", script::prefix(mark))
}

/// The chain with all its rules, in place of what it held.
fn whole(mark: &Mark, guard: &Guard, ipv6: bool) -> Option<String> {
    let (x, group) = (chain(mark), format!("{:#x}", mark.group));
    let mut text = format!("*filter\n:{x} - [0:0]\n");
    for which in ["src", "dst"] {
        let _ = writeln!(text, "-A {x} -m devgroup --{which}-group {group} -j RETURN");
    }
    // With br_netfilter frames that only cross a bridge are seen here. The extension physdev would turn it on.
    for bridge in guard.there(ipv6)?.bridges.iter().filter(|b| is_plain(b)) {
        let _ = writeln!(text, "-A {x} -i {bridge} -o {bridge} -j RETURN");
    }
    // Kinds of interfaces are not known here; the plugins of CNI that lead out without a bridge name theirs so.
    let _ = writeln!(text, "-A {x} -i veth+ -j RETURN\n-A {x} -o veth+ -j RETURN");
    let _ = write!(text, "-A {x} -j DROP\nCOMMIT\n");
    Some(text)
}

/// Whether a name means itself to the command.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !name.starts_with('-')
}

impl Iptables {
    /// Writes the guard's chains and what leads to them, or removes both.
    pub fn guard(&self, guard: &Guard) -> Result<(), FirewallError> {
        self.guard.borrow_mut().clone_from(guard);
        let (x, jump) = (chain(&self.mark), format!("-j {}", chain(&self.mark)));
        for (ipv6, tool) in [false, true].into_iter().zip(&self.tools) {
            match (tool, whole(&self.mark, guard, ipv6)) {
                (_, Some(text)) => {
                    let tool = self.tool(ipv6)?;
                    tool.restore(&text)?;
                    tool.ensure_last("filter", "FORWARD", &jump)?;
                }
                (Some(tool), None) if tool.has_chain("filter", &x)? => {
                    tool.drop_all("filter", "FORWARD", &jump)?;
                    tool.restore(&format!("*filter\n:{x} - [0:0]\n-X {x}\nCOMMIT\n"))?;
                }
                _ => continue,
            }
            self.touched.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the guard's rules are seen to be there. Numbers are compared, as for others of ours.
    pub fn is_guarded(&self) -> bool {
        let guard = self.guard.borrow();
        [false, true].into_iter().zip(&self.tools).all(|(ipv6, tool)| {
            let Some((text, tool)) = whole(&self.mark, &guard, ipv6).zip(tool.as_ref()) else { return true };
            let x = chain(&self.mark);
            let jumps = tool.has("filter", "FORWARD", &format!("-j {x}")).unwrap_or(false);
            jumps && tool.rules("filter", &x).len() >= compare::lines_of(&text, &x).len()
        })
    }

    /// What differs between the guard's rules and what the command prints.
    pub fn guard_differences(&self, guard: &Guard) -> Result<Vec<Difference>, FirewallError> {
        let (mut all, x) = (Vec::new(), chain(&self.mark));
        for (ipv6, tool) in [false, true].into_iter().zip(&self.tools) {
            let Some(tool) = tool else { continue };
            let Some(text) = whole(&self.mark, guard, ipv6) else {
                if tool.has_chain("filter", &x)? {
                    let (object, detail) = (format!("firewall chain {x}"), String::new());
                    all.push(Difference { fault: Fault::Stray, object, detail });
                }
                continue;
            };
            compare::compare(&x, &compare::lines_of(&text, &x), &tool.rules("filter", &x), &mut all);
            if !tool.has("filter", "FORWARD", &format!("-j {x}"))? {
                let object = format!("firewall rule '-j {x}' in chain FORWARD");
                let detail = "strangers are forwarded for".to_owned();
                all.push(Difference { fault: Fault::Missing, object, detail });
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
        guard.note(true, There { bridges, ..There::default() });
        assert_eq!(whole(&mark, &guard, false), None);
        assert_eq!(
            whole(&mark, &guard, true).unwrap(),
            "*filter\n:DAVIT-GUARD - [0:0]\n-A DAVIT-GUARD -m devgroup --src-group 0xa000001 -j RETURN\n\
             -A DAVIT-GUARD -m devgroup --dst-group 0xa000001 -j RETURN\n\
             -A DAVIT-GUARD -i br0 -o br0 -j RETURN\n\
             -A DAVIT-GUARD -i veth+ -j RETURN\n-A DAVIT-GUARD -o veth+ -j RETURN\n-A DAVIT-GUARD -j DROP\nCOMMIT\n"
        );
    }
}
