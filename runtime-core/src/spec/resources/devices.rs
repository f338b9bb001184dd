//! Devices: `--device`, `--device-cgroup-rule`, those of `--privileged`, and which block device a path names.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::super::oci::{Device, DeviceRule};
use crate::error::RuntimeError;

/// How deep `--device DIRECTORY` and `--privileged` look; /dev has no cycles, but for links that are not followed.
const DEPTH: usize = 16;

fn rule(
    allow: bool,
    kind: Option<&'static str>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, access: access.to_owned() }
}

/// docker's: nothing, but any mknod, the harmless character devices, and terminals.
pub fn default_rules() -> Vec<DeviceRule> {
    let c = |major, minor| rule(true, Some("c"), Some(major), minor, "rwm");
    vec![
        rule(false, None, None, None, "rwm"),
        rule(true, Some("c"), None, None, "m"),
        rule(true, Some("b"), None, None, "m"),
        c(1, Some(3)),
        c(1, Some(5)),
        c(1, Some(7)),
        c(1, Some(8)),
        c(1, Some(9)),
        c(5, Some(0)),
        c(5, Some(1)),
        c(5, Some(2)),
        c(136, None),
    ]
}

/// A rule that allows everything, for `--privileged`.
pub fn allow_all() -> DeviceRule {
    rule(true, None, None, None, "rwm")
}

/// `--device-cgroup-rule`: "TYPE MAJOR:MINOR ACCESS" with `a`, `b` or `c`, numbers or `*`, and of `rwm`.
pub fn rule_of(text: &str) -> Result<DeviceRule, RuntimeError> {
    let bad = || RuntimeError::Invalid(format!("invalid device cgroup format '{text}'"));
    let words: Vec<&str> = text.split(' ').collect();
    let &[kind, numbers, access] = words.as_slice() else { return Err(bad()) };
    let kind = match kind {
        "a" => Some("a"),
        "b" => Some("b"),
        "c" => Some("c"),
        _ => return Err(bad()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |n: &str| match n {
        "*" => Ok(None),
        n if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => n.parse().map(Some).map_err(|_| bad()),
        _ => Err(bad()),
    };
    let (major, minor) = (number(major)?, number(minor)?);
    if !is_access(access) || access.len() > 3 {
        return Err(bad());
    }
    Ok(rule(true, kind, major, minor, access))
}

/// `--device HOST[:CONTAINER[:rwm]]`: the nodes and their rules; of a directory all devices in it.
pub fn devices(text: &str) -> Result<Vec<(Device, DeviceRule)>, RuntimeError> {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or("");
    let second = parts.next();
    let (target, access) = match (second, parts.next()) {
        (Some(mode), None) if is_access(mode) => (source, mode),
        (Some(target), access) => (target, access.unwrap_or("rwm")),
        (None, _) => (source, "rwm"),
    };
    if !source.starts_with('/') || !target.starts_with('/') || parts.next().is_some() {
        return Err(RuntimeError::Invalid(format!(
            "invalid device '{text}': /dev/HOST[:/dev/CONTAINER[:rwm]] is expected"
        )));
    }
    if !is_access(access) {
        return Err(RuntimeError::Invalid(format!("bad mode specified: {access}")));
    }
    let gathering = |why: &dyn std::fmt::Display| {
        RuntimeError::Invalid(format!(
            "error gathering device information while adding custom device \"{source}\": {why}"
        ))
    };
    let resolved = fs::canonicalize(source).map_err(|e| gathering(&plain(&e)))?;
    if resolved.is_dir() {
        let mut found = Vec::new();
        walk(&resolved, Path::new(target), access, &mut found, DEPTH);
        return if found.is_empty() { Err(gathering(&"no devices found")) } else { Ok(found) };
    }
    let one = node(&resolved, target, access).map_err(|e| gathering(&plain(&e)))?;
    one.map(|d| vec![d]).ok_or_else(|| gathering(&"not a device node"))
}

/// "No such file or directory", without the number behind it.
fn plain(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn node(source: &Path, target: &str, access: &str) -> std::io::Result<Option<(Device, DeviceRule)>> {
    let meta = fs::metadata(source)?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => "c",
        t if t.is_block_device() => "b",
        _ => return Ok(None),
    };
    let (major, minor) =
        (i64::from(rustix::fs::major(meta.rdev())), i64::from(rustix::fs::minor(meta.rdev())));
    let device = Device {
        path: target.to_owned(),
        kind,
        major,
        minor,
        file_mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    };
    Ok(Some((device, rule(true, Some(kind), Some(major), Some(minor), access))))
}

fn walk(directory: &Path, target: &Path, access: &str, out: &mut Vec<(Device, DeviceRule)>, depth: usize) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, inside) = (entry.path(), target.join(entry.file_name()));
        match entry.file_type() {
            Ok(t) if t.is_dir() && depth > 0 => walk(&path, &inside, access, out, depth - 1),
            Ok(t) if t.is_char_device() || t.is_block_device() => {
                out.extend(node(&path, &inside.to_string_lossy(), access).ok().flatten());
            }
            _ => {}
        }
    }
}

/// Every device of the host, for `--privileged`, as docker has it: without terminals of others and the container's own mounts in /dev.
pub fn all_of_host() -> Vec<Device> {
    const OTHERS: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
    let mut found = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), "rwm", &mut found, DEPTH);
    let ours = |d: &Device| {
        let below = d.path.trim_start_matches("/dev/");
        let first = below.split('/').next().unwrap_or_default();
        !(OTHERS.contains(&first) && below != first) && below != "console" && below != "ptmx"
    };
    found.into_iter().map(|(d, _)| d).filter(ours).collect()
}

/// The numbers of a block device.
pub fn block_number(path: &str) -> Result<(i64, i64), RuntimeError> {
    let meta = fs::metadata(path)
        .map_err(|e| RuntimeError::Invalid(format!("no block device {path}: {}", plain(&e))))?;
    if !meta.file_type().is_block_device() {
        return Err(RuntimeError::Invalid(format!("{path} is no block device")));
    }
    Ok((i64::from(rustix::fs::major(meta.rdev())), i64::from(rustix::fs::minor(meta.rdev()))))
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_looked_up() {
        let (d, r) = devices("/dev/null:/dev/nothing:r").unwrap().remove(0);
        assert_eq!((d.path.as_str(), d.major, d.minor, r.access.as_str()), ("/dev/nothing", 1, 3, "r"));
        assert_eq!(devices("/dev/null:rw").unwrap()[0].0.path, "/dev/null");
        for bad in [
            "null",
            "/dev/null:x",
            "/dev/null:/a:z",
            "/nonexistent",
            "/dev/null:/a:r:w",
            "/etc/hostname",
            "/etc",
        ] {
            assert!(devices(bad).is_err(), "{bad}");
        }
        let e = devices("/dev/nonexistent").unwrap_err().to_string();
        assert!(e.contains("custom device \"/dev/nonexistent\": no such file or directory"), "{e}");
    }

    #[test]
    fn a_directory_means_all_devices_in_it() {
        let all = devices("/dev:/dev:r").unwrap();
        assert!(all.iter().any(|(d, r)| d.path == "/dev/null" && r.access == "r"));
        let host = all_of_host();
        assert!(host.iter().any(|d| d.path == "/dev/null"));
        assert!(!host.iter().any(|d| d.path.starts_with("/dev/pts/") || d.path == "/dev/console"));
    }

    #[test]
    fn rules_in_words() {
        let r = rule_of("c 10:* rm").unwrap();
        assert_eq!(
            (r.allow, r.kind, r.major, r.minor, r.access.as_str()),
            (true, Some("c"), Some(10), None, "rm")
        );
        for bad in [
            "",
            "c",
            "c 1:3",
            "d 1:3 r",
            "c 1 r",
            "c -1:3 r",
            "c 1:3 x",
            "c 1:3 rwmr",
            "c 1:3 r r",
            "c +1:3 r",
        ] {
            assert!(rule_of(bad).is_err(), "{bad}");
        }
    }
}
