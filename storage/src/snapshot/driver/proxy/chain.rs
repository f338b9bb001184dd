//! Building an image's chain of committed snapshots at the snapshotter.

use std::os::fd::AsFd;
use std::path::Path;

use davit_contracts::Kind;
use davit_contracts::containerd::snapshots::Kind as SnapshotKind;

use super::{Proxy, ProxyError, described};
use crate::copytree::{Source, copy_open_tree};
use crate::snapshot::driver::{Link, Stack};
use crate::snapshot::mounted::with_tree;

impl Proxy {
    /// Makes sure that the whole chain of a stack is there; answers the topmost one's name, "" for an empty stack.
    pub(super) fn ensure(&self, stack: &Stack) -> Result<String, ProxyError> {
        let Some(top) = stack.chain.first() else { return Ok(String::new()) };
        if self.committed(&top.id)? {
            return Ok(top.id.clone());
        }
        let building = self.building.lock().expect("no one panics while building a chain");
        let mut missing = Vec::new();
        let mut parent = String::new();
        for link in &stack.chain {
            if self.committed(&link.id)? {
                parent.clone_from(&link.id);
                break;
            }
            missing.push(link);
        }
        for link in missing.into_iter().rev() {
            self.apply(link, &parent)?;
            parent.clone_from(&link.id);
        }
        drop(building);
        Ok(parent)
    }

    fn committed(&self, id: &str) -> Result<bool, ProxyError> {
        let info = self.remote.call(|c| async move { c.stat(id).await })?;
        Ok(info.is_some_and(|i| i.kind() == SnapshotKind::Committed))
    }

    /// One layer over its parent. Killed anywhere, it leaves an active snapshot that `retain` finds by its label.
    fn apply(&self, link: &Link, parent: &str) -> Result<(), ProxyError> {
        let key = self.fresh_key("layer");
        let done = self.apply_as(&key, link, parent);
        // Gone already when it was committed.
        let removed = self.remote.remove(&key);
        done?;
        Ok(removed?)
    }

    fn apply_as(&self, key: &str, link: &Link, parent: &str) -> Result<(), ProxyError> {
        let mounts = self.remote.call(|c| {
            let labels = self.labels();
            async move {
                match c.prepare(key, parent, labels).await {
                    // An earlier attempt of this call whose answer was lost.
                    Err(e) if e.kind() == Kind::AlreadyExists => c.mounts(key).await,
                    other => other,
                }
            }
        })?;
        let copied = with_tree(&described(mounts), &self.state.join("proxy-mount"), |root| {
            let layer = davit_sys::beneath::open_root(&link.layer).map_err(|e| e.source)?;
            copy_open_tree(layer.as_fd(), root, Source::Layer(self.namespace))?;
            Ok(rustix::fs::syncfs(root)?)
        });
        copied.map_err(|e| ProxyError::Apply { layer: short(&link.layer), source: Box::new(e) })?;
        let committed = self.remote.call(|c| {
            let labels = self.labels();
            async move { c.commit(&link.id, key, labels).await }
        });
        match committed {
            // By somebody else, or by an earlier attempt of this call: what is there is the same by its name.
            Err(e) if e.kind() == Kind::AlreadyExists => Ok(()),
            Err(e) if e.kind() == Kind::NotFound && self.committed(&link.id)? => Ok(()),
            other => Ok(other?),
        }
    }
}

fn short(layer: &Path) -> String {
    layer.file_name().unwrap_or_default().to_string_lossy().chars().take(12).collect()
}
