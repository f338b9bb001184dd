//! The operations. Each prepares through the mount what it needs, then does its work against the clock.
//!
//! "Cold" is a mount on which nothing was looked at; "hot" did the same work once before.

use anyhow::Result;

use crate::stage::{Measured, Stage};

mod big;
mod change;
mod copy_up;
mod data;
mod names;
mod small;

pub use names::walk;

/// One operation.
pub struct Op {
    /// What it is called.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// What is done, in a line.
    pub about: &'static str,
    /// Does it in the current directory.
    pub run: fn(&Stage) -> Result<Measured>,
}

macro_rules! ops {
    ($($name:literal, $unit:literal, $run:expr, $about:literal;)*) => {
        /// All of them, in the order of the report.
        pub const ALL: &[Op] = &[$(Op { name: $name, unit: $unit, about: $about, run: $run }),*];
    };
}

ops! {
    "walk", "entry", |s| names::walk_tree(s, false), "read every directory of a tree of merged directories, cold";
    "walk-stat", "entry", |s| names::walk_tree(s, true), "the same, and lstat of each entry";
    "stat-cold", "file", |s| names::stats(s, false), "stat of each file by its path, cold";
    "stat-hot", "file", |s| names::stats(s, true), "stat of each file by its path, hot";
    "missing-cold", "name", |s| names::missing(s, false), "stat of names that do not exist, each once, cold";
    "missing-hot", "name", |s| names::missing(s, true), "the same names again";
    "small-read-cold-1", "file", |s| small::read(s, 1, false), "open, read, close of 4 KiB files, one thread, cold";
    "small-read-cold-2", "file", |s| small::read(s, 2, false), "the same by two threads";
    "small-read-hot-1", "file", |s| small::read(s, 1, true), "open, read, close of 4 KiB files, one thread, hot";
    "small-read-hot-2", "file", |s| small::read(s, 2, true), "the same by two threads";
    "read-seq-4k", "read", |s| data::read(s, 4 << 10, false, false), "a 64 MiB file front to back, cold";
    "read-seq-1m", "read", |s| data::read(s, 1 << 20, false, false), "a 64 MiB file front to back, cold";
    "read-rand-4k", "read", |s| data::read(s, 4 << 10, true, false), "half of its blocks in no order, cold";
    "read-rand-1m", "read", |s| data::read(s, 1 << 20, true, false), "half of its blocks in no order, cold";
    "read-rand-4k-hot", "read", |s| data::read(s, 4 << 10, true, true), "half of its blocks in no order, hot";
    "read-seq-1m-hot", "read", |s| data::read(s, 1 << 20, false, true), "a 64 MiB file front to back, hot";
    "write-seq-4k", "write", |s| data::write(s, 4 << 10, false), "a new file of 64 MiB, closed";
    "write-seq-1m", "write", |s| data::write(s, 1 << 20, false), "a new file of 64 MiB, closed";
    "write-rand-4k", "write", |s| data::write(s, 4 << 10, true), "half of the blocks of a written file, closed";
    "write-rand-1m", "write", |s| data::write(s, 1 << 20, true), "half of the blocks of a written file, closed";
    "rewrite-4k", "file", small::rewrite, "open, overwrite 4 KiB, close";
    "append-16", "write", data::append, "16 bytes at the end of a log that stays open";
    "write-fdatasync", "write", data::write_fdatasync, "4 KiB further on in a file, then fdatasync";
    "mmap-read", "page", data::mmap_read, "a byte of each page of a mapped 64 MiB file, cold";
    "mmap-write", "page", data::mmap_write, "a byte of each page of a file mapped shared, then msync";
    "create", "file", change::create, "create and close of empty files in a new directory";
    "create-merged", "file", change::create_merged, "the same in directories that lower layers have";
    "create-4k", "file", change::create_4k, "create, write 4 KiB, close";
    "mkdir", "directory", change::mkdir, "directories in a new directory";
    "rename", "file", change::rename, "to a name that is free";
    "replace", "file", change::replace, "write 4 KiB to a new file, rename it over the old one";
    "symlink", "link", change::symlink, "symbolic links in a new directory";
    "link", "link", change::link, "hard links to files of the upper layer";
    "chmod", "file", change::chmod, "files of the upper layer";
    "unlink", "file", change::unlink, "files of the upper layer";
    "copyup-append", "file", copy_up::append, "open, append 16 bytes, close of 4 KiB files of a lower layer";
    "copyup-chmod", "file", copy_up::chmod, "chmod of 4 KiB files of a lower layer";
    "unlink-lower", "file", copy_up::unlink, "files of a lower layer";
    "readdir-100k", "entry", |s| big::list(s, false), "a directory of 100,000 entries, cold";
    "readdir-stat-100k", "entry", |s| big::list(s, true), "the same, and lstat of each entry";
}
