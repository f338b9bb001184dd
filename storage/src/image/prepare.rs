//! From an image to a container's snapshot, and to the content of a volume.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::copytree::{Source, copy_open_tree, copy_unless};
use crate::error::Error;
use crate::metadata::ImageRecord;
use crate::reference::Reference;
use crate::snapshot::driver::{Mount, Stack};
use crate::snapshot::mounted::with_tree;
use crate::snapshot::{SnapshotError, SnapshotRecord};
use crate::store::Store;
use crate::tree::Process;
use crate::volume::now_ns;

/// A snapshot and how to mount it.
pub struct Prepared {
    /// Its record.
    pub record: SnapshotRecord,
    /// Its image.
    pub image: ImageRecord,
    /// What to mount.
    pub mounts: Vec<Mount>,
    /// The driver whose mounts these are.
    pub driver: &'static str,
}

/// A clone of a snapshot as it is asked for.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// Of the new one.
    pub key: String,
    /// Of the one that is there.
    pub source: String,
    /// Of the new one.
    pub labels: BTreeMap<String, String>,
    /// A process of the source's container while it runs.
    pub process: Option<Process>,
    /// On disk before the answer.
    pub durable: bool,
}

impl Store {
    /// Makes a snapshot of an image, or answers the one of this key.
    pub fn prepare(
        self: &Arc<Self>,
        key: &str,
        asked: &str,
        labels: BTreeMap<String, String>,
        read_only: bool,
    ) -> Result<Prepared, Error> {
        let image = self.find_image(asked)?;
        // While we hold its layers the image may lose its record, but not its files; then the snapshot must not stay.
        let lease = self.lease(&image)?;
        let stack = self.stack(&image)?;
        let record = SnapshotRecord {
            key: key.to_owned(),
            image_id: image.id.clone(),
            reference: self.name_of(asked),
            labels,
            created_unix_ns: now_ns(),
            read_only,
            driver: String::new(),
            forked_from: String::new(),
        };
        let record = self.snapshots.prepare(record, &stack)?;
        self.still_there(&image, key, asked)?;
        drop(lease);
        self.described(record, image, &stack)
    }

    /// Undoes a snapshot whose image was removed while it was made. Called when it has its name: a removal that has not chosen this image
    /// yet sees the snapshot and refuses.
    fn still_there(&self, image: &ImageRecord, key: &str, asked: &str) -> Result<(), Error> {
        if self.layers.is_dying(&image.id) || self.metadata.image(&image.id)?.is_none() {
            self.snapshots.remove(key)?;
            return Err(Error::UnknownImage { asked: asked.to_owned(), nearest: Vec::new() });
        }
        Ok(())
    }

    /// Makes a snapshot that begins with what another one holds, or answers the one that was made so.
    pub fn fork(self: &Arc<Self>, wish: &Fork, stop: &AtomicBool) -> Result<Prepared, Error> {
        let source =
            self.snapshots.get(&wish.source).ok_or_else(|| SnapshotError::Unknown(wish.source.clone()))?;
        let image = self.metadata.image(&source.image_id)?;
        let image = image.ok_or_else(|| SnapshotError::NoImage(wish.source.clone()))?;
        let lease = self.lease(&image)?;
        let stack = self.stack(&image)?;
        if let Some(process) = wish.process {
            crate::tree::write_back(process)?;
        }
        let record = SnapshotRecord {
            key: wish.key.clone(),
            image_id: image.id.clone(),
            reference: source.reference,
            labels: wish.labels.clone(),
            created_unix_ns: now_ns(),
            read_only: source.read_only,
            driver: String::new(),
            forked_from: wish.source.clone(),
        };
        let record = self.snapshots.fork(record, &stack, stop, wish.durable)?;
        self.still_there(&image, &wish.key, &wish.source)?;
        drop(lease);
        self.described(record, image, &stack)
    }

    fn described(
        &self,
        record: SnapshotRecord,
        image: ImageRecord,
        stack: &Stack,
    ) -> Result<Prepared, Error> {
        let mounts = self.snapshots.mounts(&record, stack)?;
        let driver = self.snapshots.driver_of(&record)?.name();
        Ok(Prepared { record, image, mounts, driver })
    }

    /// What was asked for, in familiar form; an id stays as it is.
    fn name_of(&self, asked: &str) -> String {
        match Reference::parse(asked) {
            Ok(r) if self.metadata.tag(&r.canonical()).is_ok_and(|t| t.is_some()) => r.familiar(),
            _ => asked.to_owned(),
        }
    }

    /// An existing snapshot again.
    pub fn prepared(&self, key: &str) -> Result<Prepared, Error> {
        let record = self.snapshots.get(key).ok_or_else(|| SnapshotError::Unknown(key.to_owned()))?;
        let image =
            self.metadata.image(&record.image_id)?.ok_or_else(|| SnapshotError::NoImage(key.to_owned()))?;
        let stack = self.stack(&image)?;
        self.described(record, image, &stack)
    }

    /// Copies a directory of a snapshot's image into an empty volume, as docker does on first use. What is no directory, or
    /// is not there, leaves the volume empty: false.
    pub fn populate(&self, snapshot_key: &str, image_path: &str, into: &Path) -> io::Result<bool> {
        let mut prepared = self.prepared(snapshot_key).map_err(io::Error::other)?;
        let stack = self.stack(&prepared.image).map_err(io::Error::other)?;
        if stack.layers.is_empty() {
            return Ok(false);
        }
        if prepared.driver == "overlay" {
            let root = view(&stack.layers, &self.state.join("empty"), self.namespace.mount_option())?;
            return copy_directory(root.as_fd(), image_path, into);
        }
        // With a copy the container's own tree is the image's, as long as it has not run; but its layer may be mounted for it already.
        if prepared.driver == "fuse" {
            prepared.record.read_only = true;
            prepared.mounts = self.snapshots.mounts(&prepared.record, &stack).map_err(io::Error::other)?;
        }
        with_tree(&prepared.mounts, &self.state.join("volume-source"), |root| {
            copy_directory(root, image_path, into)
        })
        .map_err(io::Error::other)
    }
}

/// Copies a volume's content into an empty one, sockets and all.
pub fn copy_volume(from: &Path, into: &Path, stop: &AtomicBool) -> io::Result<()> {
    let open = |path| davit_sys::beneath::open_root(path).map_err(|e| e.source);
    let into = open(into)?;
    copy_unless(stop, open(from)?.as_fd(), into.as_fd(), Source::Upper)?;
    // The original may be removed next.
    Ok(rustix::fs::syncfs(rustix::fs::openat(
        &into,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )?)?)
}

/// What is no directory, or is not there, leaves the volume empty.
fn copy_directory(root: BorrowedFd<'_>, image_path: &str, into: &Path) -> io::Result<bool> {
    let path = Path::new(image_path.trim_start_matches('/'));
    match davit_sys::beneath::open_in_root(root, path, OFlags::DIRECTORY | OFlags::RDONLY) {
        Ok(from) => {
            let to = davit_sys::beneath::open_root(into).map_err(|e| e.source)?;
            copy_open_tree(from.as_fd(), to.as_fd(), Source::Plain).map(|()| true)
        }
        Err(e) if matches!(e.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(e) => Err(e.source),
    }
}

/// A read-only overlay of layers that is attached nowhere: it is gone with its descriptor.
fn view(layers: &[std::path::PathBuf], empty: &Path, option: Option<&str>) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers.iter().map(std::path::PathBuf::as_path).chain([empty]) {
        rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", layer)?;
    }
    if let Some(option) = option {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), option)?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
