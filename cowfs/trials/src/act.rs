//! The one who acts: makes system calls on several trees, and holds descriptors and mappings in each.

mod data;
mod names;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::mapping::Mapping;
use rustix::io::Errno;

use crate::op::{Op, Outcome, Stat, hash};

/// How many descriptors are held in each tree.
pub const SLOTS: usize = 4;
/// How many mappings.
pub const MAPS: usize = 2;

type Result<T = Outcome> = std::result::Result<T, Errno>;

/// One tree, with what is held in it.
#[derive(Debug, Default)]
struct Tree {
    root: PathBuf,
    slots: [Option<OwnedFd>; SLOTS],
    maps: [Option<Mapping>; MAPS],
}

/// The state of a process that acts.
#[derive(Debug, Default)]
pub struct Act {
    trees: Vec<Tree>,
}

/// What no slot holds.
#[derive(Debug)]
struct Empty;

impl Act {
    /// On these trees, nothing held.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { trees: roots.into_iter().map(|root| Tree { root, ..Tree::default() }).collect() }
    }

    /// Lets go of everything.
    pub fn release(&mut self) {
        for tree in &mut self.trees {
            tree.maps = Default::default();
            tree.slots = Default::default();
        }
    }

    /// Makes one call on tree number `tree`.
    pub fn make(&mut self, tree: usize, op: &Op) -> Outcome {
        let tree = &mut self.trees[tree];
        match tree.names(op).or_else(|| tree.data(op)) {
            Some(Ok(outcome)) => outcome,
            Some(Err(errno)) => Outcome::Failed(errno.raw_os_error()),
            None => Outcome::NoSlot,
        }
    }
}

impl Tree {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn slot(&self, slot: u8) -> std::result::Result<BorrowedFd<'_>, Empty> {
        self.slots[usize::from(slot) % SLOTS].as_ref().map(AsFd::as_fd).ok_or(Empty)
    }

    fn map(&self, map: u8) -> std::result::Result<&Mapping, Empty> {
        self.maps[usize::from(map) % MAPS].as_ref().ok_or(Empty)
    }
}

/// stat(2)'s answer in our words.
pub fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        ino: stat.st_ino,
        mode: stat.st_mode,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev,
        size: stat.st_size as u64,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
    }
}

/// lstat(2).
pub fn lstat(path: &Path) -> Result<Stat> {
    Ok(stat_of(&rustix::fs::lstat(path)?))
}

fn bytes(read: &[u8]) -> Outcome {
    Outcome::Bytes(read.len() as u64, hash(read), read[..read.len().min(8)].to_vec())
}
