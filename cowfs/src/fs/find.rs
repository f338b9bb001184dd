//! Finding a name in the layers.
//!
//! ```text
//! upper        b  (whiteout a)       lookup a: the upper hides it              -> none
//! lower 1   a/ b  c/ (opaque)        lookup b: a file ends the search          -> upper b
//! lower 2   a/ b  c/ d               lookup c: directories merge until opaque  -> c of lower 1
//! ```

use std::ffi::{CStr, CString};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::metacopy::may_lack_data;
use super::times::Moment;
use super::{CowFs, name_of};
use crate::at::{At, fd_xattr};
use crate::listing::Layers;
use crate::name::XATTR_WHITEOUTS_VALUE;
use crate::table::{DataAt, Fd, Found, LayerNo, Real, Reals, UPPER};
use crate::types::{Attr, Ino};

/// A name that was found.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) ino: Ino,
    pub(super) layer: LayerNo,
    pub(super) stat: Stat,
    /// For a directory.
    pub(super) reals: Option<Reals>,
    /// For a directory of the upper: where it says that its lower parts are.
    pub(super) redirect: Option<Arc<[u8]>>,
    pub(super) index: Option<Arc<[u8]>>,
    pub(super) data: Option<DataAt>,
    /// When it was asked for.
    pub(super) asked: Moment,
}

impl Hit {
    pub(super) fn is_dir(&self) -> bool {
        self.reals.is_some()
    }
}

/// A name in the `k`th of its parent's layers.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) parent: Ino,
    pub(super) reals: &'a [Real],
    pub(super) k: usize,
    pub(super) name: &'a CStr,
    /// The parent in that layer.
    pub(super) dir: &'a Fd,
    /// When it was asked for.
    pub(super) asked: Moment,
}

impl Spot<'_> {
    pub(super) fn layer(&self) -> LayerNo {
        self.reals[self.k].layer
    }

    pub(super) fn at(&self) -> At {
        At::name(self.dir, self.name)
    }
}

/// What one layer says of a name.
#[derive(Debug)]
pub(super) enum Probe {
    Absent,
    Whiteout,
    There(Stat),
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

impl CowFs {
    /// Finds a name. `Ok(None)`: there is none. An answer adds one lookup to the inode, to be given back by [`Self::forget`].
    ///
    /// The kernel asks again for names that it believes in without holding their directory: one may go to another file, or go, between
    /// the layers' answer and the table's note of it. Then they are asked again.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<Attr>, Errno> {
        let name = name_of(name)?;
        loop {
            let then = self.busy.moment();
            let hit = match self.find(parent, &name) {
                Ok(Some(hit)) => hit,
                Ok(None) => break,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
                    if self.busy.any_moved_since(then) =>
                {
                    std::thread::yield_now();
                    continue;
                }
                Err(e) => return Err(e),
            };
            if let Some(layer) = self.note(parent, &name, &hit, 1, Some(then))? {
                return self.entered(&hit, layer, 1).map(Some);
            }
            self.busy.has_moved(hit.ino);
        }
        *self.missing() = Some((parent, name));
        Ok(None)
    }

    pub(super) fn missing(&self) -> std::sync::MutexGuard<'_, Option<(Ino, CString)>> {
        self.missing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes a found name in the table, with so many lookups, and answers its attributes.
    pub(super) fn enter(&self, parent: Ino, name: &CStr, hit: &Hit, lookups: u32) -> Result<Attr, Errno> {
        let layer = self.note(parent, name, hit, lookups, None)?.ok_or(Errno::STALE)?;
        self.entered(hit, layer, lookups)
    }

    /// Notes a found name. `Ok(None)`: its inode's names have changed since `then`.
    fn note(
        &self,
        parent: Ino,
        name: &CStr,
        hit: &Hit,
        lookups: u32,
        then: Option<u64>,
    ) -> Result<Option<LayerNo>, Errno> {
        let found = Found {
            ino: hit.ino,
            parent,
            name: name.to_bytes(),
            layer: hit.layer,
            reals: hit.reals.clone(),
            redirect: hit.redirect.clone(),
            linked: !hit.is_dir() && (hit.stat.st_nlink > 1 || hit.index.is_some()),
            index: hit.index.clone(),
            data: hit.data.clone(),
        };
        let mut table = self.table();
        // With the table held: who changes names notes it there before the mark is taken away.
        if then.is_some_and(|then| self.busy.has_moved_since(hit.ino, then)) {
            return Ok(None);
        }
        table.found(&found, lookups).map(Some)
    }

    /// The attributes of what was noted to be in a layer.
    fn entered(&self, hit: &Hit, layer: LayerNo, lookups: u32) -> Result<Attr, Errno> {
        let settled = !hit.is_dir() || layer != UPPER || !self.times_moved_since(hit.asked);
        let answer = if layer == hit.layer && hit.index.is_none() && hit.data.is_none() && settled {
            Ok(self.attr_of(&hit.stat, hit.ino, hit.reals.as_ref().is_some_and(|r| r.len() > 1)))
        } else {
            self.getattr(hit.ino)
        };
        if answer.is_err() && lookups > 0 {
            self.forget(hit.ino, u64::from(lookups));
        }
        answer
    }

    /// Finds a name without noting it.
    pub(super) fn find(&self, parent: Ino, name: &CStr) -> Result<Option<Hit>, Errno> {
        let reals = self.reals(parent)?;
        let layers = self.layers_with(parent, &reals, name)?;
        self.find_from(parent, &reals, 0, layers, name)
    }

    /// Finds a name in those of a directory's layers that may have it, from the `from`th on.
    pub(super) fn find_from(
        &self,
        parent: Ino,
        reals: &[Real],
        from: usize,
        layers: Layers,
        name: &CStr,
    ) -> Result<Option<Hit>, Errno> {
        for (k, real) in reals.iter().enumerate().skip(from).filter(|(_, r)| layers.may_have(r.layer)) {
            let dir = self.dir_fd(parent, real.layer)?;
            let asked = self.moment();
            let spot = Spot { parent, reals, k, name, dir: &dir, asked };
            match self.probe(&dir, name, real.layer)? {
                Probe::Absent => {}
                Probe::Whiteout => return Ok(None),
                Probe::There(_) if self.hidden_by_aufs(parent, &reals[from..k], name)? => return Ok(None),
                Probe::There(stat) if is_dir(&stat) => return self.merged(spot, stat).map(Some),
                Probe::There(stat) => return self.file(spot, stat).map(Some),
            }
        }
        Ok(None)
    }

    /// What a layer says of a name in a directory of it.
    pub(super) fn probe(&self, dir: &Fd, name: &CStr, layer: LayerNo) -> Result<Probe, Errno> {
        if self.is_aufs(name) {
            return Ok(Probe::Absent);
        }
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Probe::Absent),
            Err(e) => return Err(e),
        };
        if is_whiteout(&stat) {
            return Ok(Probe::Whiteout);
        }
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if regular
            && stat.st_size == 0
            && self.layer(layer).xattr_whiteouts
            && self.is_xattr_whiteout(dir, name)?
        {
            return Ok(Probe::Whiteout);
        }
        Ok(Probe::There(stat))
    }

    /// An empty file with the xattr `overlay.whiteout`, in a directory that says that it may hold such.
    fn is_xattr_whiteout(&self, dir: &Fd, name: &CStr) -> Result<bool, Errno> {
        Ok(fd_xattr(dir, &self.attr.opaque)?.as_deref() == Some(XATTR_WHITEOUTS_VALUE)
            && At::name(dir, name).xattr(&self.attr.whiteout)?.is_some())
    }

    /// Anything but a directory.
    pub(super) fn file(&self, spot: Spot<'_>, stat: Stat) -> Result<Hit, Errno> {
        let layer = spot.layer();
        let raw = self.ino(self.layer(layer).fs, stat.st_ino);
        let asked = spot.asked;
        let mut hit =
            Hit { ino: raw, layer, stat, reals: None, redirect: None, index: None, data: None, asked };
        if layer == UPPER {
            hit.ino = self.aliases.of(raw);
            if hit.ino == raw && self.impure(spot.parent)? {
                hit.ino = self.shown(&spot.at(), raw)?;
                hit.index = self.indexed(hit.ino);
                self.check_number(&mut hit, spot.parent, spot.name, raw);
            }
        } else if stat.st_nlink > 1 {
            hit.index = self.indexed(raw);
        }
        if hit.index.is_some() {
            hit.layer = UPPER;
        } else if may_lack_data(&stat) && spot.at().xattr(&self.attr.metacopy)?.is_some() {
            hit.data = self.data_below(spot)?;
        }
        Ok(hit)
    }

    /// Two files of the upper may claim one origin, if somebody copied them with their xattrs: the second is shown with its own number.
    fn check_number(&self, hit: &mut Hit, parent: Ino, name: &CStr, raw: Ino) {
        if hit.ino == raw || hit.index.is_some() || hit.stat.st_nlink > 1 {
            return;
        }
        let table = self.table();
        let names = table.all_names(hit.ino);
        if !names.is_empty() && !names.iter().any(|(p, n)| *p == parent && n == name.to_bytes()) {
            hit.ino = raw;
        }
    }

    pub(super) fn indexed(&self, ino: Ino) -> Option<Arc<[u8]>> {
        self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&ino).cloned()
    }

    /// The number of an object of the upper as it is there.
    pub(super) fn upper_ino(&self, stat: &Stat) -> Ino {
        self.ino(self.layer(UPPER).fs, stat.st_ino)
    }

    /// The inode number that is shown for an object of the upper: that of the lower file it was copied from.
    pub(super) fn shown(&self, at: &At, raw: Ino) -> Result<Ino, Errno> {
        let known = self.aliases.of(raw);
        if known != raw {
            return Ok(known);
        }
        let origin = at.xattr(&self.attr.origin)?;
        Ok(origin.and_then(|value| self.ino_of_origin(&value)).unwrap_or(raw))
    }

    /// Whether a directory's upper part may hold objects with an origin.
    pub(super) fn impure(&self, dir: Ino) -> Result<bool, Errno> {
        if let Some(known) = self.table().dir(dir)?.impure {
            return Ok(known);
        }
        let impure = fd_xattr(&self.dir_fd(dir, UPPER)?, &self.attr.impure)?.is_some();
        if let Some(known) = self.table().dir_mut(dir) {
            known.impure = Some(impure);
        }
        Ok(impure)
    }
}
