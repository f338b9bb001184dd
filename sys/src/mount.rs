//! Mounts made from descriptions in containerd's shape (type, source, options) at a place given by descriptor.
//!
//! The calls are those of mount_setattr(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2) and open_tree(2) (Linux 5.2 to 5.12): a
//! mount is complete, with all its attributes, before it appears in the tree, and its target is a descriptor, so no path is
//! resolved twice. What kernels before 6.5 lack (overlay's `lowerdir+`) falls back to mount(2).
//!
//! The caller owns the mount namespace; nothing here changes another one's.

mod options;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

pub use options::Options;

/// fsconfig(2) refuses strings of 256 bytes and more.
const LONGEST_VALUE: usize = 255;

/// Why a mount could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A step of making the mount.
    #[error("cannot {step} for the {fstype} mount of {source_path:?}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// The file system's type, or `bind`.
        fstype: String,
        /// Device or directory.
        source_path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused an option of the file system.
    #[error("the kernel refuses {key}={value:?} for a {fstype} mount{}", said(.log))]
    Option {
        /// The file system's type.
        fstype: String,
        /// Which option.
        key: String,
        /// Its value; empty for a flag.
        value: String,
        /// What the kernel's message log of the mount says.
        log: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The place to mount at cannot be opened beneath the root.
    #[error("cannot resolve the mount target {target:?} beneath the root")]
    Target {
        /// Relative to the root.
        target: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The namespace's propagation could not be changed.
    #[error("cannot make all mounts slaves of their host's")]
    Propagation(#[source] io::Error),
    /// A mount point could not be removed.
    #[error("cannot unmount {path}")]
    Unmount {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn said(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({log})") }
}

/// Makes every mount of the calling process's namespace a slave: mounts of the host still arrive, ours stay ours.
pub fn make_all_slaves() -> Result<(), MountError> {
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|e| MountError::Propagation(e.into()))
}

/// Makes the described mount and attaches it to the directory or file `target` (an O_PATH descriptor).
pub fn mount_at(
    fstype: &str,
    source: &Path,
    options: &[String],
    target: BorrowedFd<'_>,
) -> Result<(), MountError> {
    let mut parsed = Options::parse(options);
    if parsed.bind || matches!(fstype, "bind" | "rbind") {
        let recursive = parsed.recursive || fstype == "rbind";
        return bind(source, &parsed, recursive, target);
    }
    if fstype == "overlay" && !parsed.split_lowerdir() {
        return overlay_by_mount2(source, &parsed, target);
    }
    match filesystem(fstype, source, &parsed, target) {
        Err(MountError::Option { key, source: e, .. })
            if key == "lowerdir+" && e.raw_os_error() == Some(libc::EINVAL) =>
        {
            overlay_by_mount2(source, &parsed, target)
        }
        other => other,
    }
}

/// Opens the place for a mount below `root`; symbolic links resolve inside `root` (openat2(2), RESOLVE_IN_ROOT). Directories that are
/// missing are made. An empty `target` is the root itself.
pub fn open_target(root: BorrowedFd<'_>, target: &Path) -> Result<OwnedFd, MountError> {
    let failed = |source: io::Error| MountError::Target { target: target.to_owned(), source };
    let relative = target.strip_prefix("/").unwrap_or(target);
    let open = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let mut reached = PathBuf::new();
    let mut at = open(&reached).map_err(|e| failed(e.into()))?;
    for part in relative.components() {
        reached.push(part);
        at = match open(&reached) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, Path::new(part.as_os_str()), Mode::from_raw_mode(0o755))
                    .map_err(|e| failed(e.into()))?;
                open(&reached)
            }
            other => other,
        }
        .map_err(|e| failed(e.into()))?;
    }
    Ok(at)
}

/// Unmounts what is at `path`, or, where it is in use, takes it out of the tree so that it goes with its last user (MNT_DETACH).
pub fn unmount(path: &Path) -> Result<(), MountError> {
    let failed = |e: rustix::io::Errno| MountError::Unmount { path: path.to_owned(), source: e.into() };
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => {
            rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).map_err(failed)
        }
        Err(e) => Err(failed(e)),
    }
}

fn bind(source: &Path, options: &Options, recursive: bool, target: BorrowedFd<'_>) -> Result<(), MountError> {
    let step = |step| {
        move |e: io::Error| MountError::Step {
            step,
            fstype: "bind".into(),
            source_path: source.into(),
            source: e,
        }
    };
    let depth = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | depth;
    let tree = rustix::mount::open_tree(CWD, source, flags).map_err(|e| step("clone the tree")(e.into()))?;
    set_attributes(tree.as_fd(), options.attributes, recursive).map_err(step("set attributes"))?;
    attach(tree.as_fd(), target).map_err(step("attach the tree"))
}

fn filesystem(
    fstype: &str,
    source: &Path,
    options: &Options,
    target: BorrowedFd<'_>,
) -> Result<(), MountError> {
    let step = |step| {
        move |e: rustix::io::Errno| MountError::Step {
            step,
            fstype: fstype.into(),
            source_path: source.into(),
            source: e.into(),
        }
    };
    let fs = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(step("open a file system context"))?;
    if !source.as_os_str().is_empty() {
        rustix::mount::fsconfig_set_string(fs.as_fd(), "source", source).map_err(step("name the source"))?;
    }
    // Long paths go through the descriptor table, open until the superblock exists.
    let mut held = Vec::new();
    for (key, value) in &options.filesystem {
        let refused = |e: rustix::io::Errno| MountError::Option {
            fstype: fstype.into(),
            key: key.clone(),
            value: value.clone().unwrap_or_default(),
            log: kernel_log(fs.as_fd()),
            source: e.into(),
        };
        match value {
            None => rustix::mount::fsconfig_set_flag(fs.as_fd(), key.as_str()),
            Some(v) if v.len() > LONGEST_VALUE => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let dir = rustix::fs::open(v.as_str(), flags, Mode::empty()).map_err(refused)?;
                let short = format!("/proc/self/fd/{}", dir.as_raw_fd());
                held.push(dir);
                rustix::mount::fsconfig_set_string(fs.as_fd(), key.as_str(), short)
            }
            Some(v) => rustix::mount::fsconfig_set_string(fs.as_fd(), key.as_str(), v.as_str()),
        }
        .map_err(refused)?;
    }
    rustix::mount::fsconfig_create(fs.as_fd()).map_err(|e| {
        let log = kernel_log(fs.as_fd());
        if log.is_empty() {
            step("create the superblock")(e)
        } else {
            let (key, value) = ("its options".into(), String::new());
            MountError::Option { fstype: fstype.into(), key, value, log, source: e.into() }
        }
    })?;
    let mount = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)
        .map_err(step("mount the superblock"))?;
    attach(mount.as_fd(), target).map_err(|source_error| MountError::Step {
        step: "attach the mount",
        fstype: fstype.into(),
        source_path: source.into(),
        source: source_error,
    })
}

/// A /proc of its own (proc(5)): mounted nowhere, reached by the descriptor, gone when that is closed. From Linux 5.8 each is
/// a file system of its own, with none of the directory entries that lookups by others left in the kernel's caches.
///
/// # Errors
/// A kernel without fsopen(2), no CAP_SYS_ADMIN, or a user namespace whose /proc is partly hidden (EPERM).
pub fn detached_proc() -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Kernels before 6.5, and data-only layers: all lower directories in one `lowerdir=` option of mount(2), a page long at most.
fn overlay_by_mount2(source: &Path, options: &Options, target: BorrowedFd<'_>) -> Result<(), MountError> {
    let failed = |e: io::Error| MountError::Step {
        step: "mount (one lowerdir option)",
        fstype: "overlay".into(),
        source_path: source.into(),
        source: e,
    };
    let data = options.overlay_data();
    if data.len() >= 4096 {
        let text =
            "the layer paths are longer than a page in all, which only lowerdir+ of newer kernels takes";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
    }
    let data = CString::new(data).map_err(|e| failed(e.into()))?;
    let place = format!("/proc/self/fd/{}", target.as_raw_fd());
    let name = if source.as_os_str().is_empty() { Path::new("overlay") } else { source };
    rustix::mount::mount(name, place.as_str(), "overlay", mount2_flags(options.attributes), data.as_c_str())
        .map_err(|e| failed(e.into()))
}

fn mount2_flags(attributes: MountAttrFlags) -> MountFlags {
    let pairs = [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (MountAttrFlags::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
    ];
    pairs
        .into_iter()
        .filter(|(attribute, _)| attributes.contains(*attribute))
        .fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

/// mount_setattr(2), Linux 5.12: sets attributes on a detached tree, on all its mounts where `recursive`.
fn set_attributes(tree: BorrowedFd<'_>, set: MountAttrFlags, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    if set.is_empty() {
        return Ok(());
    }
    let attr = MountAttr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated string, `attr` is a live mount_attr of the size passed, and the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel wrote into the context's message queue (fsopen(2): read gives one message, prefixed by its class and a space).
fn kernel_log(fs: BorrowedFd<'_>) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0u8; 512];
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        if n == 0 || lines.len() == 8 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..n]);
        let text = text.trim();
        lines.push(text.split_once(' ').map_or(text, |(_, rest)| rest).to_owned());
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_never_leaves_the_root() {
        let dir = std::env::temp_dir().join(format!("davit-mount-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("root/etc")).unwrap();
        std::os::unix::fs::symlink("/../../etc", dir.join("root/out")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rustix::fs::open(dir.join("root"), flags, Mode::empty()).unwrap();
        let fd = open_target(root.as_fd(), Path::new("/out/../../made/here")).unwrap();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(path, dir.canonicalize().unwrap().join("root/made/here"));
        let itself = open_target(root.as_fd(), Path::new("")).unwrap();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", itself.as_raw_fd())).unwrap();
        assert_eq!(path, dir.canonicalize().unwrap().join("root"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
