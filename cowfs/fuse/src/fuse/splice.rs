//! Answering large reads without copying the data through this process: pages of the file go into a pipe and from there to the device
//! (splice(2)). That leaves two of three copies: into the mount's page cache and from there to the reader.
//!
//! fuser has no call for it, so that the answer is written here, beside fuser (`fuse_out_header` in include/uapi/linux/fuse.h).

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{ReplyData, Request};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

/// What a pipe may hold without privileges (/proc/sys/fs/pipe-max-size).
const PIPE: usize = 1 << 20;
/// The most that is sent so: with the header it has room wherever it begins in a page.
pub(super) const MOST: u64 = (PIPE - 3 * 4096) as u64;

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// The user has more pipes than may be large (pipe-user-pages-soft).
static NO_PIPES: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Empty between two answers.
    static PIPE_OF_THREAD: RefCell<Option<Pipe>> = const { RefCell::new(None) };
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        if NO_PIPES.load(Ordering::Relaxed) {
            return Err(Errno::PERM);
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        rustix::pipe::fcntl_setpipe_size(&write, PIPE)
            .inspect_err(|_| NO_PIPES.store(true, Ordering::Relaxed))?;
        Ok(Self { read, write })
    }

    /// Fills the pipe with an answer of `len` bytes of data. `false`: the file had not so many.
    fn fill(&self, unique: u64, file: impl AsFd, mut offset: u64, len: usize) -> Result<bool, Errno> {
        let total = HEADER + len;
        let mut header = [0u8; HEADER];
        header[..4].copy_from_slice(&(total as u32).to_ne_bytes());
        header[8..].copy_from_slice(&unique.to_ne_bytes());
        rustix::io::write(&self.write, &header)?;
        let mut left = len;
        while left > 0 {
            let moved = rustix::pipe::splice(
                file.as_fd(),
                Some(&mut offset),
                &self.write,
                None,
                left,
                SpliceFlags::empty(),
            )?;
            if moved == 0 {
                return Ok(false);
            }
            left -= moved;
        }
        Ok(true)
    }
}

const HEADER: usize = 16;

/// Answers a read of `len` bytes, all of which `file` has. Gives `reply` back if that must be done otherwise.
pub(super) fn answer(
    device: impl AsFd,
    req: &Request,
    file: impl AsFd,
    offset: u64,
    len: usize,
    reply: ReplyData,
) -> Result<(), ReplyData> {
    // Not dropped, as that answers with an error. What is lost is a count of the device's references.
    let reply = ManuallyDrop::new(reply);
    match send(device, req.unique().0, file, offset, len) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(ManuallyDrop::into_inner(reply)),
    }
}

/// `false`: the file has not so many bytes any more, and nothing was sent.
fn send(device: impl AsFd, unique: u64, file: impl AsFd, offset: u64, len: usize) -> Result<bool, Errno> {
    PIPE_OF_THREAD.with_borrow_mut(|slot| {
        // Out of its place until it is empty again: what is left in it must not get into another answer.
        let pipe = match slot.take() {
            Some(pipe) => pipe,
            None => Pipe::new()?,
        };
        if !pipe.fill(unique, file, offset, len)? {
            return Ok(false);
        }
        rustix::pipe::splice(&pipe.read, None, device, None, HEADER + len, SpliceFlags::empty())?;
        *slot = Some(pipe);
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn an_answer_that_could_not_be_filled_leaves_nothing_for_the_next() {
        let [mut file, mut device] = std::array::from_fn(|_| tempfile::tempfile().unwrap());
        file.write_all(&vec![b'a'; 100_000]).unwrap();
        assert_eq!(send(&device, 1, &file, 50_000, 70_000), Ok(false), "20,000 bytes are missing");
        file.write_all(&vec![b'b'; 100_000]).unwrap();
        assert_eq!(send(&device, 7, &file, 99_999, 100_001), Ok(true));
        let mut sent = Vec::new();
        device.rewind().unwrap();
        device.read_to_end(&mut sent).unwrap();
        let (header, data) = sent.split_at(HEADER);
        assert_eq!(
            header,
            [100_017u32.to_ne_bytes(), 0i32.to_ne_bytes(), 7u32.to_ne_bytes(), [0; 4]].concat()
        );
        assert_eq!(data, [vec![b'a'], vec![b'b'; 100_000]].concat());
    }
}
