//! renameat2.
//!
//! Names that a lower layer has must be hidden where something leaves and where a directory arrives:
//! ```text
//! leaves, lower has the name      a whiteout takes its place in the same step (RENAME_WHITEOUT, or the whiteout from the other side)
//! arrives, a whiteout is there    replaced; for a directory by an exchange
//! directory of lower layers       its upper part says where the lower parts are (redirect), or EXDEV
//! directory, lower has the name   opaque, so that it does not merge with what it covers
//! ```

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::find::{Hit, Probe};
use super::{CowFs, name_of};
use crate::at::At;
use crate::config::Redirect;
use crate::failpoint::pass;
use crate::name::OPAQUE_VALUE;
use crate::table::{Fd, Real, Reals, UPPER};
use crate::types::{Ino, RenameMode};

/// overlayfs's bound on a redirect.
const REDIRECT_MAX: usize = 256;

/// One side of a rename.
struct Side<'a> {
    parent: Ino,
    name: &'a CStr,
    dir: Fd,
    /// The upper has the name.
    upper: bool,
    /// A lower layer would show the name if the upper had nothing there.
    lower: bool,
    /// The upper has a whiteout there.
    whiteout: bool,
}

/// Where a directory's parts are once it has another name.
struct Lower {
    reals: Reals,
    redirect: Arc<[u8]>,
}

/// Keeps an inode known while it is worked on.
pub(super) struct Pin<'a>(&'a CowFs, Ino);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1, 1);
    }
}

/// Counts a rename of a directory while it goes on, so that nobody trusts a path meanwhile.
struct Moving<'a>(Option<&'a CowFs>);

impl<'a> Moving<'a> {
    fn new(fs: &'a CowFs, directory: bool) -> Self {
        if !directory {
            return Self(None);
        }
        while fs
            .renames
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.is_multiple_of(2).then_some(n + 1))
            .is_err()
        {
            std::thread::yield_now();
        }
        Self(Some(fs))
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if let Some(fs) = self.0 {
            fs.renames.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl CowFs {
    /// renameat2(2).
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<(), Errno> {
        let (old, new) = (name_of(from.1)?, name_of(to.1)?);
        if self.is_aufs(&new) {
            return Err(Errno::INVAL);
        }
        *self.missing() = None;
        let source = self.find(from.0, &old)?.ok_or(Errno::NOENT)?;
        let mut target = self.find(to.0, &new)?;
        check_kinds(&source, target.as_ref(), mode)?;
        if let Some(target) = &target
            && target.ino == source.ino
        {
            return Ok(()); // two names of one file (rename(2))
        }
        self.check_movable(&source)?;
        if let Some(target) = target.as_ref().filter(|_| mode == RenameMode::Exchange) {
            self.check_movable(target)?;
        }
        let _pins = self.pin(from.0, &old, &source)?;
        let _other = target.as_ref().map(|t| self.pin(to.0, &new, t)).transpose()?;
        let exchanged = target.as_ref().filter(|_| mode == RenameMode::Exchange);
        // A file before the turn of the directory that it is exchanged with: another name of it may be in there, by which it is copied up.
        for hit in std::iter::once(&source).chain(exchanged) {
            self.copy_up(hit.ino)?;
        }
        let (first, second) = (self.upper_dir(from.0)?, self.upper_dir(to.0)?);
        let _turns = self.busy.turns([source.ino, target.as_ref().map_or(source.ino, |t| t.ino)]);
        let exchange = exchanged.is_some();
        for (hit, parent, name) in std::iter::once((&source, from.0, &old))
            .chain(exchanged.map(|t| (t, to.0, &new)))
            .filter(|h| !h.0.is_dir())
        {
            self.copy_up_in_turn(hit.ino, None)?;
            if hit.stat.st_nlink > 1 || hit.index.is_some() {
                self.name_in_upper(hit.ino, parent, name)?;
            }
        }
        if let Some(target) = target.as_mut().filter(|_| !exchange) {
            self.count_names(target)?;
        }
        let here = self.side(from.0, &old, first, Some(&source))?;
        let there = self.side(to.0, &new, second, target.as_ref())?;
        if exchange {
            let target = target.as_ref().expect("there is something to exchange with");
            return self.exchange((&here, &source), (&there, target));
        }
        self.replace((&here, &source), &there, target.as_ref())
    }

    pub(super) fn pin(&self, parent: Ino, name: &CStr, hit: &Hit) -> Result<Pin<'_>, Errno> {
        self.enter(parent, name, hit, 1)?;
        Ok(Pin(self, hit.ino))
    }

    /// EXDEV for a directory with lower parts, unless redirects are wanted: mv(1) then copies.
    fn check_movable(&self, hit: &Hit) -> Result<(), Errno> {
        let lower = hit.reals.as_ref().is_some_and(|r| r.iter().any(|r| r.layer != UPPER));
        if lower && self.redirect != Redirect::On { Err(Errno::XDEV) } else { Ok(()) }
    }

    /// A hard link that was copied up under another name gets this one in the upper too.
    fn name_in_upper(&self, ino: Ino, parent: Ino, name: &CStr) -> Result<(), Errno> {
        if self.where_is(parent, name)?.0 {
            return Ok(());
        }
        self.link_name(ino, parent, name.to_bytes())
    }

    fn side<'a>(&self, parent: Ino, name: &'a CStr, dir: Fd, hit: Option<&Hit>) -> Result<Side<'a>, Errno> {
        let only_upper = self.reals(parent)?.len() == 1;
        let (upper, lower) = match hit {
            // Only the upper can have it, and there it is or is not.
            hit if only_upper => (hit.is_some(), false),
            _ => self.where_is(parent, name)?,
        };
        let whiteout = !upper
            && matches!(self.probe(&dir, name, UPPER)?, Probe::Whiteout)
            && At::name(&dir, name).stat().is_ok();
        Ok(Side { parent, name, dir, upper, lower, whiteout })
    }

    /// Makes a directory in the upper ready to appear under a name: answers where its parts will be then.
    fn mark_for(&self, side: &Side<'_>, hit: &Hit, arrives: &Side<'_>) -> Result<Option<Lower>, Errno> {
        if !hit.is_dir() {
            return Ok(None);
        }
        let at = At::name(&side.dir, side.name);
        let reals = self.reals(hit.ino)?;
        if reals.len() == 1 {
            if arrives.lower {
                at.set_xattr(&self.attr.opaque, OPAQUE_VALUE, XattrFlags::empty())?;
            }
            return Ok(None);
        }
        let mut after = vec![Real { layer: UPPER, path: None }];
        for real in reals.iter().filter(|r| r.layer != UPPER) {
            let path = self.table().path_in(hit.ino, real.layer)?;
            after.push(Real { layer: real.layer, path: Some(Arc::from(path)) });
        }
        let path = self.table().lower_path(hit.ino)?;
        if path.len() > REDIRECT_MAX {
            return Err(Errno::XDEV);
        }
        at.set_xattr(&self.attr.redirect, &path, XattrFlags::empty())?;
        Ok(Some(Lower { reals: after.into(), redirect: path.into() }))
    }

    fn exchange(
        &self,
        (here, source): (&Side<'_>, &Hit),
        (there, target): (&Side<'_>, &Hit),
    ) -> Result<(), Errno> {
        let source_reals = self.mark_for(here, source, there)?;
        let target_reals = self.mark_for(there, target, here)?;
        self.spread_impure(here, there)?;
        self.spread_impure(there, here)?;
        let _moving = Moving::new(self, source.is_dir() || target.is_dir());
        let _marked = self.busy.moving([source.ino, target.ino]);
        let times = self.times_turn([here.parent, there.parent]);
        rustix::fs::renameat_with(&here.dir, here.name, &there.dir, there.name, RenameFlags::EXCHANGE)?;
        drop(times);
        pass("rename.exchanged");
        let (old, new) = ((here.parent, here.name.to_bytes()), (there.parent, there.name.to_bytes()));
        let mut table = self.table();
        let gone = [table.renamed(source.ino, old, new), table.renamed(target.ino, new, old)];
        for (hit, reals) in [(source, source_reals), (target, target_reals)] {
            if let Some(lower) = reals {
                table.redirected(hit.ino, lower.reals, lower.redirect);
            }
        }
        drop(table);
        for gone in &gone {
            self.dismiss(gone);
        }
        Ok(())
    }

    fn replace(
        &self,
        (here, source): (&Side<'_>, &Hit),
        there: &Side<'_>,
        target: Option<&Hit>,
    ) -> Result<(), Errno> {
        let orphan = match target {
            Some(hit) if hit.is_dir() => {
                let reals = self.reals(hit.ino)?;
                let dirs: Vec<Fd> =
                    reals.iter().map(|r| self.dir_fd(hit.ino, r.layer)).collect::<Result<_, _>>()?;
                self.check_empty(&reals, &dirs)?;
                if there.upper {
                    self.clear(there, &dirs[0])?;
                }
                Some(self.dir_fd(hit.ino, reals[0].layer)?)
            }
            Some(hit) => self.keep_if_last(there.parent, there.name, hit)?,
            None => None,
        };
        let reals = self.mark_for(here, source, there)?;
        self.spread_impure(here, there)?;
        {
            let _moving = Moving::new(self, source.is_dir());
            let _marked = self.busy.moving([source.ino, target.map_or(source.ino, |t| t.ino)]);
            pass("rename.marked");
            self.move_in_upper(here, there, source.is_dir())?;
            pass("rename.moved");
            let mut gone = Vec::new();
            let mut table = self.table();
            if let Some(hit) = target {
                gone.push(table.unlinked(hit.ino, there.parent, there.name.to_bytes(), orphan));
            }
            let (old, new) = ((here.parent, here.name.to_bytes()), (there.parent, there.name.to_bytes()));
            gone.push(table.renamed(source.ino, old, new));
            if let Some(lower) = reals {
                table.redirected(source.ino, lower.reals, lower.redirect);
            }
            drop(table);
            for gone in &gone {
                self.dismiss(gone);
            }
        }
        if let Some((hit, index)) = target.and_then(|t| t.index.as_ref().map(|i| (t, i))) {
            self.index_lost(hit.ino, index, !there.upper)?;
        }
        Ok(())
    }

    /// The one step that can be seen.
    fn move_in_upper(&self, here: &Side<'_>, there: &Side<'_>, directory: bool) -> Result<(), Errno> {
        let _times = self.times_turn([here.parent, there.parent]);
        let rename = |flags| rustix::fs::renameat_with(&here.dir, here.name, &there.dir, there.name, flags);
        if there.whiteout && (here.lower || directory) {
            rename(RenameFlags::EXCHANGE)?;
            if !here.lower {
                rustix::fs::unlinkat(&here.dir, here.name, AtFlags::empty())?;
            }
            return Ok(());
        }
        if !here.lower {
            return rename(RenameFlags::empty());
        }
        match rename(RenameFlags::WHITEOUT) {
            // A file system without it: for a moment the lower name shows.
            Err(Errno::INVAL | Errno::PERM) => {
                rename(RenameFlags::empty())?;
                self.work()?.link_whiteout(&here.dir, here.name)
            }
            other => other,
        }
    }

    /// Puts a really empty directory in the place of one that holds only whiteouts: rename(2) replaces no other.
    fn clear(&self, side: &Side<'_>, dir: &Fd) -> Result<(), Errno> {
        let mut empty = true;
        for entry in self.dir_entries(dir)? {
            let entry = entry?;
            empty &= entry.file_name() == c"." || entry.file_name() == c"..";
        }
        if empty {
            return Ok(());
        }
        let work = self.work()?;
        let fresh: CString = work.fresh();
        rustix::fs::mkdirat(&work.dir, fresh.as_c_str(), Mode::RWXU)?;
        let swap = || {
            let at = At::name(&work.dir, &fresh);
            at.set_xattr(&self.attr.opaque, OPAQUE_VALUE, XattrFlags::empty())?;
            self.copy_attributes(&At::Fd(Arc::clone(dir)), &at, &rustix::fs::fstat(dir)?)?;
            let flags = RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(&work.dir, fresh.as_c_str(), &side.dir, side.name, flags)
        };
        let swapped = swap();
        pass("rename.cleared");
        work.discard(&fresh);
        swapped
    }

    /// What comes from a directory that may hold objects with an origin may have one.
    fn spread_impure(&self, from: &Side<'_>, to: &Side<'_>) -> Result<(), Errno> {
        if from.parent != to.parent && self.impure(from.parent)? {
            self.set_impure(to.parent)
        } else {
            Ok(())
        }
    }
}

fn check_kinds(source: &Hit, target: Option<&Hit>, mode: RenameMode) -> Result<(), Errno> {
    match (mode, target) {
        (RenameMode::NoReplace, Some(_)) => Err(Errno::EXIST),
        (RenameMode::Exchange, None) => Err(Errno::NOENT),
        (RenameMode::Replace, Some(target)) => match (source.is_dir(), target.is_dir()) {
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
