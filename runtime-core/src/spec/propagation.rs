//! Whether a bind can have the propagation that it asks for: the mount that holds its source must be shared, or a slave (mount_namespaces(7)).

use std::path::Path;

use davit_contracts::runtime::MountSpec;

use crate::error::RuntimeError;

/// Refuses what the kernel would silently not do, as docker does.
pub fn possible(m: &MountSpec) -> Result<(), RuntimeError> {
    if m.r#type != "bind" || matches!(m.propagation.as_str(), "" | "private" | "rprivate") {
        return Ok(());
    }
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let source = Path::new(&m.source).canonicalize().unwrap_or_else(|_| m.source.clone().into());
    holds(&mountinfo, &source, &m.propagation)
}

fn holds(mountinfo: &str, source: &Path, wanted: &str) -> Result<(), RuntimeError> {
    let Some((mount, tags)) = holder(mountinfo, source) else { return Ok(()) };
    let shared = tags.iter().any(|t| t.starts_with("shared:"));
    let slave = tags.iter().any(|t| t.starts_with("master:"));
    let (fine, kind) = match wanted {
        "shared" | "rshared" => (shared, "shared"),
        _ => (shared || slave, "shared or slave"),
    };
    if fine {
        return Ok(());
    }
    Err(RuntimeError::Invalid(format!(
        "path {} is mounted on {mount} but it is not a {kind} mount: `mount --make-shared {mount}` makes it one",
        source.display()
    )))
}

/// The mount point that `path` lies on, and its optional fields (proc_pid_mountinfo(5)). Of several at one place the last covers the others.
fn holder<'a>(mountinfo: &'a str, path: &Path) -> Option<(String, Vec<&'a str>)> {
    let mut found: Option<(String, Vec<&str>)> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ').skip(4);
        let Some(point) = fields.next().map(unescaped) else { continue };
        let longer = found.as_ref().is_none_or(|(best, _)| point.len() >= best.len());
        if longer && path.starts_with(&point) {
            found = Some((point, fields.skip(1).take_while(|f| *f != "-").collect()));
        }
    }
    found
}

/// Blanks and the like are octal.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "1 0 8:1 / / rw - ext4 /dev/a rw
2 1 0:2 / /srv rw,noatime shared:5 - tmpfs none rw
3 1 0:3 / /with\\040blank rw master:7 propagate_from:2 - tmpfs none rw
4 1 0:4 / /srv/private rw - tmpfs none rw
";

    #[test]
    fn the_mount_that_holds_the_source_decides() {
        let holds = |path: &str, wanted: &str| holds(MOUNTS, Path::new(path), wanted);
        assert!(holds("/srv/a", "rshared").is_ok() && holds("/srv", "rslave").is_ok());
        assert!(holds("/with blank/x", "slave").is_ok() && holds("/with blank/x", "shared").is_err());
        let e = holds("/srv/private/x", "rshared").unwrap_err().to_string();
        assert!(
            e.contains("path /srv/private/x is mounted on /srv/private but it is not a shared mount"),
            "{e}"
        );
        assert!(holds("/etc", "rslave").unwrap_err().to_string().contains("not a shared or slave mount"));
        assert!(holds("/srvx", "shared").is_err());
    }
}
