//! Mount options in mount(8)'s words.

use davit_sys::rootfs as sys;

use crate::error::{Error, Result};
use crate::spec::Mount;

/// What a mount's options say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// A bind mount.
    pub bind: bool,
    /// With what is mounted below the source.
    pub recursive: bool,
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear.
    pub clear: u64,
    /// As `set`, on everything below too.
    pub set_recursive: u64,
    /// As `clear`, on everything below too.
    pub clear_recursive: u64,
    /// MS_* and whether it goes for everything below.
    pub propagation: Vec<(u64, bool)>,
    /// For the file system.
    pub data: Vec<(String, Option<String>)>,
    /// Fill a tmpfs with what it covers.
    pub copy_up: bool,
    /// Owners are shown through a map; true: also of what is mounted below.
    pub idmap: Option<bool>,
}

const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", sys::ATTR_RDONLY, 0),
    ("rw", 0, sys::ATTR_RDONLY),
    ("nosuid", sys::ATTR_NOSUID, 0),
    ("suid", 0, sys::ATTR_NOSUID),
    ("nodev", sys::ATTR_NODEV, 0),
    ("dev", 0, sys::ATTR_NODEV),
    ("noexec", sys::ATTR_NOEXEC, 0),
    ("exec", 0, sys::ATTR_NOEXEC),
    ("nodiratime", sys::ATTR_NODIRATIME, 0),
    ("diratime", 0, sys::ATTR_NODIRATIME),
    ("noatime", sys::ATTR_NOATIME, sys::ATTR_ATIME),
    ("atime", 0, sys::ATTR_ATIME),
    ("relatime", 0, sys::ATTR_ATIME),
    ("strictatime", sys::ATTR_STRICTATIME, sys::ATTR_ATIME),
    ("nosymfollow", sys::ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, sys::ATTR_NOSYMFOLLOW),
    ("norelatime", sys::ATTR_STRICTATIME, sys::ATTR_ATIME),
];

/// `private`, `rslave`, ...: MS_* and whether recursive.
pub fn propagation(name: &str) -> Option<(u64, bool)> {
    let kind = match name.strip_prefix('r').unwrap_or(name) {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some((kind, name.starts_with('r')))
}

/// Understands a mount's options.
pub fn parse(mount: &Mount) -> Result<MountOptions> {
    let mut out = MountOptions { bind: mount.kind == "bind", ..MountOptions::default() };
    for option in &mount.options {
        if let Some(p) = propagation(option) {
            out.propagation.push(p);
            continue;
        }
        if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|a| a.0 == option) {
            (out.set, out.clear) = (out.set & !clear | set, out.clear & !set | clear);
            continue;
        }
        let whole = option.strip_prefix('r').and_then(|o| ATTRIBUTES.iter().find(|a| a.0 == o));
        if let Some((_, set, clear)) = whole {
            out.set_recursive = out.set_recursive & !clear | set;
            out.clear_recursive = out.clear_recursive & !set | clear;
            continue;
        }
        match option.as_str() {
            "bind" => out.bind = true,
            "rbind" => (out.bind, out.recursive) = (true, true),
            "tmpcopyup" => out.copy_up = true,
            "idmap" | "ridmap" => out.idmap = Some(option == "ridmap"),
            "defaults" | "silent" | "loud" | "async" | "nomand" | "nolazytime" | "nostrictatime"
            | "remount" | "newinstance" => {}
            other if other.starts_with("x-") => {}
            other => out.data.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    if out.idmap.is_none() && !mount.uid_mappings.is_empty() {
        out.idmap = Some(false);
    }
    if out.idmap.is_some() && !out.bind {
        let what = mount.destination.display();
        return Err(Error::Config(format!("mount {what}: only a bind mount can be id-mapped")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: &str, list: &[&str]) -> MountOptions {
        let options = list.iter().map(|s| (*s).to_owned()).collect();
        parse(&Mount { kind: kind.into(), options, ..Mount::default() }).unwrap()
    }

    #[test]
    fn the_later_of_two_opposites_counts() {
        let o = options("tmpfs", &["ro", "nosuid", "rw", "mode=755", "strictatime", "noatime"]);
        assert_eq!(o.set, sys::ATTR_NOSUID | sys::ATTR_NOATIME);
        assert_eq!(o.clear, sys::ATTR_RDONLY | sys::ATTR_ATIME);
        assert_eq!(o.data, [("mode".to_owned(), Some("755".to_owned()))]);
    }

    #[test]
    fn bind_options_are_told_from_file_system_ones() {
        let o = options("none", &["rbind", "rro", "rslave", "private"]);
        assert!(o.bind && o.recursive);
        assert_eq!((o.set, o.set_recursive), (0, sys::ATTR_RDONLY));
        assert_eq!(o.propagation, [(libc::MS_SLAVE, true), (libc::MS_PRIVATE, false)]);
        // `relatime` begins with an r but is no recursive `elatime`.
        assert_eq!(options("tmpfs", &["relatime"]).clear, sys::ATTR_ATIME);
    }
}
