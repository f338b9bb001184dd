//! One layer: its ledger replayed, its directory compared, its damage repaired.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};

use super::compare::{self, Difference};
use super::expected::Tree;
use super::pace::Pace;
use super::pristine::{Pristine, ledger_of, tree_of, unpack_verified};
use super::{Check, CheckError, Finding, Problem, repair};
use crate::digest::Digest;
use crate::failure::At as _;
use crate::layer::LayerHandle;
use crate::ledger::LedgerError;
use crate::metadata::LayerRecord;
use crate::reference::Reference;

/// What a person can do when nothing else helps.
pub(super) const AGAIN: &str = "cannot be repaired: remove the image, and load or pull it again";

/// What the ledger turned out to be.
enum Ledger {
    Good(Tree),
    /// Why there is none to believe.
    Bad(String),
    /// Of a later version: nothing can be said.
    Later(String),
}

impl Check<'_> {
    /// Checks a layer, unless it was removed meanwhile.
    pub(super) fn layer(&self, record: &LayerRecord, pace: &mut Pace<'_>) -> Result<(), CheckError> {
        // A lease: it stays while we look.
        let Ok(Some(handle)) = self.store.layers.present(&self.store.metadata, &record.diff_id) else {
            // Removed meanwhile, or a record without its tree.
            let lost = matches!(self.store.metadata.layer(&record.diff_id), Ok(Some(_)))
                && !self.store.layers.path(&record.diff_id).exists();
            return if lost { self.no_directory(record, &io::ErrorKind::NotFound.into()) } else { Ok(()) };
        };
        let done = self.leased_layer(record, pace);
        drop::<LayerHandle>(handle);
        match done {
            Err(CheckError::Ledger(e)) => {
                // It was whole a moment ago.
                self.found(self.about(record, format!("its ledger cannot be read: {e}")));
                Ok(())
            }
            other => other,
        }
    }

    fn leased_layer(&self, record: &LayerRecord, pace: &mut Pace<'_>) -> Result<(), CheckError> {
        let path = self.store.layers.path(&record.diff_id);
        let root = match davit_sys::beneath::open_root(&path) {
            Ok(root) => root,
            Err(e) => return self.no_directory(record, &e.source),
        };
        match self.ledger(record)? {
            Ledger::Good(tree) => {
                let whole = self.compared(record, &root, &tree, None, pace)?;
                // With a damaged tree the recipe cannot be judged.
                if whole && record.recipe && !self.options.quick {
                    self.recipe(record, pace)?;
                }
                Ok(())
            }
            Ledger::Later(why) => {
                self.found(self.about(record, why));
                Ok(())
            }
            Ledger::Bad(why) => self.without_ledger(record, &root, &why, pace),
        }
    }

    /// Whether the layer's plain tar can be made again, which saving and pushing it need.
    fn recipe(&self, record: &LayerRecord, pace: &mut Pace<'_>) -> Result<(), CheckError> {
        let archive = self.store.layer_archive(record).and_then(|a| a.reader());
        let detail = match archive {
            Err(e) => format!("its recipe cannot be read: {e}"),
            Ok(mut tar) => {
                let mut hasher = Sha256::new();
                let read = pace.read_all(&mut tar, |bytes| hasher.update(bytes));
                pace.go_on().map_err(|_| CheckError::Cancelled)?;
                match read {
                    Err(e) => format!("its recipe is damaged: {e}"),
                    Ok(_) if Digest::of_hasher(hasher) == record.diff_id => return Ok(()),
                    Ok(_) => "its recipe is damaged: it makes another archive".to_owned(),
                }
            }
        };
        let detail = format!("{detail}; the files are whole, but the image cannot be saved or pushed");
        let why_not = if self.options.repair { AGAIN.to_owned() } else { String::new() };
        self.found(Finding { problem: Problem::Blob, why_not, ..self.about(record, detail) });
        Ok(())
    }

    fn about(&self, record: &LayerRecord, detail: String) -> Finding {
        Finding {
            problem: Problem::Record,
            path: String::new(),
            diff_id: Some(record.diff_id.clone()),
            images: self.images(|i| i.diff_ids.contains(&record.diff_id)),
            detail,
            repaired: false,
            why_not: String::new(),
        }
    }

    fn ledger(&self, record: &LayerRecord) -> Result<Ledger, CheckError> {
        let path = ledger_of(self.store, &record.diff_id);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Ledger::Bad("there is no ledger of its files".into()));
            }
            Err(e) => return Err(e).at("open", &path).map_err(CheckError::from),
        };
        Ok(match Tree::replay(file) {
            Ok(tree) => Ledger::Good(tree),
            Err(LedgerError::Read(e)) => Ledger::Bad(format!("its ledger cannot be read: {e}")),
            Err(LedgerError::Version) => Ledger::Later(LedgerError::Version.to_string()),
            Err(e @ LedgerError::Damaged(_)) => Ledger::Bad(e.to_string()),
        })
    }

    /// The layer as its archive makes it.
    fn pristine(&self, record: &LayerRecord, whiteouts: bool) -> Result<Pristine, String> {
        if record.recipe {
            return self.pristine_from_registry(record, whiteouts);
        }
        let stored = self.store.layer_archive(record).map_err(|e| e.to_string()).and_then(|archive| {
            let reader = archive.reader().map_err(|e| e.to_string())?;
            unpack_verified(self.store, record, &archive.digest, reader, whiteouts)
        });
        stored.or_else(|why| {
            let images: Vec<_> = self
                .contents
                .images
                .values()
                .filter(|i| i.diff_ids.contains(&record.diff_id))
                .map(|i| i.id.clone())
                .collect();
            let size = self.contents.blobs.get(&record.blob).copied().unwrap_or(u64::MAX);
            self.fetched(&images, &record.blob, size, false, |bytes| {
                unpack_verified(self.store, record, &record.blob, bytes, whiteouts)
            })
            .map_err(|registry| format!("{why}; {registry}"))
        })
    }

    /// No archive is kept: the registries that the layer was pulled from or pushed to may have one, compressed or not.
    fn pristine_from_registry(&self, record: &LayerRecord, whiteouts: bool) -> Result<Pristine, String> {
        let mut why = "its archive is not kept, and no registry is known that has it".to_owned();
        for known in self.store.metadata.known(&record.diff_id).map_err(|e| e.to_string())? {
            let Ok(reference) = Reference::parse(&known.repository) else { continue };
            let pristine = self
                .open(&reference, &known.digest, known.size, false)
                .and_then(|bytes| unpack_verified(self.store, record, &known.digest, bytes, whiteouts));
            match pristine {
                Ok(pristine) => return Ok(pristine),
                Err(e) => why = format!("{}: {e}", known.repository),
            }
        }
        Err(format!("{why}; {AGAIN}"))
    }

    /// A whole layer is gone: it comes back whole.
    fn no_directory(&self, record: &LayerRecord, e: &io::Error) -> Result<(), CheckError> {
        let mut finding = self.about(record, format!("its directory cannot be opened: {e}"));
        if self.options.repair {
            let whiteouts = match self.ledger(record)? {
                Ledger::Good(tree) => !tree.spells_whiteouts(),
                _ => true,
            };
            let path = self.store.layers.path(&record.diff_id);
            let restored = self.pristine(record, whiteouts).and_then(|pristine| {
                self.store.layers.sync().map_err(|e| e.to_string())?;
                let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
                made.map_err(|e| format!("cannot make room for it: {e}"))?;
                std::fs::rename(tree_of(&pristine.tree), &path)
                    .map_err(|e| format!("cannot put it in place: {e}"))
            });
            match restored {
                Ok(()) => finding.repaired = true,
                Err(why) => finding.why_not = why,
            }
        }
        self.found(finding);
        Ok(())
    }

    /// Compares with the archive instead, and with `repair` writes the ledger that was missing.
    fn without_ledger(
        &self,
        record: &LayerRecord,
        root: &OwnedFd,
        why: &str,
        pace: &mut Pace<'_>,
    ) -> Result<(), CheckError> {
        let whiteouts = !has_spelled_whiteouts(root, pace)?;
        let pristine = match self.pristine(record, whiteouts) {
            Ok(pristine) => pristine,
            Err(reason) => {
                let mut finding = self.about(record, format!("{why}, and it cannot be checked without one"));
                finding.why_not = reason;
                self.found(finding);
                return Ok(());
            }
        };
        let opaque = self.store.namespace.opaque();
        let staged = self.store.layers.stage()?;
        let path = staged.ledger();
        let file = File::options().read(true).write(true).create_new(true).open(&path).at("create", &path)?;
        let file = super::scan::scan(pristine.root.as_fd(), opaque, pristine.since, file, pace);
        pace.go_on().map_err(|_| CheckError::Cancelled)?;
        let file = file?;
        let tree = Tree::replay(file.try_clone().at("open", &path)?)?;
        let mut finding = self.about(record, format!("{why}: it was compared with its archive"));
        if self.options.repair {
            let to = ledger_of(self.store, &record.diff_id);
            let published = file.sync_all().and_then(|()| {
                to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::rename(&path, &to)
            });
            match published {
                Ok(()) => finding.repaired = true,
                Err(e) => finding.why_not = format!("cannot store a new one: {e}"),
            }
        }
        self.found(finding);
        self.compared(record, root, &tree, Some(pristine), pace).map(drop)
    }

    fn compared(
        &self,
        record: &LayerRecord,
        root: &OwnedFd,
        tree: &Tree,
        pristine: Option<Pristine>,
        pace: &mut Pace<'_>,
    ) -> Result<bool, CheckError> {
        let options = compare::Options {
            opaque: self.store.namespace.opaque(),
            rootless: self.store.rootless,
            quick: self.options.quick,
        };
        let images = self.images(|i| i.diff_ids.contains(&record.diff_id));
        let tell = |d: &Difference, outcome: Option<Result<(), String>>| {
            let (repaired, why_not) = match outcome {
                None => (false, String::new()),
                Some(Ok(())) => (true, String::new()),
                Some(Err(why)) => (false, why),
            };
            self.found(Finding {
                problem: d.problem,
                path: compare::show(&d.path),
                diff_id: Some(record.diff_id.clone()),
                images: images.clone(),
                detail: d.detail.clone(),
                repaired,
                why_not,
            });
        };
        let mut damaged = Vec::new();
        let mut whole = true;
        let count = compare::compare(tree, root.as_fd(), options, pace, &mut |difference| {
            whole = false;
            if self.options.repair {
                damaged.push(difference);
            } else {
                tell(&difference, None);
            }
            Ok(())
        })?;
        self.files.fetch_add(count, Ordering::Relaxed);
        if damaged.is_empty() {
            return Ok(whole);
        }
        let whiteouts = !tree.spells_whiteouts();
        let mut pristine = pristine.map(Ok);
        let mut get = || match pristine.get_or_insert_with(|| self.pristine(record, whiteouts)) {
            Ok(pristine) => pristine.root.try_clone().map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        let staged = self.store.layers.stage()?;
        let outcomes = repair::repair(tree, root.as_fd(), &damaged, options, &staged, &mut get, pace)?;
        for (difference, outcome) in damaged.iter().zip(outcomes) {
            tell(difference, Some(outcome));
        }
        Ok(whole)
    }
}

/// Whether names that spell whiteouts are there as plain files: then the layer was unpacked without whiteouts.
fn has_spelled_whiteouts(root: &OwnedFd, pace: &Pace<'_>) -> Result<bool, CheckError> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        pace.go_on().map_err(|_| CheckError::Cancelled)?;
        // What cannot be read is told by the comparison.
        let Ok(dir) = super::look::open_dir(root.as_fd(), &path) else { continue };
        for name in super::look::names(dir.as_fd()).unwrap_or_default() {
            if name.as_bytes().starts_with(b".wh.") {
                return Ok(true);
            }
            let is_directory = super::look::at(dir.as_fd(), &name)
                .is_ok_and(|f| f.is_some_and(|f| f.kind == rustix::fs::FileType::Directory));
            if is_directory {
                todo.push(if path.is_empty() {
                    name.as_bytes().to_vec()
                } else {
                    [path.as_slice(), name.as_bytes()].join(&b'/')
                });
            }
        }
    }
    Ok(false)
}
