//! Capability sets: docker's fourteen, `--cap-add`, `--cap-drop`, `--privileged`.

use davit_contracts::runtime::Security;
use davit_sys::caps::NAMES as ALL;

use crate::error::RuntimeError;
use crate::nearest::nearest;

const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The bounding set of a container, as `CAP_*` names in the kernel's order. `available` is the mask of what this host lets us give
/// (CapBnd): a default that is not in it is left out, one that was asked for by name is an error.
pub fn bounding(security: &Security, available: u64) -> Result<Vec<String>, RuntimeError> {
    let mut set: u64 = if security.privileged { available } else { mask(DEFAULT) & available };
    let dropped = numbers(&security.cap_drop)?;
    if dropped.all {
        set = 0;
    }
    let added = numbers(&security.cap_add)?;
    if added.all {
        set |= available;
    }
    if let Some(missing) = (0..ALL.len()).find(|n| added.mask & (1 << n) & !available != 0) {
        return Err(RuntimeError::Unsupported(format!(
            "the capability {} cannot be given: this host does not let davit have it",
            ALL[missing]
        )));
    }
    set = (set | added.mask) & !dropped.mask;
    Ok((0..ALL.len()).filter(|n| set & (1 << n) != 0).map(|n| format!("CAP_{}", ALL[n])).collect())
}

/// All capabilities in `available`, for a privileged exec.
pub fn every(available: u64) -> Vec<String> {
    (0..ALL.len()).filter(|n| available & (1 << n) != 0).map(|n| format!("CAP_{}", ALL[n])).collect()
}

fn mask(names: &[&str]) -> u64 {
    ALL.iter().enumerate().filter(|(_, name)| names.contains(name)).fold(0, |m, (n, _)| m | 1 << n)
}

struct Asked {
    all: bool,
    mask: u64,
}

fn numbers(names: &[String]) -> Result<Asked, RuntimeError> {
    let mut asked = Asked { all: false, mask: 0 };
    for text in names {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            asked.all = true;
        } else if let Some(n) = ALL.iter().position(|known| *known == name) {
            asked.mask |= 1 << n;
        } else {
            let near = nearest(name, ALL.iter().copied());
            let hint = near.first().map_or(String::new(), |n| format!(" (did you mean {n}?)"));
            return Err(RuntimeError::Invalid(format!("'{text}' is no capability{hint}")));
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sec(add: &[&str], drop: &[&str]) -> Security {
        let v = |s: &[&str]| s.iter().map(ToString::to_string).collect();
        Security { cap_add: v(add), cap_drop: v(drop), ..Security::default() }
    }

    #[test]
    fn defaults_additions_and_drops() {
        assert_eq!(bounding(&sec(&[], &[]), u64::MAX).unwrap().len(), 14);
        assert_eq!(bounding(&sec(&["net_admin"], &["all"]), u64::MAX).unwrap(), ["CAP_NET_ADMIN"]);
        let all_but = bounding(&sec(&["ALL"], &["CAP_SYS_ADMIN"]), u64::MAX).unwrap();
        assert_eq!(all_but.len(), 40);
        assert!(!all_but.contains(&"CAP_SYS_ADMIN".to_string()));
    }

    #[test]
    fn what_the_host_lacks_is_left_out_or_refused() {
        let without_chown = !1u64;
        assert_eq!(bounding(&sec(&[], &[]), without_chown).unwrap().len(), 13);
        assert!(matches!(bounding(&sec(&["CHOWN"], &[]), without_chown), Err(RuntimeError::Unsupported(_))));
        let e = bounding(&sec(&["NET_ADMN"], &[]), u64::MAX).unwrap_err().to_string();
        assert!(e.contains("NET_ADMIN"), "{e}");
    }
}
