//! Collection of what nothing can reach.
//!
//! Roots: images (each kept by its names, its containers, or until it is pruned), and what running operations lease or
//! have ready. Volumes and snapshots are not collected: they end when they are removed.
//!
//! ```text
//! chosen (dying: cannot be found any more) --redb commit--> without a record --rename--> in the trash --> deleted
//! ```
//!
//! The choice is made in memory with the table of leases locked; nothing is locked that a reader needs while the disk is
//! waited for. Death at any point leaves files without a record, which the next start sweeps; never a record without files.
//! It runs after every removal, at start when there is something to do, when a lease ends that kept something, and on request.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Store;
use crate::digest::Digest;
use crate::error::Error;
use crate::failpoint;
use crate::image::{Removed, familiar};
use crate::layer::Chosen;
use crate::metadata::{Contents, ImageRecord};

/// How a removal went.
pub(crate) enum Outcome {
    /// These are gone.
    Removed(Removed),
    /// Nothing was done, because of these snapshots.
    InUse(Vec<String>),
}

/// What goes.
struct Doomed {
    images: Vec<Digest>,
    tags: Vec<String>,
    layers: Vec<Digest>,
    blobs: Vec<Digest>,
    /// Snapshots of images that were to go and stay.
    in_use: Vec<String>,
    /// Leases keep something that nothing else does.
    deferred: bool,
}

/// Everything that is reachable, with `held` and without `gone`.
fn reachable(contents: &Contents, gone: &BTreeSet<&Digest>, held: &BTreeSet<Digest>) -> BTreeSet<Digest> {
    let mut layers = BTreeSet::new();
    let mut reached = held.clone();
    for image in contents.images.values().filter(|i| !gone.contains(&i.id)) {
        layers.extend(image.diff_ids.iter());
        reached.insert(image.id.clone());
        reached.extend(image.manifest.iter().cloned());
    }
    layers.extend(held);
    reached.extend(layers.iter().filter_map(|d| contents.layers.get(d)).map(|l| l.blob.clone()));
    reached.extend(layers.into_iter().cloned());
    reached
}

impl Store {
    /// Removes names and images, and all that nothing reaches then; call it with [`Store::exclusive`] held. An image that a
    /// snapshot is based on stays: with `others_go` alone, otherwise with everything else.
    pub(crate) fn collect(
        &self,
        contents: &Contents,
        tags: &[String],
        images: &[ImageRecord],
        others_go: bool,
    ) -> Result<Outcome, Error> {
        let (doomed, dying) = self.layers.choose(|held| {
            let doomed = self.doom(contents, tags, images, held, others_go);
            let dying = doomed.layers.iter().chain(&doomed.images).cloned().collect();
            let deferred = doomed.deferred;
            Chosen { answer: doomed, dying, deferred }
        });
        if !others_go && !doomed.in_use.is_empty() {
            return Ok(Outcome::InUse(doomed.in_use));
        }
        failpoint::pass("collect.chosen");
        if !doomed.is_empty() {
            self.metadata.remove(&doomed.tags, &doomed.images, &doomed.layers, &doomed.blobs)?;
        }
        failpoint::pass("collect.recorded");
        self.discard(&doomed);
        drop(dying);
        if !doomed.images.is_empty() {
            self.retain_chains();
        }
        failpoint::pass("collect.done");
        let size = |d: &Digest| contents.layers.get(d).map_or(0, |l| l.size);
        let stored = |d: &Digest| contents.blobs.get(d).copied().unwrap_or(0);
        Ok(Outcome::Removed(Removed {
            untagged: doomed.tags.iter().map(|t| familiar(t)).collect(),
            deleted: doomed.images.iter().chain(&doomed.layers).map(Digest::to_string).collect(),
            reclaimed: doomed.layers.iter().map(size).sum::<u64>()
                + doomed.blobs.iter().map(stored).sum::<u64>(),
        }))
    }

    fn doom(
        &self,
        contents: &Contents,
        tags: &[String],
        images: &[ImageRecord],
        held: &BTreeSet<Digest>,
        others_go: bool,
    ) -> Doomed {
        let mut in_use = Vec::new();
        let mut gone = BTreeSet::new();
        for image in images {
            let users = self.snapshots.of_image(&image.id);
            if users.is_empty() {
                gone.insert(&image.id);
            }
            in_use.extend(users);
        }
        if !others_go && !in_use.is_empty() {
            gone.clear();
        }
        let reached = reachable(contents, &gone, held);
        let unheld = reachable(contents, &gone, &BTreeSet::new());
        let all = contents.layers.keys().chain(contents.blobs.keys());
        let deferred = all.clone().any(|d| reached.contains(d) && !unheld.contains(d));
        let kept_tag = |t: &&String| {
            contents.tags.get(*t).is_none_or(|id| !images.iter().any(|i| i.id == *id) || gone.contains(id))
        };
        let unreached = |d: &&Digest| !reached.contains(*d);
        Doomed {
            tags: tags.iter().filter(kept_tag).cloned().collect(),
            images: gone.into_iter().cloned().collect(),
            layers: contents.layers.keys().filter(unreached).cloned().collect(),
            blobs: contents.blobs.keys().filter(unreached).cloned().collect(),
            in_use,
            deferred,
        }
    }

    /// Files whose records are gone. What cannot be removed now is garbage that the next collection finds.
    fn discard(&self, doomed: &Doomed) {
        let warn = |e: &crate::failure::PathError| {
            tracing::warn!(error = %e, cause = %e.source, "what was removed still takes space");
        };
        for layer in &doomed.layers {
            if let Err(e) = self.layers.delete(layer) {
                warn(&e);
            }
            failpoint::pass("collect.layer");
        }
        for blob in &doomed.blobs {
            if let Err(e) = self.content.delete(blob) {
                warn(&e);
            }
            failpoint::pass("collect.blob");
        }
    }

    /// Removes all that nothing can reach: records, and files without one.
    pub fn collect_garbage(&self) -> Result<Removed, Error> {
        let _exclusive = self.exclusive();
        let contents = self.metadata.contents()?;
        let swept = self.layers.sweep(|d| contents.layers.contains_key(d))?
            + self.content.sweep(|d| contents.blobs.contains_key(d))?;
        if swept > 0 {
            tracing::info!(swept, "removed files that no record names");
        }
        match self.collect(&contents, &[], &[], true)? {
            Outcome::Removed(removed) => Ok(removed),
            Outcome::InUse(_) => Ok(Removed::default()),
        }
    }

    /// Collects now what an earlier process left, and from now on whenever a lease ends that kept something. In the background.
    pub(super) fn begin_collecting(self: &Arc<Self>, known: &Contents) {
        let weak = Arc::downgrade(self);
        let collect = move || {
            let Some(store) = weak.upgrade() else { return };
            let started =
                std::thread::Builder::new().name("collect".into()).stack_size(512 << 10).spawn(move || {
                    if let Err(error) = store.collect_garbage() {
                        tracing::warn!(%error, "garbage is left until the next collection");
                    }
                });
            if let Err(error) = started {
                tracing::warn!(%error, "cannot start collecting");
            }
        };
        let reached = reachable(known, &BTreeSet::new(), &BTreeSet::new());
        if known.layers.keys().chain(known.blobs.keys()).any(|d| !reached.contains(d)) {
            collect();
        }
        self.layers.on_release(collect);
    }
}

impl Doomed {
    fn is_empty(&self) -> bool {
        self.images.is_empty() && self.tags.is_empty() && self.layers.is_empty() && self.blobs.is_empty()
    }
}
