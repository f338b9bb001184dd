//! Images: finding, naming, listing, removing; and the ways in which they come (see [`intake`]).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Error;
use crate::failpoint;
use crate::layer::LayerHandle;
use crate::metadata::ImageRecord;
use crate::oci::{self, HistoryEntry, RunConfig};
use crate::reference::Reference;
use crate::snapshot::driver::Stack;
use crate::store::Store;

mod chain;
pub mod commit;
pub mod intake;
mod list;
mod nearest;
pub mod prepare;
mod pull;
pub mod push;
mod remove;
pub mod save;

use chain::chain_of;
pub use list::Summary;
pub use remove::Removed;

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
    /// How it runs.
    pub config: RunConfig,
    /// When it was last given a name; 0 when that is not known.
    pub tagged_unix_ns: i64,
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
        if let Some(id) = self.by_prefix(asked)?
            && let Some(image) = self.metadata.image(&id)?
        {
            return Ok(image);
        }
        let references: Vec<String> = self.metadata.tags()?.iter().map(|(t, _)| familiar(t)).collect();
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

    /// By the beginning of an id, or by a repository's digest.
    fn by_prefix(&self, asked: &str) -> Result<Option<Digest>, Error> {
        let prefix = asked.strip_prefix("sha256:").unwrap_or(asked);
        let hexadecimal = prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if prefix.is_empty() || prefix.len() > 64 || !hexadecimal {
            let pinned = Reference::parse(asked).ok().filter(|r| r.digest().is_some());
            return Ok(pinned.map(|r| self.metadata.by_repo_digest(&r.canonical())).transpose()?.flatten());
        }
        let mut found = self.metadata.ids_from(prefix)?;
        if found.len() > 1 {
            return Err(Error::AmbiguousId(asked.to_owned()));
        }
        Ok(found.pop())
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

    /// All about the image that `asked` names.
    pub fn inspect_image(&self, asked: &str) -> Result<Details, Error> {
        let record = self.find_image(asked)?;
        let tags = self.metadata.tags_of(&record.id)?;
        let mut layer_sizes: Vec<u64> = Vec::with_capacity(record.diff_ids.len());
        for diff_id in &record.diff_ids {
            layer_sizes.push(self.metadata.layer(diff_id)?.map_or(0, |l| l.size));
        }
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
        let tagged_unix_ns = self.metadata.tagged_unix_ns(&record.id)?;
        let summary = Summary {
            references: tags.iter().filter(|t| !t.contains('@')).map(|t| familiar(t)).collect(),
            digests: record.repo_digests.iter().map(|d| familiar(d)).collect(),
            created_unix_ns: record.created_unix_ns,
            size: layer_sizes.iter().sum(),
            platform: record.platform,
            labels: record.config.labels.clone(),
            diff_ids: record.diff_ids,
            containers: self.snapshots.counts().get(&record.id).copied().unwrap_or(0),
            id: record.id,
        };
        Ok(Details {
            summary,
            config: record.config,
            tagged_unix_ns,
            history,
            config_json,
            manifest_json: manifest_json.unwrap_or_default(),
        })
    }

    /// Gives an image a further name; answers it in familiar form.
    pub fn tag_image(&self, source: &str, target: &str) -> Result<String, Error> {
        let reference = Reference::parse(target)?;
        let _beside = self.beside_commits();
        let image = self.find_image(source)?;
        failpoint::pass("tag.found");
        let tags = vec![(reference.canonical(), image.id)];
        self.metadata.add(&crate::metadata::Addition { tags, ..Default::default() })?;
        failpoint::pass("tag.recorded");
        Ok(reference.familiar())
    }

    /// Keeps an image's layers, its config and its manifest for as long as the answer is held.
    pub(crate) fn lease(self: &Arc<Self>, image: &ImageRecord) -> Result<Vec<LayerHandle>, Error> {
        let gone = || Error::UnknownImage { asked: image.id.to_string(), nearest: Vec::new() };
        let hold = self.layers.hold(image).ok_or_else(gone)?;
        let mut handles = Vec::new();
        for diff_id in &image.diff_ids {
            match self.layers.present_for(&self.metadata, diff_id, Some(&hold))? {
                Some(handle) => handles.push(handle),
                None if self.layers.is_dying(&image.id) || self.metadata.image(&image.id)?.is_none() => {
                    return Err(gone());
                }
                None => {
                    let (image, layer) = (image.id.short().to_owned(), diff_id.short().to_owned());
                    return Err(Error::MissingLayer { image, layer });
                }
            }
        }
        Ok(handles)
    }
}

/// A stored tag as people write it. It was normalised when it was stored, so that taking docker.io's part off is enough.
pub(crate) fn familiar(canonical: &str) -> String {
    // Without parsing, which a long list would feel.
    let Some(rest) = canonical.strip_prefix("docker.io/") else { return canonical.to_owned() };
    let short = rest.strip_prefix("library/").filter(|r| !r.contains('/')).unwrap_or(rest);
    let (first, several) = short.split_once('/').map_or((short, false), |(first, _)| (first, true));
    let ambiguous =
        if several { first.contains(['.', ':']) || first == "localhost" } else { first.len() > 64 };
    if !ambiguous {
        return short.to_owned();
    }
    Reference::parse(canonical).map_or_else(|_| canonical.to_owned(), |r| r.familiar())
}

#[cfg(test)]
mod tests {
    use super::familiar;
    use crate::reference::Reference;

    #[test]
    fn stored_names_are_shown_as_the_grammar_has_it() {
        for text in [
            "a",
            "a:1",
            "team/a:1",
            "reg:5000/a/b:2",
            "localhost/a",
            "library/a/b:1",
            "docker.io/library/x:y",
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(familiar(&reference.canonical()), reference.familiar(), "{text}");
        }
    }
}
