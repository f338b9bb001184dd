//! Removing references and images, and what nothing refers to any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::error::Error;
use crate::image::familiar;
use crate::metadata::{Contents, ImageRecord};
use crate::reference::Reference;
use crate::store::Store;

/// What a removal did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Familiar references.
    pub untagged: Vec<String>,
    /// Image ids and diff ids.
    pub deleted: Vec<String>,
    /// Bytes of the layers and blobs that went.
    pub reclaimed: u64,
}

impl Store {
    /// Removes a reference, and the image with its last one. By id: with `force` all its references.
    pub fn remove_image(&self, asked: &str, force: bool) -> Result<Removed, Error> {
        let _exclusive = self.exclusive();
        let image = self.find_image(asked)?;
        let contents = self.metadata.contents()?;
        let all: Vec<String> =
            contents.tags.iter().filter(|(_, id)| **id == image.id).map(|(t, _)| t.clone()).collect();
        // A name that reads like an id is a name only when it is tagged so.
        let named = Reference::parse(asked).ok().map(|r| r.canonical()).filter(|t| all.contains(t));
        let tags = if let Some(tag) = named {
            vec![tag]
        } else {
            let repositories: BTreeSet<&str> = all.iter().map(|t| repository(t)).collect();
            if repositories.len() > 1 && !force {
                let references = all.iter().map(|t| familiar(t)).collect();
                return Err(Error::SeveralReferences { image: image.id.short().to_owned(), references });
            }
            all.clone()
        };
        let last = all.iter().all(|t| tags.contains(t) || t.contains('@'));
        let users = self.snapshots.of_image(&image.id);
        if last && !users.is_empty() {
            if !force {
                // Containers' ids, as `ps` shows them.
                let keys = users.iter().map(|key| key.chars().take(12).collect()).collect();
                return Err(Error::ImageInUse { image: familiar(asked), keys });
            }
            // The image stays, unnamed, for as long as containers are based on it.
            self.metadata.remove(&tags, &[], &[], &[])?;
            return Ok(Removed {
                untagged: tags.iter().map(|t| familiar(t)).collect(),
                ..Removed::default()
            });
        }
        let (tags, images) = if last { (all, vec![image]) } else { (tags, Vec::new()) };
        self.collect(&contents, &tags, &images)
    }

    /// Removes images without a name (with `all`: every one that no snapshot uses).
    pub fn prune_images(&self, all: bool, filters: &BTreeMap<String, String>) -> Result<Removed, Error> {
        let candidates = self.list_images(filters)?;
        let _exclusive = self.exclusive();
        let contents = self.metadata.contents()?;
        let images: Vec<ImageRecord> = candidates
            .into_iter()
            .map(|s| s.record)
            .filter(|r| contents.images.contains_key(&r.id))
            .filter(|r| all || !contents.tags.values().any(|id| *id == r.id))
            .filter(|r| self.snapshots.of_image(&r.id).is_empty())
            .collect();
        let ids: BTreeSet<&Digest> = images.iter().map(|i| &i.id).collect();
        let tags: Vec<String> =
            contents.tags.iter().filter(|(_, id)| ids.contains(id)).map(|(t, _)| t.clone()).collect();
        self.collect(&contents, &tags, &images)
    }

    /// Removes records in one commit, then what they named. Layers that running operations hold stay.
    fn collect(
        &self,
        contents: &Contents,
        tags: &[String],
        images: &[ImageRecord],
    ) -> Result<Removed, Error> {
        let gone: BTreeSet<&Digest> = images.iter().map(|i| &i.id).collect();
        let held = self.layers.held();
        let mut layers = held.ids.clone();
        let mut blobs: BTreeSet<Digest> = BTreeSet::new();
        for image in contents.images.values().filter(|i| !gone.contains(&i.id)) {
            layers.extend(image.diff_ids.iter().cloned());
            blobs.insert(image.id.clone());
            blobs.extend(image.manifest.iter().cloned());
        }
        blobs.extend(layers.iter().filter_map(|d| contents.layers.get(d)).map(|l| l.blob.clone()));
        let doomed_layers: Vec<Digest> =
            contents.layers.keys().filter(|d| !layers.contains(*d)).cloned().collect();
        let doomed_blobs: Vec<Digest> =
            contents.blobs.keys().filter(|d| !blobs.contains(*d)).cloned().collect();
        let ids: Vec<Digest> = gone.iter().map(|d| (*d).clone()).collect();
        self.metadata.remove(tags, &ids, &doomed_layers, &doomed_blobs)?;
        // Under the lock of `held` still: nobody can find the layer present between the record and the tree.
        for layer in &doomed_layers {
            self.layers.delete(layer)?;
        }
        for blob in &doomed_blobs {
            self.content.delete(blob)?;
        }
        drop(held);
        self.retain_chains();
        let size = |d: &Digest| contents.layers.get(d).map_or(0, |l| l.size);
        let stored = |d: &Digest| contents.blobs.get(d).copied().unwrap_or(0);
        Ok(Removed {
            untagged: tags.iter().map(|t| familiar(t)).collect(),
            deleted: ids.iter().chain(&doomed_layers).map(Digest::to_string).collect(),
            reclaimed: doomed_layers.iter().map(size).sum::<u64>()
                + doomed_blobs.iter().map(stored).sum::<u64>(),
        })
    }
}

/// A canonical reference without its tag and digest.
fn repository(canonical: &str) -> &str {
    let named = canonical.split_once('@').map_or(canonical, |(name, _)| name);
    match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => named,
    }
}

#[cfg(test)]
mod tests {
    use super::repository;

    #[test]
    fn a_digest_and_a_tag_of_one_repository_are_of_one_repository() {
        for reference in ["r:5000/a/b:1", "r:5000/a/b@sha256:00", "r:5000/a/b:1@sha256:00"] {
            assert_eq!(repository(reference), "r:5000/a/b");
        }
    }
}
