//! A snapshotter for containerd: what `run/snapshots.sock` serves.
//!
//! Its snapshots are not davit's: containerd names them, applies layers to them itself and collects them. They live below
//! `<state>/containerd/s/<number>/`, short names because containerd passes all lower directories in one page of mount options:
//!
//! ```text
//! <number>/record.json   name, parent, kind, labels      new-<number>/   one being made: swept at start
//! <number>/fs            overlay: what it adds; copy: the whole tree
//! <number>/work          overlay's
//!
//! (none) --prepare--> active --commit--> committed --remove--> (trash)
//!        --view-----> view                   ^ never changes any more; may have children
//! ```
//!
//! Owner of the directory: the one [`Snapshotter`]. Invariants: a name is taken once, whatever its kind; a parent is committed and
//! stays while it has children; a committed record is written only after the data it names is on the disk (syncfs(2)). Active snapshots
//! and views survive kill -9, not a power cut (ADR 2). The table is never locked while trees are copied, measured or synced: names that are
//! being worked on are *busy* meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use davit_cowfs::Namespace;
use serde::{Deserialize, Serialize};

use crate::failure::PathError;
use crate::settings::Settings;
use crate::snapshot::driver::{Mount, Works, first_of_the_layered};
use crate::snapshot::usage_of;
use crate::trash::Trash;
use crate::volume::now_ns;

mod disk;
mod error;
mod filter;
mod tree;

pub use error::SnapshotterError;
pub use filter::{Filter, InvalidFilter};

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// May be written to.
    Active,
    /// May only be read.
    View,
    /// Never changes any more.
    Committed,
}

/// How a snapshot's tree is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// What it adds to its parents, in overlay format.
    Overlay,
    /// All of it.
    Copy,
}

/// What is kept about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its directory.
    pub number: u64,
    /// Its key or name.
    pub name: String,
    /// The name of a committed one; may be empty.
    pub parent: String,
    /// What it is.
    pub kind: Kind,
    /// How it is kept.
    pub form: Form,
    /// Free-form.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_unix_ns: i64,
    /// When its record changed.
    pub updated_unix_ns: i64,
    /// Of a committed one: bytes of `fs`.
    pub bytes: u64,
    /// Of a committed one: inodes of `fs`.
    pub inodes: u64,
}

/// All snapshots of containerd's.
pub struct Snapshotter {
    dir: PathBuf,
    form: Form,
    /// Of the kernel's overlayfs and davit-cowfs the one that mounts what is kept in overlay format.
    mounts_by: Works,
    namespace: Namespace,
    trash: Trash,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_name: HashMap<String, Record>,
    /// How many are based on a name, those being made included.
    children: HashMap<String, usize>,
    busy: HashSet<String>,
    next: u64,
}

impl Table {
    fn get(&self, name: &str) -> Result<&Record, SnapshotterError> {
        self.by_name.get(name).ok_or_else(|| SnapshotterError::Unknown(name.to_owned()))
    }

    fn claim_free(&mut self, name: &str) -> Result<(), SnapshotterError> {
        if !(1..=4096).contains(&name.len()) {
            return Err(SnapshotterError::BadName);
        }
        if self.by_name.contains_key(name) || !self.busy.insert(name.to_owned()) {
            return Err(SnapshotterError::Exists(name.to_owned()));
        }
        Ok(())
    }

    fn claim_parent(&mut self, parent: &str) -> Result<(), SnapshotterError> {
        if parent.is_empty() {
            return Ok(());
        }
        if self.get(parent)?.kind != Kind::Committed {
            return Err(SnapshotterError::ParentNotCommitted(parent.to_owned()));
        }
        *self.children.entry(parent.to_owned()).or_default() += 1;
        Ok(())
    }

    fn leave_parent(&mut self, parent: &str) {
        if let Some(count) = self.children.get_mut(parent) {
            *count -= 1;
            if *count == 0 {
                self.children.remove(parent);
            }
        }
    }

    /// A snapshot and those it is based on, itself first.
    fn ancestry(&self, record: &Record) -> Result<Vec<Record>, SnapshotterError> {
        let mut all = vec![record.clone()];
        while let Some(last) = all.last().filter(|r| !r.parent.is_empty()) {
            let parent = self.get(&last.parent)?.clone();
            all.push(parent);
        }
        Ok(all)
    }
}

impl Snapshotter {
    /// Reads the records; what a crash left is swept. Overlay is used where the kernel's works, else where davit-cowfs does, unless a driver
    /// is configured.
    pub fn open(state: &Path, settings: &Settings, rootless: bool) -> Result<Self, PathError> {
        let namespace = if rootless { Namespace::User } else { Namespace::Trusted };
        let top = state.join("containerd");
        let dir = top.join("s");
        let trash = Trash::open(top.join("trash"))?;
        let table = disk::read_all(&dir, &trash)?;
        let special = dir.to_string_lossy().contains([':', ',', '\\']);
        let works = first_of_the_layered(state, settings, namespace);
        let form = match works {
            Ok(_) if settings.driver != "copy" && !special => Form::Overlay,
            _ => Form::Copy,
        };
        let mounts_by = works.unwrap_or(Works::Overlay);
        Ok(Self { dir, form, mounts_by, namespace, trash, table: Mutex::new(table) })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no one panics with the table of containerd's snapshots locked")
    }

    fn path(&self, record: &Record) -> PathBuf {
        self.dir.join(record.number.to_string())
    }

    /// Makes an active snapshot or a view, and answers how to mount it.
    pub fn create(
        &self,
        name: &str,
        parent: &str,
        kind: Kind,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, SnapshotterError> {
        let (record, parents) = {
            let mut table = self.lock();
            table.claim_free(name)?;
            if let Err(e) = table.claim_parent(parent) {
                table.busy.remove(name);
                return Err(e);
            }
            table.next += 1;
            let now = now_ns();
            let record = Record {
                number: table.next,
                name: name.to_owned(),
                parent: parent.to_owned(),
                kind,
                form: self.form,
                labels,
                created_unix_ns: now,
                updated_unix_ns: now,
                bytes: 0,
                inodes: 0,
            };
            let parents = table.ancestry(&record);
            (record, parents)
        };
        let made = parents.and_then(|p| {
            self.make(&record, &p[1..])?;
            Ok(self.describe(&p))
        });
        let mut table = self.lock();
        table.busy.remove(name);
        match made {
            Ok(mounts) => {
                table.by_name.insert(name.to_owned(), record);
                Ok(mounts)
            }
            Err(e) => {
                table.leave_parent(parent);
                Err(e)
            }
        }
    }

    /// How to mount an active snapshot or a view.
    pub fn mounts(&self, name: &str) -> Result<Vec<Mount>, SnapshotterError> {
        let table = self.lock();
        let record = table.get(name)?;
        if record.kind == Kind::Committed {
            return Err(SnapshotterError::WrongKind { name: name.to_owned(), wanted: "active or a view" });
        }
        Ok(self.describe(&table.ancestry(record)?))
    }

    /// Makes the active snapshot `key` the committed `name`. With `parent` one that was made without any is put on it (overlay only).
    pub fn commit(
        &self,
        name: &str,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), SnapshotterError> {
        let (mut record, rebased) = self.claim_commit(name, key, parent)?;
        let before = record.clone();
        name.clone_into(&mut record.name);
        if rebased {
            parent.clone_into(&mut record.parent);
        }
        record.kind = Kind::Committed;
        record.labels = labels;
        record.updated_unix_ns = now_ns();
        let path = self.path(&record);
        (record.bytes, record.inodes) = usage_of(&path.join("fs"));
        let written = disk::sync_file_system(&path).and_then(|()| disk::write_durably(&path, &record));
        let mut table = self.lock();
        table.busy.remove(name);
        table.busy.remove(key);
        match written {
            Ok(()) => {
                table.by_name.remove(key);
                table.by_name.insert(name.to_owned(), record);
                Ok(())
            }
            Err(e) => {
                if rebased {
                    table.leave_parent(parent);
                }
                // Whether the new record is the one on the disk is not known: the old one is put back.
                disk::write(&path, &before)?;
                Err(e.into())
            }
        }
    }

    fn claim_commit(&self, name: &str, key: &str, parent: &str) -> Result<(Record, bool), SnapshotterError> {
        let mut table = self.lock();
        let record = table.get(key)?.clone();
        if record.kind != Kind::Active {
            return Err(SnapshotterError::WrongKind { name: key.to_owned(), wanted: "active" });
        }
        let rebased = !parent.is_empty() && record.parent != parent;
        if rebased && (!record.parent.is_empty() || record.form != Form::Overlay) {
            return Err(SnapshotterError::OtherParent(key.to_owned()));
        }
        if !table.busy.insert(key.to_owned()) {
            return Err(SnapshotterError::Busy(key.to_owned()));
        }
        let claimed = table.claim_free(name).and_then(|()| {
            if rebased {
                table.claim_parent(parent).inspect_err(|_| {
                    table.busy.remove(name);
                })?;
            }
            Ok(())
        });
        if let Err(e) = claimed {
            table.busy.remove(key);
            return Err(e);
        }
        Ok((record, rebased))
    }

    /// Removes a snapshot that has no children.
    pub fn remove(&self, name: &str) -> Result<(), SnapshotterError> {
        let mut table = self.lock();
        let record = table.get(name)?.clone();
        if table.children.contains_key(name) {
            return Err(SnapshotterError::HasChildren(name.to_owned()));
        }
        if table.busy.contains(name) {
            return Err(SnapshotterError::Busy(name.to_owned()));
        }
        self.trash.discard(&self.path(&record))?;
        table.by_name.remove(name);
        table.leave_parent(&record.parent);
        Ok(())
    }

    /// The record of a name.
    pub fn stat(&self, name: &str) -> Result<Record, SnapshotterError> {
        self.lock().get(name).cloned()
    }

    /// Changes labels: all of them where `paths` is empty or says `labels`, else those that it names as `labels.KEY`.
    pub fn update(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        paths: &[String],
    ) -> Result<Record, SnapshotterError> {
        let mut table = self.lock();
        let mut record = table.get(name)?.clone();
        if table.busy.contains(name) {
            return Err(SnapshotterError::Busy(name.to_owned()));
        }
        if paths.is_empty() {
            record.labels.clone_from(labels);
        }
        for path in paths {
            match path.strip_prefix("labels.") {
                Some(key) => match labels.get(key).filter(|v| !v.is_empty()) {
                    Some(value) => drop(record.labels.insert(key.to_owned(), value.clone())),
                    None => drop(record.labels.remove(key)),
                },
                None if path == "labels" => record.labels.clone_from(labels),
                None => return Err(SnapshotterError::Immutable(path.clone())),
            }
        }
        record.updated_unix_ns = now_ns();
        disk::write(&self.path(&record), &record)?;
        table.by_name.insert(name.to_owned(), record.clone());
        Ok(record)
    }

    /// All records that any of the filters matches, by name.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Record>, SnapshotterError> {
        let filters = filters.iter().map(|f| Filter::parse(f)).collect::<Result<Vec<_>, _>>()?;
        let matches = |r: &&Record| filters.is_empty() || filters.iter().any(|f| f.matches(r));
        let mut all: Vec<Record> = self.lock().by_name.values().filter(matches).cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Bytes and inodes of a snapshot without its parents'.
    pub fn usage(&self, name: &str) -> Result<(u64, u64), SnapshotterError> {
        let record = self.stat(name)?;
        Ok(match record.kind {
            Kind::Committed => (record.bytes, record.inodes),
            Kind::Active => usage_of(&self.path(&record).join("fs")),
            Kind::View => (0, 0),
        })
    }
}
