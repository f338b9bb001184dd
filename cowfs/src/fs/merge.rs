//! Directories that are merged from several layers: marks and redirects (Documentation/filesystems/overlayfs.rst).

use std::ffi::CStr;
use std::sync::Arc;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::aufs::AUFS_OPAQUE;
use super::find::{Hit, Probe, Spot, is_dir};
use super::redirect::{Below, below_of, is_redirect, parts_of};
use super::{CowFs, name_of};
use crate::at::fd_xattr;
use crate::config::Redirect;
use crate::fds::Key;
use crate::name::OPAQUE_VALUE;
use crate::table::{Fd, LayerNo, Real, UPPER};
use crate::types::Ino;

/// What a layer's directory says of what is below it.
enum Mark {
    Through,
    Opaque,
    Redirect(Vec<u8>),
}

impl CowFs {
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

    /// A directory, with all that merges with it below.
    pub(super) fn merged(&self, spot: Spot<'_>, stat: Stat) -> Result<Hit, Errno> {
        let Spot { parent, reals, k, name, dir, asked } = spot;
        let top = spot.layer();
        let mut ino = self.ino(self.layer(top).fs, stat.st_ino);
        let mut stack = vec![Real { layer: top, path: None }];
        let mut redirect = None;
        let impure = top == UPPER && self.impure(parent)?;
        if impure {
            ino = self.shown(&spot.at(), ino)?;
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
        let layers = self.layers_with(parent, reals, name)?;
        while let Some(real) = reals.get(*at) {
            *at += 1;
            if !layers.may_have(real.layer) {
                continue;
            }
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
}
