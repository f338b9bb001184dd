//! Starts writing to the disk while layers are still being unpacked, so that the sync before a commit finds little left to do.
//!
//! The kernel by itself waits until a tenth of the memory is dirty. One thread at a time runs syncfs(2) whenever another
//! [`STEP`] bytes have been unpacked; unpacking goes on meanwhile.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::failpoint;
use crate::tarball::Skip;

/// How much may be unpacked before the disk is put to work.
const STEP: u64 = 32 << 20;

/// What has been unpacked since the disk was last put to work.
pub(super) struct Writeback {
    dir: PathBuf,
    pending: AtomicU64,
    running: AtomicBool,
}

impl Writeback {
    pub(super) fn new(state: &Path) -> Arc<Self> {
        Arc::new(Self { dir: state.to_owned(), pending: AtomicU64::new(0), running: AtomicBool::new(false) })
    }

    fn unpacked(self: &Arc<Self>, bytes: u64) {
        let pending = self.pending.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if pending < STEP || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        self.pending.store(0, Ordering::Relaxed);
        let me = Arc::clone(self);
        let started =
            std::thread::Builder::new().name("writeback".into()).stack_size(128 << 10).spawn(move || {
                me.write();
                me.running.store(false, Ordering::Release);
            });
        if started.is_err() {
            // The sync before the commit does it all.
            self.running.store(false, Ordering::Release);
        }
    }

    fn write(&self) {
        // A failure shows again, and is told, in the sync before the commit.
        if let Ok(dir) = std::fs::File::open(&self.dir)
            && let Err(e) = rustix::fs::syncfs(dir.as_fd())
        {
            tracing::debug!(error = %e, "cannot write ahead");
        }
    }
}

/// Counts what is unpacked.
pub(super) struct Paced<R> {
    inner: R,
    writeback: Arc<Writeback>,
    since: u64,
}

impl<R> Paced<R> {
    pub(super) fn new(inner: R, writeback: &Arc<Writeback>) -> Self {
        Self { inner, writeback: Arc::clone(writeback), since: 0 }
    }

    pub(super) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        failpoint::pass("layer.kept");
        self.since += n as u64;
        if self.since > 1 << 20 {
            self.writeback.unpacked(std::mem::take(&mut self.since));
        }
        Ok(n)
    }
}

impl<R: Read> Skip for Paced<R> {}
