//! The work directory: what is being made is made here and renamed into the upper layer when it is whole.
//!
//! `work/` below it is emptied at each start, as overlayfs does; `index/` holds a hard link to each copied-up file that has several names
//! in a lower layer.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::config::OpenError;
use crate::failpoint::pass;
use crate::layer::{directory, open_dir};
use crate::table::Fd;

/// What is made and not yet in its place.
#[derive(Debug)]
pub(crate) struct Work {
    base: OwnedFd,
    pub(crate) dir: Fd,
    index: OnceLock<Fd>,
    next: AtomicU64,
    /// The shared whiteout is there.
    whiteout: AtomicBool,
}

const WHITEOUT: &CStr = c"#whiteout";
const INDEX: &CStr = c"index";

fn open_below(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

impl Work {
    /// Opens it and removes what an earlier life left in the middle of being made.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let base = open_dir(path)?;
        let fail = |what| move |e| directory(what, &path.join("work"), e);
        remove_all(&base, c"work").map_err(fail("empty"))?;
        // Not even this process's user is to look in here by chance; overlayfs makes it so too.
        rustix::fs::mkdirat(&base, c"work", Mode::RWXU).map_err(fail("make"))?;
        let dir = open_below(&base, c"work").map_err(fail("open"))?;
        let index = OnceLock::new();
        if let Ok(fd) = open_below(&base, INDEX) {
            let _ = index.set(Arc::new(fd));
        }
        Ok(Self {
            base,
            dir: Arc::new(dir),
            index,
            next: AtomicU64::new(0),
            whiteout: AtomicBool::new(false),
        })
    }

    /// A name that nothing has.
    pub(crate) fn fresh(&self) -> CString {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        CString::new(format!("#{number:x}")).expect("digits")
    }

    /// The index of hard links if there is one.
    pub(crate) fn existing_index(&self) -> Option<Fd> {
        self.index.get().cloned()
    }

    /// The index of hard links.
    pub(crate) fn index(&self) -> Result<Fd, Errno> {
        if let Some(fd) = self.index.get() {
            return Ok(Arc::clone(fd));
        }
        match rustix::fs::mkdirat(&self.base, INDEX, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        let fd = Arc::new(open_below(&self.base, INDEX)?);
        Ok(Arc::clone(self.index.get_or_init(|| fd)))
    }

    /// Puts a whiteout at a name that nothing has (EEXIST). All are one inode.
    pub(crate) fn link_whiteout(&self, dir: &Fd, name: &CStr) -> Result<(), Errno> {
        for _ in 0..3 {
            if !self.whiteout.load(Ordering::Relaxed) {
                match make_whiteout(&self.dir, WHITEOUT) {
                    Ok(()) | Err(Errno::EXIST) => self.whiteout.store(true, Ordering::Relaxed),
                    Err(e) => return Err(e),
                }
            }
            match rustix::fs::linkat(&self.dir, WHITEOUT, dir, name, AtFlags::empty()) {
                // As many as the file system can: begin the next.
                Err(Errno::MLINK | Errno::NOENT) => {
                    self.whiteout.store(false, Ordering::Relaxed);
                    let _ = rustix::fs::unlinkat(&self.dir, WHITEOUT, AtFlags::empty());
                }
                Err(Errno::OPNOTSUPP | Errno::PERM) => return make_whiteout(dir, name),
                other => return other,
            }
        }
        make_whiteout(dir, name)
    }

    /// Replaces a file by a whiteout in one step.
    pub(crate) fn replace_by_whiteout(&self, dir: &Fd, name: &CStr) -> Result<(), Errno> {
        let fresh = self.fresh();
        self.link_whiteout(&self.dir, &fresh)?;
        pass("remove.whiteout");
        rustix::fs::renameat(&self.dir, fresh.as_c_str(), dir, name).inspect_err(|_| self.discard(&fresh))
    }

    /// Replaces a directory by a whiteout in one step, and throws the directory away.
    pub(crate) fn swap_for_whiteout(&self, dir: &Fd, name: &CStr) -> Result<(), Errno> {
        let fresh = self.fresh();
        self.link_whiteout(&self.dir, &fresh)?;
        rustix::fs::renameat_with(&self.dir, fresh.as_c_str(), dir, name, RenameFlags::EXCHANGE)
            .inspect_err(|_| self.discard(&fresh))?;
        pass("remove.swapped");
        self.discard(&fresh);
        Ok(())
    }

    /// Throws a directory of the upper away: at once for those who look.
    pub(crate) fn take_away(&self, dir: &Fd, name: &CStr) -> Result<(), Errno> {
        let fresh = self.fresh();
        rustix::fs::renameat(dir, name, &self.dir, fresh.as_c_str())?;
        self.discard(&fresh);
        Ok(())
    }

    /// Removes what did not come into its place. What cannot be removed now is at the next start.
    pub(crate) fn discard(&self, name: &CStr) {
        if let Err(error) = remove_all(&self.dir, name) {
            tracing::debug!(%error, name = %name.to_string_lossy(), "a rest stays in the work directory");
        }
    }
}

fn make_whiteout(dir: &Fd, name: &CStr) -> Result<(), Errno> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Removes a file, or a directory with all in it; nothing there is fine. Depth is bounded by what the directory nests.
fn remove_all(dir: impl AsFd + Copy, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let inner = open_below(dir, name)?;
    let mut entries = rustix::fs::Dir::new(inner)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            remove_all(entries.fd()?, entry.file_name())?;
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
