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

use super::aufs::AUFS_OPAQUE;
use super::metacopy::may_lack_data;
use super::redirect::{Below, below_of, is_redirect, parts_of};
use super::times::Moment;
use super::{CowFs, name_of};
use crate::at::{At, fd_xattr};
use crate::config::Redirect;
use crate::fds::Key;
use crate::name::{OPAQUE_VALUE, XATTR_WHITEOUTS_VALUE};
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

/// What one layer says of a name.
#[derive(Debug)]
pub(super) enum Probe {
    Absent,
    Whiteout,
    There(Stat),
}

/// What a layer's directory says of what is below it.
enum Mark {
    Through,
    Opaque,
    Redirect(Vec<u8>),
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
        self.find_from(parent, &reals, 0, name)
    }

    /// Finds a name in a directory's layers from the `from`th on.
    pub(super) fn find_from(
        &self,
        parent: Ino,
        reals: &[Real],
        from: usize,
        name: &CStr,
    ) -> Result<Option<Hit>, Errno> {
        for (k, real) in reals.iter().enumerate().skip(from) {
            let dir = self.dir_fd(parent, real.layer)?;
            let asked = self.moment();
            match self.probe(&dir, name, real.layer)? {
                Probe::Absent => {}
                Probe::Whiteout => return Ok(None),
                Probe::There(_) if self.hidden_by_aufs(parent, &reals[from..k], name)? => return Ok(None),
                Probe::There(stat) if is_dir(&stat) => {
                    return self.merged(parent, reals, k, name, &dir, (stat, asked)).map(Some);
                }
                Probe::There(stat) => return self.file(parent, reals, k, name, &dir, stat).map(Some),
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

    fn mark(&self, dir: &Fd) -> Result<Mark, Errno> {
        if fd_xattr(dir, &self.attr.opaque)?.as_deref() == Some(OPAQUE_VALUE) {
            return Ok(Mark::Opaque);
        }
        if self.has_aufs_whiteout(dir, AUFS_OPAQUE)? {
            return Ok(Mark::Opaque);
        }
        match fd_xattr(dir, &self.attr.redirect)? {
            Some(path) if self.redirect != Redirect::NoFollow && is_redirect(&path) => {
                Ok(Mark::Redirect(path))
            }
            Some(_) => Ok(Mark::Opaque), // not to be followed: then it must not merge with what has its name now
            None => Ok(Mark::Through),
        }
    }

    /// A directory found in the `k`th of its parent's layers, with all that merges with it below.
    fn merged(
        &self,
        parent: Ino,
        reals: &[Real],
        k: usize,
        name: &CStr,
        dir: &Fd,
        (stat, asked): (Stat, Moment),
    ) -> Result<Hit, Errno> {
        let top = reals[k].layer;
        let mut ino = self.ino(self.layer(top).fs, stat.st_ino);
        let mut stack = vec![Real { layer: top, path: None }];
        let mut redirect = None;
        let impure = top == UPPER && self.impure(parent)?;
        if impure {
            ino = self.shown(&At::name(dir, name), ino)?;
        } else if top == UPPER {
            ino = self.aliases.of(ino);
        }
        // A redirect leads on also where the parent ends: from a new directory of the upper (which is impure then), or in a lower layer.
        let redirected = !self.is_lowest(top) && (impure || top != UPPER);
        if reals.len() > k + 1 || redirected {
            let fd = Arc::new(self.open_child_dir(dir, name)?);
            let mut below = match self.mark(&fd)? {
                Mark::Through => Some(Below::Name(name.to_owned())),
                Mark::Opaque => None,
                Mark::Redirect(path) => {
                    redirect = (top == UPPER).then(|| Arc::from(path.as_slice()));
                    below_of(path)
                }
            };
            self.fds.put(Key::Dir(ino, top), fd, false);
            let mut at = k + 1;
            while let Some(Below::Name(beside)) = &below {
                let beside = beside.clone();
                below = self.beside(parent, reals, &mut at, (name, &beside), &mut stack)?;
            }
            if let Some(Below::Path(path)) = below {
                self.along(path, &mut stack)?;
            }
        }
        Ok(Hit { ino, layer: top, stat, reals: Some(stack.into()), redirect, index: None, data: None, asked })
    }

    /// Whether no layer lies below this one.
    fn is_lowest(&self, layer: LayerNo) -> bool {
        usize::from(layer) + 1 == self.layers.len()
    }

    /// Looks for lower parts beside the parent's from the `at`th layer on, until one says to look elsewhere.
    fn beside(
        &self,
        parent: Ino,
        reals: &[Real],
        at: &mut usize,
        (own, name): (&CStr, &CStr),
        stack: &mut Vec<Real>,
    ) -> Result<Option<Below>, Errno> {
        let mut passed = *at;
        while let Some(real) = reals.get(*at) {
            *at += 1;
            let dir = self.dir_fd(parent, real.layer)?;
            match self.probe(&dir, name, real.layer)? {
                Probe::Absent => continue,
                Probe::There(_) if self.hidden_by_aufs(parent, &reals[passed..*at - 1], name)? => {
                    return Ok(None);
                }
                Probe::There(stat) if is_dir(&stat) => {}
                Probe::There(_) | Probe::Whiteout => return Ok(None),
            }
            let path = if own == name {
                None
            } else {
                let mut path = self.table().path_in(parent, real.layer)?;
                path.push(b'/');
                path.extend_from_slice(name.to_bytes());
                Some(Arc::from(path))
            };
            stack.push(Real { layer: real.layer, path });
            passed = *at;
            if self.is_lowest(real.layer) {
                return Ok(None);
            }
            let fd = Arc::new(self.open_child_dir(&dir, name)?);
            match self.mark(&fd)? {
                Mark::Through => {}
                Mark::Opaque => return Ok(None),
                Mark::Redirect(path) => return Ok(below_of(path)),
            }
        }
        Ok(None)
    }

    /// Looks for lower parts at a path from the roots of the layers below the last in `stack`.
    fn along(&self, mut path: Vec<u8>, stack: &mut Vec<Real>) -> Result<(), Errno> {
        let last = stack.last().map_or(0, |r| r.layer);
        for layer in last + 1..self.layers.len() as LayerNo {
            let mut fd = Arc::clone(&self.layer(layer).root);
            let mut end = false;
            let mut found = true;
            let parts: Vec<Vec<u8>> = parts_of(&path);
            // Where the parts passed so far are in the layers further down.
            let mut below: Vec<Vec<u8>> = Vec::new();
            for (depth, part) in parts.iter().enumerate() {
                let name = name_of(part)?;
                match self.probe(&fd, &name, layer)? {
                    Probe::There(stat) if is_dir(&stat) => {}
                    Probe::Absent => {
                        found = false;
                        below.extend_from_slice(&parts[depth..]);
                        break;
                    }
                    _ => return Ok(()),
                }
                fd = Arc::new(self.open_child_dir(&fd, &name)?);
                match self.mark(&fd)? {
                    Mark::Through => below.push(part.clone()),
                    Mark::Opaque => end = true,
                    Mark::Redirect(to) if to[0] == b'/' => below = parts_of(&to),
                    Mark::Redirect(to) => below.push(to),
                }
            }
            if found {
                stack.push(Real { layer, path: Some(Arc::from(path.as_slice())) });
            }
            if end {
                return Ok(());
            }
            path = below.iter().flat_map(|part| [&b"/"[..], part]).flatten().copied().collect();
        }
        Ok(())
    }

    /// Anything but a directory, found in the `k`th of its parent's layers.
    pub(super) fn file(
        &self,
        parent: Ino,
        reals: &[Real],
        k: usize,
        name: &CStr,
        dir: &Fd,
        stat: Stat,
    ) -> Result<Hit, Errno> {
        let layer = reals[k].layer;
        let raw = self.ino(self.layer(layer).fs, stat.st_ino);
        let asked = self.moment();
        let mut hit =
            Hit { ino: raw, layer, stat, reals: None, redirect: None, index: None, data: None, asked };
        if layer == UPPER {
            hit.ino = self.aliases.of(raw);
            if hit.ino == raw && self.impure(parent)? {
                hit.ino = self.shown(&At::name(dir, name), raw)?;
                hit.index = self.indexed(hit.ino);
                self.check_number(&mut hit, parent, name, raw);
            }
        } else if stat.st_nlink > 1 {
            hit.index = self.indexed(raw);
        }
        if hit.index.is_some() {
            hit.layer = UPPER;
        } else if may_lack_data(&stat) && At::name(dir, name).xattr(&self.attr.metacopy)?.is_some() {
            hit.data = self.data_below(parent, reals, k, name, dir)?;
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
