//! The v1 devices controller: deny all, allow the default devices, then the config's rules.
//!
//! On v2 device rules are BPF programs, which this version does not make yet: the capability set and the mounts (nodev) are then what stands
//! between a container and devices, and `features` says so.

use std::path::Path;

use davit_sys::cgroup::{CgroupError, write};

use crate::spec::resources::DeviceRule;

/// Creating nodes is harmless without the right to open them; these may be opened: null, zero, full, tty, random, urandom, console, pts, ptmx.
const DEFAULTS: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 5:0 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:1 rwm",
    "c 136:* rwm",
    "c 5:2 rwm",
];

/// Writes the rules into a fresh cgroup.
pub fn restrict(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let (allow, deny) = (directory.join("devices.allow"), directory.join("devices.deny"));
    for (allowed, text) in lines(rules) {
        write(if allowed { &allow } else { &deny }, &text)?;
    }
    Ok(())
}

/// The writes in order. The defaults come after the config's leading "deny all", and rules that only repeat it are left out.
fn lines(rules: &[DeviceRule]) -> Vec<(bool, String)> {
    let mut out = vec![(false, "a".to_owned())];
    out.extend(DEFAULTS.iter().map(|d| (true, (*d).to_owned())));
    let mut specific = false;
    for rule in rules {
        let text = text(rule);
        if text == "a" && !rule.allow && !specific {
            continue;
        }
        specific = true;
        let known = rule.allow && out.iter().any(|(a, t)| *a && *t == text);
        if !known {
            out.push((rule.allow, text));
        }
    }
    out
}

fn text(rule: &DeviceRule) -> String {
    let number = |n: Option<i64>| n.filter(|v| *v >= 0).map_or_else(|| "*".to_owned(), |v| v.to_string());
    let access: String = if rule.access.is_empty() { "rwm".into() } else { rule.access.clone() };
    let whole = rule.kind.is_empty() || rule.kind == "a";
    if whole {
        return "a".to_owned();
    }
    format!("{} {}:{} {access}", rule.kind, number(rule.major), number(rule.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_deny_all_does_not_take_the_defaults_away() {
        let rules: Vec<DeviceRule> = serde_json::from_str(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
                {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]"#,
        )
        .unwrap();
        let lines = lines(&rules);
        assert_eq!(lines[0], (false, "a".into()));
        assert_eq!(lines[12..], [(true, "c 10:229 rw".to_owned()), (false, "b 8:* w".to_owned())]);
    }

    #[test]
    fn a_later_deny_all_counts() {
        let rules: Vec<DeviceRule> =
            serde_json::from_str(r#"[{"allow":true,"type":"c","major":10,"access":"r"},{"allow":false}]"#)
                .unwrap();
        assert_eq!(lines(&rules).last(), Some(&(false, "a".to_owned())));
    }
}
