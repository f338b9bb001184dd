//! What has to agree, after each step and at the end.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::{Ground, Trees, is};
use crate::mount::{Engine, Manner};
use crate::op::{Op, Outcome, Sharing, Stat};
use crate::tree::{Identity, Leeway, Node, Snapshot, difference, false_entry, snapshot};

const COWFS: &str = "davit-cowfs";

/// What is known while a case runs.
#[derive(Debug)]
pub struct Checks {
    manner: Manner,
    cowfs: Option<Identity>,
    /// None in a user namespace, where overlayfs does not find the lower inode of what it has copied up, once it has forgotten it.
    kernel: Option<Identity>,
    last: Option<(Snapshot, Snapshot, Snapshot)>,
    /// Inodes of the plain tree that have had several names in a lower layer.
    linked: BTreeSet<u64>,
    /// Files of which a name was hidden before: nobody counts them. And those written through a mapping.
    leeway: Leeway,
    /// Overlayfs has failed where nothing should: two entries of its index met, or layers that were moved do not decode.
    pub(super) retired: bool,
    /// The kernel's mappings that may not show what others write.
    stale: BTreeSet<u8>,
}

impl Checks {
    pub(super) fn new(manner: Manner, ground: Ground) -> Self {
        // Overlayfs keeps no numbers where layers are on several file systems.
        let kernel = (!manner.userxattr && !ground.split && !ground.reuses_numbers).then(Identity::default);
        let cowfs = (!ground.reuses_numbers).then(Identity::default);
        let (linked, leeway, stale) = Default::default();
        Self { manner, cowfs, kernel, last: None, linked, leeway, stale, retired: false }
    }

    /// Whether both refuse to rename a directory of a lower layer, as they are configured to. The plain tree could.
    pub(super) fn is_refused_everywhere(&self, op: &Op, cowfs: &Outcome, kernel: &Outcome) -> bool {
        let refused = |outcome| is(outcome, Errno::XDEV);
        matches!(op, Op::Rename { .. }) && !self.manner.redirect && refused(cowfs) && refused(kernel)
    }

    /// Compares what one call answered.
    pub(super) fn outcomes(
        &mut self,
        op: &Op,
        plain: &Outcome,
        cowfs: &Outcome,
        kernel: &Outcome,
    ) -> Result<(), String> {
        self.agree_cowfs(plain, cowfs).map_err(|e| format!("davit-cowfs: {e} (overlayfs: {kernel:?})"))?;
        match op {
            Op::Map { map, sharing, .. } => {
                let shared = *sharing != Sharing::SharedWrite;
                if shared {
                    self.stale.insert(*map)
                } else {
                    self.stale.remove(map)
                };
            }
            Op::MapWrite { .. } => self.leeway.late = true,
            Op::MapRead { map, .. } if self.stale.contains(map) => return Ok(()),
            _ => {}
        }
        let trouble = [Errno::EXIST, Errno::IO, Errno::STALE].iter().any(|errno| is(kernel, *errno));
        self.retired |= trouble && plain != kernel;
        if self.retired {
            return Ok(());
        }
        // Overlayfs does not count the names of a lower file that has lost its last by a rename.
        if let Outcome::Stat(stat) = plain
            && stat.nlink == 0
        {
            self.leeway.links.insert(stat.ino);
        }
        agree(plain, kernel, &mut self.kernel, &self.leeway).map_err(|e| format!("overlayfs: {e}"))
    }

    fn agree_cowfs(&mut self, plain: &Outcome, cowfs: &Outcome) -> Result<(), String> {
        let mut nobody = None;
        let identity = match plain {
            Outcome::Stat(stat) if !self.manner.keeps_number(stat) => &mut nobody,
            _ => &mut self.cowfs,
        };
        agree(plain, cowfs, identity, &self.leeway)
    }

    /// Each engine goes on with what the other has written: what is in the upper layers has other inode numbers now.
    pub(super) fn swapped(&mut self) {
        self.cowfs = self.cowfs.take().map(|_| Identity::default());
        self.kernel = self.kernel.take().map(|_| Identity::default());
    }

    /// Compares everything that is visible.
    pub(super) fn trees(&mut self, trees: &Trees) -> Result<(), String> {
        let plain = snapshot(&trees.plain)?;
        let cowfs = snapshot(&trees.cowfs.at).map_err(|e| format!("davit-cowfs: {e}"))?;
        let kernel = if self.retired {
            Snapshot::new()
        } else {
            snapshot(&trees.kernel.at).map_err(|e| format!("overlayfs: {e}"))?
        };
        if self.last.is_none() {
            let several = plain.values().filter(|n| !n.stat.is_dir() && n.stat.nlink > 1);
            self.linked = several.map(|n| n.stat.ino).collect();
            let hidden = |(name, node): (&Vec<u8>, &Node)| {
                let names = kernel.get(name).map_or(0, |k| k.stat.nlink);
                (!node.stat.is_dir() && names > node.stat.nlink).then_some(node.stat.ino)
            };
            self.leeway.links = plain.iter().filter_map(hidden).collect();
        }
        let numbered = |stat: &Stat| self.manner.keeps_number(stat);
        let all = [(COWFS, &cowfs, &mut self.cowfs), ("overlayfs", &kernel, &mut self.kernel)];
        let compared = if self.retired { 1 } else { 2 };
        for (who, tree, identity) in all.into_iter().take(compared) {
            let wrong = difference(&plain, tree, &self.leeway)
                .or_else(
                    || if who == COWFS || identity.is_some() { false_entry(tree, numbered) } else { None },
                )
                .or_else(|| identity.as_mut().and_then(|known| known.trees(&plain, tree, numbered).err()));
            if let Some(wrong) = wrong {
                return Err(format!("{who}: {wrong}"));
            }
        }
        self.last = Some((plain, cowfs, kernel));
        Ok(())
    }

    /// After all: each engine reads what the other has written, and davit-cowfs itself shows the same again.
    pub(super) fn exchanged(&mut self, trees: &Trees) -> Result<(), String> {
        let numbered = |stat: &Stat| self.manner.keeps_number(stat);
        let (plain, ..) = self.last.take().ok_or("no trees were compared")?;
        let again = trees.cowfs.mount(Engine::Cowfs, self.manner);
        let seen = snapshot(again.at()).map_err(|e| format!("davit-cowfs, mounted again: {e}"))?;
        again.unmount();
        let wrong = difference(&plain, &seen, &self.leeway)
            .or_else(|| false_entry(&seen, numbered))
            .or_else(|| self.cowfs.as_mut().and_then(|known| known.trees(&plain, &seen, numbered).err()));
        if let Some(wrong) = wrong {
            return Err(format!("davit-cowfs, mounted again: {wrong}"));
        }
        for (layers, engine, what) in [
            (&trees.cowfs, Engine::Kernel, "overlayfs, on what davit-cowfs has written"),
            (&trees.kernel, Engine::Cowfs, "davit-cowfs, on what overlayfs has written"),
        ] {
            if self.retired && engine == Engine::Cowfs {
                continue;
            }
            let mounted = layers.mount(engine, self.manner);
            let seen = snapshot(mounted.at()).map_err(|e| format!("{what}: {e}"))?;
            mounted.unmount();
            // Hard links that span layers are links by the index only.
            let (plain, seen) =
                if self.manner.index { (plain.clone(), seen) } else { self.without_linked(&plain, seen) };
            if let Some(wrong) = difference(&plain, &seen, &self.leeway) {
                return Err(format!("{what}: {wrong}"));
            }
        }
        Ok(())
    }

    fn without_linked(&self, plain: &Snapshot, mut other: Snapshot) -> (Snapshot, Snapshot) {
        let mut plain = plain.clone();
        plain.retain(|name, node| {
            let keep = !self.linked.contains(&node.stat.ino);
            if !keep {
                other.remove(name);
            }
            keep
        });
        (plain, other)
    }
}

fn agree(
    plain: &Outcome,
    other: &Outcome,
    identity: &mut Option<Identity>,
    leeway: &Leeway,
) -> Result<(), String> {
    if let (Outcome::Stat(a), Outcome::Stat(b)) = (plain, other) {
        let (mine, its) = leeway.comparable(a, b);
        if mine != its {
            return Err(format!("{b:?}, not {a:?}"));
        }
        return identity.as_mut().map_or(Ok(()), |known| known.same(a.ino, b.ino));
    }
    if plain == other { Ok(()) } else { Err(format!("{other:?}, not {plain:?}")) }
}
