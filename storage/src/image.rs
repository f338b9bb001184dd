//! Images: finding, naming, listing, removing; and the ways in which they come (see [`intake`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::LayerHandle;
use crate::metadata::{Contents, ImageRecord};
use crate::oci::{self, HistoryEntry};
use crate::reference::Reference;
use crate::snapshot::driver::Stack;
use crate::store::Store;

mod chain;
pub mod intake;
mod nearest;
pub mod prepare;
mod remove;

use chain::chain_of;
pub use remove::Removed;

/// An image with what a person wants to know about it.
#[derive(Debug, Clone)]
pub struct Summary {
    /// As stored.
    pub record: ImageRecord,
    /// Familiar references, sorted.
    pub references: Vec<String>,
    /// Bytes of all layers.
    pub size: u64,
    /// Snapshots based on it.
    pub containers: u32,
}

/// One line of a history, with the size of the layer that it made.
#[derive(Debug, Clone)]
pub struct HistoryLine {
    /// As stored.
    pub entry: HistoryEntry,
    /// Of its layer; 0 for an empty one.
    pub size: u64,
}

/// All about one image.
#[derive(Debug)]
pub struct Details {
    /// The usual.
    pub summary: Summary,
    /// Newest first.
    pub history: Vec<HistoryLine>,
    /// The config as stored.
    pub config_json: String,
    /// The manifest as stored; empty without one.
    pub manifest_json: String,
}

impl Store {
    /// The image that a reference, an id or an unambiguous prefix of an id names.
    pub fn find_image(&self, asked: &str) -> Result<ImageRecord, Error> {
        if let Some(id) = self.resolve(asked)?
            && let Some(image) = self.metadata.image(&id)?
        {
            return Ok(image);
        }
        let contents = self.metadata.contents()?;
        if let Some(image) = by_prefix(&contents, asked)? {
            return Ok(image);
        }
        let references: Vec<String> = contents.tags.keys().map(|t| familiar(t)).collect();
        Err(Error::UnknownImage { asked: asked.to_owned(), nearest: nearest::nearest(asked, &references) })
    }

    /// By full id or by reference, without reading every record.
    fn resolve(&self, asked: &str) -> Result<Option<Digest>, Error> {
        let id = Digest::parse(asked).or_else(|_| Digest::from_hex(asked));
        if let Ok(id) = id {
            return Ok(Some(id));
        }
        match Reference::parse(asked) {
            Ok(reference) => Ok(self.metadata.tag(&reference.canonical())?),
            // It may still be the beginning of an id; if not, it is reported as unknown.
            Err(_) => Ok(None),
        }
    }

    /// The directories of an image's layers, topmost first.
    pub fn stack(&self, image: &ImageRecord) -> Result<Stack, Error> {
        let mut layers = Vec::with_capacity(image.diff_ids.len());
        let mut seen = BTreeSet::new();
        // How many layers are hidden by one above them.
        let mut below = image.diff_ids.len();
        for diff_id in image.diff_ids.iter().rev() {
            below -= 1;
            // overlayfs refuses a directory twice; the upper of two equal layers decides in all it names.
            if seen.insert(diff_id) {
                layers.push(self.layers.path(diff_id));
            }
            if self.metadata.layer(diff_id)?.is_some_and(|l| l.opaque_root) {
                break;
            }
        }
        let mut chain = chain_of(&image.diff_ids, |d| self.layers.path(d));
        chain.truncate(image.diff_ids.len() - below);
        Ok(Stack { layers, chain })
    }

    /// The chain ids of all layers of all images.
    pub fn chains(&self) -> Result<BTreeSet<String>, Error> {
        let contents = self.metadata.contents()?;
        let of_image = |i: &ImageRecord| chain_of(&i.diff_ids, |_| PathBuf::new());
        Ok(contents.images.values().flat_map(of_image).map(|l| l.id).collect())
    }

    /// Images that match all filters, newest first.
    pub fn list_images(&self, filters: &BTreeMap<String, String>) -> Result<Vec<Summary>, Error> {
        let contents = self.metadata.contents()?;
        let mut names: BTreeMap<&Digest, Vec<String>> = BTreeMap::new();
        for (tag, id) in &contents.tags {
            if !tag.contains('@') {
                names.entry(id).or_default().push(familiar(tag));
            }
        }
        let counts = self.snapshots.counts();
        let mut all: Vec<Summary> = contents
            .images
            .values()
            .map(|record| Summary {
                references: names.get(&record.id).cloned().unwrap_or_default(),
                size: size_of(record, &contents),
                containers: counts.get(&record.id).copied().unwrap_or(0),
                record: record.clone(),
            })
            .collect();
        for (key, value) in filters {
            self.filter(&mut all, key, value)?;
        }
        all.sort_by(|a, b| {
            b.record
                .created_unix_ns
                .cmp(&a.record.created_unix_ns)
                .then_with(|| a.references.cmp(&b.references))
        });
        Ok(all)
    }

    fn filter(&self, all: &mut Vec<Summary>, key: &str, value: &str) -> Result<(), Error> {
        match key {
            "reference" => {
                let tagless = |r: &str| r.rsplit_once(':').map_or(r.to_owned(), |(name, _)| name.to_owned());
                // An image's other names were not asked for.
                all.retain_mut(|s| {
                    s.references.retain(|r| glob(value, r) || glob(value, &tagless(r)));
                    !s.references.is_empty()
                });
            }
            "label" => {
                let (name, wanted) = value.split_once('=').map_or((value, None), |(n, v)| (n, Some(v)));
                let fits = |s: &Summary| {
                    s.record.config.labels.get(name).is_some_and(|v| wanted.is_none_or(|w| w == v))
                };
                all.retain(fits);
            }
            "dangling" => {
                let wanted = matches!(value, "true" | "1");
                all.retain(|s| s.references.is_empty() == wanted);
            }
            "before" | "since" => {
                let at = self.find_image(value)?.created_unix_ns;
                all.retain(|s| {
                    if key == "before" {
                        s.record.created_unix_ns < at
                    } else {
                        s.record.created_unix_ns > at
                    }
                });
            }
            other => return Err(Error::UnknownFilter(other.to_owned())),
        }
        Ok(())
    }

    /// All about the image that `asked` names.
    pub fn inspect_image(&self, asked: &str) -> Result<Details, Error> {
        let record = self.find_image(asked)?;
        let contents = self.metadata.contents()?;
        let references = references_of(&contents, &record.id);
        let layer_sizes: Vec<u64> =
            record.diff_ids.iter().map(|d| contents.layers.get(d).map_or(0, |l| l.size)).collect();
        let mut sizes = layer_sizes.iter();
        let mut history: Vec<HistoryLine> = record
            .history
            .iter()
            .map(|entry| {
                let size = if entry.empty_layer { 0 } else { sizes.next().copied().unwrap_or(0) };
                HistoryLine { entry: entry.clone(), size }
            })
            .collect();
        // Layers that the history does not mention.
        history.extend(sizes.map(|size| HistoryLine { entry: HistoryEntry::default(), size: *size }));
        history.reverse();
        let text = |digest: &Digest, limit| -> Result<String, Error> {
            Ok(String::from_utf8_lossy(&self.content.read(digest, limit)?).into_owned())
        };
        let config_json = text(&record.id, oci::MAX_CONFIG)?;
        let manifest_json = record.manifest.as_ref().map(|m| text(m, oci::MAX_MANIFEST)).transpose()?;
        let summary = Summary {
            references,
            size: layer_sizes.iter().sum(),
            containers: self.snapshots.counts().get(&record.id).copied().unwrap_or(0),
            record,
        };
        Ok(Details { summary, history, config_json, manifest_json: manifest_json.unwrap_or_default() })
    }

    /// Gives an image a further name; answers it in familiar form.
    pub fn tag_image(&self, source: &str, target: &str) -> Result<String, Error> {
        let reference = Reference::parse(target)?;
        let _exclusive = self.exclusive();
        let image = self.find_image(source)?;
        let tags = vec![(reference.canonical(), image.id)];
        self.metadata.add(&crate::metadata::Addition { tags, ..Default::default() })?;
        Ok(reference.familiar())
    }

    /// Keeps an image's layers while `work` uses them.
    pub(crate) fn lease(self: &Arc<Self>, image: &ImageRecord) -> Result<Vec<LayerHandle>, Error> {
        let mut handles = Vec::new();
        for diff_id in &image.diff_ids {
            let gone = || Error::UnknownImage { asked: image.id.to_string(), nearest: Vec::new() };
            handles.push(self.layers.present(&self.metadata, diff_id)?.ok_or_else(gone)?);
        }
        Ok(handles)
    }
}

fn size_of(record: &ImageRecord, contents: &Contents) -> u64 {
    record.diff_ids.iter().filter_map(|d| contents.layers.get(d)).map(|l| l.size).sum()
}

/// Familiar references of an image, sorted.
fn references_of(contents: &Contents, id: &Digest) -> Vec<String> {
    contents.tags.iter().filter(|(t, i)| *i == id && !t.contains('@')).map(|(t, _)| familiar(t)).collect()
}

/// A stored tag as people write it.
pub(crate) fn familiar(canonical: &str) -> String {
    Reference::parse(canonical).map_or_else(|_| canonical.to_owned(), |r| r.familiar())
}

fn by_prefix(contents: &Contents, asked: &str) -> Result<Option<ImageRecord>, Error> {
    let prefix = asked.strip_prefix("sha256:").unwrap_or(asked);
    if prefix.is_empty()
        || prefix.len() > 64
        || !prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(by_repo_digest(contents, asked));
    }
    let mut found = contents.images.values().filter(|i| i.id.hex().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(Error::AmbiguousId(asked.to_owned())),
        (found, _) => Ok(found.cloned()),
    }
}

fn by_repo_digest(contents: &Contents, asked: &str) -> Option<ImageRecord> {
    let wanted = Reference::parse(asked).ok().filter(|r| r.digest().is_some())?.canonical();
    contents.images.values().find(|i| i.repo_digests.contains(&wanted)).cloned()
}

/// `*` and `?` as in a shell; `*` does not match a slash.
fn glob(pattern: &str, text: &str) -> bool {
    fn matches(p: &[u8], t: &[u8]) -> bool {
        match (p.split_first(), t.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if matches(rest, t) => true,
            (Some((b'*', _)), Some((c, t))) => *c != b'/' && matches(p, t),
            (Some((b'?', p)), Some((c, t))) => *c != b'/' && matches(p, t),
            (Some((a, p)), Some((b, t))) => a == b && matches(p, t),
            _ => false,
        }
    }
    // Several stars over a long text would take exponential time.
    pattern.matches('*').count() <= 4 && matches(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_match_as_in_a_shell() {
        assert!(
            glob("alp*", "alpine")
                && glob("*:3", "alpine:3")
                && glob("a?c", "abc")
                && glob("alpine", "alpine")
        );
        assert!(!glob("a*", "a/b") && !glob("alp", "alpine") && !glob("*****", "x"));
    }
}
