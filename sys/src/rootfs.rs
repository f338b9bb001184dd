//! Mounts inside a root file system that may be hostile: every path is resolved beneath a directory descriptor (openat2(2) with
//! RESOLVE_IN_ROOT, Linux 5.6), and mounts are attached to descriptors, never to path names, so that a symlink swapped in between leads nowhere.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

/// Attributes of a mount for [`set_attributes`], as in mount_setattr(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttributes {
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE or 0.
    pub propagation: u64,
    /// User namespace of an id-mapped mount; 0 without MOUNT_ATTR_IDMAP.
    pub userns_fd: u64,
}

/// MOUNT_ATTR_RDONLY.
pub const ATTR_RDONLY: u64 = 0x1;
/// MOUNT_ATTR_NOSUID.
pub const ATTR_NOSUID: u64 = 0x2;
/// MOUNT_ATTR_NODEV.
pub const ATTR_NODEV: u64 = 0x4;
/// MOUNT_ATTR_NOEXEC.
pub const ATTR_NOEXEC: u64 = 0x8;
/// MOUNT_ATTR__ATIME: the mask of the three access time modes.
pub const ATTR_ATIME: u64 = 0x70;
/// MOUNT_ATTR_NOATIME.
pub const ATTR_NOATIME: u64 = 0x10;
/// MOUNT_ATTR_STRICTATIME.
pub const ATTR_STRICTATIME: u64 = 0x20;
/// MOUNT_ATTR_NODIRATIME.
pub const ATTR_NODIRATIME: u64 = 0x80;
/// MOUNT_ATTR_IDMAP.
pub const ATTR_IDMAP: u64 = 0x10_0000;
/// MOUNT_ATTR_NOSYMFOLLOW.
pub const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Changes attributes of the mount that `mount` is the root of (mount_setattr(2), Linux 5.12), with `recursive` of all below it.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: MountAttributes, recursive: bool) -> io::Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let (size, empty) = (size_of::<MountAttributes>(), c"".as_ptr());
    // SAFETY: the path is an empty C string, `attributes` a valid struct mount_attr of the size given.
    let r = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), empty, flags, &raw const attributes, size)
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a path beneath `root` as if `root` were `/`: symlinks, `..` and absolute links stay inside; magic links are refused.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    loop {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename or mount elsewhere on the system raced with the walk: the kernel asks to try again.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::NOENT) if path.as_os_str().is_empty() => {
                return open_in_root(root, Path::new("/"), flags);
            }
            other => return other.map_err(io::Error::from),
        }
    }
}

/// What a mount target is made as when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A directory.
    Directory,
    /// An empty file: something that is no directory will be bound over it.
    File,
}

/// Opens (O_PATH) a path beneath `root`, making what is missing: directories 0755, the last component as `target` says.
///
/// Each component is made relative to the descriptor of its parent, resolved inside the root, so that what a symlink points at is made inside too.
pub fn open_or_make(root: BorrowedFd<'_>, path: &Path, target: Target) -> io::Result<OwnedFd> {
    make_all(root, path, target, 0)
}

fn make_all(root: BorrowedFd<'_>, path: &Path, target: Target, links: u32) -> io::Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    if links > 40 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let names: Vec<_> = lexical(path);
    let mut prefix = PathBuf::from("/");
    let mut here = open_in_root(root, &prefix, OFlags::PATH | OFlags::DIRECTORY)?;
    for (i, name) in names.iter().enumerate() {
        let last = i + 1 == names.len();
        let parent = prefix.clone();
        prefix.push(name);
        let next = match open_in_root(root, &prefix, OFlags::PATH) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Ok(link) = rustix::fs::readlinkat(&here, name.as_os_str(), Vec::new()) {
                    // A dangling link, such as an image's /etc/resolv.conf: what it names is made, inside.
                    use std::os::unix::ffi::OsStrExt;
                    let mut through = parent.join(std::ffi::OsStr::from_bytes(link.to_bytes()));
                    through.extend(&names[i + 1..]);
                    return make_all(root, &through, target, links + 1);
                }
                make(here.as_fd(), Path::new(name), if last { target } else { Target::Directory })?;
                open_in_root(root, &prefix, OFlags::PATH)?
            }
            other => other?,
        };
        here = next;
    }
    Ok(here)
}

/// Normal components only; `..` takes one away, as the kernel does at the root for what does not exist yet.
fn lexical(path: &Path) -> Vec<std::ffi::OsString> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(n) => names.push(n.to_owned()),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    names
}

fn make(parent: BorrowedFd<'_>, name: &Path, target: Target) -> io::Result<()> {
    let made = match target {
        Target::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Target::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        Err(rustix::io::Errno::EXIST) => Ok(()), // a dangling link, or someone was faster: opening it decides
        other => other.map_err(io::Error::from),
    }
}

/// Clones the mount tree at `path` (or, with an empty path, at `at`) as a detached mount.
pub fn clone_tree(at: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(at, path, flags).map_err(io::Error::from)
}

/// [`clone_tree`] of a path of the caller's own root.
pub fn clone_tree_at(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree(CWD, path, recursive)
}

/// Attaches a detached mount onto the object that `target` is open on.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).map_err(io::Error::from)
}

/// What the object behind a descriptor (O_PATH too) is.
pub fn file_type(fd: BorrowedFd<'_>) -> io::Result<FileType> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// Whether the object behind `fd` lies on a read-only mount or file system.
pub fn is_read_only(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let s = rustix::fs::fstatvfs(fd)?;
    Ok(s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Replaces this program by the one behind `program` (execveat(2) with AT_EMPTY_PATH). Returns only with an error.
pub fn exec_fd(program: BorrowedFd<'_>, args: &[&CStr], env: &[&CStr]) -> io::Error {
    let terminated = |list: &[&CStr]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (terminated(args), terminated(env));
    let (fd, empty) = (program.as_raw_fd(), c"".as_ptr());
    // SAFETY: both vectors are NULL-terminated and point at C strings that live over the call.
    unsafe {
        libc::syscall(libc::SYS_execveat, fd, empty, argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH)
    };
    io::Error::last_os_error()
}

/// Makes `root` (the root of a mount) the root of this mount namespace and drops all else (pivot_root(2), "pivot_root(".", ".")").
pub fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies over the new one; the working directory is still below it.
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir("/").map_err(io::Error::from)
}

/// chroot(2) into the directory behind `root` with the working directory there.
pub fn chroot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/").map_err(io::Error::from)
}

/// The text of a kernel message left in a file system context (fsopen(2): `e tmpfs: Bad value for 'size'`), without its class letter.
pub fn context_message(context: BorrowedFd<'_>) -> Option<String> {
    use std::io::Read;
    let mut buffer = [0u8; 256];
    let n = File::from(context.try_clone_to_owned().ok()?).read(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..n]).trim().to_owned();
    let text = text.strip_prefix("e ").unwrap_or(&text).to_owned();
    (!text.is_empty()).then_some(text)
}

/// `fstatat` with AT_EMPTY_PATH: device and inode of what a descriptor is open on.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let s = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok((s.st_dev, s.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("davit-rootfs-{}-{name}", std::process::id()));
            std::fs::create_dir_all(path.join("root")).unwrap();
            Self(path)
        }
        fn root(&self) -> OwnedFd {
            File::open(self.0.join("root")).unwrap().into()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn missing_targets_are_made_inside_whatever_links_say() {
        let s = Scratch::new("links");
        std::fs::create_dir(s.0.join("outside")).unwrap();
        symlink("../../../../../../../..", s.0.join("root/up")).unwrap();
        symlink(s.0.join("outside"), s.0.join("root/abs")).unwrap();
        open_or_make(s.root().as_fd(), Path::new("/up/a/b"), Target::Directory).unwrap();
        assert!(s.0.join("root/a/b").is_dir());
        // The absolute link dangles inside the root: what it names is made there, and nothing outside.
        open_or_make(s.root().as_fd(), Path::new("/abs/x"), Target::File).unwrap();
        assert!(s.0.join("root").join(s.0.join("outside/x").strip_prefix("/").unwrap()).is_file());
        symlink("loop", s.0.join("root/loop")).unwrap();
        open_or_make(s.root().as_fd(), Path::new("/loop/x"), Target::File).unwrap_err();
        assert_eq!(std::fs::read_dir(s.0.join("outside")).unwrap().count(), 0);
        open_or_make(s.root().as_fd(), Path::new("../../f"), Target::File).unwrap();
        assert!(s.0.join("root/f").is_file());
    }

    #[test]
    fn magic_links_are_not_followed() {
        let proc: OwnedFd = File::open("/proc").unwrap().into();
        open_in_root(proc.as_fd(), Path::new("/self/exe"), OFlags::PATH).unwrap_err();
        open_in_root(proc.as_fd(), Path::new("/self/status"), OFlags::PATH).unwrap();
    }
}
