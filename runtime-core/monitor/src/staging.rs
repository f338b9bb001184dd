//! Sources of bind mounts that the OCI runtime cannot be given by their path on the host: they are attached below the run directory, in this
//! monitor's mount namespace.
//!
//! ```text
//! shared/N   peers of the host's mounts: what is mounted below on either side appears on the other
//! parts/N    parts of volumes, opened beneath the volume without following links
//! shm        /dev/shm of another container
//! userns     the container's user namespace
//! layers     what the root is made of, with owners as that namespace shows them
//! ```

pub mod layers;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::process::ProcessRef;
use davit_sys::rootfs::{attach, clone_tree_at, file_type};
use davit_wire::config::{Part, Process};
use nix::sched::{CloneFlags, setns};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::OpenTreeFlags;

/// The container's user namespace, below the run directory.
pub const USERNS: &str = "userns";

/// Clones the trees of shared sources. Called in the new mount namespace before it becomes a slave.
pub fn take(sources: &[PathBuf]) -> Result<Vec<OwnedFd>, (PathBuf, io::Error)> {
    sources.iter().map(|s| clone_tree_at(s, true).map_err(|e| (s.clone(), e))).collect()
}

/// Attaches trees as `directory/0`, `directory/1`, ...; answers where they are.
pub fn place(directory: &Path, trees: &[OwnedFd]) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut places = Vec::new();
    for (n, tree) in trees.iter().enumerate() {
        let at = directory.join(n.to_string());
        place_one(&at, tree.as_fd()).map_err(|e| (at.clone(), e))?;
        places.push(at);
    }
    Ok(places)
}

/// Attaches a tree at a place, which is made.
pub fn place_one(at: &Path, tree: BorrowedFd<'_>) -> io::Result<()> {
    if file_type(tree)? == FileType::Directory {
        fs::create_dir_all(at)?;
    } else {
        fs::create_dir_all(at.parent().unwrap_or(at))?;
        fs::write(at, b"")?;
    }
    let target = rustix::fs::open(at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(tree, target.as_fd())
}

/// Opens a part and clones it from what was opened: nobody can put something else in its place in between.
pub fn part(part: &Part) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&part.directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let subpath = if part.subpath.is_empty() { "." } else { &part.subpath };
    let opened = rustix::fs::openat2(&directory, subpath, flags, Mode::empty(), how)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(&opened, "", clone)?)
}

/// Clones /dev/shm of the container with this first process. Only who is in a mount's namespace can clone it: the monitor goes there and comes back.
pub fn shm_of(process: Process) -> io::Result<OwnedFd> {
    let theirs = ProcessRef { pid: process.pid, start_time: process.start_time }
        .namespace("mnt")
        .map_err(io::Error::other)?;
    let own = fs::File::open("/proc/self/ns/mnt")?;
    setns(theirs, CloneFlags::CLONE_NEWNS)?;
    let tree = clone_tree_at(Path::new("/dev/shm"), true);
    // A monitor in a foreign namespace would mount and unmount there: better none than that.
    setns(own, CloneFlags::CLONE_NEWNS).unwrap_or_else(|_| std::process::abort());
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_became_a_link_is_refused() {
        let tmp = std::env::temp_dir().join(format!("davit-staging-{}", std::process::id()));
        fs::create_dir_all(tmp.join("real")).unwrap();
        std::os::unix::fs::symlink("/etc", tmp.join("link")).unwrap();
        let wanted =
            |subpath: &str| Part { directory: tmp.clone(), subpath: subpath.into(), ..Part::default() };
        for bad in ["link", "link/passwd", "..", "/etc", "absent"] {
            assert!(part(&wanted(bad)).is_err(), "{bad}");
        }
        let real = part(&wanted("real"));
        fs::remove_dir_all(&tmp).unwrap();
        // Cloning a mount needs privileges that a plain test run may not have.
        if rustix::process::geteuid().is_root() {
            assert_eq!(file_type(real.unwrap().as_fd()).unwrap(), FileType::Directory);
        }
    }
}
