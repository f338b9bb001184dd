//! Landlock rules of a container: which paths its programs may reach at all.
//!
//! They come as the annotation `org.davit.landlock`, `ro:/PATH` and `rw:/PATH` with commas between. `ro` is reading, listing and executing,
//! `rw` everything; a path that no rule covers cannot even be opened, root or not. Symbolic links are followed inside the container when it
//! is created, so a rule is about what a path names then.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use davit_sys::landlock::{self, Ruleset};
use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Result};

const ANNOTATION: &str = "org.davit.landlock";

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    path: String,
    write: bool,
}

/// The rules of a container; none: it is not restricted.
pub fn rules(annotations: &BTreeMap<String, String>) -> Result<Vec<Rule>> {
    let Some(text) = annotations.get(ANNOTATION) else { return Ok(Vec::new()) };
    let bad = |rule: &str| {
        Error::Config(format!("annotation {ANNOTATION}: {rule:?}: ro:/PATH or rw:/PATH is expected"))
    };
    text.split(',')
        .map(|rule| match rule.split_once(':') {
            Some((access @ ("ro" | "rw"), path)) if path.starts_with('/') => {
                Ok(Rule { path: path.to_owned(), write: access == "rw" })
            }
            _ => Err(bad(rule)),
        })
        .collect()
}

/// Opens what the rules name, in the container. Nothing is restricted yet.
pub fn prepare(rules: &[Rule]) -> Result<Option<Ruleset>> {
    if rules.is_empty() {
        return Ok(None);
    }
    let set = match Ruleset::new() {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
            let reason = "this kernel has no Landlock, or it is switched off".into();
            return Err(Error::Limit { what: "the program by Landlock".into(), reason });
        }
        other => other.context(|| "make a Landlock ruleset")?,
    };
    for rule in rules {
        let path = rustix::fs::open(&rule.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {} for Landlock", rule.path))?;
        let rights = if rule.write { landlock::ALL } else { landlock::READ };
        set.allow(path.as_fd(), rights).context(|| format!("let Landlock allow {}", rule.path))?;
    }
    Ok(Some(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_or_refused() {
        let of = |text: &str| rules(&BTreeMap::from([(ANNOTATION.to_owned(), text.to_owned())]));
        let two = of("ro:/,rw:/tmp").unwrap();
        assert_eq!(two[1], Rule { path: "/tmp".into(), write: true });
        assert!(rules(&BTreeMap::new()).unwrap().is_empty());
        for bad in ["", "ro:", "ro:x", "r:/", "ro:/,"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
