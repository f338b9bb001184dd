//! `--ulimit`: docker's names, capped to what this host lets a process have.

use davit_contracts::runtime::Ulimit;

use super::super::host::{Host, ULIMITS};
use super::super::oci::Rlimit;
use crate::error::RuntimeError;

/// What was asked for, and open files at docker's 1048576 or as many as this host allows. Warnings name what was capped.
pub fn rlimits(asked: &[Ulimit], host: &Host) -> Result<(Vec<Rlimit>, Vec<String>), RuntimeError> {
    let mut warnings = Vec::new();
    let mut out: Vec<Rlimit> = Vec::new();
    if !asked.iter().any(|u| u.name == "nofile") {
        let n = host.hard_limit("nofile").min(1 << 20);
        out.push(Rlimit { kind: "RLIMIT_NOFILE".into(), soft: n, hard: n });
    }
    for u in asked {
        if !ULIMITS.iter().any(|(name, _)| *name == u.name) {
            return Err(RuntimeError::Invalid(format!("invalid ulimit type: {}", u.name)));
        }
        if u.soft > u.hard {
            return Err(RuntimeError::Invalid(format!(
                "ulimit {}: the soft limit must be less than or equal to the hard limit: {} > {}",
                u.name, u.soft, u.hard
            )));
        }
        let hard = u.hard.min(host.hard_limit(&u.name));
        if hard < u.hard {
            warnings.push(format!("ulimit {} is capped to {hard}: this host allows no more", u.name));
        }
        let kind = format!("RLIMIT_{}", u.name.to_ascii_uppercase());
        // docker keeps limits by name: of two with one name the last counts.
        out.retain(|r| r.kind != kind);
        out.push(Rlimit { kind, soft: u.soft.min(hard), hard });
    }
    Ok((out, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, soft: u64, hard: u64) -> Ulimit {
        Ulimit { name: name.into(), soft, hard }
    }

    #[test]
    fn open_files_are_capped_with_a_warning() {
        let host = Host::of_tests();
        let (limits, warnings) = rlimits(&[], &host).unwrap();
        assert_eq!((limits[0].soft, limits[0].hard, warnings.len()), (20_000, 20_000, 0));
        let (limits, warnings) = rlimits(&[ask("nofile", 10, 1 << 20)], &host).unwrap();
        assert_eq!((limits[0].soft, limits[0].hard, warnings.len()), (10, 20_000, 1));
        assert!(rlimits(&[ask("x", 0, 0)], &host).is_err());
        assert!(rlimits(&[ask("core", 2, 1)], &host).is_err());
        let (limits, _) = rlimits(&[ask("core", 1, 1), ask("core", 2, 2)], &host).unwrap();
        assert_eq!((limits.len(), limits[1].hard), (2, 2));
    }

    /// Every name, against the real hard limits of this process.
    #[test]
    fn each_is_capped_to_the_hosts_own() {
        let mut host = Host::read(false);
        host.hard_limits = ULIMITS
            .iter()
            .filter_map(|(name, r)| Some((*name, rustix::process::getrlimit(*r).maximum?)))
            .collect();
        for (name, resource) in ULIMITS {
            let (limits, warnings) = rlimits(&[ask(name, u64::MAX, u64::MAX)], &host).unwrap();
            let got = limits.iter().find(|l| l.kind == format!("RLIMIT_{}", name.to_uppercase())).unwrap();
            let real = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
            assert_eq!((got.soft, got.hard), (real, real), "{name}");
            assert_eq!(warnings.len(), usize::from(real != u64::MAX), "{name}: {warnings:?}");
        }
    }
}
