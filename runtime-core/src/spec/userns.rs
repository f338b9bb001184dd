//! User namespaces of containers: what `--userns`, `--uidmap` and `--gidmap` ask for, and ranges of ids that no two containers share. Pure.
//!
//! ```text
//! pool (runtimed.toml, /etc/subuid, built in)   |....[ a: 65536 ][ b: 4096 ]..............|
//!                                                     ^ lowest place that is free of every range taken
//! ```

use davit_contracts::runtime::{ContainerSpec, IdMap, Namespaces};

use super::namespaces::{self, Mode};
use crate::error::RuntimeError;

/// Ids that a container gets when it asks for no number.
const DEFAULT_SIZE: u32 = 65_536;

/// Ids of the host in a row: the first, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// Where ranges come from when nothing says otherwise: what systemd leaves free below 2^31 (its document UIDS-GIDS), so that it clashes with no
/// user, no range of useradd(8) and no machine of systemd-nspawn(1), and every id still is a positive number to old programs.
pub const BUILT_IN: Range = Range { start: 0x7000_0000, count: 0x0ffe_0000 };

impl Range {
    fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.count)
    }

    fn meets(self, other: Self) -> bool {
        u64::from(self.start) < other.end() && u64::from(other.start) < self.end()
    }
}

/// How many ids `auto[:size=N]` and `private` ask for; none for other modes.
pub fn size(mode: &str) -> Option<Result<u32, RuntimeError>> {
    let options = match mode {
        "private" | "auto" => "",
        _ => mode.strip_prefix("auto:")?,
    };
    let mut size = DEFAULT_SIZE;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.strip_prefix("size=").map(str::parse) {
            Some(Ok(n)) if n > 0 => size = n,
            _ => {
                let text = format!("--userns: invalid option of auto: '{option}': size=NUMBER is expected");
                return Some(Err(RuntimeError::Invalid(text)));
            }
        }
    }
    Some(Ok(size))
}

/// The lowest place in the pool for `size` ids beside the ranges taken.
pub fn allocate(pool: Range, taken: &[Range], size: u32) -> Option<Range> {
    let candidates = std::iter::once(u64::from(pool.start)).chain(taken.iter().map(|t| t.end()));
    candidates
        .filter_map(|start| Some(Range { start: u32::try_from(start).ok()?, count: size }))
        .filter(|r| r.start >= pool.start && r.end() <= pool.end())
        .filter(|r| !taken.iter().any(|t| r.meets(*t)))
        .min_by_key(|r| r.start)
}

/// The ids of the host that maps reach.
pub fn ranges(uids: &[IdMap], gids: &[IdMap]) -> Vec<Range> {
    uids.iter().chain(gids).map(|m| Range { start: m.outside, count: m.count }).collect()
}

/// A map of a whole range, from id 0 inside.
pub fn map_of(range: Range) -> Vec<IdMap> {
    vec![IdMap { inside: 0, outside: range.start, count: range.count }]
}

/// Refuses what cannot be; that the host and the runtime can do it is asked elsewhere.
pub fn check(spec: &ContainerSpec, ns: &Namespaces) -> Result<(), RuntimeError> {
    let invalid = |text: &str| Err(RuntimeError::Invalid(text.to_owned()));
    if !ns.gid_map.is_empty() && ns.uid_map.is_empty() {
        return invalid("--gidmap wants --uidmap, too");
    }
    if !ns.uid_map.is_empty() && !matches!(ns.user.as_str(), "" | "private") {
        return invalid("conflicting options: --uidmap and --userns");
    }
    check_map("--uidmap", &ns.uid_map)?;
    check_map("--gidmap", &ns.gid_map)?;
    if let Some(size) = size(&ns.user) {
        size?;
    }
    let user = namespaces::user(ns);
    for m in spec.mounts.iter().filter(|m| m.options.contains_key("idmap")) {
        let why = match m.r#type.as_str() {
            "tmpfs" => "a tmpfs belongs to the container already",
            _ if user == Mode::Host => "the container has no user namespace of its own (--userns=auto)",
            _ if m.propagation.ends_with("shared") => "a shared mount has the host's owners",
            _ => continue,
        };
        return invalid(&format!("the mount at {} cannot be id-mapped: {why}", m.target));
    }
    if user == Mode::Host {
        return Ok(());
    }
    if spec.security.as_ref().is_some_and(|s| s.privileged) {
        return invalid(
            "privileged mode is incompatible with user namespaces: run the container with --userns=host",
        );
    }
    // What /proc and message queues show belongs to the user namespace that their own was made in.
    for (mode, what) in [(namespaces::pid(ns), "PID"), (namespaces::ipc(ns), "IPC")] {
        match mode {
            Mode::Host => {
                return invalid(&format!(
                    "cannot share the host {what} namespace when user namespaces are enabled"
                ));
            }
            Mode::Container(_) if mode != user => {
                return invalid(&format!(
                    "cannot join the {what} namespace of a container without its user namespace: \
                     add --userns container:NAME"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_map(flag: &str, map: &[IdMap]) -> Result<(), RuntimeError> {
    let invalid = |text: String| Err(RuntimeError::Invalid(format!("{flag}: {text}")));
    let meets = |a: (u32, u32), b: (u32, u32)| {
        Range { start: a.0, count: a.1 }.meets(Range { start: b.0, count: b.1 })
    };
    for (n, m) in map.iter().enumerate() {
        let shown = format!("{}:{}:{}", m.inside, m.outside, m.count);
        // The last id, 2^32 - 1, means "none" to the kernel.
        let end = u64::from(m.inside.max(m.outside)) + u64::from(m.count);
        if m.count == 0 || end > u64::from(u32::MAX) {
            return invalid(format!("{shown} is no range of ids"));
        }
        let before = &map[..n];
        if before.iter().any(|o| {
            meets((o.inside, o.count), (m.inside, m.count))
                || meets((o.outside, o.count), (m.outside, m.count))
        }) {
            return invalid(format!("{shown} overlaps with another one"));
        }
    }
    if !map.is_empty() && !map.iter().any(|m| m.inside == 0) {
        return invalid("id 0 of the container is not mapped".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(change: impl FnOnce(&mut ContainerSpec, &mut Namespaces)) -> String {
        let (mut spec, mut ns) = (ContainerSpec::default(), Namespaces::default());
        change(&mut spec, &mut ns);
        check(&spec, &ns).err().map(|e| e.to_string()).unwrap_or_default()
    }

    fn map(inside: u32, outside: u32, count: u32) -> IdMap {
        IdMap { inside, outside, count }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("auto").unwrap().unwrap(), 65_536);
        assert_eq!(size("auto:size=4096").unwrap().unwrap(), 4096);
        assert!(size("auto:size=0").unwrap().is_err() && size("auto:uidmapping=x").unwrap().is_err());
        assert!(size("host").is_none() && size("container:auto").is_none());
    }

    #[test]
    fn what_a_user_namespace_excludes_is_refused() {
        let auto = |change: fn(&mut ContainerSpec, &mut Namespaces)| {
            refused(|s, ns| {
                ns.user = "auto".into();
                change(s, ns);
            })
        };
        assert_eq!(auto(|_, _| {}), "");
        assert!(auto(|s, _| s.security.get_or_insert_default().privileged = true).contains("incompatible"));
        assert!(auto(|_, ns| ns.pid = "host".into()).contains("cannot share the host PID namespace"));
        assert!(auto(|_, ns| ns.ipc = "container:a".into()).contains("--userns container:NAME"));
        assert!(auto(|_, ns| ns.uid_map = vec![map(0, 7, 1)]).contains("conflicting options"));
        let joined = refused(|_, ns| {
            ns.user = "container:a".into();
            ns.pid = "container:a".into();
        });
        assert_eq!(joined, "");
    }

    #[test]
    fn maps_are_ranges_that_do_not_meet_and_have_root() {
        let of = |list: &[IdMap]| refused(|_, ns| ns.uid_map = list.to_vec());
        assert_eq!(of(&[map(0, 1000, 1), map(1, 100_000, 65_535)]), "");
        assert!(of(&[map(1, 1000, 1)]).contains("id 0"));
        assert!(of(&[map(0, 1000, 0)]).contains("no range"));
        assert!(of(&[map(0, u32::MAX, 2)]).contains("no range"));
        assert!(of(&[map(0, 1000, 10), map(9, 5000, 1)]).contains("overlaps"));
        assert!(of(&[map(0, 1000, 10), map(10, 1009, 1)]).contains("overlaps"));
        assert!(refused(|_, ns| ns.gid_map = vec![map(0, 7, 1)]).contains("--uidmap"));
    }

    proptest! {
        /// Whatever comes and goes, in whatever sizes: ranges stay in the pool and never meet, and a pool is only full when it has no gap.
        #[test]
        fn ranges_never_meet(steps in prop::collection::vec((any::<bool>(), 1u32..40, 0usize..20), 1..80)) {
            let pool = Range { start: 1000, count: 200 };
            let mut taken: Vec<Range> = vec![Range { start: 1100, count: 7 }];
            for (give_back, size, which) in steps {
                if give_back && taken.len() > 1 {
                    taken.remove(which % taken.len());
                    continue;
                }
                match allocate(pool, &taken, size) {
                    Some(r) => {
                        prop_assert!(r.count == size && r.start >= pool.start && r.end() <= pool.end());
                        prop_assert!(!taken.iter().any(|t| t.meets(r)));
                        taken.push(r);
                    }
                    None => for start in pool.start..=pool.start + pool.count - size {
                        let r = Range { start, count: size };
                        prop_assert!(taken.iter().any(|t| t.meets(r)), "{r:?} was free");
                    },
                }
            }
        }
    }
}
