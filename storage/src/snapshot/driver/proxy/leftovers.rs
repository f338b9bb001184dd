//! What is ours at the snapshotter and has no use any more: chains of removed images, and what a crash left.

use std::collections::BTreeSet;
use std::path::PathBuf;

use davit_contracts::Kind;
use davit_contracts::containerd::snapshots::{Info, Kind as SnapshotKind};

use super::{INSTANCE, Proxy, ProxyError};

impl Proxy {
    /// Removes committed snapshots of ours that no image needs, and keys of earlier lives that none of the directories names: what we
    /// asked for may have been made after we were killed, and after our next life had looked. What another one's snapshots are based on
    /// stays.
    pub(super) fn give_up(&self, chains: &BTreeSet<String>, dirs: &[PathBuf]) -> Result<(), ProxyError> {
        let _building = self.building.lock().expect("no one panics while building a chain");
        let filter = [format!("labels.\"{INSTANCE}\"=={}", self.instance)];
        let filter = &filter;
        let all = self.remote.call(|c| async move { c.list(filter).await })?;
        // A snapshotter that does not know filters answers everything.
        let ours = all.into_iter().filter(|i| i.labels.get(INSTANCE) == Some(&self.instance));
        let (committed, keys): (Vec<_>, Vec<_>) = ours.partition(|i| i.kind() == SnapshotKind::Committed);
        self.give_up_keys(&keys, dirs)?;
        let doomed: Vec<_> = committed.into_iter().filter(|i| !chains.contains(&i.name)).collect();
        for info in children_first(doomed) {
            match self.remote.remove(&info.name) {
                Err(e) if matches!(e.kind(), Kind::WrongState | Kind::InUse) => {
                    tracing::debug!(snapshot = info.name, "still has children at the snapshotter");
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn give_up_keys(&self, keys: &[Info], dirs: &[PathBuf]) -> Result<(), ProxyError> {
        let mut named = BTreeSet::new();
        for dir in dirs {
            named.extend(self.of(dir)?.map(|(_, key)| key));
        }
        let of_now = |key: &str| key.rsplit('-').nth(1) == Some(self.life.as_str());
        for info in keys.iter().filter(|i| !named.contains(&i.name) && !of_now(&i.name)) {
            tracing::info!(snapshot = info.name, "removed what a crash had left at the snapshotter");
            self.remote.remove(&info.name)?;
        }
        Ok(())
    }
}

/// In an order in which each comes before its parent.
fn children_first(mut infos: Vec<Info>) -> Vec<Info> {
    let mut ordered = Vec::with_capacity(infos.len());
    while !infos.is_empty() {
        let parents: BTreeSet<String> = infos.iter().map(|i| i.parent.clone()).collect();
        let (inner, leaves): (Vec<_>, Vec<_>) = infos.into_iter().partition(|i| parents.contains(&i.name));
        if leaves.is_empty() {
            // A cycle: whoever answers this lies, and refuses or not.
            ordered.extend(inner);
            break;
        }
        ordered.extend(leaves);
        infos = inner;
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, parent: &str) -> Info {
        Info { name: name.into(), parent: parent.into(), ..Info::default() }
    }

    #[test]
    fn children_come_before_their_parents_and_a_cycle_ends() {
        let all = vec![info("a", ""), info("b", "a"), info("c", "b"), info("d", "a")];
        let order: Vec<_> = children_first(all).into_iter().map(|i| i.name).collect();
        let place = |n: &str| order.iter().position(|o| o == n).unwrap();
        assert!(place("c") < place("b") && place("b") < place("a") && place("d") < place("a"));
        assert_eq!(children_first(vec![info("x", "y"), info("y", "x")]).len(), 2);
    }
}
