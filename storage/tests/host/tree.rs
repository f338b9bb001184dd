//! All of a tree that can be compared: one line a path.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Path to what is there; hard links show by the first path of their file.
pub fn listing(root: &Path) -> BTreeMap<String, String> {
    let (mut out, mut names) = (BTreeMap::new(), BTreeMap::new());
    walk(root, root, &mut out, &mut names);
    out
}

fn walk(root: &Path, path: &Path, out: &mut BTreeMap<String, String>, names: &mut BTreeMap<u64, String>) {
    let meta = path.symlink_metadata().unwrap();
    let relative = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    let mut line =
        format!("{:o} {}:{} {}.{:09}", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
    let kind = meta.file_type();
    if kind.is_char_device() && meta.rdev() == 0 {
        // A whiteout has no time that anybody sees.
        out.insert(relative, "whiteout".into());
        return;
    }
    if kind.is_file() {
        let digest = blake3::hash(&std::fs::read(path).unwrap());
        let _ = write!(line, " {} {digest}", meta.len());
    } else if kind.is_symlink() {
        let _ = write!(line, " -> {}", path.read_link().unwrap().display());
    } else if kind.is_char_device() || kind.is_block_device() {
        let _ = write!(line, " rdev {}", meta.rdev());
    }
    if meta.nlink() > 1 && !kind.is_dir() {
        let first = names.entry(meta.ino()).or_insert_with(|| relative.clone());
        let _ = write!(line, " = {first}");
    }
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        let dir = std::fs::File::open(parent).unwrap();
        let mut attributes = davit_sys::xattr::list_at(dir.as_fd(), name).unwrap();
        attributes.sort();
        for attribute in attributes {
            let value = davit_sys::xattr::get_at(dir.as_fd(), name, &attribute).unwrap();
            let _ = write!(line, " {}={value:?}", attribute.display());
        }
    }
    out.insert(relative, line);
    if kind.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            walk(root, &entry, out, names);
        }
    }
}

/// Inode numbers by path.
pub fn inodes(root: &Path) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for path in listing(root).into_keys() {
        out.insert(path.clone(), root.join(&path).symlink_metadata().unwrap().ino());
    }
    out
}

/// The tree of a stored layer.
pub fn of_layer(state: &Path, diff_id: &str) -> std::path::PathBuf {
    let layer = state.join("layers").join(diff_id.trim_start_matches("sha256:"));
    // A layer's directory may hold more than its tree.
    if layer.join("ledger").is_file() { layer.join("fs") } else { layer }
}
