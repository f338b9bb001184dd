//! Opening a file system.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use rustix::fs::XattrFlags;

use super::aliases::Aliases;
use super::{Attrs, CowFs};
use crate::busy::Busy;
use crate::config::{Config, OpenError};
use crate::fds::Fds;
use crate::layer::{Layer, directory, log_unprotected, number_file_systems};
use crate::listing::Hasher;
use crate::name::Namespace;
use crate::origin;
use crate::table::{LayerNo, Real, Reals, Table, UPPER};
use crate::work::Work;

impl CowFs {
    /// The file system that shows `config`'s layers. Opens the layers through read-only mount clones where this process may make them,
    /// clears what an earlier life left in the work directory, and holds no mount itself. Clears the process's umask: modes are whole
    /// when they come here.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        check(config)?;
        rustix::process::umask(rustix::fs::Mode::empty());
        let work = config.work.as_deref().map(Work::open).transpose()?;
        let namespace = config.namespace.unwrap_or_else(|| choose_namespace(work.as_ref()));
        let mut layers = Vec::with_capacity(config.lowers.len() + 1);
        layers.push(config.upper.as_deref().map(|path| Layer::upper(path, namespace)).transpose()?);
        let mut unprotected = None;
        for path in &config.lowers {
            let (layer, why) = Layer::lower(path, namespace)?;
            layers.push(Some(layer));
            unprotected = unprotected.or(why.map(|error| (path, error)));
        }
        if let Some((path, error)) = unprotected {
            log_unprotected(path, &error); // once, not for each of them
        }
        let one_fs = number_file_systems(&mut layers) == 1;
        check_work(config, &layers, work.as_ref())?;
        let reals: Reals = layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| layer.is_some())
            .map(|(number, _)| Real { layer: number as LayerNo, path: None })
            .collect();
        let fs = Self {
            layers,
            one_fs,
            attr: Attrs::new(namespace),
            redirect: config.redirect,
            uid_map: config.uid_map.clone(),
            gid_map: config.gid_map.clone(),
            squash: config.squash,
            ids: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            xattrs: config.xattrs,
            aufs: config.aufs_whiteouts,
            sync: config.sync,
            table: Mutex::new(Table::new(reals)),
            fds: Fds::new(config.max_open),
            busy: Busy::default(),
            times: super::times::Times::default(),
            renames: AtomicU64::new(0),
            work,
            index: Mutex::new(HashMap::new()),
            aliases: Aliases::default(),
            missing: Mutex::new(None),
            names: Hasher::default(),
            positions: super::readdir::Positions::default(),
        };
        fs.load_index();
        Ok(fs)
    }

    /// Reads which hard links of lower layers have been copied up.
    fn load_index(&self) {
        let Some(index) = self.work.as_ref().and_then(Work::existing_index) else { return };
        let Ok(entries) = rustix::fs::Dir::read_from(&*index) else { return };
        let mut known = self.index.lock().expect("nobody else has it yet");
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            let Some(value) = origin::of_index_name(name) else { continue };
            if let Some(ino) = self.ino_of_origin(&value) {
                known.insert(ino, Arc::from(name));
            }
        }
    }

    /// The inode number that is shown for a file with this origin, if it says one of these layers.
    pub(super) fn ino_of_origin(&self, value: &[u8]) -> Option<u64> {
        let origin = origin::decode(value)?;
        let number = origin::ino(&origin.handle)?;
        Some(self.ino(self.fs_of_uuid(origin.uuid)?, number))
    }

    /// The one file system of lower layers that has this UUID. Some have none (squashfs), and clones and subvolumes share one: then a number
    /// in an origin says nothing.
    pub(super) fn fs_of_uuid(&self, uuid: [u8; 16]) -> Option<u16> {
        let mut all = self.layers[1..].iter().flatten().filter(|l| l.uuid == uuid).map(|l| l.fs);
        let first = all.next()?;
        all.all(|fs| fs == first).then_some(first)
    }

    /// The inode number that is shown for one of a layer's file system. One file system's are shown as they are; of several, the upper
    /// 16 bits say which. The root's alias is never given to another.
    pub(super) fn ino(&self, fs: u16, number: u64) -> u64 {
        const BITS: u32 = 48;
        if self.one_fs && number > crate::types::ROOT {
            return number;
        }
        let low = if number >> BITS == 0 { number } else { (number ^ (number >> BITS)) & ((1 << BITS) - 1) };
        (u64::from(fs) + 1) << BITS | low
    }
}

fn check(config: &Config) -> Result<(), OpenError> {
    if config.lowers.is_empty() {
        return Err(OpenError::NoLower);
    }
    if config.lowers.len() > usize::from(LayerNo::MAX >> 2) {
        return Err(OpenError::TooManyLayers(config.lowers.len()));
    }
    match (&config.upper, &config.work) {
        (Some(upper), Some(work)) => {
            let real = |p: &Path| std::fs::canonicalize(p).unwrap_or_else(|_| p.to_path_buf());
            let (upper, work): (PathBuf, PathBuf) = (real(upper), real(work));
            if work.starts_with(&upper) {
                return Err(OpenError::Overlap { inner: work, outer: upper });
            }
            if upper.starts_with(&work) {
                return Err(OpenError::Overlap { inner: upper, outer: work });
            }
            // What is written to the one would be written to the other.
            if let Some(lower) = config.lowers.iter().map(|p| real(p)).find(|lower| lower.starts_with(&upper))
            {
                return Err(OpenError::Overlap { inner: lower, outer: upper });
            }
            Ok(())
        }
        (None, None) => Ok(()),
        _ => Err(OpenError::UpperWithoutWork),
    }
}

fn check_work(config: &Config, layers: &[Option<Layer>], work: Option<&Work>) -> Result<(), OpenError> {
    let (Some(work), Some(upper)) = (work, &layers[usize::from(UPPER)]) else { return Ok(()) };
    let path = config.work.clone().unwrap_or_default();
    let stat = rustix::fs::fstat(&work.dir).map_err(|e| directory("stat", &path, e))?;
    if stat.st_dev == upper.dev {
        return Ok(());
    }
    Err(OpenError::WorkElsewhere { work: path, upper: config.upper.clone().unwrap_or_default() })
}

/// `trusted.` if it can be written where the upper is.
fn choose_namespace(work: Option<&Work>) -> Namespace {
    let Some(work) = work else {
        return if rustix::process::geteuid().is_root() && in_initial_user_namespace() {
            Namespace::Trusted
        } else {
            Namespace::User
        };
    };
    let name = c"trusted.overlay.davit-probe";
    let set = rustix::fs::fsetxattr(&work.dir, name, b"y", XattrFlags::empty());
    let _ = rustix::fs::fremovexattr(&work.dir, name);
    if set.is_ok() { Namespace::Trusted } else { Namespace::User }
}

/// user_namespaces(7): the initial one maps all ids to themselves.
fn in_initial_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
