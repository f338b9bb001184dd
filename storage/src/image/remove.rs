//! Removing references and images; what nothing refers to any more goes with them (see `store::gc`).

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::error::Error;
use crate::failpoint;
use crate::image::familiar;
use crate::metadata::ImageRecord;
use crate::reference::Reference;
use crate::store::{Outcome, Store};

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
        failpoint::pass("remove.begun");
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
                return Err(in_use(asked, &users));
            }
            return self.untag(&tags);
        }
        let (all_tags, images) = if last { (all, vec![image]) } else { (tags.clone(), Vec::new()) };
        match self.collect(&contents, &all_tags, &images, false)? {
            Outcome::Removed(removed) => Ok(removed),
            // A container came in between.
            Outcome::InUse(_) if force => self.untag(&tags),
            Outcome::InUse(users) => Err(in_use(asked, &users)),
        }
    }

    /// Takes names away from an image that stays, for as long as containers are based on it.
    fn untag(&self, tags: &[String]) -> Result<Removed, Error> {
        self.metadata.remove(tags, &[], &[], &[])?;
        failpoint::pass("remove.untagged");
        Ok(Removed { untagged: tags.iter().map(|t| familiar(t)).collect(), ..Removed::default() })
    }

    /// Removes images without a name (with `all`: every one that no snapshot uses).
    pub fn prune_images(&self, all: bool, filters: &BTreeMap<String, String>) -> Result<Removed, Error> {
        let candidates = self.list_images(filters)?;
        let _exclusive = self.exclusive();
        failpoint::pass("prune.begun");
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
        match self.collect(&contents, &tags, &images, true)? {
            Outcome::Removed(removed) => Ok(removed),
            Outcome::InUse(_) => Ok(Removed::default()),
        }
    }
}

/// Names the containers by their ids, as `ps` shows them.
fn in_use(asked: &str, users: &[String]) -> Error {
    let keys = users.iter().map(|key| key.chars().take(12).collect()).collect();
    Error::ImageInUse { image: familiar(asked), keys }
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
