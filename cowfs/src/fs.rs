//! The file system.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::aliases::Aliases;
use crate::at::At;
use crate::busy::Busy;
use crate::config::{IdMap, Redirect, Squash};
use crate::fds::{Fds, Key};
use crate::layer::Layer;
use crate::listing::Hasher;
use crate::name::Namespace;
use crate::table::{Fd, LayerNo, Place, Real, Reals, Table, UPPER};
use crate::types::Ino;
use crate::work::Work;

mod aliases;
mod attributes;
mod aufs;
mod copyup;
mod create;
mod data;
mod find;
mod links;
mod list;
mod merge;
mod metacopy;
mod open;
mod readdir;
mod redirect;
mod remove;
mod rename;
mod shown;
mod times;
mod xattrs;

/// Layers shown as one tree, whose changes go to the upper layer.
///
/// Threads may call it at the same time. Operations on one directory's names are expected one at a time, as the kernel's VFS sends
/// them; everything else may run in parallel. No lock is held over I/O.
#[derive(Debug)]
pub struct CowFs {
    /// The upper first, then the lowers, topmost first.
    layers: Vec<Option<Layer>>,
    /// All layers are on one file system, so that its inode numbers are unique here.
    one_fs: bool,
    attr: Attrs,
    redirect: Redirect,
    uid_map: IdMap,
    gid_map: IdMap,
    squash: Squash,
    /// What this process makes belongs to these.
    ids: (u32, u32),
    xattrs: bool,
    aufs: bool,
    sync: bool,
    table: Mutex<Table>,
    names: Hasher,
    fds: Fds,
    busy: Busy,
    times: times::Times,
    /// Odd while a directory is being renamed.
    renames: AtomicU64,
    work: Option<Work>,
    /// Hard links of lower layers that were copied up: the inode number that is shown and the name in the index.
    index: Mutex<HashMap<Ino, Arc<[u8]>>>,
    /// Copies whose origin could not be noted.
    aliases: Aliases,
    /// The name that was last looked up in vain, which whoever asked is about to make.
    missing: Mutex<Option<(Ino, CString)>>,
    /// Positions in directories whose file system has longer ones than fit.
    positions: readdir::Positions,
}

/// The names of overlay's xattrs in the namespace in use.
#[derive(Debug)]
struct Attrs {
    prefix: &'static str,
    opaque: CString,
    redirect: CString,
    impure: CString,
    origin: CString,
    metacopy: CString,
    nlink: CString,
    whiteout: CString,
}

impl Attrs {
    fn new(namespace: Namespace) -> Self {
        let name = |what| CString::new(namespace.xattr(what)).expect("a constant without zero bytes");
        Self {
            prefix: namespace.prefix(),
            opaque: name("opaque"),
            redirect: name("redirect"),
            impure: name("impure"),
            origin: name("origin"),
            metacopy: name("metacopy"),
            nlink: name("nlink"),
            whiteout: name("whiteout"),
        }
    }
}

/// A file name from the kernel, ready for system calls.
fn name_of(name: &[u8]) -> Result<CString, Errno> {
    if name.len() > 255 {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    CString::new(name).map_err(|_| Errno::INVAL)
}

impl CowFs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer(&self, layer: LayerNo) -> &Layer {
        self.layers[usize::from(layer)].as_ref().expect("only layers that are there are named")
    }

    fn work(&self) -> Result<&Work, Errno> {
        self.work.as_ref().ok_or(Errno::ROFS)
    }

    /// How many inodes are known (those the kernel has not forgotten, and the directories above them).
    pub fn known(&self) -> usize {
        self.table().len()
    }

    /// Whether an inode's file is in the upper layer already: changing it copies nothing up.
    pub fn is_upper(&self, ino: Ino) -> bool {
        self.table().layer(ino) == Some(UPPER)
    }

    /// Gives back lookups. An inode without any is forgotten.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.forget_all(&[(ino, lookups)]);
    }

    /// Gives back lookups of many inodes at once.
    pub fn forget_all(&self, inos: &[(Ino, u64)]) {
        let mut gone = crate::table::Gone::default();
        let mut table = self.table();
        for (ino, lookups) in inos {
            table.forget(*ino, *lookups, &mut gone);
        }
        drop(table);
        self.dismiss(&gone);
    }

    /// Closes what belonged to inodes that are not known any more.
    fn dismiss(&self, gone: &crate::table::Gone) {
        if !gone.inos.is_empty() {
            self.aliases.forget(&gone.inos);
            let layers = self.layers.len() as LayerNo;
            let few = layers <= 8;
            let dirs =
                gone.inos.iter().flat_map(|i| (0..if few { layers } else { 0 }).map(|l| Key::Dir(*i, l)));
            self.fds.remove(gone.inos.iter().map(|i| Key::File(*i)).chain(dirs));
            if !few {
                self.fds.remove_dirs(&gone.inos);
            }
        }
        if gone.trim {
            davit_sys::resident::release_free_heap();
        }
    }

    /// The layers of a directory.
    fn reals(&self, ino: Ino) -> Result<Reals, Errno> {
        Ok(Arc::clone(&self.table().dir(ino)?.reals))
    }

    /// A directory of a layer, open.
    fn dir_fd(&self, ino: Ino, layer: LayerNo) -> Result<Fd, Errno> {
        if let Some(fd) = self.fds.get(Key::Dir(ino, layer), false) {
            return Ok(fd);
        }
        loop {
            let before = self.renames.load(Ordering::Acquire);
            let opened = self.open_dir_fd(ino, layer);
            if before.is_multiple_of(2) && self.renames.load(Ordering::Acquire) == before {
                let fd = opened?;
                self.fds.put(Key::Dir(ino, layer), Arc::clone(&fd), false);
                return Ok(fd);
            }
            std::thread::yield_now(); // a directory was renamed meanwhile: the way may have been another's
        }
    }

    fn open_dir_fd(&self, ino: Ino, layer: LayerNo) -> Result<Fd, Errno> {
        let route = {
            let table = self.table();
            if let Some(fd) = table.orphan(ino) {
                return Ok(fd);
            }
            table.route(ino, layer, |above| self.fds.get(Key::Dir(above, layer), false))?
        };
        let mut fd = route.from.unwrap_or_else(|| Arc::clone(&self.layer(layer).root));
        for name in route.names {
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            fd = Arc::new(self.open_child_dir(&fd, &name)?);
        }
        Ok(fd)
    }

    /// Opens a directory in a directory; where it may not be read, only to go through.
    fn open_child_dir(&self, dir: &Fd, name: &CStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_at(dir, name, flags | OFlags::RDONLY) {
            Err(Errno::ACCESS) => self.open_at(dir, name, flags | OFlags::PATH),
            other => other,
        }
    }

    /// openat(2), after closing cached descriptors if there are no more to be had.
    fn open_at(&self, dir: &Fd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.with_room(|| rustix::fs::openat(dir, name, flags, Mode::empty()))
    }

    /// The entries of a directory, from the first, by a descriptor of its own: a cached one's position is not ours.
    fn dir_entries(&self, dir: &Fd) -> Result<rustix::fs::Dir, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        rustix::fs::Dir::new(self.open_at(dir, c".", flags)?)
    }

    /// The index of hard links, made if it is not there.
    fn index_dir(&self) -> Result<Fd, Errno> {
        let work = self.work()?;
        self.with_room(|| work.index())
    }

    fn with_room<T>(&self, open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.fds.halve();
                open()
            }
            other => other,
        }
    }

    /// Asks something of an inode's object. The kernel lets nobody change a file while its name changes (the inode's lock is held over
    /// setattr, write, unlink and rename); but what is merely asked may come while the name becomes another file's: then it is asked
    /// again.
    fn ask<T>(&self, ino: Ino, what: impl Fn(&At) -> Result<T, Errno>) -> Result<T, Errno> {
        if self.table().is_dir(ino) {
            return what(&self.locate(ino)?.0);
        }
        loop {
            let place = self.table().place(ino)?;
            let answer = self.at(&place).and_then(|at| what(&at));
            if matches!(place, Place::Orphan { .. }) || !self.moved(ino, &place) {
                return answer;
            }
        }
    }

    /// Where an inode's file is, and its layer. A directory is where its topmost part is.
    fn locate(&self, ino: Ino) -> Result<(At, LayerNo), Errno> {
        let place = {
            let table = self.table();
            if table.is_dir(ino) {
                let layer = table.dir(ino)?.reals[0].layer;
                drop(table);
                return Ok((At::Fd(self.dir_fd(ino, layer)?), layer));
            }
            table.place(ino)?
        };
        Ok((self.at(&place)?, place.layer()))
    }

    fn at(&self, place: &Place) -> Result<At, Errno> {
        match place {
            Place::Named { layer, parent, name } => {
                let name = CString::new(name.as_slice()).map_err(|_| Errno::INVAL)?;
                Ok(At::Name(self.dir_fd(*parent, *layer)?, name))
            }
            Place::Index(name) => {
                let name = CString::new(&**name).map_err(|_| Errno::INVAL)?;
                Ok(At::Name(self.index_dir()?, name))
            }
            Place::Orphan { fd, .. } => Ok(At::Fd(Arc::clone(fd))),
        }
    }

    /// A directory's layers with the upper on top.
    fn with_upper(reals: &[Real]) -> Reals {
        std::iter::once(Real { layer: UPPER, path: None }).chain(reals.iter().cloned()).collect()
    }
}
