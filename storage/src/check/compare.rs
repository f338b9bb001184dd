//! A layer's directory against the tree that it must be.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::FileType;

use super::expected::{Id, Kind, ROOT, Tree, Wanted};
use super::look::{self, Found};
use super::pace::Pace;
use super::{CheckError, Problem};
use crate::tarball::Time;

mod acl;

/// How to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// The attribute that marks an opaque directory.
    pub(super) opaque: &'static str,
    /// Owners that this user namespace lacks were not set.
    pub(super) rootless: bool,
    /// Do not read files.
    pub(super) quick: bool,
}

/// What makes it right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fix {
    /// Another file in its place.
    Replace,
    /// The attributes are set again.
    Attributes,
    /// A link to another name of the file in its place.
    Link,
    /// It is moved away.
    Discard,
}

/// One path that is not as it must be.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) path: Vec<u8>,
    /// `None` of what should not be there.
    pub(super) id: Option<Id>,
    pub(super) problem: Problem,
    pub(super) detail: String,
    pub(super) fix: Fix,
}

/// Takes differences as they are found.
pub(super) type Out<'a> = dyn FnMut(Difference) -> Result<(), CheckError> + 'a;

/// Compares all of a tree; answers how many paths it has looked at.
pub(super) fn compare(
    tree: &Tree,
    root: BorrowedFd<'_>,
    options: Options,
    pace: &mut Pace<'_>,
    out: &mut Out<'_>,
) -> Result<u64, CheckError> {
    let mut comparison = Comparison {
        tree,
        options,
        pace,
        out,
        seen: vec![false; tree.bound()],
        of_file: HashMap::new(),
        of_inode: HashMap::new(),
        count: 0,
    };
    comparison.run(root)?;
    Ok(comparison.count)
}

/// Looks once more at a path that differed: right now, or why not.
pub(super) fn still_wrong(
    tree: &Tree,
    root: BorrowedFd<'_>,
    options: Options,
    difference: &Difference,
    pace: &mut Pace<'_>,
) -> Result<Result<(), String>, CheckError> {
    let (parent, name) = match difference.path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&difference.path[..slash], &difference.path[slash + 1..]),
        None => (&[][..], difference.path.as_slice()),
    };
    let name = OsStr::from_bytes(if name.is_empty() { b"." } else { name });
    let dir = match look::open_dir(root, parent) {
        Ok(dir) => dir,
        // The directory went with what did not belong.
        Err(_) if difference.id.is_none() => return Ok(Ok(())),
        Err(e) => return Ok(Err(format!("its directory cannot be opened: {e}"))),
    };
    let there = matches!(look::at(dir.as_fd(), name), Ok(Some(_)));
    let Some(id) = difference.id else {
        return Ok(if there { Err("it is still there".into()) } else { Ok(()) });
    };
    if !there {
        return Ok(Err("it is still missing".into()));
    }
    let mut wrong = None;
    let mut out = |d: Difference| {
        wrong = Some(d.detail);
        Ok(())
    };
    let mut comparison = Comparison {
        tree,
        options,
        pace,
        out: &mut out,
        seen: Vec::new(),
        of_file: HashMap::new(),
        of_inode: HashMap::new(),
        count: 0,
    };
    comparison.entry(dir.as_fd(), name, id)?;
    Ok(wrong.map_or(Ok(()), |detail| Err(format!("it still {detail}"))))
}

struct Comparison<'a, 'p> {
    tree: &'a Tree,
    options: Options,
    pace: &'a mut Pace<'p>,
    out: &'a mut Out<'a>,
    seen: Vec<bool>,
    /// Of files with several names: inode, one of the names, and the content when it was read.
    of_file: HashMap<u32, (u64, Id)>,
    of_inode: HashMap<u64, (Id, Option<[u8; 32]>)>,
    count: u64,
}

/// What is wrong with one path.
#[derive(Default)]
struct Wrong {
    kind: Vec<String>,
    content: Vec<String>,
    attributes: Vec<String>,
    link: Vec<String>,
}

impl Comparison<'_, '_> {
    fn run(&mut self, root: BorrowedFd<'_>) -> Result<(), CheckError> {
        self.entry(root, OsStr::new("."), ROOT)?;
        let mut todo = vec![ROOT];
        while let Some(directory) = todo.pop() {
            self.pace.go_on().map_err(|_| CheckError::Cancelled)?;
            let path = self.tree.path(directory);
            let listed = look::open_dir(root, &path).and_then(|dir| {
                let mut names = look::names(dir.as_fd())?;
                names.sort();
                Ok((dir, names))
            });
            let (dir, names) = match listed {
                Ok(found) => found,
                Err(e) => {
                    self.unreadable(directory, &e)?;
                    continue;
                }
            };
            for name in names {
                let Some(id) = self.tree.child(directory, name.as_bytes()) else {
                    self.extra(&path, name.as_bytes())?;
                    continue;
                };
                if self.entry(dir.as_fd(), &name, id)? {
                    todo.push(id);
                }
            }
        }
        for id in self.tree.live() {
            if !self.seen[Tree::number(id)] {
                self.count += 1;
                self.tell(id, Problem::Missing, "is missing".into(), Fix::Replace)?;
            }
        }
        Ok(())
    }

    fn mark(&mut self, id: Id) {
        // Nothing is kept when only one path is looked at.
        if let Some(seen) = self.seen.get_mut(Tree::number(id)) {
            *seen = true;
        }
    }

    fn unreadable(&mut self, directory: Id, e: &io::Error) -> Result<(), CheckError> {
        self.tell(directory, Problem::Metadata, format!("cannot be read: {e}"), Fix::Replace)
    }

    fn extra(&mut self, directory: &[u8], name: &[u8]) -> Result<(), CheckError> {
        let path = if directory.is_empty() { name.to_vec() } else { [directory, name].join(&b'/') };
        (self.out)(Difference {
            path,
            id: None,
            problem: Problem::Extra,
            detail: "does not belong to the layer".into(),
            fix: Fix::Discard,
        })
    }

    fn tell(&mut self, id: Id, problem: Problem, detail: String, fix: Fix) -> Result<(), CheckError> {
        (self.out)(Difference { path: self.tree.path(id), id: Some(id), problem, detail, fix })
    }

    /// Looks at one name; answers whether it is a directory to go into.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &OsStr, id: Id) -> Result<bool, CheckError> {
        let wanted = self.tree.wanted(id, self.options.opaque)?;
        let mut wrong = Wrong::default();
        let found = match look::at(dir, name) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(false),
            Err(e) => {
                self.mark(id);
                self.unreadable(id, &e)?;
                return Ok(false);
            }
        };
        self.mark(id);
        self.count += 1;
        let looked = self.differences(dir, name, id, &wanted, &found, &mut wrong);
        if let Err(e) = looked {
            self.pace.go_on().map_err(|_| CheckError::Cancelled)?;
            wrong.content.push(format!("cannot be read: {e}"));
        }
        self.tell_wrong(id, wrong)?;
        Ok(found.kind == FileType::Directory && wanted.kind == Kind::Directory)
    }

    fn tell_wrong(&mut self, id: Id, wrong: Wrong) -> Result<(), CheckError> {
        let (problem, fix) = if !wrong.kind.is_empty() {
            (Problem::Metadata, Fix::Replace)
        } else if !wrong.content.is_empty() {
            (Problem::Content, Fix::Replace)
        } else if !wrong.link.is_empty() {
            (Problem::Metadata, Fix::Link)
        } else if !wrong.attributes.is_empty() {
            (Problem::Metadata, Fix::Attributes)
        } else {
            return Ok(());
        };
        let details = [wrong.kind, wrong.content, wrong.link, wrong.attributes].concat();
        self.tell(id, problem, details.join("; "), fix)
    }

    fn differences(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        id: Id,
        wanted: &Wanted,
        found: &Found,
        wrong: &mut Wrong,
    ) -> io::Result<()> {
        let there = look::kind(found, dir, name)?;
        match (&wanted.kind, &there) {
            (Kind::File { size, digest }, Some(Kind::File { size: now, .. })) => {
                if size != now {
                    wrong.content.push(format!("has {now} bytes, not {size}"));
                } else if !self.options.quick && self.digest(dir, name, id, found)? != *digest {
                    wrong.content.push("content differs".into());
                }
                self.identity(id, found, wrong);
            }
            (Kind::Symlink { target }, Some(Kind::Symlink { target: now })) if target != now => {
                wrong.content.push(format!("points to '{}', not to '{}'", show(now), show(target)));
            }
            (a, Some(b)) if a == b => {
                if !matches!(a, Kind::Directory) {
                    self.identity(id, found, wrong);
                }
            }
            (a, b) => {
                let now = b.as_ref().map_or_else(|| "a socket".to_owned(), word);
                wrong.kind.push(format!("is {now}, not {}", word(a)));
                return Ok(());
            }
        }
        if wanted.bare || wanted.kind == Kind::Whiteout {
            return Ok(());
        }
        let xattrs = look::xattrs(dir, name)?;
        self.attributes(wanted, found, &xattrs, wrong);
        Ok(())
    }

    /// Names of one file must be of one inode, and no others.
    fn identity(&mut self, id: Id, found: &Found, wrong: &mut Wrong) {
        let shared = self.tree.shared(id);
        if let Some(file) = shared {
            let (inode, first) = *self.of_file.entry(file).or_insert((found.inode, id));
            if inode != found.inode {
                let other = show(&self.tree.path(first));
                wrong.link.push(format!("is no longer the same file as '/{other}'"));
            }
        }
        if found.links > 1 {
            let (other, _) = *self.of_inode.entry(found.inode).or_insert((id, None));
            if other != id && (shared.is_none() || self.tree.shared(other) != shared) {
                // The second one seen is named: which of the two is the intruder cannot be told.
                let other = show(&self.tree.path(other));
                wrong.content.push(format!("is the same file as '/{other}', but must be one of its own"));
            }
        }
    }

    fn digest(&mut self, dir: BorrowedFd<'_>, name: &OsStr, id: Id, found: &Found) -> io::Result<[u8; 32]> {
        if let Some((_, Some(known))) = self.of_inode.get(&found.inode) {
            return Ok(*known);
        }
        let (_, digest) = look::digest(dir, name, self.pace)?;
        if found.links > 1 {
            self.of_inode.entry(found.inode).or_insert((id, None)).1 = Some(digest);
        }
        Ok(digest)
    }

    fn attributes(
        &self,
        wanted: &Wanted,
        found: &Found,
        xattrs: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
        wrong: &mut Wrong,
    ) {
        let out = &mut wrong.attributes;
        let (expected, mut mode) = acl::effective(wanted);
        let foreign = self.options.rootless && (found.uid, found.gid) == (0, 0);
        if (wanted.uid, wanted.gid) != (found.uid, found.gid) {
            if foreign {
                mode &= !0o6000;
            } else {
                let (uid, gid) = (found.uid, found.gid);
                out.push(format!("owner is {uid}:{gid}, not {}:{}", wanted.uid, wanted.gid));
            }
        }
        if found.kind != FileType::Symlink && mode != found.mode {
            out.push(format!("mode is {:04o}, not {mode:04o}", found.mode));
        }
        if let Some(time) = wanted.mtime.filter(|t| *t != found.mtime && !is_clamped(*t, found.mtime)) {
            out.push(format!("was modified at {}, not {}", show_time(found.mtime), show_time(time)));
        }
        for (key, value) in &expected {
            match xattrs.get(key) {
                Some(now) if now == value => {}
                Some(_) => out.push(format!("attribute {} differs", show(key))),
                None => out.push(format!("attribute {} is missing", show(key))),
            }
        }
        for key in xattrs.keys().filter(|k| !expected.contains_key(*k)) {
            out.push(format!("attribute {} should not be there", show(key)));
        }
    }
}

/// A file system stores a time that it cannot hold as the nearest one that it can: 32 bits, or ext4's 34.
fn is_clamped(wanted: Time, found: Time) -> bool {
    const EXT4_MAX: i64 = 0x3_7fff_ffff;
    let (low, high) = (i64::from(i32::MIN), i64::from(i32::MAX));
    (wanted.seconds < low && found.seconds == low)
        || (wanted.seconds > high && found.seconds == high)
        || (wanted.seconds > EXT4_MAX && found.seconds == EXT4_MAX)
}

fn show_time(time: Time) -> String {
    format!("{}.{:09}", time.seconds, time.nanoseconds)
}

fn word(kind: &Kind) -> String {
    match kind {
        Kind::File { .. } => "a file".into(),
        Kind::Directory => "a directory".into(),
        Kind::Symlink { .. } => "a symbolic link".into(),
        Kind::Fifo => "a fifo".into(),
        Kind::CharDevice(major, minor) => format!("character device {major}:{minor}"),
        Kind::BlockDevice(major, minor) => format!("block device {major}:{minor}"),
        Kind::Whiteout => "a whiteout".into(),
    }
}

/// A name as a person can read it, on one line.
pub(super) fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}
