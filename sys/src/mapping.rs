//! Mapped files (mmap(2)), read and written by the kernel on our behalf (process_vm_readv(2)), so that a page that is not there is an error
//! and no signal.

use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// What a mapping shares, and whether it may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// MAP_SHARED, for reading.
    SharedRead,
    /// MAP_SHARED, for reading and writing.
    SharedWrite,
    /// MAP_PRIVATE, for reading and writing; nobody else sees what is written.
    Private,
}

/// A part of a file in memory.
#[derive(Debug)]
pub struct Mapping {
    /// An address, never dereferenced here.
    start: usize,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes from `offset` (a multiple of the page size) on.
    pub fn new(file: BorrowedFd<'_>, offset: u64, len: NonZeroUsize, sharing: Sharing) -> io::Result<Self> {
        let (prot, flags) = match sharing {
            Sharing::SharedRead => (libc::PROT_READ, libc::MAP_SHARED),
            Sharing::SharedWrite => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
            Sharing::Private => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE),
        };
        let (len, offset) = (len.get(), offset as libc::off_t);
        // SAFETY: no address is asked for, so nothing that is mapped is replaced; nothing refers to the memory but this value.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, file.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start as usize, len })
    }

    /// Copies from the mapping. EFAULT: no such page, as behind the end of the file.
    pub fn read(&self, at: usize, into: &mut [u8]) -> io::Result<usize> {
        let remote = [self.range(at, into.len())];
        Ok(process_vm_readv(Pid::this(), &mut [IoSliceMut::new(into)], &remote)?)
    }

    /// Copies into the mapping. EFAULT: no such page, or a mapping for reading.
    pub fn write(&self, at: usize, data: &[u8]) -> io::Result<usize> {
        Ok(process_vm_writev(Pid::this(), &[IoSlice::new(data)], &[self.range(at, data.len())])?)
    }

    /// msync(2) with MS_SYNC.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping's.
        match unsafe { libc::msync(self.start as *mut libc::c_void, self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn range(&self, at: usize, len: usize) -> RemoteIoVec {
        let at = at.min(self.len);
        RemoteIoVec { base: self.start + at, len: len.min(self.len - at) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's, and nothing refers to it any more.
        unsafe { libc::munmap(self.start as *mut libc::c_void, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_written_to_a_shared_mapping_is_in_the_file() {
        let fd = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, b"hello").unwrap();
        let len = NonZeroUsize::new(8192).unwrap();
        let shared = Mapping::new(fd.as_fd(), 0, len, Sharing::SharedWrite).unwrap();
        let private = Mapping::new(fd.as_fd(), 0, len, Sharing::Private).unwrap();
        assert_eq!(shared.write(1, b"a").unwrap(), 1);
        assert_eq!(private.write(0, b"X").unwrap(), 1);
        shared.sync().unwrap();
        let mut file = [0; 5];
        assert_eq!(rustix::io::pread(&fd, &mut file, 0).unwrap(), 5);
        assert_eq!(&file, b"hallo");
        let behind_the_end = shared.read(4096, &mut [0; 1]).unwrap_err();
        assert_eq!(behind_the_end.raw_os_error(), Some(libc::EFAULT));
        let read_only = Mapping::new(fd.as_fd(), 0, len, Sharing::SharedRead).unwrap();
        assert_eq!(read_only.write(0, b"Y").unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }
}
