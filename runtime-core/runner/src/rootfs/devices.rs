//! /dev: default and configured nodes, links, and the console.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use davit_sys::rootfs::{self as sys, Target};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};

use crate::error::{Context, Error, Result};
use crate::spec::Device;

const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Fills /dev. `bind`: nodes cannot be made here, so the host's are bound.
pub fn fill(root: BorrowedFd<'_>, configured: &[Device], bind: bool) -> Result<()> {
    let dev = sys::open_or_make(root, Path::new("/dev"), Target::Directory).context(|| "make /dev")?;
    for (name, major, minor) in DEFAULTS {
        let shown = format!("/dev/{name}");
        if configured.iter().any(|d| d.path == Path::new(&shown)) {
            continue;
        }
        let node = Node { kind: FileType::CharacterDevice, major, minor, mode: 0o666, owner: None };
        node.place(root, dev.as_fd(), name.as_ref(), Path::new(&shown), bind)?;
    }
    for device in configured {
        let node = Node::try_from(device)?;
        let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else {
            return Err(Error::Config(format!("device path \"{}\" names no file", device.path.display())));
        };
        let parent = sys::open_or_make(root, parent, Target::Directory)
            .context(|| format!("make {}", parent.display()))?;
        node.place(root, parent.as_fd(), name.as_ref(), &device.path, bind)?;
    }
    for (target, name) in LINKS {
        link(dev.as_fd(), target, name)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(dev.as_fd(), "/proc/kcore", "core")?;
    }
    // A multiplexer of another instance than the container's devpts would give host terminals.
    match rustix::fs::unlinkat(&dev, "ptmx", AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) | Ok(()) => {}
        Err(e) => return Err(e).context(|| "replace /dev/ptmx"),
    }
    link(dev.as_fd(), "pts/ptmx", "ptmx")
}

fn link(dev: BorrowedFd<'_>, target: &str, name: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => other.context(|| format!("link /dev/{name}")),
    }
}

struct Node {
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl TryFrom<&Device> for Node {
    type Error = Error;

    fn try_from(d: &Device) -> Result<Self> {
        let kind = match d.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => {
                return Err(Error::Config(format!("device {}: unknown type {other:?}", d.path.display())));
            }
        };
        let number = |n: Option<i64>| u32::try_from(n.unwrap_or(0)).unwrap_or(0);
        let owner = (d.uid.is_some() || d.gid.is_some()).then(|| (d.uid.unwrap_or(0), d.gid.unwrap_or(0)));
        Ok(Self {
            kind,
            major: number(d.major),
            minor: number(d.minor),
            mode: d.file_mode.unwrap_or(0o666) & 0o7777,
            owner,
        })
    }
}

impl Node {
    fn place(
        &self,
        root: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        name: &Path,
        shown: &Path,
        bind: bool,
    ) -> Result<()> {
        if bind {
            return bind_host(root, shown);
        }
        let number = rustix::fs::makedev(self.major, self.minor);
        match rustix::fs::mknodat(parent, name, self.kind, Mode::from_raw_mode(self.mode), number) {
            Err(rustix::io::Errno::EXIST) => return self.check_existing(parent, name, shown),
            Err(rustix::io::Errno::PERM) => return bind_host(root, shown),
            other => other.context(|| format!("make the device {}", shown.display()))?,
        }
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .context(|| format!("set the owner of {}", shown.display()))?;
        }
        Ok(())
    }

    /// A node that the image brings is taken only if it is that device: an image must not choose what /dev/null is.
    fn check_existing(&self, parent: BorrowedFd<'_>, name: &Path, shown: &Path) -> Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("stat {}", shown.display()))?;
        let number = rustix::fs::makedev(self.major, self.minor);
        if FileType::from_raw_mode(stat.st_mode) == self.kind && stat.st_rdev == number {
            return Ok(());
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .context(|| format!("replace {}", shown.display()))?;
        rustix::fs::mknodat(parent, name, self.kind, Mode::from_raw_mode(self.mode), number)
            .context(|| format!("make the device {}", shown.display()))
    }
}

fn bind_host(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let tree = match sys::clone_tree_at(path, false) {
        // A host without this device (a container of its own, say): the container goes without too.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.context(|| format!("bind the device {}", path.display()))?,
    };
    let target =
        sys::open_or_make(root, path, Target::File).context(|| format!("make {}", path.display()))?;
    sys::attach(tree.as_fd(), target.as_fd()).context(|| format!("bind the device {}", path.display()))
}

/// Shows the terminal as /dev/console.
pub fn bind_console(root: BorrowedFd<'_>, terminal: &OwnedFd) -> Result<()> {
    let path = Path::new("/dev/console");
    let target = sys::open_or_make(root, path, Target::File).context(|| "make /dev/console")?;
    let tree =
        sys::clone_tree(terminal.as_fd(), Path::new(""), false).context(|| "clone the terminal's mount")?;
    sys::attach(tree.as_fd(), target.as_fd()).context(|| "bind the terminal to /dev/console")
}
