//! Verify and repair: what is stored against what was recorded when it came.
//!
//! A layer's [ledger](crate::ledger) says what its directory must be, a blob's name what its bytes must be, and the
//! database what there must be at all. Checking only reads, holds leases on the layers it looks at, and locks nothing
//! that others wait for. Two threads at most; each rests when the disk is slow. Repairing (one at a time) makes each
//! damaged file anew beside the layer and renames it into place:
//!
//! ```text
//! blobs ──digest──> damaged? ──registry──> a new blob, renamed over
//! layer ──ledger──> differences ─┬─ attributes ───────────> set again in place
//!                                ├─ content ──> the archive, unpacked aside, file renamed over
//!                                ├─ links, devices, whiteouts, directories ──> made of the ledger, renamed over
//!                                └─ what does not belong ──> moved away
//! ```
//!
//! Invariant: a repair that ends at any point leaves each path either as it was or right. A program that has an old file
//! open or mapped keeps it; a container sees the new one when it opens the path again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

use crate::digest::Digest;
use crate::error::Error;
use crate::failure::PathError;
use crate::image::familiar;
use crate::ledger::LedgerError;
use crate::metadata::{Contents, LayerRecord};
use crate::registry::Access;
use crate::store::Store;

mod blobs;
mod compare;
mod expected;
mod fetch;
mod layer;
mod look;
mod pace;
mod pristine;
mod records;
mod repair;
mod scan;

/// What to check and how.
#[derive(Debug, Default)]
pub struct Options {
    /// Only these images; empty: everything.
    pub references: Vec<String>,
    /// Restore what is damaged.
    pub repair: bool,
    /// Do not read the content of files and blobs.
    pub quick: bool,
    /// How to speak to registries, by name.
    pub access: BTreeMap<String, Access>,
}

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// A file's bytes, or where a link points.
    Content,
    /// A path is not there.
    Missing,
    /// A path should not be there.
    Extra,
    /// Mode, owner, time, attributes, kind, hard links.
    Metadata,
    /// An archive, manifest or config.
    Blob,
    /// A record names what is not there.
    Record,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What kind.
    pub problem: Problem,
    /// In the layer, relative; empty when it is about no file or about the root.
    pub path: String,
    /// The layer.
    pub diff_id: Option<Digest>,
    /// References, or ids, of the images that are affected.
    pub images: Vec<String>,
    /// For a person.
    pub detail: String,
    /// It is right again.
    pub repaired: bool,
    /// Why it is not, when a repair was asked for.
    pub why_not: String,
}

/// What a check did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Layers compared.
    pub layers: u64,
    /// Paths in them.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Findings.
    pub problems: u64,
    /// Findings that are right again.
    pub repaired: u64,
}

/// One report.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something is wrong.
    Finding(Finding),
    /// A layer is done: the first of two numbers, of as many as the second says.
    Layer(Digest, u64, u64),
}

/// Takes reports. May block; none is lost.
pub trait Reporter: Sync {
    /// Takes one.
    fn report(&self, event: Event);
    /// Whether nobody waits for the answer any more.
    fn closed(&self) -> bool;
}

/// Why a part of a check cannot go on.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    /// Nobody waits for the answer any more.
    #[error("given up")]
    Cancelled,
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A path of ours.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Work that one thread does at a time.
enum Unit {
    Blob(Digest, u64),
    Layer(LayerRecord),
}

/// One run.
struct Check<'a> {
    store: &'a Arc<Store>,
    contents: &'a Contents,
    options: &'a Options,
    reporter: &'a dyn Reporter,
    runtime: &'a Handle,
    progress: pace::Progress<'a>,
    problems: AtomicU64,
    repaired: AtomicU64,
    layers: AtomicU64,
    files: AtomicU64,
}

const THREADS: usize = 2;

impl Store {
    /// Checks, and repairs when that is asked for. Blocks; `runtime` is for what comes from registries.
    pub fn check(
        self: &Arc<Self>,
        options: &Options,
        reporter: &dyn Reporter,
        runtime: &Handle,
    ) -> Result<Totals, Error> {
        let _one = options.repair.then(|| self.repairing.lock().expect("no one panics while repairing"));
        let mut contents = self.metadata.contents()?;
        self.narrow(&mut contents, &options.references)?;
        let closed = || reporter.closed();
        let check = Check {
            store: self,
            contents: &contents,
            options,
            reporter,
            runtime,
            progress: pace::Progress { closed: &closed, bytes: AtomicU64::new(0) },
            problems: AtomicU64::default(),
            repaired: AtomicU64::default(),
            layers: AtomicU64::default(),
            files: AtomicU64::default(),
        };
        check.run()
    }

    /// Leaves only what some images need; everything when none is named.
    fn narrow(&self, contents: &mut Contents, references: &[String]) -> Result<(), Error> {
        if references.is_empty() {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for reference in references {
            wanted.insert(self.find_image(reference)?.id);
        }
        let (mut layers, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        for image in contents.images.values().filter(|i| wanted.contains(&i.id)) {
            layers.extend(image.diff_ids.iter().cloned());
            blobs.insert(image.id.clone());
            blobs.extend(image.manifest.iter().cloned());
        }
        blobs.extend(layers.iter().filter_map(|d| contents.layers.get(d)).map(|l| l.blob.clone()));
        contents.images.retain(|id, _| wanted.contains(id));
        contents.tags.retain(|_, id| wanted.contains(id));
        contents.layers.retain(|id, _| layers.contains(id));
        contents.blobs.retain(|id, _| blobs.contains(id));
        Ok(())
    }
}

impl Check<'_> {
    fn run(&self) -> Result<Totals, Error> {
        let blobs = self.contents.blobs.iter().map(|(d, size)| Unit::Blob(d.clone(), *size));
        let layers = self.contents.layers.values().map(|l| Unit::Layer(l.clone()));
        self.records();
        // Layers may be repaired from blobs: those come first.
        let done = self.all(blobs.collect()).and_then(|()| self.all(layers.collect()));
        match done {
            Ok(()) => {}
            Err(CheckError::Cancelled) => return Err(Error::Cancelled),
            Err(CheckError::Path(e)) => return Err(e.into()),
            Err(CheckError::Ledger(e)) => unreachable_ledger(&e),
        }
        let repaired = self.repaired.load(Ordering::Relaxed);
        if repaired > 0 {
            self.store.layers.sync()?;
        }
        let totals = Totals {
            layers: self.layers.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            bytes: self.progress.bytes.load(Ordering::Relaxed),
            problems: self.problems.load(Ordering::Relaxed),
            repaired,
        };
        tracing::info!(?totals, "checked");
        Ok(totals)
    }

    /// Spreads the work over the threads.
    fn all(&self, units: VecDeque<Unit>) -> Result<(), CheckError> {
        let total = units.len() as u64;
        let threads = THREADS.min(units.len());
        let queue = Mutex::new(units);
        let work = || -> Result<(), CheckError> {
            let mut pace = pace::Pace::new(&self.progress);
            loop {
                pace.go_on().map_err(|_| CheckError::Cancelled)?;
                let unit = queue.lock().expect("no one panics with the queue locked").pop_front();
                match unit {
                    None => return Ok(()),
                    Some(Unit::Blob(digest, size)) => self.blob(&digest, size, &mut pace)?,
                    Some(Unit::Layer(record)) => {
                        self.layer(&record, &mut pace)?;
                        let done = self.layers.fetch_add(1, Ordering::Relaxed) + 1;
                        self.reporter.report(Event::Layer(record.diff_id, done, total));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let ends = workers.into_iter().map(|w| w.join().unwrap_or(Err(CheckError::Cancelled)));
            ends.fold(Ok(()), Result::and)
        })
    }

    /// Tells one finding.
    fn found(&self, finding: Finding) {
        self.problems.fetch_add(1, Ordering::Relaxed);
        if finding.repaired {
            self.repaired.fetch_add(1, Ordering::Relaxed);
        }
        tracing::warn!(
            path = finding.path,
            diff_id = finding.diff_id.as_ref().map(Digest::short),
            images = ?finding.images,
            repaired = finding.repaired,
            "damage: {}",
            finding.detail
        );
        self.reporter.report(Event::Finding(finding));
    }

    /// What people call the images that need something.
    fn images(&self, needs: impl Fn(&crate::metadata::ImageRecord) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        for image in self.contents.images.values().filter(|i| needs(i)) {
            let before = names.len();
            let tags = self.contents.tags.iter().filter(|(t, id)| **id == image.id && !t.contains('@'));
            names.extend(tags.map(|(t, _)| familiar(t)));
            if names.len() == before {
                names.push(image.id.short().to_owned());
            }
        }
        names
    }
}

/// Ledgers' errors are findings of their layer.
fn unreachable_ledger(e: &LedgerError) {
    tracing::error!(error = %e, "a ledger's error was not told");
}
