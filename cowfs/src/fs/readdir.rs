//! Reading directories: the upper's entries, then those of each layer below that nothing above hides.
//!
//! Nothing is kept between two calls, however large the directory: a position says in which layer's directory reading stands and where
//! there (`d_off`). A name is hidden if a layer above has it; small directories above are read whole for that, in large ones each name is
//! asked for.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use super::CowFs;
use super::find::Probe;
use crate::at::At;
use crate::listing::Layers;
use crate::table::{Fd, LayerNo, Real, Reals, UPPER};
use crate::types::{Attr, DirEntry, Ino, Kind};

/// Bits of a position that are the layer's own.
const COOKIE_BITS: u32 = 46;
/// The position's lowest bits did not fit (hashes of ext4 have 63).
const CUT: u64 = 1 << 62;
const CUT_BITS: u32 = 17;
/// Positions that are remembered whole.
const REMEMBERED: usize = 1024;

/// The whole of positions that did not fit, as long as there is room. Without it reading goes on a few hashes earlier, which only repeats an
/// entry if two names share 46 bits of hash.
#[derive(Debug, Default)]
pub(super) struct Positions(Mutex<HashMap<(Ino, u64), u64>>);

impl Positions {
    fn encode(layer: LayerNo, cookie: u64) -> u64 {
        if cookie >> COOKIE_BITS == 0 {
            u64::from(layer) << COOKIE_BITS | cookie
        } else {
            CUT | u64::from(layer) << COOKIE_BITS | (cookie >> CUT_BITS & ((1 << COOKIE_BITS) - 1))
        }
    }

    fn decode(&self, ino: Ino, position: u64) -> (LayerNo, u64) {
        let layer = ((position & !CUT) >> COOKIE_BITS) as LayerNo;
        let low = position & ((1 << COOKIE_BITS) - 1);
        if position & CUT == 0 {
            return (layer, low);
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(ino, position)).copied();
        (layer, known.unwrap_or(low << CUT_BITS))
    }

    fn remember(&self, ino: Ino, position: u64, cookie: u64) {
        if position & CUT == 0 {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert((ino, position), cookie);
    }
}

/// A directory above the one that is read.
struct Above {
    dir: Fd,
    layer: LayerNo,
    /// All its names, if they are few; not set until they are asked for.
    names: OnceCell<Option<HashSet<Vec<u8>>>>,
}

/// An entry of a layer that is to be shown.
struct Seen<'a> {
    name: &'a CStr,
    ino: Ino,
    kind: FileType,
    next: u64,
    /// Which of the directory's layers it is in.
    at: usize,
}

type Sink<'a> = &'a mut dyn FnMut(DirEntry<'_>) -> bool;
type SinkPlus<'a> = &'a mut dyn FnMut(DirEntry<'_>, &Attr) -> bool;

impl CowFs {
    /// Entries from `offset` on (0: the first, `.` and `..` included) until `sink` answers `false`: that entry was not taken.
    pub fn readdir(&self, ino: Ino, offset: u64, sink: Sink<'_>) -> Result<(), Errno> {
        let reals = self.reals(ino)?;
        self.entries::<32768>(ino, &reals, offset, &mut |seen| {
            let name = seen.name.to_bytes();
            Ok(sink(DirEntry { name, ino: seen.ino, kind: kind_of(seen.kind), next: seen.next }))
        })
    }

    /// The same with attributes; each entry taken, other than `.`, `..` and those with inode number 0, is a lookup.
    pub fn readdirplus(&self, ino: Ino, offset: u64, sink: SinkPlus<'_>) -> Result<(), Errno> {
        let reals = self.reals(ino)?;
        self.entries::<8192>(ino, &reals, offset, &mut |seen| {
            let name = seen.name.to_bytes();
            let entry = |ino, kind| DirEntry { name, ino, kind, next: seen.next };
            if name == b"." || name == b".." {
                let attr = Attr { ino: seen.ino, mode: 0o040_000, ..EMPTY };
                return Ok(sink(entry(seen.ino, Kind::Directory), &attr));
            }
            // One that is broken does not hide the others: it is named, without a lookup, and says what is wrong when it is looked up.
            let mut broken = || {
                let attr = Attr { ino: 0, mode: seen.kind.as_raw_mode(), ..EMPTY };
                Ok(sink(entry(seen.ino, kind_of(seen.kind)), &attr))
            };
            let hit = match self.find_from(ino, &reals, seen.at, Layers::ANY, seen.name) {
                Ok(Some(hit)) => hit,
                Ok(None) | Err(Errno::STALE) => return Ok(true), // it has gone meanwhile
                Err(_) => return broken(),
            };
            let attr = match self.enter(ino, seen.name, &hit, 1) {
                Ok(attr) => attr,
                Err(Errno::NOENT | Errno::STALE) => return Ok(true),
                Err(_) => return broken(),
            };
            let taken = sink(entry(hit.ino, attr.kind()), &attr);
            if !taken {
                self.forget(hit.ino, 1);
            }
            Ok(taken)
        })
    }

    fn entries<const BUF: usize>(
        &self,
        ino: Ino,
        reals: &Reals,
        offset: u64,
        show: &mut dyn FnMut(&Seen<'_>) -> Result<bool, Errno>,
    ) -> Result<(), Errno> {
        let (layer, mut cookie) =
            if offset == 0 { (reals[0].layer, 0) } else { self.positions.decode(ino, offset) };
        let mut above: Vec<Above> = Vec::new();
        for (at, real) in reals.iter().enumerate() {
            let dir = self.dir_fd(ino, real.layer)?;
            if real.layer >= layer {
                if real.layer > layer {
                    cookie = 0;
                }
                let read = Reading { ino, real, at, dir: &dir, cookie };
                if !self.entries_of::<BUF>(&read, &above, show)? {
                    return Ok(());
                }
            }
            if at + 1 < reals.len() {
                above.push(Above { dir, layer: real.layer, names: OnceCell::new() });
            }
        }
        Ok(())
    }

    /// Shows the entries of one layer's directory. `false`: no more are wanted.
    fn entries_of<const BUF: usize>(
        &self,
        read: &Reading<'_>,
        above: &[Above],
        show: &mut dyn FnMut(&Seen<'_>) -> Result<bool, Errno>,
    ) -> Result<bool, Errno> {
        let own: OwnedFd = self.open_child_dir(read.dir, c".")?;
        if read.cookie != 0 {
            rustix::fs::seek(&own, SeekFrom::Start(read.cookie))?;
        }
        let mut buf = [MaybeUninit::<u8>::uninit(); BUF];
        let mut dir = RawDir::new(&own, &mut buf);
        let mut last = None;
        let mut more = true;
        while let Some(entry) = dir.next() {
            let entry = entry?;
            let cookie = entry.next_entry_cookie();
            let next = Positions::encode(read.real.layer, cookie);
            let Some(seen) =
                self.seen(read, above, entry.file_name(), entry.ino(), entry.file_type(), next)?
            else {
                continue;
            };
            if !show(&seen)? {
                more = false;
                break;
            }
            last = Some((next, cookie));
        }
        if let Some((position, cookie)) = last {
            self.positions.remember(read.ino, position, cookie);
        }
        Ok(more)
    }

    /// What is shown of an entry, if anything.
    fn seen<'a>(
        &self,
        read: &Reading<'_>,
        above: &[Above],
        name: &'a CStr,
        number: u64,
        mut kind: FileType,
        next: u64,
    ) -> Result<Option<Seen<'a>>, Errno> {
        let layer = read.real.layer;
        let mut ino = self.ino(self.layer(layer).fs, number);
        if name == c"." || name == c".." {
            if read.at > 0 {
                return Ok(None);
            }
            let shown = if name == c"." { Some(read.ino) } else { self.table().parent(read.ino) };
            ino = self.number_of(shown.unwrap_or(read.ino))?;
            return Ok(Some(Seen { name, ino, kind: FileType::Directory, next, at: read.at }));
        }
        if self.is_aufs(name) {
            return Ok(None);
        }
        for higher in above {
            if higher.has(self, name)? {
                return Ok(None);
            }
        }
        let asks = match kind {
            FileType::CharacterDevice | FileType::Unknown => true,
            FileType::RegularFile => self.layer(layer).xattr_whiteouts,
            _ => false,
        };
        if asks {
            match self.probe(read.dir, name, layer)? {
                Probe::There(stat) => kind = FileType::from_raw_mode(stat.st_mode),
                Probe::Absent | Probe::Whiteout => return Ok(None),
            }
        }
        if layer == UPPER && self.impure(read.ino)? {
            match self.shown(&At::name(read.dir, name), ino) {
                Ok(shown) => ino = shown,
                Err(Errno::NOENT) => return Ok(None),
                Err(e) => return Err(e),
            }
        } else if layer == UPPER {
            ino = self.aliases.of(ino);
        }
        Ok(Some(Seen { name, ino, kind, next, at: read.at }))
    }

    /// The inode number that stat(2) shows for a directory.
    fn number_of(&self, dir: Ino) -> Result<Ino, Errno> {
        if dir == crate::types::ROOT { Ok(self.getattr(dir)?.ino) } else { Ok(dir) }
    }
}

/// Where reading stands.
struct Reading<'a> {
    ino: Ino,
    real: &'a Real,
    at: usize,
    dir: &'a Fd,
    cookie: u64,
}

impl Above {
    /// Reads the names, if one call of getdents64(2) and the end suffice.
    fn read_if_small(&self, fs: &CowFs) -> Result<Option<HashSet<Vec<u8>>>, Errno> {
        let own = fs.open_child_dir(&self.dir, c".")?;
        let mut buf = [MaybeUninit::<u8>::uninit(); 16384];
        let mut dir = RawDir::new(&own, &mut buf);
        let mut names = HashSet::new();
        while let Some(entry) = dir.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            names
                .insert(name.strip_prefix(if fs.aufs { &b".wh."[..] } else { b"" }).unwrap_or(name).to_vec());
            if dir.is_buffer_empty() && names.len() > 256 {
                return Ok(None);
            }
        }
        Ok(Some(names))
    }

    fn has(&self, fs: &CowFs, name: &CStr) -> Result<bool, Errno> {
        if self.names.get().is_none() {
            let _ = self.names.set(self.read_if_small(fs)?);
        }
        if let Some(Some(names)) = self.names.get() {
            return Ok(names.contains(name.to_bytes()));
        }
        debug_assert!(usize::from(self.layer) < fs.layers.len());
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => fs.has_aufs_whiteout(&self.dir, name),
            Err(e) => Err(e),
        }
    }
}

fn kind_of(kind: FileType) -> Kind {
    Kind::of_mode(kind.as_raw_mode())
}

const EMPTY: Attr = Attr {
    ino: 0,
    size: 0,
    blocks: 0,
    atime: ZERO,
    mtime: ZERO,
    ctime: ZERO,
    mode: 0,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 4096,
};
const ZERO: crate::types::Time = crate::types::Time { sec: 0, nsec: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back() {
        let positions = Positions::default();
        for (layer, cookie) in [(0, 1), (1, 0), (3, (1 << 46) - 1), (500, 77)] {
            assert_eq!(positions.decode(5, Positions::encode(layer, cookie)), (layer, cookie));
        }
        let hash = 0x1234_5678_9abc_def0;
        let position = Positions::encode(2, hash);
        assert!(position < 1 << 63, "the kernel's offsets are signed");
        assert_eq!(positions.decode(5, position), (2, hash >> 17 << 17));
        positions.remember(5, position, hash);
        assert_eq!(positions.decode(5, position), (2, hash));
    }
}
