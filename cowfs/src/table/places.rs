//! Names: added, moved and taken away.

use rustix::io::Errno;

use super::{Fd, Gone, NAMELESS, Table};
use crate::names::NameId;
use crate::types::Ino;

impl Table {
    pub(super) fn add_name(&mut self, slot: u32, parent: u32, name: &[u8]) {
        let (node, names) = (self.node(slot), &self.names);
        let there = |o: &(u32, NameId)| o.0 == parent && names.get(o.1) == name;
        let first = node.flags & NAMELESS == 0 && there(&(node.parent, node.name));
        if first || self.special.get(&slot).is_some_and(|s| s.others.iter().any(there)) {
            return;
        }
        let name = self.names.insert(name);
        self.special_mut(slot).others.push((parent, name));
        self.add_child(parent);
    }

    /// Gives a node its only name.
    pub(super) fn set_name(&mut self, slot: u32, parent: u32, name: &[u8]) {
        let old = *self.node(slot);
        let name = self.names.insert(name);
        self.names.remove(old.name);
        let node = self.node_mut(slot);
        (node.parent, node.name) = (parent, name);
        self.add_child(parent);
        let mut gone = Gone::default();
        self.drop_child(old.parent, &mut gone);
        self.strays.append(&mut gone.inos);
    }

    /// Gives a node that had lost its last name one again.
    pub(super) fn revive(&mut self, slot: u32, parent: u32, name: &[u8]) {
        self.set_name(slot, parent, name);
        self.node_mut(slot).flags &= !NAMELESS;
        if let Some(special) = self.special.get_mut(&slot) {
            special.orphan = None;
        }
    }

    /// A further name of a file.
    pub(crate) fn linked(&mut self, ino: Ino, parent: Ino, name: &[u8], lookups: u32) -> Result<(), Errno> {
        let (slot, parent) = (self.known(ino)?, self.known(parent)?);
        let node = *self.node(slot);
        self.node_mut(slot).lookups = node.lookups.saturating_add(lookups);
        if node.flags & NAMELESS != 0 {
            self.revive(slot, parent, name);
        } else {
            self.add_name(slot, parent, name);
        }
        Ok(())
    }

    /// Whether a name is the only one that is known of a file.
    pub(crate) fn is_last_name(&self, ino: Ino, parent: Ino, name: &[u8]) -> bool {
        let all = self.all_names(ino);
        all.len() == 1 && all[0].0 == parent && all[0].1 == name
    }

    /// Takes a name away. `orphan` keeps the file if that was its last.
    pub(crate) fn unlinked(&mut self, ino: Ino, parent: Ino, name: &[u8], orphan: Option<Fd>) -> Gone {
        let mut gone = Gone::default();
        let (Some(slot), Some(parent)) = (self.slot(ino), self.slot(parent)) else { return gone };
        let node = *self.node(slot);
        let names = &self.names;
        if node.parent == parent && node.flags & NAMELESS == 0 && names.get(node.name) == name {
            let other = self.special.get_mut(&slot).and_then(|s| s.others.pop());
            if let Some((parent_of_other, other)) = other {
                self.names.remove(node.name);
                let node = self.node_mut(slot);
                (node.parent, node.name) = (parent_of_other, other);
                self.drop_child(parent, &mut gone);
            } else {
                self.node_mut(slot).flags |= NAMELESS; // it stays a child, so that its parent stays known
                if let Some(fd) = orphan {
                    self.special_mut(slot).orphan = Some(fd);
                }
            }
        } else if let Some(special) = self.special.get_mut(&slot)
            && let Some(at) = special.others.iter().position(|o| o.0 == parent && names.get(o.1) == name)
        {
            let (_, id) = special.others.swap_remove(at);
            self.names.remove(id);
            self.drop_child(parent, &mut gone);
        }
        gone
    }

    /// Moves a name. A directory's lower parts stay where they were: the caller says where.
    pub(crate) fn renamed(&mut self, ino: Ino, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Gone {
        let mut gone = Gone::default();
        let (Some(slot), Some(old), Some(new)) = (self.slot(ino), self.slot(from.0), self.slot(to.0)) else {
            return gone;
        };
        let node = *self.node(slot);
        let id = self.names.insert(to.1);
        if node.parent == old && node.flags & NAMELESS == 0 && self.names.get(node.name) == from.1 {
            self.names.remove(node.name);
            let node = self.node_mut(slot);
            (node.parent, node.name) = (new, id);
        } else {
            let names = &self.names;
            let at = self
                .special
                .get(&slot)
                .and_then(|s| s.others.iter().position(|o| o.0 == old && names.get(o.1) == from.1));
            let Some(at) = at else {
                self.names.remove(id);
                return gone;
            };
            let others = &mut self.special.get_mut(&slot).expect("it has other names").others;
            let (_, before) = std::mem::replace(&mut others[at], (new, id));
            self.names.remove(before);
        }
        self.add_child(new);
        self.drop_child(old, &mut gone);
        gone
    }
}
