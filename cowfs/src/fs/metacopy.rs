//! Files of which a layer holds only the attributes: overlayfs copies no more up for chmod with `metacopy=on`. Their data is looked for below.

use std::sync::Arc;

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use super::find::Spot;
use super::redirect::is_redirect;
use super::{CowFs, name_of};
use crate::at::At;
use crate::config::Redirect;
use crate::table::{DataAt, LayerNo};

impl CowFs {
    /// Where the data of a file with only attributes is.
    pub(super) fn data_below(&self, spot: Spot<'_>) -> Result<Option<DataAt>, Errno> {
        let mut redirect = spot.at().xattr(&self.attr.redirect)?;
        let mut below = spot.layer();
        let mut beside = spot.name.to_bytes().to_vec();
        loop {
            let next = match redirect.take() {
                Some(path) if !is_redirect(&path) || self.redirect == Redirect::NoFollow => {
                    return Err(Errno::IO);
                }
                Some(path) if path[0] == b'/' => self.first_file(below, &path)?,
                named => {
                    beside = named.unwrap_or(beside);
                    let mut hit = None;
                    for real in spot.reals.iter().filter(|r| r.layer > below) {
                        let mut path = self.table().path_in(spot.parent, real.layer)?;
                        path.push(b'/');
                        path.extend_from_slice(&beside);
                        if let Some(at) = self.file_at(real.layer, &path)? {
                            hit = Some((real.layer, path, at));
                            break;
                        }
                    }
                    hit
                }
            };
            let Some((layer, path, at)) = next else { return Err(Errno::IO) };
            if !may_lack_data(&at.stat()?) || at.xattr(&self.attr.metacopy)?.is_none() {
                return Ok(Some((layer, Arc::from(path))));
            }
            redirect = at.xattr(&self.attr.redirect)?;
            if redirect.is_none() {
                redirect = Some(path);
            }
            below = layer;
        }
    }

    fn first_file(&self, below: LayerNo, path: &[u8]) -> Result<Option<(LayerNo, Vec<u8>, At)>, Errno> {
        for layer in below + 1..self.layers.len() as LayerNo {
            if let Some(at) = self.file_at(layer, path)? {
                return Ok(Some((layer, path.to_vec(), at)));
            }
        }
        Ok(None)
    }

    /// A regular file at a path of a layer.
    pub(super) fn file_at(&self, layer: LayerNo, path: &[u8]) -> Result<Option<At>, Errno> {
        let mut fd = Arc::clone(&self.layer(layer).root);
        let mut parts = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let name = name_of(part)?;
            if parts.peek().is_none() {
                let at = At::Name(fd, name);
                let regular = |s: &Stat| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile;
                return Ok(at.stat().ok().filter(regular).map(|_| at));
            }
            match self.open_at(
                &fd,
                &name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            ) {
                Ok(next) => fd = Arc::new(next),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// A file with only attributes (metacopy) is as long as its data but takes no room.
pub(super) fn may_lack_data(stat: &Stat) -> bool {
    stat.st_size > 0 && stat.st_blocks == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
