//! Inodes that the kernel forgets.

use super::{DIRECTORY, Gone, OPEN, Table, hash};
use crate::types::Ino;

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
        if self.peak > 64 * 1024 && self.nodes.len() * 4 < self.peak {
            self.peak = self.nodes.len();
            self.give_back();
            gone.trim = true;
        }
    }

    fn give_back(&mut self) {
        let nodes = &self.nodes;
        self.by_ino.shrink_to(0, |s| hash(nodes.get(*s)[0].ino));
        self.dirs.shrink_to_fit();
        self.special.shrink_to_fit();
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
            self.dirs.remove(&slot);
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
