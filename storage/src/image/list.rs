//! Lists of images: from the short rows of the database, never from whole records.

use std::collections::{BTreeMap, HashMap};

use super::familiar;
use crate::digest::Digest;
use crate::error::Error;
use crate::filter::{Filters, glob};
use crate::metadata::SummaryRow;
use crate::oci::Platform;
use crate::store::Store;

/// An image with what a person wants to know about it.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The config's digest.
    pub id: Digest,
    /// Familiar references, sorted.
    pub references: Vec<String>,
    /// "repository@digest", in familiar form.
    pub digests: Vec<String>,
    /// When it was made.
    pub created_unix_ns: i64,
    /// Bytes of all layers.
    pub size: u64,
    /// For what.
    pub platform: Platform,
    /// Of its config.
    pub labels: BTreeMap<String, String>,
    /// Bottom first; empty in a list.
    pub diff_ids: Vec<Digest>,
    /// Snapshots based on it.
    pub containers: u32,
}

/// What `ls` filters by.
const LISTED: [&str; 6] = ["reference", "label", "before", "since", "until", "dangling"];

impl Store {
    /// Images that match all filters, newest first. `short`: without labels, platform, and digests of repositories that are
    /// among the references.
    pub fn list_images(&self, filters: &Filters, short: bool) -> Result<Vec<Summary>, Error> {
        filters.only(&[&LISTED[..], &["label!"]].concat())?;
        let mut names: HashMap<Digest, Vec<String>> = HashMap::new();
        for (tag, id) in self.metadata.tags()? {
            if !tag.contains('@') {
                names.entry(id).or_default().push(familiar(&tag));
            }
        }
        let counts = self.snapshots.counts();
        let by_label = ["label", "label!"].iter().any(|key| filters.values(key).next().is_some());
        let mut all: Vec<Summary> = self
            .metadata
            .summaries(short && !by_label)?
            .into_iter()
            .map(|row| {
                let mut references = names.remove(&row.id).unwrap_or_default();
                references.sort_unstable();
                Summary::of(row, references, &counts)
            })
            .collect();
        self.filter(&mut all, filters)?;
        if short {
            for summary in &mut all {
                let references = std::mem::take(&mut summary.references);
                let named = |repository: &str| references.iter().any(|r| repository_of(r) == repository);
                summary.digests.retain(|d| !named(repository_of(d)));
                summary.references = references;
                summary.labels.clear();
            }
        }
        all.sort_by(|a, b| {
            b.created_unix_ns.cmp(&a.created_unix_ns).then_with(|| a.references.cmp(&b.references))
        });
        Ok(all)
    }

    fn filter(&self, all: &mut Vec<Summary>, filters: &Filters) -> Result<(), Error> {
        let mut before = filters.until()?;
        for name in filters.values("before") {
            let at = self.find_image(name)?.created_unix_ns;
            before = Some(before.map_or(at, |b| b.min(at)));
        }
        let mut since: Option<i64> = None;
        for name in filters.values("since") {
            let at = self.find_image(name)?.created_unix_ns;
            since = Some(since.map_or(at, |s| s.max(at)));
        }
        all.retain(|s| {
            before.is_none_or(|at| s.created_unix_ns < at)
                && since.is_none_or(|at| s.created_unix_ns > at)
                && filters.labels(&s.labels)
        });
        if let Some(wanted) = filters.flag("dangling")? {
            all.retain(|s| s.references.is_empty() == wanted);
        }
        if filters.values("reference").next().is_some() {
            // An image's other names were not asked for.
            let named = |r: &String| filters.any("reference", |pattern| matches(pattern, r));
            all.retain_mut(|s| {
                s.references.retain(named);
                s.digests.retain(named);
                !s.references.is_empty() || !s.digests.is_empty()
            });
        }
        Ok(())
    }
}

/// docker's rule: the whole reference or its repository.
fn matches(pattern: &str, reference: &str) -> bool {
    glob(pattern, reference) || glob(pattern, repository_of(reference))
}

/// A reference without its tag and digest.
fn repository_of(reference: &str) -> &str {
    let named = reference.split_once('@').map_or(reference, |(name, _)| name);
    match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => named,
    }
}

impl Summary {
    fn of(row: SummaryRow, references: Vec<String>, counts: &HashMap<Digest, u32>) -> Self {
        Self {
            references,
            digests: row.repo_digests.iter().map(|d| familiar(d)).collect(),
            created_unix_ns: row.created_unix_ns,
            size: row.size,
            platform: row.platform,
            labels: row.labels,
            diff_ids: Vec::new(),
            containers: counts.get(&row.id).copied().unwrap_or(0),
            id: row.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_pattern_names_a_reference_or_a_repository() {
        for (pattern, reference) in [
            ("alpine", "alpine:3"),
            ("alp*", "alpine:3"),
            ("reg:5000/*", "reg:5000/a:1"),
            ("*:3", "alpine:3"),
            ("alpine", "alpine@sha256:00"),
        ] {
            assert!(matches(pattern, reference), "{pattern} {reference}");
        }
        assert!(!matches("alp", "alpine:3") && !matches("*", "a/b:1"));
    }
}
