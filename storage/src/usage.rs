//! What takes space: `davit system df`.
//!
//! The layers and archives of images count once however many images share them, and are reclaimable when no image that is in use
//! needs them: what `image prune -a` would free.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::digest::Digest;
use crate::error::Error;
use crate::image::Summary;
use crate::metadata::{Contents, ImageRecord};
use crate::store::Store;
use crate::volume::VolumeRecord;

/// Of one kind of thing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How many.
    pub count: u64,
    /// How many are in use.
    pub active: u64,
    /// What they take.
    pub bytes: u64,
    /// What goes when those that are not in use go.
    pub reclaimable: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub struct DiskUsage {
    /// Layers and archives of images.
    pub images: Usage,
    /// Snapshots; which of them run is not known here.
    pub snapshots: Usage,
    /// Volumes.
    pub volumes: Usage,
    /// The part of `images` that is archives, configs and manifests.
    pub blobs: Usage,
    /// Each image, and how many of its bytes other images have, too.
    pub image: Vec<(Summary, u64)>,
    /// Each snapshot by key.
    pub snapshot: Vec<(String, u64)>,
    /// Each volume.
    pub volume: Vec<(VolumeRecord, u64)>,
}

impl Store {
    /// Measures all of it; walks the trees of snapshots and volumes.
    pub fn disk_usage(&self) -> Result<DiskUsage, Error> {
        let contents = self.metadata.contents()?;
        let counts = self.snapshots.counts();
        let used = |image: &ImageRecord| counts.contains_key(&image.id);
        let (all, needed) = (reach(&contents, |_| true), reach(&contents, used));
        let layers = |set: &Reach<'_>| -> u64 { set.layers.iter().map(|d| layer_size(&contents, d)).sum() };
        let blobs =
            |set: &Reach<'_>| -> u64 { set.blobs.iter().filter_map(|d| contents.blobs.get(*d)).sum() };
        let active = contents.images.values().filter(|i| used(i)).count() as u64;
        let blob_usage = Usage {
            count: all.blobs.len() as u64,
            active: needed.blobs.len() as u64,
            bytes: blobs(&all),
            reclaimable: blobs(&all) - blobs(&needed),
        };
        let images = Usage {
            count: contents.images.len() as u64,
            active,
            bytes: layers(&all) + blob_usage.bytes,
            reclaimable: layers(&all) - layers(&needed) + blob_usage.reclaimable,
        };
        let mut out = DiskUsage { images, blobs: blob_usage, ..DiskUsage::default() };
        let shared = shared(&contents);
        for summary in self.list_images(&crate::filter::Filters::default(), false)? {
            let bytes = shared.get(&summary.id).copied().unwrap_or(0);
            out.image.push((summary, bytes));
        }
        for record in self.snapshots.list() {
            // One that goes meanwhile takes nothing.
            let (bytes, _) = self.snapshots.usage(&record.key).unwrap_or_default();
            out.snapshot.push((record.key, bytes));
        }
        out.snapshots.count = out.snapshot.len() as u64;
        out.snapshots.bytes = out.snapshot.iter().map(|(_, bytes)| bytes).sum();
        for record in self.volumes.list()? {
            let bytes = tree_size(&self.volumes.data(&record.name));
            let in_use = !record.users.is_empty();
            out.volumes.count += 1;
            out.volumes.active += u64::from(in_use);
            out.volumes.bytes += bytes;
            out.volumes.reclaimable += if in_use { 0 } else { bytes };
            out.volume.push((record, bytes));
        }
        Ok(out)
    }
}

/// What images need.
struct Reach<'a> {
    layers: BTreeSet<&'a Digest>,
    blobs: BTreeSet<&'a Digest>,
}

fn reach(contents: &Contents, wanted: impl Fn(&ImageRecord) -> bool) -> Reach<'_> {
    let mut out = Reach { layers: BTreeSet::new(), blobs: BTreeSet::new() };
    for image in contents.images.values().filter(|i| wanted(i)) {
        out.layers.extend(&image.diff_ids);
        out.blobs.insert(&image.id);
        out.blobs.extend(&image.manifest);
    }
    let archives = out.layers.iter().filter_map(|d| contents.layers.get(*d)).map(|l| &l.blob);
    out.blobs.extend(archives.collect::<Vec<_>>());
    out
}

fn layer_size(contents: &Contents, diff_id: &Digest) -> u64 {
    contents.layers.get(diff_id).map_or(0, |l| l.size)
}

/// How much of each image is in other images, too.
fn shared(contents: &Contents) -> BTreeMap<Digest, u64> {
    let mut owners: BTreeMap<&Digest, u32> = BTreeMap::new();
    for image in contents.images.values() {
        for diff_id in image.diff_ids.iter().collect::<BTreeSet<_>>() {
            *owners.entry(diff_id).or_default() += 1;
        }
    }
    let of = |image: &ImageRecord| {
        image.diff_ids.iter().filter(|d| owners[d] > 1).map(|d| layer_size(contents, d)).sum()
    };
    contents.images.values().map(|i| (i.id.clone(), of(i))).collect()
}

/// Bytes of the files below a directory; one of several names counts once, and no link is followed.
pub fn tree_size(top: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    let mut total = 0;
    let mut todo = vec![top.to_owned()];
    let mut count = |meta: &Metadata| {
        if meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino())) {
            total += meta.len();
        }
    };
    while let Some(dir) = todo.pop() {
        // What vanishes meanwhile does not count.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) if meta.is_file() || meta.is_symlink() => count(&meta),
                _ => {}
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::tree_size;

    #[test]
    fn a_file_of_two_names_counts_once_and_links_lead_nowhere() {
        let tmp = tempfile::tempdir().unwrap();
        let sub = tmp.path().join("a/b");
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join("one"), [0; 1000]).unwrap();
        std::fs::hard_link(sub.join("one"), tmp.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/usr", tmp.path().join("link")).unwrap();
        assert_eq!(tree_size(tmp.path()), 1004);
        assert_eq!(tree_size(&tmp.path().join("absent")), 0);
    }
}
