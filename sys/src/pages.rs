//! A shared mapping that is touched by plain loads and stores (mmap(2)), for measuring what page faults cost. No reference into it ever
//! exists, so that whoever else changes the file meanwhile changes nothing that the compiler relies on.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

/// The first `len` bytes of a file; unmapped when dropped.
#[derive(Debug)]
pub struct Pages {
    start: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only touched by volatile accesses of single bytes.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps the first `len` bytes. A byte beyond the end of the file, also when the file shrinks later, kills by SIGBUS when touched.
    pub fn new(file: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Self> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: without MAP_FIXED the kernel chooses a place where nothing else is.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0) }?;
        Ok(Self { start: start.cast(), len })
    }

    /// The byte at `at`; panics outside of the mapping.
    pub fn get(&self, at: usize) -> u8 {
        // SAFETY: `place` is inside of the mapping, which lives as long as `self`.
        unsafe { ptr::read_volatile(self.place(at)) }
    }

    /// Writes the byte at `at`; panics outside of the mapping. A read-only mapping kills by SIGSEGV.
    pub fn set(&self, at: usize, byte: u8) {
        // SAFETY: as in `get`; the access is volatile and of one byte, so another one at the same time tears nothing.
        unsafe { ptr::write_volatile(self.place(at), byte) }
    }

    /// Waits until what was written has reached the file (msync(2), MS_SYNC).
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is the mapping's own.
        unsafe { rustix::mm::msync(self.start.cast(), self.len, MsyncFlags::SYNC) }.map_err(Into::into)
    }

    fn place(&self, at: usize) -> *mut u8 {
        assert!(at < self.len, "byte {at} of a mapping of {}", self.len);
        self.start.wrapping_add(at)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and no reference into it exists.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn writes_reach_the_file() {
        let path = std::env::temp_dir().join(format!("davit-pages-{}", std::process::id()));
        std::fs::write(&path, b"abc").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let pages = Pages::new(file.as_fd(), 3, true).unwrap();
        pages.set(1, b'S');
        pages.sync().unwrap();
        let mut bytes = [0; 3];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes, pages.get(0)), (b"aSc", b'a'));
    }
}
