//! unlink and rmdir. What a lower layer has is hidden by a whiteout; what only the upper has goes.

use std::ffi::CStr;
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::find::{Hit, Probe};
use super::{CowFs, name_of};
use crate::failpoint::pass;
use crate::fds::Key;
use crate::table::{Fd, Place, Real, UPPER};
use crate::types::Ino;

impl CowFs {
    /// unlink(2). The inode stays usable until it is forgotten.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let name = name_of(name)?;
        let mut hit = self.find(parent, &name)?.ok_or(Errno::NOENT)?;
        if hit.is_dir() {
            return Err(Errno::ISDIR);
        }
        let work = self.work()?;
        let dir = self.upper_dir(parent)?;
        let _pin = self.pin(parent, &name, &hit)?;
        let _turn = self.busy.turn(hit.ino);
        self.count_names(&mut hit)?;
        let orphan = self.keep_if_last(parent, &name, &hit)?;
        let (upper, lower) = self.sides_of(parent, &name, &hit)?;
        let _marked = self.busy.moving([hit.ino; 2]);
        let turn = self.times_turn([parent; 2]);
        match (upper, lower) {
            (true, false) => rustix::fs::unlinkat(&dir, name.as_c_str(), AtFlags::empty())?,
            (true, true) => work.replace_by_whiteout(&dir, &name)?,
            (false, _) => work.link_whiteout(&dir, &name)?,
        }
        drop(turn);
        pass("remove.done");
        self.lost_name(parent, &name, &hit, orphan, !upper)
    }

    /// rmdir(2).
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let name = name_of(name)?;
        let hit = self.find(parent, &name)?.ok_or(Errno::NOENT)?;
        let Some(reals) = &hit.reals else { return Err(Errno::NOTDIR) };
        let work = self.work()?;
        let dir = self.upper_dir(parent)?;
        let _turn = self.busy.turn(hit.ino);
        let own = self.open_reals(parent, &name, &hit, reals)?;
        self.check_empty(reals, &own)?;
        let orphan = own.first().cloned();
        let (upper, lower) = self.sides_of(parent, &name, &hit)?;
        let _marked = self.busy.moving([hit.ino; 2]);
        let turn = self.times_turn([parent; 2]);
        match (upper, lower) {
            (true, false) => match rustix::fs::unlinkat(&dir, name.as_c_str(), AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => work.take_away(&dir, &name)?, // only whiteouts are in it
                other => other?,
            },
            (true, true) => work.swap_for_whiteout(&dir, &name)?,
            (false, _) => work.link_whiteout(&dir, &name)?,
        }
        drop(turn);
        self.lost_name(parent, &name, &hit, orphan, false)
    }

    /// A file of a lower layer that has other names too is copied up before it loses one: only a copy can say how many are left.
    pub(super) fn count_names(&self, hit: &mut Hit) -> Result<(), Errno> {
        if hit.layer != UPPER && !hit.is_dir() && hit.stat.st_nlink > 1 {
            self.copy_up_in_turn(hit.ino, None)?;
            hit.index = self.indexed(hit.ino);
            hit.layer = UPPER;
        }
        Ok(())
    }

    /// Notes that a name has gone.
    pub(super) fn lost_name(
        &self,
        parent: Ino,
        name: &CStr,
        hit: &Hit,
        orphan: Option<Fd>,
        only_lower: bool,
    ) -> Result<(), Errno> {
        let gone = self.table().unlinked(hit.ino, parent, name.to_bytes(), orphan);
        self.dismiss(&gone);
        match &hit.index {
            Some(index) => self.index_lost(hit.ino, index, only_lower),
            None => Ok(()),
        }
    }

    /// Opens a file that is about to lose its last name, because the kernel may have it open without our knowing.
    pub(super) fn keep_if_last(&self, parent: Ino, name: &CStr, hit: &Hit) -> Result<Option<Fd>, Errno> {
        let last = {
            let table = self.table();
            table.layer(hit.ino).is_some() && table.is_last_name(hit.ino, parent, name.to_bytes())
        };
        if !last {
            return Ok(None);
        }
        if let Some(fd) = self.fds.get(Key::File(hit.ino), self.is_upper(hit.ino)) {
            return Ok(Some(fd));
        }
        let place = self.table().place(hit.ino)?;
        if let Place::Orphan { fd, .. } = place {
            return Ok(Some(fd));
        }
        let at = self.at(&place)?;
        self.keep_open(&at, place.layer(), &hit.stat).map(Some)
    }

    /// [`Self::where_is`] of a name that has just been found, without asking again where only the upper can have it.
    pub(super) fn sides_of(&self, parent: Ino, name: &CStr, hit: &Hit) -> Result<(bool, bool), Errno> {
        if hit.layer == UPPER && self.reals(parent)?.len() == 1 {
            return Ok((true, false));
        }
        self.where_is(parent, name)
    }

    /// Whether the upper has a name, and whether a lower layer shows it to the upper.
    pub(super) fn where_is(&self, parent: Ino, name: &CStr) -> Result<(bool, bool), Errno> {
        let reals = self.reals(parent)?;
        let (mut upper, mut lower) = (false, false);
        let layers = self.layers_with(parent, &reals, name)?;
        for (k, real) in reals.iter().enumerate().filter(|(_, r)| layers.may_have(r.layer)) {
            let dir = self.dir_fd(parent, real.layer)?;
            match self.probe(&dir, name, real.layer)? {
                Probe::There(_) if real.layer == UPPER => upper = true,
                Probe::There(_) => {
                    let between = reals[..k].iter().position(|r| r.layer != UPPER).unwrap_or(k);
                    lower = !self.hidden_by_aufs(parent, &reals[between..k], name)?;
                    break;
                }
                Probe::Whiteout if real.layer == UPPER => {} // the upper's own does not say what is below
                Probe::Whiteout => break,
                Probe::Absent => {}
            }
        }
        Ok((upper, lower))
    }

    /// The directories that one is merged from, whether or not the kernel has looked it up.
    fn open_reals(&self, parent: Ino, name: &CStr, hit: &Hit, reals: &[Real]) -> Result<Vec<Fd>, Errno> {
        if self.table().layer(hit.ino).is_some() {
            let reals = self.reals(hit.ino)?;
            return reals.iter().map(|r| self.dir_fd(hit.ino, r.layer)).collect();
        }
        let open = |real: &Real| -> Result<Fd, Errno> {
            match &real.path {
                None => self.open_child_dir(&self.dir_fd(parent, real.layer)?, name).map(Arc::new),
                Some(path) => self.open_path(real.layer, path),
            }
        };
        reals.iter().map(open).collect()
    }

    fn open_path(&self, layer: u16, path: &[u8]) -> Result<Fd, Errno> {
        let mut fd = Arc::clone(&self.layer(layer).root);
        for part in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            fd = Arc::new(self.open_child_dir(&fd, &name_of(part)?)?);
        }
        Ok(fd)
    }

    /// ENOTEMPTY unless all that the layers have in a directory is hidden.
    pub(super) fn check_empty(&self, reals: &[Real], dirs: &[Fd]) -> Result<(), Errno> {
        for (k, (real, dir)) in reals.iter().zip(dirs).enumerate() {
            for entry in self.dir_entries(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                let visible = matches!(self.probe(dir, name, real.layer)?, Probe::There(_));
                let hidden = || -> Result<bool, Errno> {
                    for (real, above) in reals[..k].iter().zip(dirs) {
                        if !matches!(self.probe(above, name, real.layer)?, Probe::Absent) {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                };
                if visible && !hidden()? {
                    return Err(Errno::NOTEMPTY);
                }
            }
        }
        Ok(())
    }
}
