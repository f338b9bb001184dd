//! `commit`: an image of what a container changed, on top of its own image.
//!
//! The changes become a layer's tar, which comes in like any other layer: kept, verified by its digests, unpacked, durable. Nothing
//! changed means no layer, only a config.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::change;
use crate::error::Error;
use crate::layer::LayerHandle;
use crate::oci::{self, HistoryEntry, ImageFile, RootFs, RunConfig};
use crate::progress::{Done, Phase, SharedSink};
use crate::snapshot::SnapshotError;
use crate::store::{LayerSource, NewImage, Store};
use crate::tree::changes::{Change, Image};
use crate::tree::{Process, Tree, TreeError};

use super::intake::{record_of, tags_of};

/// What is to become of a snapshot.
#[derive(Debug, Default)]
pub struct CommitOptions {
    /// A name, or none.
    pub reference: String,
    /// Dockerfile words.
    pub changes: Vec<String>,
    /// Who.
    pub author: String,
    /// For the history.
    pub message: String,
    /// What the container was run with; the image's own when unset.
    pub config: Option<RunConfig>,
    /// A process of the container while it runs.
    pub process: Option<Process>,
}

impl Store {
    /// The tree of a snapshot, without what a container has mounted in it.
    pub fn tree(self: &Arc<Self>, key: &str) -> Result<(Tree, Image), Error> {
        let prepared = self.prepared(key)?;
        let at = self.snapshots.path(key);
        let image = Image {
            layers: self.stack(&prepared.image)?.layers,
            namespace: self.namespace,
            made_before: Some(at.join("record.json")),
        };
        let tree = Tree {
            key: key.to_owned(),
            at,
            mounts: prepared.mounts,
            binds: Vec::new(),
            read_only: prepared.record.read_only,
            process: None,
        };
        Ok((tree, image))
    }

    /// What a snapshot changed in its image.
    pub fn changes(
        self: &Arc<Self>,
        key: &str,
        process: Option<Process>,
    ) -> Result<Vec<(Change, Vec<u8>)>, Error> {
        let (mut tree, image) = self.tree(key)?;
        tree.process = process;
        if tree.read_only {
            return Ok(Vec::new());
        }
        Ok(crate::tree::changes::changes(&tree, &image)?)
    }

    /// Makes an image of a snapshot's changes.
    #[tracing::instrument(skip_all, fields(snapshot.key = %key))]
    pub async fn commit_snapshot(
        self: &Arc<Self>,
        key: &str,
        options: CommitOptions,
        sink: &SharedSink,
    ) -> Result<Done, Error> {
        let tags = tags_of(&options.reference)?;
        let unknown = || SnapshotError::Unknown(key.to_owned());
        let snapshot = self.snapshots.get(key).ok_or_else(unknown)?;
        let base =
            self.metadata.image(&snapshot.image_id)?.ok_or_else(|| SnapshotError::NoImage(key.to_owned()))?;
        let mut config = options.config.unwrap_or_else(|| base.config.clone());
        let created_by = config.cmd.join(" ");
        change::apply_all(&mut config, &options.changes)?;
        let mut layers = self.lease(&base)?;
        let (mut tree, image) = self.tree(key)?;
        tree.process = options.process;
        if tree.read_only {
            return Err(TreeError::View(key.to_owned()).into());
        }
        let (layer, members) = self.bring_in_changes(tree, image, sink).await?;
        let created = oci::now_rfc3339();
        let mut diff_ids = base.diff_ids.clone();
        if members > 0 {
            diff_ids.push(layer.record().diff_id.clone());
            layers.push(layer);
        }
        let mut history = base.history.clone();
        history.push(HistoryEntry {
            created: created.clone(),
            created_by,
            comment: options.message,
            empty_layer: members == 0,
        });
        let file = ImageFile {
            created,
            author: options.author,
            platform: base.platform.clone(),
            config,
            rootfs: RootFs { kind: "layers".into(), diff_ids },
            history,
        };
        let bytes = serde_json::to_vec(&file).expect("a config of strings is JSON");
        let record = record_of(&bytes, &file);
        let blobs = vec![self.content.stage_bytes(&bytes)?];
        let mut done = self.finish(vec![NewImage { record, layers, blobs, tags }], sink).await?;
        done.pop().ok_or(Error::Cancelled)
    }

    async fn bring_in_changes(
        self: &Arc<Self>,
        tree: Tree,
        image: Image,
        sink: &SharedSink,
    ) -> Result<(LayerHandle, u64), Error> {
        let members = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&members);
        let write = move |out: crate::tree::Chunks| {
            count.store(crate::tree::write_layer(&tree, &image, out)?, Ordering::Release);
            Ok::<(), TreeError>(())
        };
        let open = move || {
            let stream = crate::tree::piped(write).map_err(TreeError::Write)?;
            Ok(Box::new(stream) as Box<dyn Read + Send>)
        };
        let source = LayerSource {
            diff_id: None,
            blob: None,
            open: Box::new(open),
            again: None,
            phase: Phase::Unpacking,
            label: "changes".into(),
            whiteouts: true,
        };
        let layer = self.bring_in(source, Arc::clone(sink)).await?;
        Ok((layer, members.load(Ordering::Acquire)))
    }
}
