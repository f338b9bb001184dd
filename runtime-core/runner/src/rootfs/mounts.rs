//! One mount of the config, attached beneath the root.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::rootfs::{self as sys, MountAttributes, Target};
use rustix::fs::FileType;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::{Plan, Planned, copy_up, options::MountOptions};
use crate::error::{Context, Error, Result};

/// Mounts it. Kinds `cgroup` and `cgroup2` are [`super::cgroups`]'.
pub fn mount(plan: &Plan, planned: &Planned, root: BorrowedFd<'_>) -> Result<()> {
    let (mount, options) = (&planned.mount, &planned.options);
    if options.bind {
        return bind(plan, planned, root);
    }
    let target = target(root, &mount.destination, Target::Directory)?;
    let done = file_system(&mount.kind, &mount.source, options);
    let tree = match done {
        // A namespace that does not own its network cannot have an own sysfs: the host's, read-only, is the usual substitute.
        Err(Failed { errno: libc::EPERM | libc::EBUSY, .. }) if mount.kind == "sysfs" => host_sysfs(options)?,
        // Long options do not fit through fsconfig(2).
        Err(Failed { errno: 0 | libc::ENOSYS, .. }) => return classic(planned, &target),
        other => other.map_err(|f| f.error(&mount.kind, &mount.destination))?,
    };
    if options.copy_up {
        copy_up::fill(root, &mount.destination, tree.as_fd())?;
    }
    if mount.kind == "tmpfs" && !options.data.iter().any(|(k, _)| k == "mode") {
        keep_mode(target.as_fd(), tree.as_fd());
    }
    sys::attach(tree.as_fd(), target.as_fd())
        .context(|| format!("attach {} at {}", mount.kind, mount.destination.display()))?;
    finish(tree.as_fd(), options, &mount.destination, false)
}

/// The descriptor to mount on; missing ones are made.
pub fn target(root: BorrowedFd<'_>, destination: &Path, kind: Target) -> Result<OwnedFd> {
    sys::open_or_make(root, destination, kind)
        .context(|| format!("make the mount target {}", destination.display()))
}

struct Failed {
    errno: i32,
    message: Option<String>,
}

impl Failed {
    fn error(self, kind: &str, destination: &Path) -> Error {
        let source = std::io::Error::from_raw_os_error(self.errno);
        let detail = self.message.map(|m| format!(" ({m})")).unwrap_or_default();
        Error::Io { operation: format!("mount {kind} at {}{detail}", destination.display()), source }
    }
}

impl From<rustix::io::Errno> for Failed {
    fn from(e: rustix::io::Errno) -> Self {
        Self { errno: e.raw_os_error(), message: None }
    }
}

/// A new, detached instance of a file system. errno 0: an option too long for fsconfig(2).
fn file_system(kind: &str, source: &Path, options: &MountOptions) -> std::result::Result<OwnedFd, Failed> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
    if options.data.iter().any(|(_, v)| v.as_ref().is_some_and(|v| v.len() > 250)) {
        return Err(Failed { errno: 0, message: None });
    }
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explain = |e: rustix::io::Errno| Failed {
        errno: e.raw_os_error(),
        message: sys::context_message(context.as_fd()),
    };
    if !source.as_os_str().is_empty() {
        fsconfig_set_string(&context, "source", source).map_err(explain)?;
    }
    for (key, value) in &options.data {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()).map_err(explain)?,
            None => fsconfig_set_flag(&context, key.as_str()).map_err(explain)?,
        }
    }
    fsconfig_create(&context).map_err(explain)?;
    let later = if options.copy_up { sys::ATTR_RDONLY } else { 0 };
    let attributes = MountAttrFlags::from_bits_retain((options.set & !later) as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(explain)
}

fn host_sysfs(options: &MountOptions) -> Result<OwnedFd> {
    let tree = sys::clone_tree_at(Path::new("/sys"), true).context(|| "clone the mount of /sys")?;
    let set = options.set | sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC;
    let attributes = MountAttributes { set: set & !sys::ATTR_ATIME, ..MountAttributes::default() };
    sys::set_attributes(tree.as_fd(), attributes, true).context(|| "make the host's /sys read-only")?;
    Ok(tree)
}

/// mount(2) on the descriptor, through the host's /proc that is still ours.
fn classic(planned: &Planned, target: &OwnedFd) -> Result<()> {
    let (mount, options) = (&planned.mount, &planned.options);
    let join =
        |(k, v): &(String, Option<String>)| v.as_ref().map_or_else(|| k.clone(), |v| format!("{k}={v}"));
    let data: Vec<String> = options.data.iter().map(join).collect();
    let path = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
    // The low attribute bits are ro, nosuid, nodev, noexec in the same order as MS_*.
    let flags = nix::mount::MsFlags::from_bits_truncate(options.set & 0xf);
    let (source, kind, data) = (&mount.source, mount.kind.as_str(), data.join(","));
    nix::mount::mount(Some(source), &path, Some(kind), flags, Some(data.as_str()))
        .context(|| format!("mount {kind} at {}", mount.destination.display()))
}

/// Clones the tree of a bind mount's source.
pub fn clone_source(source: &Path, recursive: bool) -> Result<OwnedFd> {
    sys::clone_tree_at(source, recursive).context(|| format!("bind {}", source.display()))
}

fn bind(plan: &Plan, planned: &Planned, root: BorrowedFd<'_>) -> Result<()> {
    let (mount, options) = (&planned.mount, &planned.options);
    let made;
    let tree = if let Some(tree) = &planned.tree {
        tree
    } else {
        made = clone_source(&plan.bundle.join(&mount.source), options.recursive)?;
        &made
    };
    let kind = sys::file_type(tree.as_fd()).context(|| format!("stat {}", mount.source.display()))?;
    let missing = if kind == FileType::Directory { Target::Directory } else { Target::File };
    let target = target(root, &mount.destination, missing)?;
    check_kinds(planned, kind, target.as_fd())?;
    finish(tree.as_fd(), options, &mount.destination, true)?;
    sys::attach(tree.as_fd(), target.as_fd())
        .context(|| format!("bind {} to {}", mount.source.display(), mount.destination.display()))
}

/// The kernel's words for a file on a directory, or the other way round, are "invalid argument" and no more.
fn check_kinds(planned: &Planned, source: FileType, target: BorrowedFd<'_>) -> Result<()> {
    let (from, to) = (planned.mount.source.display(), planned.mount.destination.display());
    let covered = sys::file_type(target).context(|| format!("stat {to} in the container"))?;
    let name = |directory| if directory { "a directory" } else { "a file" };
    let (ours, theirs) = (source == FileType::Directory, covered == FileType::Directory);
    if ours == theirs {
        return Ok(());
    }
    Err(Error::Inside(format!(
        "cannot bind {from} to {to}: {from} is {} on the host and {to} is {} in the container",
        name(ours),
        name(theirs)
    )))
}

/// Attributes and propagation; `attributes` false where the mount was made with them.
fn finish(tree: BorrowedFd<'_>, options: &MountOptions, destination: &Path, attributes: bool) -> Result<()> {
    let change = |a: MountAttributes, recursive| {
        sys::set_attributes(tree, a, recursive)
            .context(|| format!("set the options of the mount at {}", destination.display()))
    };
    // An access time mode can only be set together with clearing the whole field.
    let field = |set: u64, clear: u64| {
        if (set | clear) & sys::ATTR_ATIME == 0 { clear } else { clear | sys::ATTR_ATIME }
    };
    if attributes && (options.set | options.clear) != 0 {
        let clear = field(options.set, options.clear);
        change(MountAttributes { set: options.set, clear, ..MountAttributes::default() }, false)?;
    } else if options.copy_up && options.set & sys::ATTR_RDONLY != 0 {
        change(MountAttributes { set: sys::ATTR_RDONLY, ..MountAttributes::default() }, false)?;
    }
    if (options.set_recursive | options.clear_recursive) != 0 {
        let (set, clear) = (options.set_recursive, field(options.set_recursive, options.clear_recursive));
        change(MountAttributes { set, clear, ..MountAttributes::default() }, true)?;
    }
    for (propagation, recursive) in &options.propagation {
        change(MountAttributes { propagation: *propagation, ..MountAttributes::default() }, *recursive)?;
    }
    Ok(())
}

/// A tmpfs without an explicit mode looks like the directory that it covers; failing to is harmless.
fn keep_mode(covered: BorrowedFd<'_>, tree: BorrowedFd<'_>) {
    if let Ok(stat) = rustix::fs::fstat(covered) {
        let mode = rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777);
        let opened = rustix::fs::openat(
            tree,
            ".",
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        if let Ok(fd) = opened {
            let _ = rustix::fs::fchmod(fd, mode);
        }
    }
}
