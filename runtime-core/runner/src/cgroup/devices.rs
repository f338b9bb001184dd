//! Which devices a container may open: deny all, allow the default devices, then the config's rules. On v1 they are written into the
//! devices controller, on v2 they become a program that the kernel asks ([`super::device_program`]).

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use davit_sys::cgroup::{CgroupError, read, write};

use super::device_program;
use crate::error::{Error, Result};
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

/// v1: writes the rules into a fresh cgroup.
pub fn restrict(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let (allow, deny) = (directory.join("devices.allow"), directory.join("devices.deny"));
    for (allowed, text) in lines(rules) {
        write(if allowed { &allow } else { &deny }, &text)?;
    }
    Ok(())
}

/// v2: makes the rules the cgroup's only program. In a user namespace nobody may load one, and nobody can make or open a device by
/// having made it: every mount there is nodev.
pub fn restrict_unified(directory: &Path, rules: &[DeviceRule], nested: bool) -> Result<()> {
    let failed = |source| {
        let operation = "restrict devices at".to_owned();
        Error::Cgroup(CgroupError { operation, path: directory.into(), source })
    };
    let cgroup = File::open(directory).map_err(failed)?;
    let program = davit_sys::bpf::load_device_program(&device_program::compile(&with_defaults(rules)));
    match program.and_then(|p| davit_sys::bpf::set_device_program(cgroup.as_fd(), p.as_fd())) {
        Err(e) if nested && matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => Ok(()),
        other => other.map_err(failed),
    }
}

/// v1: changes a cgroup that has processes. Its list is exchanged only when it is another than is asked for: "deny all" comes first, and until
/// the rest is written a program that opens a device would be refused.
pub fn exchange(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let now = read(&directory.join("devices.list"))?;
    let mut now: Vec<String> = now.lines().map(|l| l.trim().to_owned()).collect();
    let mut wanted = listed(rules);
    now.sort_unstable();
    wanted.sort_unstable();
    if now == wanted { Ok(()) } else { restrict(directory, rules) }
}

/// What the kernel's list will say, as far as rules only allow after the leading "deny all".
fn listed(rules: &[DeviceRule]) -> Vec<String> {
    let mut out: Vec<String> = lines(rules).into_iter().skip(1).map(|(_, text)| text).collect();
    out.dedup();
    out
}

/// The config's rules behind "deny all" and the defaults.
fn with_defaults(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let own = rules.iter().skip_while(|r| !r.allow && text(r) == "a");
    let defaults = DEFAULTS.iter().filter_map(|line| parse(line));
    std::iter::once(DeviceRule::default()).chain(defaults).chain(own.cloned()).collect()
}

/// One line as the v1 controller takes it.
fn parse(line: &str) -> Option<DeviceRule> {
    let mut words = line.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    Some(DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major: major.parse().ok(),
        minor: minor.parse().ok(),
        access: access.to_owned(),
    })
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
    fn on_v2_the_defaults_stand_between_deny_all_and_the_rules() {
        let rules: Vec<DeviceRule> =
            serde_json::from_str(r#"[{"allow":false},{"allow":true,"type":"c","major":10,"access":"r"}]"#)
                .unwrap();
        let all = with_defaults(&rules);
        assert_eq!(all.len(), 13);
        assert!(!all[0].allow && all[3] == parse("c 1:3 rwm").unwrap() && all[10].minor.is_none());
        assert_eq!(all[12], rules[1]);
    }

    #[test]
    fn a_later_deny_all_counts() {
        let rules: Vec<DeviceRule> =
            serde_json::from_str(r#"[{"allow":true,"type":"c","major":10,"access":"r"},{"allow":false}]"#)
                .unwrap();
        assert_eq!(lines(&rules).last(), Some(&(false, "a".to_owned())));
    }
}
