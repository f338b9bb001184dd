//! Removing references and images; what nothing refers to any more goes with them (see `store::gc`).

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::error::Error;
use crate::failpoint;
use crate::filter::Filters;
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
    /// Removes a reference, and the image with its last one. By id: all its references when they are of one repository, or with
    /// `force`. With the last tag of a repository its digests go, too.
    pub fn remove_image(&self, asked: &str, force: bool) -> Result<Removed, Error> {
        let _exclusive = self.exclusive();
        let mut image = self.find_image(asked)?;
        failpoint::pass("remove.begun");
        let all = self.metadata.tags_of(&image.id)?;
        let plan = plan(&all, &image, asked, force)?;
        let in_use = |users: &[String]| {
            // Containers' ids, as `ps` shows them.
            let keys = users.iter().map(|key| key.chars().take(12).collect()).collect();
            let (id, reference) = (image.id.short().to_owned(), plan.named.then(|| asked.to_owned()));
            Error::ImageInUse { image: id, reference, keys }
        };
        let users = self.snapshots.of_image(&image.id);
        if plan.last && !users.is_empty() && !force {
            return Err(in_use(&users));
        }
        let untagged = plan.untagged();
        if plan.last && users.is_empty() {
            let contents = self.metadata.contents()?;
            match self.collect(&contents, &all, std::slice::from_ref(&image), false)? {
                Outcome::Removed(removed) => return Ok(Removed { untagged, ..removed }),
                // A container came in between.
                Outcome::InUse(users) if !force => return Err(in_use(&users)),
                Outcome::InUse(_) => {}
            }
        }
        // Named otherwise, or unnamed for as long as containers are based on it.
        image.repo_digests.retain(|d| !plan.digests.contains(d));
        self.metadata.untag(&plan.tags, &image)?;
        failpoint::pass("remove.untagged");
        Ok(Removed { untagged, ..Removed::default() })
    }

    /// Removes images without a tag (with `all`: every one) that no snapshot uses.
    pub fn prune_images(&self, all: bool, filters: &Filters) -> Result<Removed, Error> {
        filters.only(&["until", "label", "label!", "dangling"])?;
        // docker's older way to say -a.
        let all = all || filters.flag("dangling")? == Some(false);
        let (labels, until) = (filters.clone(), filters.until()?);
        let _exclusive = self.exclusive();
        failpoint::pass("prune.begun");
        let contents = self.metadata.contents()?;
        let mut tags: BTreeMap<&Digest, Vec<String>> = BTreeMap::new();
        for (tag, id) in &contents.tags {
            tags.entry(id).or_default().push(tag.clone());
        }
        let tagged = |r: &ImageRecord| tags.get(&r.id).is_some_and(|t| t.iter().any(|t| !t.contains('@')));
        let images: Vec<ImageRecord> = contents
            .images
            .values()
            .filter(|r| all || !tagged(r))
            .filter(|r| until.is_none_or(|at| r.created_unix_ns < at) && labels.labels(&r.config.labels))
            .filter(|r| self.snapshots.of_image(&r.id).is_empty())
            .cloned()
            .collect();
        let mut gone = Vec::new();
        let mut untagged = Vec::new();
        for image in &images {
            let names = tags.get(&image.id).cloned().unwrap_or_default();
            let plan =
                Plan { digests: image.repo_digests.clone(), tags: names.clone(), last: true, named: false };
            untagged.extend(plan.untagged());
            gone.extend(names);
        }
        match self.collect(&contents, &gone, &images, true)? {
            Outcome::Removed(removed) => Ok(Removed { untagged, ..removed }),
            Outcome::InUse(_) => Ok(Removed::default()),
        }
    }
}

/// What a removal takes away.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Canonical.
    tags: Vec<String>,
    /// Digests of repositories that lose their last tag.
    digests: Vec<String>,
    /// No tag is left.
    last: bool,
    /// Asked for by a reference, not by an id.
    named: bool,
}

impl Plan {
    /// Familiar; each once.
    fn untagged(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.tags.iter().chain(&self.digests).filter(|t| seen.insert(*t)).map(|t| familiar(t)).collect()
    }
}

/// docker's rules. `all` are the image's canonical references, those by digest included.
fn plan(all: &[String], image: &ImageRecord, asked: &str, force: bool) -> Result<Plan, Error> {
    // A name that reads like an id is a name only when it is tagged so.
    let canonical = Reference::parse(asked).ok().map(|r| r.canonical());
    let known = |t: &String| all.contains(t) || image.repo_digests.contains(t);
    let Some(name) = canonical.filter(known) else {
        let repositories: BTreeSet<&str> = all.iter().map(|t| repository(t)).collect();
        if repositories.len() > 1 && !force {
            let references = all.iter().map(|t| familiar(t)).collect();
            return Err(Error::SeveralReferences { image: image.id.short().to_owned(), references });
        }
        let digests = image.repo_digests.clone();
        return Ok(Plan { tags: all.to_vec(), digests, last: true, named: false });
    };
    let of_repository = |t: &&String| repository(t) == repository(&name);
    let mut tags: Vec<String> = all.iter().filter(|t| **t == name).cloned().collect();
    let stays = |t: &&String| !t.contains('@') && **t != name;
    let mut digests: Vec<String> = image.repo_digests.iter().filter(|d| **d == name).cloned().collect();
    if !name.contains('@') && !all.iter().filter(of_repository).any(|t| stays(&t)) {
        tags.extend(all.iter().filter(of_repository).filter(|t| t.contains('@')).cloned());
        digests = image.repo_digests.iter().filter(of_repository).cloned().collect();
    }
    let by_digest = image.repo_digests.iter().chain(all.iter().filter(|t| t.contains('@')));
    let last = !all.iter().any(|t| stays(&t))
        && by_digest.into_iter().all(|d| digests.contains(d) || tags.contains(d));
    Ok(Plan { tags, digests, last, named: true })
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
