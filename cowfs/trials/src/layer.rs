//! Layers: trees made, copied, and watched for changes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use crate::act::{Act, lstat, stat_of};
use crate::op::{Node, Op, Outcome, Stat, hash};
use crate::tree::{Xattrs, all_xattrs, extents, xattrs};

/// Copies what is visible of a tree: names, content with its holes, owners, modes, attributes, times and hard links.
/// `to` exists and is empty.
pub fn copy(from: &Path, to: &Path) {
    copy_node(from, to, &mut HashMap::new());
}

fn copy_node(from: &Path, to: &Path, links: &mut HashMap<u64, PathBuf>) {
    let stat = lstat(from).unwrap();
    if !stat.is_dir() && stat.nlink > 1 {
        if let Some(first) = links.get(&stat.ino) {
            rustix::fs::link(first, to).unwrap();
            return;
        }
        links.insert(stat.ino, to.to_owned());
    }
    match stat.mode & 0o170_000 {
        0o040_000 => {
            let _ = std::fs::create_dir(to);
            for entry in std::fs::read_dir(from).unwrap() {
                let name = entry.unwrap().file_name();
                copy_node(&from.join(&name), &to.join(&name), links);
            }
        }
        0o100_000 => copy_data(from, to, stat.size),
        0o120_000 => std::os::unix::fs::symlink(std::fs::read_link(from).unwrap(), to).unwrap(),
        _ => {
            let kind = FileType::from_raw_mode(stat.mode);
            rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(stat.mode & 0o7777), stat.rdev).unwrap();
        }
    }
    attributes(from, to, &stat);
}

fn copy_data(from: &Path, to: &Path, size: u64) {
    let (source, target) = (File::open(from).unwrap(), File::create(to).unwrap());
    target.set_len(size).unwrap();
    for (start, end) in extents(&source) {
        let mut buffer = vec![0; (end - start) as usize];
        source.read_exact_at(&mut buffer, start).unwrap();
        target.write_all_at(&buffer, start).unwrap();
    }
}

/// Gives `to` owner, mode, attributes and times of `from`, whose stat is given.
pub fn attributes(from: &Path, to: &Path, stat: &Stat) {
    let owner = (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
    rustix::fs::chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if stat.mode & 0o170_000 != 0o120_000 {
        std::fs::set_permissions(to, Permissions::from_mode(stat.mode & 0o7777)).unwrap();
    }
    for (name, value) in xattrs(from).unwrap() {
        rustix::fs::lsetxattr(to, &name[..], &value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec { tv_sec: stat.mtime.0, tv_nsec: stat.mtime.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything about a tree on disk that a write to it could change, except access times.
///
/// Paths are sorted as text: comparing them name by name takes longer than all else.
pub type Digest = BTreeMap<OsString, (Stat, (i64, u64), u64, Xattrs)>;

/// Takes one.
pub fn digest(root: &Path) -> Digest {
    let mut all = Digest::new();
    digest_node(root, &mut all);
    all
}

fn digest_node(path: &Path, all: &mut Digest) {
    let raw = rustix::fs::lstat(path).unwrap();
    let stat = stat_of(&raw);
    let content = match stat.mode & 0o170_000 {
        0o100_000 if stat.size > 0 => hash_data(path),
        0o120_000 => hash(std::fs::read_link(path).unwrap().as_os_str().as_encoded_bytes()),
        _ => 0,
    };
    let xattrs = all_xattrs(path).unwrap();
    all.insert(path.into(), (stat, (raw.st_ctime, raw.st_ctime_nsec), content, xattrs));
    if stat.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            digest_node(&entry.unwrap().path(), all);
        }
    }
}

/// Of what is in a file's extents, so that a sparse file of any size is quickly read. Blocks of zeros count as holes: on tmpfs a mapping
/// that is only read makes blocks of the holes it looks at, and the kernel's overlayfs maps the lower file itself.
fn hash_data(path: &Path) -> u64 {
    const BLOCK: usize = 4096;
    let file = File::open(path).unwrap();
    let mut all = 0u64;
    for (start, end) in extents(&file) {
        let mut data = vec![0; (end - start) as usize];
        file.read_exact_at(&mut data, start).unwrap();
        for (n, block) in data.chunks(BLOCK).enumerate().filter(|(_, b)| b.iter().any(|byte| *byte != 0)) {
            all = hash(block) ^ (start + (n * BLOCK) as u64).wrapping_add(all).rotate_left(7);
        }
    }
    all
}

/// The first file of a tree that is no longer as it was.
pub fn changed(before: &Digest, after: &Digest) -> Option<String> {
    let changed = before.iter().find(|(path, was)| after.get(*path) != Some(*was));
    let added = || after.keys().find(|path| !before.contains_key(*path));
    changed
        .map(|(path, was)| {
            format!("{} of a lower layer was {was:?}, is {:?}", path.display(), after.get(path))
        })
        .or_else(|| added().map(|path| format!("{} of a lower layer is new", path.display())))
}

/// Makes the tree that random sequences begin with: few names, all types, everything that copy-up has to keep. Without hard links
/// where overlayfs breaks them.
pub fn base(root: &Path, hard_links: bool) {
    let mut act = Act::new(vec![root.to_owned()]);
    let mut make = |op: Op| {
        let outcome = act.make(0, &op);
        assert!(matches!(outcome, Outcome::Done | Outcome::Count(_)), "{op:?}: {outcome:?}");
    };
    let at = |path: &str| path.to_owned();
    for dir in ["a", "a/b", "c", "c/b", "c/c", "c/c/d"] {
        make(Op::Mkdir { path: at(dir), mode: 0o755 });
    }
    let files: [(&str, u32, u64); 8] = [
        ("b", 12_000, 0),
        ("a/a", 5_000, 0),
        ("a/b/a", 1, 0),
        ("a/b/b", 0, 0),
        ("c/a", 3_000, 40_960),
        ("c/d", 100, 0),
        ("c/c/a", 70_000, 0),
        ("c/c/d/e", 4_096, 8_192),
    ];
    for (n, (path, len, at)) in files.into_iter().enumerate() {
        let path = path.to_owned();
        make(Op::Open { path, slot: 0, flags: 0o102, mode: 0o644 });
        make(Op::Pwrite { slot: 0, at, len, seed: n as u8 });
    }
    make(Op::Close { slot: 0 });
    make(Op::Symlink { target: at("a"), path: at("d") });
    make(Op::Symlink { target: at("a"), path: at("a/c") });
    make(Op::Symlink { target: at("nowhere"), path: at("c/e") });
    make(Op::Mknod { path: at("a/d"), kind: Node::Fifo, mode: 0o644 });
    if hard_links {
        make(Op::Link { from: at("c/d"), to: at("e") });
        make(Op::Link { from: at("a/a"), to: at("a/b/c") });
    }
    for path in ["c", "c/c", "b", "a/b/a", "c/c/a"] {
        make(Op::Chown { path: at(path), uid: Some(1000), gid: Some(1000), follow: true });
    }
    for (path, mode) in
        [("a/b", 0o777), ("c/b", 0o1777), ("a/a", 0o4755), ("c/d", 0o2755), ("c/c/d/e", 0o600)]
    {
        make(Op::Chmod { path: at(path), mode });
    }
    for (path, name) in [("b", "user.a"), ("a", "user.a"), ("c/a", "user.b"), ("c/c", "user.b")] {
        make(Op::SetXattr { path: at(path), name: at(name), len: 9, flags: 0, follow: true });
    }
    for (n, path) in ["b", "a/a", "c/a", "c/c/d", "c/b", "a", "c/e"].into_iter().enumerate() {
        make(Op::Utimens { path: at(path), time: n as u8, follow: false });
    }
    rustix::fs::chmod(root, Mode::from_raw_mode(0o777)).unwrap();
}
