//! The inodes that the kernel knows, and where their files are.
//!
//! A node is found by its inode number and remembers its parent and its name there, never a path: renaming a directory changes one
//! node. 24 bytes a node, its name, and five to ten bytes of index: a million files take some 50 MB. What only some nodes have (the
//! layers of a directory, several names, a descriptor that keeps an unlinked file) is kept beside them.
//!
//! Invariants: the parent of a known node is known (it counts its children); a node with neither lookups nor children is removed; the
//! root stays. Everything here is memory: the table's lock is never held over I/O.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hashbrown::HashTable;
use rustix::io::Errno;

use crate::listing::{Asked, Layers, Listing, NameHash};
use crate::names::{NameId, Names};
use crate::slab::Slab;
use crate::types::{Ino, ROOT};

/// A layer's number: 0 is the upper, 1 the topmost lower.
pub(crate) type LayerNo = u16;
/// The upper layer.
pub(crate) const UPPER: LayerNo = 0;

/// The most names in all listings: some 2 MB.
const LISTED: usize = 64 << 10;

/// A shared descriptor.
pub(crate) type Fd = Arc<OwnedFd>;

/// Where the data of a file with only attributes is: a layer and a path in it.
pub(crate) type DataAt = (LayerNo, Arc<[u8]>);

/// One of the directories that a directory is merged from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) layer: LayerNo,
    /// Where it is in its layer, if that is not the parent's place and the own name: a redirect.
    pub(crate) path: Option<Arc<[u8]>>,
}

/// The directories a directory is merged from, topmost first.
pub(crate) type Reals = Arc<[Real]>;

/// What a directory has beyond its node.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    pub(crate) reals: Reals,
    /// Its upper directory may hold entries whose inode numbers come from elsewhere (xattr `overlay.impure`).
    /// `None`: not yet asked.
    pub(crate) impure: Option<bool>,
    /// What its upper directory says of where its lower parts are: a path in what the lower layers show together, or a name beside it.
    pub(crate) redirect: Option<Arc<[u8]>>,
    /// Which of the layers below 64 are known to have no whiteout of aufs in it, and how often it was asked of the others.
    pub(crate) plain: (u64, u8),
    /// Whether its upper directory has a default ACL, once that is known.
    pub(crate) default_acl: Option<bool>,
    asked: Asked,
    children: u32,
}

impl Dir {
    fn new(reals: Reals, redirect: Option<Arc<[u8]>>) -> Self {
        Self {
            reals,
            impure: None,
            redirect,
            plain: (0, 0),
            default_acl: None,
            asked: Asked::default(),
            children: 0,
        }
    }
}

/// What only some files have.
#[derive(Debug, Default)]
struct Special {
    /// Names beyond the first.
    others: Vec<(u32, NameId)>,
    /// Keeps a file without a name.
    orphan: Option<Fd>,
    /// A hard link of a lower layer that was copied up: its name in the index.
    index: Option<Arc<[u8]>>,
    /// The data of a file whose upper holds only attributes (metacopy).
    data: Option<DataAt>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    ino: Ino,
    parent: u32,
    name: NameId,
    lookups: u32,
    layer: LayerNo,
    flags: u16,
}

const DIRECTORY: u16 = 1;
const SPECIAL: u16 = 2;
const NAMELESS: u16 = 4;
const OPEN: u16 = 8;

/// Where a file is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In a directory of a layer.
    Named { layer: LayerNo, parent: Ino, name: Vec<u8> },
    /// In the upper, reached through the index of hard links.
    Index(Arc<[u8]>),
    /// Without a name any more.
    Orphan { layer: LayerNo, fd: Fd },
}

impl Place {
    pub(crate) fn layer(&self) -> LayerNo {
        match self {
            Self::Named { layer, .. } | Self::Orphan { layer, .. } => *layer,
            Self::Index(_) => UPPER,
        }
    }
}

/// How to come to a directory: from an open directory above it (the layer's root if none), by these names.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) from: Option<Fd>,
    /// Topmost first.
    pub(crate) names: Vec<Vec<u8>>,
}

/// What is known of a file that a lookup found.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) ino: Ino,
    pub(crate) parent: Ino,
    pub(crate) name: &'a [u8],
    pub(crate) layer: LayerNo,
    /// For a directory: its layers.
    pub(crate) reals: Option<Reals>,
    pub(crate) redirect: Option<Arc<[u8]>>,
    /// Whether it has more names than this one.
    pub(crate) linked: bool,
    pub(crate) index: Option<Arc<[u8]>>,
    pub(crate) data: Option<DataAt>,
}

mod forget;
mod places;

#[derive(Debug)]
pub(crate) struct Table {
    nodes: Slab<Node>,
    names: Names,
    by_ino: HashTable<u32>,
    dirs: HashMap<u32, Dir>,
    special: HashMap<u32, Special>,
    root: u32,
    /// The most nodes since memory was last given back.
    peak: usize,
    /// Removed outside of `forget`, to be reported by the next.
    strays: Vec<Ino>,
    /// Names in the listings of all directories.
    listed: usize,
}

/// What a removal leaves to be dropped after the table's lock is released.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// Nodes whose descriptors are cached.
    pub(crate) inos: Vec<Ino>,
    /// Descriptors that kept files without a name.
    pub(crate) fds: Vec<Fd>,
    /// So many nodes have gone that the heap is worth trimming.
    pub(crate) trim: bool,
}

fn hash(ino: Ino) -> u64 {
    ino.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl Table {
    pub(crate) fn new(root: Reals) -> Self {
        let mut table = Self {
            nodes: Slab::new(1),
            names: Names::new(),
            by_ino: HashTable::new(),
            dirs: HashMap::new(),
            special: HashMap::new(),
            root: 0,
            peak: 0,
            strays: Vec::new(),
            listed: 0,
        };
        let slot = table.nodes.insert();
        let name = table.names.insert(b"");
        let layer = root[0].layer;
        table.nodes.get_mut(slot)[0] =
            Node { ino: ROOT, parent: slot, name, lookups: 1, layer, flags: DIRECTORY };
        table.dirs.insert(slot, Dir::new(root, None));
        table.by_ino.insert_unique(hash(ROOT), slot, |_| 0);
        table.root = slot;
        table
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn node(&self, slot: u32) -> &Node {
        &self.nodes.get(slot)[0]
    }

    fn node_mut(&mut self, slot: u32) -> &mut Node {
        &mut self.nodes.get_mut(slot)[0]
    }

    fn slot(&self, ino: Ino) -> Option<u32> {
        self.by_ino.find(hash(ino), |s| self.node(*s).ino == ino).copied()
    }

    fn known(&self, ino: Ino) -> Result<u32, Errno> {
        self.slot(ino).ok_or(Errno::STALE)
    }

    /// The layers of a directory.
    pub(crate) fn dir(&self, ino: Ino) -> Result<&Dir, Errno> {
        let slot = self.known(ino)?;
        self.dirs.get(&slot).ok_or(Errno::NOTDIR)
    }

    pub(crate) fn dir_mut(&mut self, ino: Ino) -> Option<&mut Dir> {
        let slot = self.slot(ino)?;
        self.dirs.get_mut(&slot)
    }

    pub(crate) fn is_dir(&self, ino: Ino) -> bool {
        self.slot(ino).is_some_and(|s| self.node(s).flags & DIRECTORY != 0)
    }

    /// The layer that a file (or the topmost part of a directory) is in, if the inode is known.
    pub(crate) fn layer(&self, ino: Ino) -> Option<LayerNo> {
        self.slot(ino).map(|s| self.node(s).layer)
    }

    /// The parent of a directory.
    pub(crate) fn parent(&self, ino: Ino) -> Option<Ino> {
        self.slot(ino).map(|s| self.node(self.node(s).parent).ino)
    }

    /// Where the file of an inode is.
    pub(crate) fn place(&self, ino: Ino) -> Result<Place, Errno> {
        let slot = self.known(ino)?;
        let node = self.node(slot);
        if node.flags & SPECIAL != 0 {
            let special = &self.special[&slot];
            if let Some(fd) = &special.orphan {
                return Ok(Place::Orphan { layer: node.layer, fd: Arc::clone(fd) });
            }
            if let Some(index) = &special.index {
                return Ok(Place::Index(Arc::clone(index)));
            }
        }
        if node.flags & NAMELESS != 0 {
            return Err(Errno::STALE);
        }
        Ok(Place::Named {
            layer: node.layer,
            parent: self.node(node.parent).ino,
            name: self.names.get(node.name).to_vec(),
        })
    }

    /// The descriptor that keeps a file or directory without a name.
    pub(crate) fn orphan(&self, ino: Ino) -> Option<Fd> {
        let slot = self.slot(ino)?;
        self.special.get(&slot)?.orphan.clone()
    }

    /// All names of a file that the kernel has looked up.
    pub(crate) fn all_names(&self, ino: Ino) -> Vec<(Ino, Vec<u8>)> {
        let Some(slot) = self.slot(ino) else { return Vec::new() };
        let node = self.node(slot);
        let mut all = Vec::new();
        if node.flags & NAMELESS == 0 {
            all.push((self.node(node.parent).ino, self.names.get(node.name).to_vec()));
        }
        if let Some(special) = self.special.get(&slot) {
            for (parent, name) in &special.others {
                all.push((self.node(*parent).ino, self.names.get(*name).to_vec()));
            }
        }
        all
    }

    /// The way to a directory in one of its layers; `open` knows directories that are open.
    pub(crate) fn route(
        &self,
        ino: Ino,
        layer: LayerNo,
        open: impl Fn(Ino) -> Option<Fd>,
    ) -> Result<Route, Errno> {
        let mut slot = self.known(ino)?;
        let mut names = Vec::new();
        let mut from = None;
        loop {
            let dir = self.dirs.get(&slot).ok_or(Errno::NOTDIR)?;
            let real = dir.reals.iter().find(|r| r.layer == layer).ok_or(Errno::STALE)?;
            if let Some(path) = &real.path {
                names.extend(path.split(|b| *b == b'/').filter(|n| !n.is_empty()).rev().map(<[u8]>::to_vec));
                break;
            }
            if slot == self.root {
                break;
            }
            let node = self.node(slot);
            if node.flags & NAMELESS != 0 {
                return Err(Errno::STALE);
            }
            names.push(self.names.get(node.name).to_vec());
            slot = node.parent;
            from = open(self.node(slot).ino);
            if from.is_some() {
                break;
            }
        }
        names.reverse();
        Ok(Route { from, names })
    }

    /// The path of a directory in one of its layers, from the layer's root, with a leading `/`.
    pub(crate) fn path_in(&self, ino: Ino, layer: LayerNo) -> Result<Vec<u8>, Errno> {
        let route = self.route(ino, layer, |_| None)?;
        Ok(route.names.iter().fold(Vec::new(), |mut path, name| {
            path.push(b'/');
            path.extend_from_slice(name);
            path
        }))
    }

    /// The path of a directory in what the lower layers show together.
    pub(crate) fn lower_path(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut slot = self.known(ino)?;
        while slot != self.root {
            let node = self.node(slot);
            let redirect = self.dirs.get(&slot).and_then(|d| d.redirect.as_deref());
            match redirect {
                Some(path) if path.starts_with(b"/") => {
                    names.push(path[1..].to_vec());
                    break;
                }
                name => names.push(name.unwrap_or(self.names.get(node.name)).to_vec()),
            }
            slot = node.parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Ok(path)
    }

    /// Notes where the lower parts of a directory are from now on.
    pub(crate) fn redirected(&mut self, ino: Ino, reals: Reals, redirect: Arc<[u8]>) {
        self.set_reals(ino, reals);
        if let Some(dir) = self.dir_mut(ino) {
            dir.redirect = Some(redirect);
        }
    }

    /// Where the data of an inode without data of its own is.
    pub(crate) fn data(&self, ino: Ino) -> Option<DataAt> {
        let slot = self.slot(ino)?;
        self.special.get(&slot)?.data.clone()
    }

    /// Notes what a lookup found and counts the lookup. Answers the layer the file is in now: a name of a lower layer may belong to a file
    /// that has been copied up under another name.
    pub(crate) fn found(&mut self, found: &Found<'_>, lookups: u32) -> Result<LayerNo, Errno> {
        let parent = self.known(found.parent)?;
        if let Some(slot) = self.slot(found.ino) {
            self.found_again(slot, parent, found, lookups)?;
            return Ok(self.node(slot).layer);
        }
        let slot = self.nodes.insert();
        let name = self.names.insert(found.name);
        let directory = if found.reals.is_some() { DIRECTORY } else { 0 };
        *self.node_mut(slot) =
            Node { ino: found.ino, parent, name, lookups, layer: found.layer, flags: directory };
        let nodes = &self.nodes;
        self.by_ino.insert_unique(hash(found.ino), slot, |s| hash(nodes.get(*s)[0].ino));
        self.add_child(parent);
        if let Some(reals) = &found.reals {
            self.dirs.insert(slot, Dir::new(Arc::clone(reals), found.redirect.clone()));
        }
        if found.index.is_some() || found.data.is_some() {
            let special =
                Special { index: found.index.clone(), data: found.data.clone(), ..Special::default() };
            self.special.insert(slot, special);
            self.node_mut(slot).flags |= SPECIAL;
        }
        self.peak = self.peak.max(self.nodes.len());
        Ok(found.layer)
    }

    fn found_again(&mut self, slot: u32, parent: u32, found: &Found<'_>, lookups: u32) -> Result<(), Errno> {
        let node = *self.node(slot);
        if (node.flags & DIRECTORY != 0) != found.reals.is_some() {
            return Err(Errno::IO); // two files with one number: the layers were changed behind us
        }
        self.node_mut(slot).lookups = node.lookups.saturating_add(lookups);
        if let Some(reals) = &found.reals
            && (node.layer != UPPER || found.layer == UPPER)
        {
            let dir = self.dirs.get_mut(&slot).expect("a directory has its layers");
            if dir.reals != *reals {
                self.listed -= dir.asked.forget();
            }
            dir.reals = Arc::clone(reals);
            dir.redirect.clone_from(&found.redirect);
            self.node_mut(slot).layer = found.layer;
        }
        let same =
            node.flags & NAMELESS == 0 && node.parent == parent && self.names.get(node.name) == found.name;
        if !same {
            if found.linked && node.flags & NAMELESS == 0 {
                self.add_name(slot, parent, found.name);
            } else if node.flags & NAMELESS == 0 {
                self.set_name(slot, parent, found.name);
            } else {
                self.revive(slot, parent, found.name);
            }
        }
        Ok(())
    }

    /// The layers of a directory that may have a name; and of how many names at most its lower layers are to be listed now.
    pub(crate) fn ask(&mut self, dir: Ino, name: NameHash) -> Result<(Layers, Option<usize>), Errno> {
        let slot = self.known(dir)?;
        let dir = self.dirs.get_mut(&slot).ok_or(Errno::NOTDIR)?;
        let lowers = dir.reals.iter().filter(|r| r.layer != UPPER).count();
        Ok(dir.asked.ask(name, lowers))
    }

    /// Keeps what a directory's lower layers hold, none of which is a whiteout of aufs. When there is too much of it all, what there was
    /// goes.
    pub(crate) fn listed(&mut self, dir: Ino, listing: Listing) {
        if self.listed + listing.len() > LISTED {
            for dir in self.dirs.values_mut() {
                dir.asked.forget();
            }
            self.listed = 0;
        }
        let names = listing.len();
        let Some(dir) = self.dir_mut(dir) else { return };
        let before = dir.asked.answer(listing);
        for layer in dir.reals.iter().map(|r| r.layer).filter(|l| *l != UPPER && *l < 64) {
            dir.plain.0 |= 1 << layer;
        }
        self.listed = self.listed + names - before;
    }

    fn add_child(&mut self, parent: u32) {
        if let Some(dir) = self.dirs.get_mut(&parent) {
            dir.children += 1;
        }
    }

    fn special_mut(&mut self, slot: u32) -> &mut Special {
        self.node_mut(slot).flags |= SPECIAL;
        self.special.entry(slot).or_default()
    }

    /// Changes a directory's layers.
    pub(crate) fn set_reals(&mut self, ino: Ino, reals: Reals) {
        if let Some(slot) = self.slot(ino) {
            self.node_mut(slot).layer = reals[0].layer;
            if let Some(dir) = self.dirs.get_mut(&slot) {
                dir.reals = reals;
            }
        }
    }

    /// Notes that a file has been copied up.
    pub(crate) fn copied_up(&mut self, ino: Ino, index: Option<Arc<[u8]>>, orphan: Option<Fd>) -> Option<Fd> {
        let slot = self.slot(ino)?;
        self.node_mut(slot).layer = UPPER;
        if let Some(special) = self.special.get_mut(&slot) {
            special.data = None;
        }
        if let Some(index) = index {
            self.special_mut(slot).index = Some(index);
        }
        orphan.and_then(|fd| self.special_mut(slot).orphan.replace(fd))
    }

    /// Notes that a descriptor of this inode is cached.
    pub(crate) fn opened(&mut self, ino: Ino) {
        if let Some(slot) = self.slot(ino) {
            self.node_mut(slot).flags |= OPEN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reals() -> Reals {
        Arc::from([Real { layer: UPPER, path: None }])
    }

    fn found(ino: Ino, parent: Ino, name: &[u8], directory: bool) -> Found<'_> {
        let reals = directory.then(reals);
        Found { ino, parent, name, layer: 1, reals, redirect: None, linked: false, index: None, data: None }
    }

    #[test]
    fn what_stays_is_the_same_after_the_rest_has_gone() {
        let mut table = Table::new(reals());
        let name = |n: u64| format!("name-{n}").into_bytes();
        for dir in 0..50 {
            table.found(&found(1000 + dir, ROOT, &name(dir), true), 1).unwrap();
            for n in 0..1000 {
                let ino = 10_000 + dir * 1000 + n;
                table.found(&found(ino, 1000 + dir, &name(n), false), 1).unwrap();
            }
        }
        table.linked(10_000, 1001, b"other", 1).unwrap();
        // A lookup may have noted a name before whoever made it does.
        table.linked(10_000, 1000, &name(0), 1).unwrap();
        table.linked(10_000, 1001, b"other", 1).unwrap();
        let mut gone = Gone::default();
        for ino in (10_000..60_000).filter(|i| i % 1000 != 0) {
            table.forget(ino, 1, &mut gone);
        }
        assert!(gone.trim, "there was much to give back");
        assert_eq!(table.len(), 1 + 50 + 50);
        for dir in 0..50 {
            let all = table.all_names(10_000 + dir * 1000);
            assert_eq!(all[0], (1000 + dir, name(0)));
            assert_eq!(all.len(), if dir == 0 { 2 } else { 1 });
            table.forget(1000 + dir, 1, &mut gone);
        }
        assert_eq!(table.len(), 101, "a directory stays for what is in it");
        table.forget(10_000, 4, &mut gone);
        for dir in 1..50 {
            table.forget(10_000 + dir * 1000, 1, &mut gone);
        }
        assert_eq!(table.len(), 1, "only the root is left");
    }
}
