//! Trees that are written and unpacked again are the same; trees that nobody should walk are walked all the same.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use davit_cowfs::Namespace;

use super::*;
use crate::tarball::TarReader;
use crate::unpack::{Limits, Options, unpack};

fn open(path: &Path) -> OwnedFd {
    davit_sys::beneath::open_root(path).unwrap()
}

/// The whole tree as a tar.
pub(in crate::tree) fn archived(root: &Path) -> Vec<u8> {
    whole(open(root).as_fd(), TarWriter::new(Vec::new())).unwrap().finish().unwrap()
}

fn unpacked(tar: &[u8], into: &Path) {
    let options = Options {
        namespace: Namespace::Trusted,
        rootless: false,
        whiteouts: false,
        limits: Limits::default(),
    };
    unpack(&mut TarReader::new(tar), open(into).as_fd(), &options, &mut crate::ledger::Unrecorded).unwrap();
}

/// A line for each file with all that should survive.
pub(in crate::tree) fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![PathBuf::new()];
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let meta = full.symlink_metadata().unwrap();
        if meta.is_dir() {
            let mut names: Vec<_> =
                std::fs::read_dir(&full).unwrap().map(|e| path.join(e.unwrap().file_name())).collect();
            names.sort_by(|a, b| b.cmp(a));
            todo.extend(names);
        }
        let parent = open(full.parent().unwrap());
        let xattrs = member::kept(
            davit_sys::xattr::all_at(parent.as_fd(), full.file_name().unwrap_or(OsStr::new("."))).unwrap(),
        );
        let content = if meta.is_file() { std::fs::read(&full).unwrap() } else { Vec::new() };
        let digest = crate::digest::Digest::of(&content).short().to_owned();
        let link = std::fs::read_link(&full).unwrap_or_default();
        let first = if meta.is_dir() {
            path.clone()
        } else {
            first_names.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone()).clone()
        };
        lines.push(format!(
            "{} {:o} {}:{} {}.{} {:x} {} {} {:?} first={}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.rdev(),
            digest,
            link.display(),
            xattrs,
            first.display()
        ));
    }
    lines
}

/// One of everything that a file system holds.
pub(in crate::tree) fn one_of_everything(root: &Path) {
    let deep = root.join(format!("deep/{}/{}", "d".repeat(120), "e".repeat(120)));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "deep").unwrap();
    std::fs::write(root.join("one"), "some text").unwrap();
    std::fs::hard_link(root.join("one"), deep.join("two")).unwrap();
    symlink("x".repeat(150), root.join("long-link")).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    let dir = open(root);
    rustix::fs::mknodat(&dir, "fifo", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(&dir, "null", rustix::fs::FileType::CharacterDevice, Mode::RUSR, null).unwrap();
    std::os::unix::fs::chown(root.join("one"), Some(3_000_000), Some(7)).unwrap();
    std::fs::set_permissions(root.join("one"), std::fs::Permissions::from_mode(0o6755)).unwrap();
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let file = std::fs::File::open(root.join("one")).unwrap();
    davit_sys::xattr::set(file.as_fd(), OsStr::new("user.note"), b"a\0b").unwrap();
    davit_sys::xattr::set(
        file.as_fd(),
        OsStr::new("security.capability"),
        b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    )
    .unwrap();
    davit_sys::xattr::set(dir.as_fd(), OsStr::new("user.of-root"), b"r").unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
}

#[test]
fn a_tree_that_is_unpacked_again_is_the_same() {
    let tmp = tempfile::tempdir().unwrap();
    let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
    std::fs::create_dir(&a).unwrap();
    std::fs::create_dir(&b).unwrap();
    one_of_everything(&a);
    let tar = archived(&a);
    assert_eq!(tar, archived(&a), "the same tree gives the same bytes");
    std::fs::remove_file(a.join("socket")).unwrap();
    let root_time = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 2 },
        last_modification: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 2 },
    };
    unpacked(&tar, &b);
    for root in [&a, &b] {
        rustix::fs::futimens(open(root), &root_time).unwrap();
    }
    assert_eq!(listing(&a), listing(&b));
}

#[test]
fn a_large_hole_is_no_data_and_a_small_one_is_zeros() {
    let tmp = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(tmp.path().join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"end", 300 << 20).unwrap();
    file.set_len(400 << 20).unwrap();
    std::fs::File::create(tmp.path().join("small")).unwrap().set_len(1 << 20).unwrap();
    let tar = archived(tmp.path());
    assert!(tar.len() > 1 << 20 && tar.len() < 2 << 20, "{}", tar.len());
    let into = tempfile::tempdir().unwrap();
    unpacked(&tar, into.path());
    let meta = into.path().join("holes").metadata().unwrap();
    assert!(meta.len() == 400 << 20 && meta.blocks() < 1000);
    let mut end = [0; 4];
    let file = std::fs::File::open(into.path().join("holes")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut end, 300 << 20).unwrap();
    assert_eq!(&end, b"end\0");
}

#[test]
fn a_tree_deeper_than_descriptors_are_held_is_whole_and_one_beyond_a_path_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let mut dir = open(tmp.path());
    for depth in 0..2200 {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&dir, "e", Mode::RWXU).unwrap();
        let flags = member::directory_flags();
        let next = rustix::fs::openat(&dir, "d", flags, Mode::empty()).unwrap();
        dir = next;
        if depth == 1000 {
            let tar = archived(tmp.path());
            let mut reader = TarReader::new(tar.as_slice());
            let mut count = 0;
            while reader.next_entry().unwrap().is_some() {
                count += 1;
            }
            // The root, and two directories a level.
            assert_eq!(count, 1 + 2 * 1001);
        }
    }
    let result = whole(open(tmp.path()).as_fd(), TarWriter::new(std::io::sink()));
    assert!(matches!(result.map(drop), Err(TreeError::TooDeep(_))));
    drop(dir);
    crate::trash::delete_tree(&tmp.path().join("d")).unwrap();
}
