//! The tree that a ledger describes: its events replayed.
//!
//! Of each path only its name, its directory and the place of its node in the ledger are kept, some hundred bytes, so
//! that an ordinary layer takes a few megabytes and the largest that unpacking allows some hundred; nodes are read from
//! the ledger when they are needed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::BuildHasher as _;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use crate::ledger::{Event, LedgerError, Node, NodeKind, Reader, node_at};
use crate::tarball::Time;

/// A path of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u32);

/// The root.
pub(super) const ROOT: Id = Id(0);
/// No node is known: a directory on the way to a recorded path.
const UNKNOWN: u64 = u64::MAX;
const NONE: u32 = u32::MAX;

struct Name {
    parent: u32,
    start: u32,
    length: u8,
    live: bool,
    directory: bool,
    opaque: bool,
    file: u32,
    /// The next name of the same hash.
    next: u32,
}

struct Inode {
    body: u64,
    names: u32,
}

/// The replayed tree.
pub(super) struct Tree {
    ledger: File,
    names: Vec<Name>,
    text: Vec<u8>,
    files: Vec<Inode>,
    index: HashMap<u64, u32>,
    /// Nodes of a directory before its last one: their attributes were not removed.
    earlier: HashMap<u32, Vec<u64>>,
    hasher: std::hash::RandomState,
}

/// What a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Nothing but the kind is known.
    pub(super) bare: bool,
}

/// [`NodeKind`], owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File { size: u64, digest: [u8; 32] },
    Directory,
    Symlink { target: Vec<u8> },
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Whiteout,
}

impl Tree {
    /// Replays a ledger; believed only when it is whole.
    pub(super) fn replay(ledger: File) -> Result<Self, LedgerError> {
        let root = Name {
            parent: 0,
            start: 0,
            length: 0,
            live: true,
            directory: true,
            opaque: false,
            file: 0,
            next: NONE,
        };
        let events = ledger.try_clone().map_err(LedgerError::Read)?;
        let mut tree = Self {
            ledger,
            names: vec![root],
            text: Vec::new(),
            files: vec![Inode { body: UNKNOWN, names: 1 }],
            index: HashMap::new(),
            earlier: HashMap::new(),
            hasher: std::hash::RandomState::new(),
        };
        let mut reader = Reader::new(BufReader::with_capacity(64 << 10, From(&events, 0)))?;
        while let Some((event, body)) = reader.next_event()? {
            tree.apply(&event, body)?;
        }
        tree.index.shrink_to_fit();
        Ok(tree)
    }

    fn apply(&mut self, event: &Event<'_>, body: u64) -> Result<(), LedgerError> {
        match event {
            Event::Node { path, node } => {
                let directory = node.kind == NodeKind::Directory;
                let (parent, name) = self.parent(path)?;
                if name.is_empty() {
                    self.again(0, body);
                    return Ok(());
                }
                match self.lookup(parent, name) {
                    Some(at) if directory && self.names[at as usize].directory => self.again(at, body),
                    old => {
                        self.kill(old);
                        let file = self.files.len() as u32;
                        self.files.push(Inode { body, names: 1 });
                        self.add(parent, name, file, directory)?;
                    }
                }
            }
            Event::Link { path, target } => {
                let Some(of) = self.resolve(target) else {
                    return Err(LedgerError::Damaged("a link to what is not there"));
                };
                let file = self.names[of as usize].file;
                let (parent, name) = self.parent(path)?;
                let old = self.lookup(parent, name);
                self.kill(old);
                self.files[file as usize].names += 1;
                self.add(parent, name, file, false)?;
            }
            Event::Opaque { path } => {
                // Of the root it is a matter of the layer's record.
                if let Some(at) = self.resolve(path).filter(|at| *at != 0) {
                    self.names[at as usize].opaque = true;
                }
            }
            Event::Gone { path } => {
                let old = self.resolve(path).filter(|at| *at != 0);
                self.kill(old);
            }
        }
        Ok(())
    }

    /// A directory is recorded once more.
    fn again(&mut self, at: u32, body: u64) {
        let file = self.names[at as usize].file;
        let before = std::mem::replace(&mut self.files[file as usize].body, body);
        if before != UNKNOWN {
            self.earlier.entry(at).or_default().push(before);
        }
    }

    fn kill(&mut self, at: Option<u32>) {
        if let Some(at) = at {
            let name = &mut self.names[at as usize];
            name.live = false;
            self.files[name.file as usize].names -= 1;
        }
    }

    fn add(&mut self, parent: u32, name: &[u8], file: u32, directory: bool) -> Result<u32, LedgerError> {
        let full = LedgerError::Damaged("it names more than a layer can hold");
        let (Ok(start), Ok(length)) = (u32::try_from(self.text.len()), u8::try_from(name.len())) else {
            return Err(full);
        };
        let at = u32::try_from(self.names.len()).ok().filter(|n| *n != NONE).ok_or(full)?;
        self.text.extend_from_slice(name);
        let hash = self.hasher.hash_one((parent, name));
        let next = self.index.insert(hash, at).unwrap_or(NONE);
        self.names.push(Name { parent, start, length, live: true, directory, opaque: false, file, next });
        Ok(at)
    }

    fn lookup(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let mut at = *self.index.get(&self.hasher.hash_one((parent, name)))?;
        while at != NONE {
            let found = &self.names[at as usize];
            if found.live && found.parent == parent && self.name_bytes(at) == name {
                return Some(at);
            }
            at = found.next;
        }
        None
    }

    fn name_bytes(&self, at: u32) -> &[u8] {
        let name = &self.names[at as usize];
        &self.text[name.start as usize..name.start as usize + name.length as usize]
    }

    fn resolve(&self, path: &[u8]) -> Option<u32> {
        let mut at = 0;
        for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
            at = self.lookup(at, part)?;
        }
        Some(at)
    }

    /// The directory of a path, made when no record did.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(u32, &'p [u8]), LedgerError> {
        let (parents, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let mut at = 0;
        for part in parents.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
            at = match self.lookup(at, part) {
                Some(found) if self.names[found as usize].directory => found,
                other => {
                    self.kill(other);
                    let file = self.files.len() as u32;
                    self.files.push(Inode { body: UNKNOWN, names: 1 });
                    self.add(at, part, file, true)?
                }
            };
        }
        Ok((at, name))
    }

    /// The entry of a directory.
    pub(super) fn child(&self, of: Id, name: &[u8]) -> Option<Id> {
        self.lookup(of.0, name).map(Id)
    }

    /// Relative, without a leading slash.
    pub(super) fn path(&self, id: Id) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = id.0;
        while at != 0 {
            parts.push(self.name_bytes(at));
            at = self.names[at as usize].parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Which file the path is a name of, when it has several names: equal for names of one file.
    pub(super) fn shared(&self, id: Id) -> Option<u32> {
        let file = self.names[id.0 as usize].file;
        (self.files[file as usize].names > 1).then_some(file)
    }

    /// All paths that are there at the end, directories before what is in them.
    pub(super) fn live(&self) -> Vec<Id> {
        let mut alive = vec![false; self.names.len()];
        alive[0] = true;
        let mut out = Vec::new();
        for (at, name) in self.names.iter().enumerate().skip(1) {
            alive[at] = name.live && alive[name.parent as usize];
            if alive[at] {
                out.push(Id(at as u32));
            }
        }
        out
    }

    /// How many ids there are; each is below.
    pub(super) fn bound(&self) -> usize {
        self.names.len()
    }

    /// A number below [`Tree::bound`].
    pub(super) fn number(id: Id) -> usize {
        id.0 as usize
    }

    /// Whether the layer was unpacked without regard to whiteouts: names that spell one are plain files then.
    pub(super) fn spells_whiteouts(&self) -> bool {
        self.live().iter().any(|id| self.name_bytes(id.0).starts_with(b".wh."))
    }

    /// What the path must be; `opaque` is the attribute that marks an opaque directory.
    pub(super) fn wanted(&self, id: Id, opaque: &str) -> Result<Wanted, LedgerError> {
        let name = &self.names[id.0 as usize];
        let body = self.files[name.file as usize].body;
        let mut wanted = self.read(body)?;
        for earlier in self.earlier.get(&id.0).into_iter().flatten().rev() {
            for (key, value) in self.read(*earlier)?.xattrs {
                wanted.xattrs.entry(key).or_insert(value);
            }
        }
        if name.opaque {
            wanted.xattrs.insert(opaque.as_bytes().to_vec(), davit_cowfs::OPAQUE_VALUE.to_vec());
        }
        Ok(wanted)
    }

    fn read(&self, body: u64) -> Result<Wanted, LedgerError> {
        if body == UNKNOWN {
            return Ok(Wanted {
                kind: Kind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: None,
                xattrs: BTreeMap::new(),
                bare: true,
            });
        }
        node_at(BufReader::with_capacity(512, From(&self.ledger, body)), owned)
    }
}

fn owned(node: &Node<'_>) -> Wanted {
    let kind = match &node.kind {
        NodeKind::File { size, digest } => Kind::File { size: *size, digest: *digest },
        NodeKind::Directory => Kind::Directory,
        NodeKind::Symlink { target } => Kind::Symlink { target: target.to_vec() },
        NodeKind::Fifo => Kind::Fifo,
        NodeKind::CharDevice { major, minor } => Kind::CharDevice(*major, *minor),
        NodeKind::BlockDevice { major, minor } => Kind::BlockDevice(*major, *minor),
        NodeKind::Whiteout => Kind::Whiteout,
    };
    Wanted {
        kind,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        xattrs: node.xattrs.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect(),
        bare: false,
    }
}

/// A file from an offset on, whatever its own position is.
struct From<'a>(&'a File, u64);

impl Read for From<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read_at(buf, self.1)?;
        self.1 += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Recorder as _, Writer};

    fn node(kind: NodeKind<'_>, mode: u32) -> Node<'_> {
        Node { kind, mode, uid: 0, gid: 0, mtime: None, xattrs: Vec::new() }
    }

    fn replay(events: Vec<Event<'_>>) -> Tree {
        let mut writer = Writer::new(tempfile::tempfile().unwrap()).unwrap();
        for event in events {
            writer.record(event).unwrap();
        }
        Tree::replay(writer.finish().unwrap().0).unwrap()
    }

    fn paths(tree: &Tree) -> Vec<String> {
        let mut all: Vec<String> =
            tree.live().iter().map(|id| String::from_utf8_lossy(&tree.path(*id)).into_owned()).collect();
        all.sort();
        all
    }

    fn at<'a>(path: &'a str, kind: NodeKind<'a>) -> Event<'a> {
        Event::Node { path: path.as_bytes(), node: node(kind, 0o644) }
    }

    fn file(path: &str, of: u8) -> Event<'_> {
        at(path, NodeKind::File { size: 1, digest: [of; 32] })
    }

    #[test]
    fn later_records_replace_earlier_ones_with_all_below_them() {
        let tree = replay(vec![
            at("a", NodeKind::Directory),
            file("a/b", 1),
            at("a/c", NodeKind::Directory),
            file("a/c/d", 1),
            file("a", 2),
            at("e", NodeKind::Directory),
            file("e/x", 1),
            Event::Gone { path: b"e" },
            at("e", NodeKind::Directory),
            file("e/y", 1),
            file("deep/er/z", 1),
        ]);
        assert_eq!(paths(&tree), ["a", "deep", "deep/er", "deep/er/z", "e", "e/y"]);
        assert!(tree.wanted(tree.child(ROOT, b"deep").unwrap(), "o").unwrap().bare);
        let a = tree.wanted(tree.child(ROOT, b"a").unwrap(), "o").unwrap();
        assert_eq!(a.kind, Kind::File { size: 1, digest: [2; 32] });
    }

    #[test]
    fn names_of_one_file_keep_its_node_when_another_name_changes() {
        let tree = replay(vec![
            file("a", 1),
            Event::Link { path: b"b", target: b"a" },
            Event::Link { path: b"c", target: b"b" },
            file("a", 2),
        ]);
        let id = |n: &[u8]| tree.child(ROOT, n).unwrap();
        assert_eq!(tree.shared(id(b"a")), None);
        assert!(tree.shared(id(b"b")).is_some());
        assert_eq!(tree.shared(id(b"b")), tree.shared(id(b"c")));
        assert_eq!(tree.wanted(id(b"c"), "o").unwrap().kind, Kind::File { size: 1, digest: [1; 32] });
    }

    #[test]
    fn a_repeated_directory_keeps_its_attributes_and_its_mark() {
        let with = |name: &'static [u8], value: &'static [u8]| Event::Node {
            path: b"d",
            node: Node { xattrs: vec![(name, value)], ..node(NodeKind::Directory, 0o700) },
        };
        let tree = replay(vec![
            with(b"user.a", b"1"),
            with(b"user.b", b"1"),
            Event::Opaque { path: b"d" },
            with(b"user.b", b"2"),
        ]);
        let wanted = tree.wanted(tree.child(ROOT, b"d").unwrap(), "opaque").unwrap();
        let expected = [("opaque", "y"), ("user.a", "1"), ("user.b", "2")];
        assert_eq!(wanted.xattrs, expected.map(|(k, v)| (k.into(), v.into())).into());
    }

    #[test]
    fn a_link_to_nothing_is_damage() {
        let mut writer = Writer::new(tempfile::tempfile().unwrap()).unwrap();
        writer.record(Event::Link { path: b"a", target: b"b" }).unwrap();
        let ledger = writer.finish().unwrap().0;
        assert!(matches!(Tree::replay(ledger), Err(LedgerError::Damaged(_))));
    }
}
