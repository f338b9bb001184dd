//! What is visible of a tree, and how two of them compare.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, SeekFrom};

use crate::act::lstat;
use crate::op::{Stat, hash};

/// Names (relative, the root's is empty) with what is there.
pub type Snapshot = BTreeMap<Vec<u8>, Node>;

/// One file of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// stat(2).
    pub stat: Stat,
    /// Hash of a file's bytes, or of a link's target.
    pub content: u64,
    /// Extended attributes, without overlay's own.
    pub xattrs: Xattrs,
    /// What readdir(3) says of it: type and inode number.
    pub entry: Option<(u8, u64)>,
}

/// What is seen at `root`.
pub fn snapshot(root: &Path) -> Result<Snapshot, String> {
    let mut all = Snapshot::new();
    visit(root, b"", None, &mut all)?;
    Ok(all)
}

fn visit(root: &Path, name: &[u8], entry: Option<(u8, u64)>, all: &mut Snapshot) -> Result<(), String> {
    let path = root.join(std::ffi::OsStr::from_bytes(name));
    let failed = |what: &str, e: rustix::io::Errno| format!("cannot {what} {}: {e}", path.display());
    let stat = lstat(&path).map_err(|e| failed("stat", e))?;
    let content = match stat.mode & 0o170_000 {
        0o100_000 => hash(&std::fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?),
        0o120_000 => {
            let target = rustix::fs::readlink(&path, Vec::new()).map_err(|e| failed("read the link", e))?;
            hash(target.as_bytes())
        }
        _ => 0,
    };
    let xattrs = xattrs(&path).map_err(|e| failed("list the attributes of", e))?;
    all.insert(name.to_vec(), Node { stat, content, xattrs, entry });
    if stat.is_dir() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| failed("open", e))?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::new(dir).map_err(|e| failed("read", e))? {
            let entry = entry.map_err(|e| failed("read", e))?;
            let kind = (entry.file_type().as_raw_mode() >> 12) as u8;
            entries.push((entry.file_name().to_bytes().to_vec(), (kind, entry.ino())));
        }
        entries.sort();
        if let Some(twice) = entries.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(format!("{} lists {} twice", path.display(), text(&twice[0].0)));
        }
        for (entry, said) in entries {
            if entry != b"." && entry != b".." {
                let name = if name.is_empty() { entry } else { [name, b"/", &entry].concat() };
                visit(root, &name, Some(said), all)?;
            }
        }
    }
    Ok(())
}

/// Names and values.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Extended attributes, without those of overlay file systems.
pub fn xattrs(path: &Path) -> Result<Xattrs, rustix::io::Errno> {
    let mut all = all_xattrs(path)?;
    all.retain(|name, _| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay."));
    Ok(all)
}

/// Extended attributes, overlay's own too.
pub fn all_xattrs(path: &Path) -> Result<Xattrs, rustix::io::Errno> {
    // Tests give few and short names, but long values.
    let mut names = [0; 1024];
    let n = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut all = Xattrs::new();
    for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 65536];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(n);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

/// The extents of a file that hold data (lseek(2)).
pub fn extents(file: &File) -> Vec<(u64, u64)> {
    let mut extents = Vec::new();
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap();
        extents.push((data, at));
    }
    extents
}

/// What two trees need not agree on.
#[derive(Debug, Clone, Default)]
pub struct Leeway {
    /// How many names these files have, by inode number in the expected tree.
    pub links: BTreeSet<u64>,
    /// Whether a file's time has moved: what is written through a mapping is known to be written only later.
    pub late: bool,
}

impl Leeway {
    /// The two with nothing left in which they may differ.
    pub fn comparable(&self, expected: &Stat, found: &Stat) -> (Stat, Stat) {
        let (a, mut b) = (expected.comparable(), found.comparable());
        if self.links.contains(&expected.ino) {
            b.nlink = a.nlink;
        }
        if self.late && a.is_file() && a.mtime == (0, 0) {
            b.mtime = a.mtime;
        }
        (a, b)
    }
}

/// The first difference between what two trees show, apart from inode numbers.
pub fn difference(expected: &Snapshot, found: &Snapshot, leeway: &Leeway) -> Option<String> {
    for (name, node) in expected {
        let Some(other) = found.get(name) else { return Some(format!("{} is missing", text(name))) };
        let (a, b) = leeway.comparable(&node.stat, &other.stat);
        if a != b {
            return Some(format!("{} is {b:?}, not {a:?}", text(name)));
        }
        if node.content != other.content {
            return Some(format!("{} has other content", text(name)));
        }
        if node.xattrs != other.xattrs {
            let names = |n: &Node| n.xattrs.keys().map(|k| text(k)).collect::<Vec<_>>();
            return Some(format!("{} has attributes {:?}, not {:?}", text(name), names(other), names(node)));
        }
    }
    let extra = found.keys().find(|name| !expected.contains_key(*name))?;
    Some(format!("{} should not be there", text(extra)))
}

/// The first entry whose type or inode number is not that of the file it names, of those for which it `counts`.
pub fn false_entry(tree: &Snapshot, counts: impl Fn(&Stat) -> bool) -> Option<String> {
    tree.iter().filter(|(_, node)| counts(&node.stat)).find_map(|(name, node)| {
        let (kind, ino) = node.entry?;
        let is = ((node.stat.mode >> 12) as u8, node.stat.ino);
        ((kind, ino) != is).then(|| {
            format!(
                "readdir says type {kind} inode {ino} of {}, stat type {} inode {}",
                text(name),
                is.0,
                is.1
            )
        })
    })
}

/// Which inode of one tree is which of another. Once known, it stays: over copy-up, rename, and remount.
#[derive(Debug, Default, Clone)]
pub struct Identity {
    forth: HashMap<u64, u64>,
    back: HashMap<u64, u64>,
}

impl Identity {
    /// Notes that the two are one file, or says what contradicts it.
    pub fn same(&mut self, a: u64, b: u64) -> Result<(), String> {
        let known = *self.forth.entry(a).or_insert(b);
        if known != b {
            return Err(format!("has inode number {b}, which was {known} before"));
        }
        let known = *self.back.entry(b).or_insert(a);
        if known != a {
            return Err(format!("has the inode number of another file, {b}"));
        }
        Ok(())
    }

    /// The same for all files of two trees that have the same names, and for which `counts`.
    pub fn trees(
        &mut self,
        a: &Snapshot,
        b: &Snapshot,
        counts: impl Fn(&Stat) -> bool,
    ) -> Result<(), String> {
        for (name, node) in a.iter().filter(|(_, node)| counts(&node.stat)) {
            if let Some(other) = b.get(name) {
                self.same(node.stat.ino, other.stat.ino).map_err(|e| format!("{} {e}", text(name)))?;
            }
        }
        Ok(())
    }
}

/// A name as it can be printed.
pub fn text(name: &[u8]) -> String {
    if name.is_empty() { "the root".to_owned() } else { format!("{:?}", String::from_utf8_lossy(name)) }
}
