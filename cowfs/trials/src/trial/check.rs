//! What has to agree, after each step and at the end.

use std::collections::HashSet;

use rustix::io::Errno;

use super::{Trees, is};
use crate::mount::{Engine, Manner};
use crate::op::{Op, Outcome, Sharing};
use crate::tree::{Identity, Node, Snapshot, difference, false_entry, snapshot};

/// What is known while a case runs.
#[derive(Debug)]
pub struct Checks {
    manner: Manner,
    cowfs: Identity,
    kernel: Identity,
    last: Option<(Snapshot, Snapshot, Snapshot)>,
    /// Inodes of the plain tree that have had several names in a lower layer.
    linked: HashSet<u64>,
    /// Those of which a name was hidden before: nobody counts them.
    loose: HashSet<u64>,
    /// The kernel's mappings that may not show what others write.
    stale: HashSet<u8>,
}

impl Checks {
    pub(super) fn new(manner: Manner) -> Self {
        let (cowfs, kernel) = Default::default();
        let (linked, loose, stale) = Default::default();
        Self { manner, cowfs, kernel, last: None, linked, loose, stale }
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
        agree(plain, cowfs, &mut self.cowfs, &self.loose)
            .map_err(|e| format!("davit-cowfs: {e} (overlayfs: {kernel:?})"))?;
        match op {
            Op::Map { map, sharing, .. } => {
                let shared = *sharing != Sharing::SharedWrite;
                if shared {
                    self.stale.insert(*map)
                } else {
                    self.stale.remove(map)
                };
            }
            Op::MapRead { map, .. } if self.stale.contains(map) => return Ok(()),
            _ => {}
        }
        agree(plain, kernel, &mut self.kernel, &self.loose).map_err(|e| format!("overlayfs: {e}"))
    }

    /// Compares everything that is visible.
    pub(super) fn trees(&mut self, trees: &Trees) -> Result<(), String> {
        let plain = snapshot(&trees.plain)?;
        let cowfs = snapshot(&trees.cowfs.at).map_err(|e| format!("davit-cowfs: {e}"))?;
        let kernel = snapshot(&trees.kernel.at).map_err(|e| format!("overlayfs: {e}"))?;
        if self.last.is_none() {
            let several = plain.values().filter(|n| !n.stat.is_dir() && n.stat.nlink > 1);
            self.linked = several.map(|n| n.stat.ino).collect();
            let hidden = |(name, node): (&Vec<u8>, &Node)| {
                let names = kernel.get(name).map_or(0, |k| k.stat.nlink);
                (!node.stat.is_dir() && names > node.stat.nlink).then_some(node.stat.ino)
            };
            self.loose = plain.iter().filter_map(hidden).collect();
        }
        for (who, tree, identity) in
            [("davit-cowfs", &cowfs, &mut self.cowfs), ("overlayfs", &kernel, &mut self.kernel)]
        {
            let wrong = difference(&plain, tree, &self.loose)
                .or_else(|| false_entry(tree))
                .or_else(|| identity.trees(&plain, tree).err());
            if let Some(wrong) = wrong {
                return Err(format!("{who}: {wrong}"));
            }
        }
        self.last = Some((plain, cowfs, kernel));
        Ok(())
    }

    /// After all: each engine reads what the other has written, and davit-cowfs itself shows the same again.
    pub(super) fn exchanged(&mut self, trees: &Trees) -> Result<(), String> {
        let (plain, ..) = self.last.take().ok_or("no trees were compared")?;
        let again = trees.cowfs.mount(Engine::Cowfs, self.manner);
        let seen = snapshot(again.at()).map_err(|e| format!("davit-cowfs, mounted again: {e}"))?;
        again.unmount();
        let wrong = difference(&plain, &seen, &self.loose)
            .or_else(|| false_entry(&seen))
            .or_else(|| self.cowfs.trees(&plain, &seen).err());
        if let Some(wrong) = wrong {
            return Err(format!("davit-cowfs, mounted again: {wrong}"));
        }
        for (layers, engine, what) in [
            (&trees.cowfs, Engine::Kernel, "overlayfs, on what davit-cowfs has written"),
            (&trees.kernel, Engine::Cowfs, "davit-cowfs, on what overlayfs has written"),
        ] {
            // Hard links that span layers need the index of who made them.
            let manner = Manner { index: false, ..self.manner };
            let mounted = layers.mount(engine, manner);
            let seen = snapshot(mounted.at()).map_err(|e| format!("{what}: {e}"))?;
            mounted.unmount();
            let (plain, seen) = self.without_linked(&plain, seen);
            if let Some(wrong) = difference(&plain, &seen, &self.loose) {
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
    identity: &mut Identity,
    loose: &HashSet<u64>,
) -> Result<(), String> {
    if let (Outcome::Stat(a), Outcome::Stat(b)) = (plain, other) {
        let (mine, mut its) = (a.comparable(), b.comparable());
        if loose.contains(&a.ino) {
            its.nlink = mine.nlink;
        }
        if mine != its {
            return Err(format!("{b:?}, not {a:?}"));
        }
        return identity.same(a.ino, b.ino);
    }
    if plain == other { Ok(()) } else { Err(format!("{other:?}, not {plain:?}")) }
}
