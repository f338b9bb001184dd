//! Inodes that the kernel forgets.

use std::collections::HashMap;

use hashbrown::HashTable;

use super::{DIRECTORY, Gone, Node, OPEN, Table, hash};
use crate::names::Names;
use crate::slab::Slab;
use crate::types::Ino;

/// Nodes below which there is not much to give back.
const WORTH_IT: usize = 16 * 1024;

impl Table {
    /// Gives back lookups.
    pub(crate) fn forget(&mut self, ino: Ino, lookups: u64, gone: &mut Gone) {
        let Some(slot) = self.slot(ino) else { return };
        if slot == self.root {
            return;
        }
        let node = self.node_mut(slot);
        node.lookups = u32::try_from(u64::from(node.lookups).saturating_sub(lookups)).unwrap_or(u32::MAX);
        self.remove_if_unused(slot, gone);
        gone.inos.append(&mut self.strays);
        if self.peak > WORTH_IT && self.nodes.len() * 8 < self.peak {
            self.compact();
            self.peak = self.nodes.len();
            gone.trim = true;
        }
    }

    /// Moves the nodes together, so that those which stay do not each keep a chunk of those that went.
    fn compact(&mut self) {
        let mut nodes = Slab::new(1);
        let mut names = Names::new();
        let moved: HashMap<u32, u32> = self.by_ino.iter().map(|old| (*old, nodes.insert())).collect();
        for (old, new) in &moved {
            let node = *self.node(*old);
            let name = names.insert(self.names.get(node.name));
            nodes.get_mut(*new)[0] = Node { name, parent: moved[&node.parent], ..node };
        }
        self.dirs = self.dirs.drain().map(|(slot, dir)| (moved[&slot], dir)).collect();
        let mut special = HashMap::new();
        for (slot, mut one) in self.special.drain() {
            for (parent, name) in &mut one.others {
                (*parent, *name) = (moved[parent], names.insert(self.names.get(*name)));
            }
            special.insert(moved[&slot], one);
        }
        self.special = special;
        let mut by_ino = HashTable::with_capacity(moved.len());
        for new in moved.values() {
            by_ino.insert_unique(hash(nodes.get(*new)[0].ino), *new, |s| hash(nodes.get(*s)[0].ino));
        }
        (self.by_ino, self.root) = (by_ino, moved[&self.root]);
        (self.nodes, self.names) = (nodes, names);
    }

    fn remove_if_unused(&mut self, slot: u32, gone: &mut Gone) {
        let mut next = Some(slot);
        while let Some(slot) = next {
            let node = *self.node(slot);
            let children = self.dirs.get(&slot).map_or(0, |d| d.children);
            if slot == self.root || node.lookups > 0 || children > 0 {
                return;
            }
            if let Ok(entry) = self.by_ino.find_entry(hash(node.ino), |s| *s == slot) {
                entry.remove();
            }
            self.names.remove(node.name);
            if let Some(mut dir) = self.dirs.remove(&slot) {
                self.listed -= dir.asked.forget();
            }
            let mut parents = vec![node.parent];
            if let Some(special) = self.special.remove(&slot) {
                gone.fds.extend(special.orphan);
                for (parent, name) in special.others {
                    self.names.remove(name);
                    parents.push(parent);
                }
            }
            if node.flags & (OPEN | DIRECTORY) != 0 {
                gone.inos.push(node.ino);
            }
            self.nodes.remove(slot);
            next = None;
            for parent in parents {
                if let Some(dir) = self.dirs.get_mut(&parent) {
                    dir.children -= 1;
                    if dir.children == 0
                        && let Some(waiting) = next.replace(parent)
                    {
                        self.remove_if_unused(waiting, gone);
                    }
                }
            }
        }
    }

    pub(super) fn drop_child(&mut self, parent: u32, gone: &mut Gone) {
        if let Some(dir) = self.dirs.get_mut(&parent) {
            dir.children -= 1;
            if dir.children == 0 {
                self.remove_if_unused(parent, gone);
            }
        }
    }
}
