//! The commit of images: names for layers and blobs, one flush, one transaction.
//!
//! ```text
//! published (renamed) --syncfs--> on the disk --redb commit--> recorded, acknowledged
//! ```
//!
//! Commits run beside one another. The flush is what costs: whoever finds none under way flushes and records for all that wait
//! (a *batch*), and those that come meanwhile make the next batch. If a batch fails, each of its commits is tried alone, so
//! that nobody fails for another's sake.
//!
//! A name is taken back when its commit fails, unless another commit under way counts on it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};

use super::{NewImage, Store};
use crate::content::StagedBlob;
use crate::error::Error;
use crate::failpoint;
use crate::layer::{LayerHandle, ReadyLayer};
use crate::metadata::Addition;

/// Commits under way.
#[derive(Default)]
pub(super) struct Durable {
    batches: Mutex<Batches>,
    turn: Condvar,
    /// How many commits count on a name that may have no record yet.
    names: Mutex<HashMap<PathBuf, usize>>,
}

#[derive(Default)]
struct Batches {
    next: u64,
    waiting: Vec<(u64, Addition)>,
    done: HashMap<u64, Result<(), Error>>,
    busy: bool,
}

impl Durable {
    fn lock(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().expect("no one panics with the batches locked")
    }

    /// Has `write` called with this addition, alone or with others, and answers how it went.
    fn share(&self, addition: Addition, write: impl Fn(&Addition) -> Result<(), Error>) -> Result<(), Error> {
        let mut batches = self.lock();
        let me = batches.next;
        batches.next += 1;
        batches.waiting.push((me, addition));
        loop {
            if let Some(result) = batches.done.remove(&me) {
                return result;
            }
            if batches.busy {
                batches = self.turn.wait(batches).expect("no one panics with the batches locked");
                continue;
            }
            batches.busy = true;
            let batch = std::mem::take(&mut batches.waiting);
            drop(batches);
            let results = write_batch(batch, &write);
            batches = self.lock();
            batches.busy = false;
            batches.done.extend(results);
            self.turn.notify_all();
        }
    }
}

fn write_batch(
    batch: Vec<(u64, Addition)>,
    write: impl Fn(&Addition) -> Result<(), Error>,
) -> Vec<(u64, Result<(), Error>)> {
    if let [(_, _), _, ..] = batch.as_slice() {
        let mut all = Addition::default();
        for (_, addition) in &batch {
            all.images.extend(addition.images.iter().cloned());
            all.layers.extend(addition.layers.iter().cloned());
            all.blobs.extend(addition.blobs.iter().cloned());
            all.tags.extend(addition.tags.iter().cloned());
        }
        match write(&all) {
            Ok(()) => return batch.into_iter().map(|(n, _)| (n, Ok(()))).collect(),
            Err(e) => {
                tracing::debug!(error = %e, commits = batch.len(), "a batch failed: each is tried alone");
            }
        }
    }
    batch.into_iter().map(|(n, addition)| (n, write(&addition))).collect()
}

/// What a commit gave a name, or found named.
enum Named<'a> {
    Layer(&'a ReadyLayer),
    Blob(&'a StagedBlob),
}

impl Store {
    /// Makes images durable and visible, all or none. Blocks on the disk.
    pub fn commit(&self, images: &[NewImage]) -> Result<(), Error> {
        let _span = tracing::info_span!("commit", images = images.len()).entered();
        let beside = self.beside_commits();
        failpoint::pass("commit.begun");
        let mut named = Vec::new();
        let committed = self.publish(images, &mut named).and_then(|addition| {
            failpoint::pass("commit.published");
            self.durable.share(addition, |all| self.record(all))
        });
        if committed.is_ok() {
            failpoint::pass("commit.recorded");
        }
        self.settle(&named, committed.is_ok());
        drop(beside);
        failpoint::pass("commit.done");
        committed
    }

    fn record(&self, all: &Addition) -> Result<(), Error> {
        let started = std::time::Instant::now();
        self.layers.sync()?;
        let synced = started.elapsed();
        failpoint::pass("commit.synced");
        self.metadata.add(all)?;
        tracing::debug!(
            sync_ms = synced.as_millis(),
            total_ms = started.elapsed().as_millis(),
            images = all.images.len(),
            "durable"
        );
        Ok(())
    }

    fn publish<'a>(&self, images: &'a [NewImage], named: &mut Vec<Named<'a>>) -> Result<Addition, Error> {
        let mut addition = Addition::default();
        for image in images {
            for layer in &image.layers {
                if let LayerHandle::Ready(ready) = layer {
                    self.publish_layer(ready, named, &mut addition)?;
                    failpoint::pass("commit.layer");
                }
            }
            for blob in &image.blobs {
                self.publish_blob(blob, named, &mut addition)?;
            }
            addition.images.push(image.record.clone());
            addition.tags.extend(image.tags.iter().map(|t| (t.clone(), image.record.id.clone())));
        }
        Ok(addition)
    }

    fn publish_layer<'a>(
        &self,
        ready: &'a ReadyLayer,
        named: &mut Vec<Named<'a>>,
        addition: &mut Addition,
    ) -> Result<(), Error> {
        let path = self.layers.path(&ready.record.diff_id);
        let mut names = self.names();
        // Committed meanwhile, perhaps with another blob: then that one stays.
        if path.exists() && self.metadata.layer(&ready.record.diff_id)?.is_some() {
            return Ok(());
        }
        self.layers.publish(ready)?;
        *names.entry(path).or_default() += 1;
        named.push(Named::Layer(ready));
        drop(names);
        addition.layers.push(ready.record.clone());
        ready.blob.iter().try_for_each(|blob| self.publish_blob(blob, named, addition))
    }

    fn publish_blob<'a>(
        &self,
        blob: &'a StagedBlob,
        named: &mut Vec<Named<'a>>,
        addition: &mut Addition,
    ) -> Result<(), Error> {
        let mut names = self.names();
        self.content.publish(blob)?;
        *names.entry(self.content.path(&blob.digest)).or_default() += 1;
        named.push(Named::Blob(blob));
        drop(names);
        addition.blobs.push((blob.digest.clone(), blob.size));
        failpoint::pass("commit.blob");
        Ok(())
    }

    fn names(&self) -> MutexGuard<'_, HashMap<PathBuf, usize>> {
        self.durable.names.lock().expect("no one panics with the names locked")
    }

    /// Ends a commit's counting on its names; after a failure those that nobody counts on are taken back.
    fn settle(&self, named: &[Named<'_>], committed: bool) {
        let mut names = self.names();
        for name in named {
            let path = match name {
                Named::Layer(ready) => self.layers.path(&ready.record.diff_id),
                Named::Blob(blob) => self.content.path(&blob.digest),
            };
            let last = names.get_mut(&path).is_none_or(|count| {
                *count -= 1;
                *count == 0
            });
            if last {
                names.remove(&path);
            }
            if !last || committed {
                continue;
            }
            let taken_back = match name {
                Named::Layer(ready) => match self.metadata.layer(&ready.record.diff_id) {
                    Ok(None) => self.layers.unpublish(ready),
                    _ => Ok(()),
                },
                Named::Blob(blob) => match self.metadata.blob(&blob.digest) {
                    Ok(None) => self.content.unpublish(blob),
                    _ => Ok(()),
                },
            };
            if let Err(e) = taken_back {
                tracing::warn!(error = %e, "a failed commit leaves this until the next collection");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::digest::Digest;
    use crate::failure::PathError;

    fn addition(n: u64) -> Addition {
        Addition { blobs: vec![(Digest::of(&n.to_le_bytes()), n)], ..Addition::default() }
    }

    fn full() -> Error {
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        PathError { operation: "write", path: "/x".into(), source }.into()
    }

    #[test]
    fn those_that_wait_share_one_flush_and_fail_for_themselves() {
        let durable = Arc::new(Durable::default());
        let writes = Arc::new(AtomicUsize::new(0));
        let (begun, wait_begun) = std::sync::mpsc::channel();
        let (release, wait_release) = std::sync::mpsc::channel::<()>();
        let first = {
            let durable = Arc::clone(&durable);
            std::thread::spawn(move || {
                durable.share(addition(0), |_| {
                    begun.send(()).unwrap();
                    wait_release.recv().unwrap();
                    Ok(())
                })
            })
        };
        wait_begun.recv().unwrap();
        let rest: Vec<_> = (1..=5)
            .map(|n| {
                let (durable, writes) = (Arc::clone(&durable), Arc::clone(&writes));
                std::thread::spawn(move || {
                    durable.share(addition(n), |all| {
                        writes.fetch_add(1, Ordering::SeqCst);
                        // What the third adds does not fit.
                        if all.blobs.iter().any(|b| b.1 == 3) { Err(full()) } else { Ok(()) }
                    })
                })
            })
            .collect();
        while durable.lock().waiting.len() < 5 {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        first.join().unwrap().unwrap();
        let failed: Vec<bool> = rest.into_iter().map(|t| t.join().unwrap().is_err()).collect();
        assert_eq!(failed, [false, false, true, false, false]);
        // All together, then each alone.
        assert_eq!(writes.load(Ordering::SeqCst), 6);
    }
}
