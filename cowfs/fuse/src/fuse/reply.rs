//! Answers.

use std::time::Duration;

use davit_cowfs::Attr;
use fuser::{Errno, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr};

use super::attr::file_attr;

/// Inode numbers are not used twice while the kernel knows them.
pub(super) const FIRST: Generation = Generation(0);

type Outcome<T> = Result<T, davit_cowfs::Errno>;

pub(super) fn errno(e: davit_cowfs::Errno) -> Errno {
    Errno::from_i32(e.raw_os_error())
}

pub(super) fn empty(reply: ReplyEmpty, outcome: Outcome<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

pub(super) fn attr(reply: ReplyAttr, ttl: &Duration, outcome: Outcome<Attr>) {
    match outcome {
        Ok(attr) => reply.attr(ttl, &file_attr(&attr)),
        Err(e) => reply.error(errno(e)),
    }
}

pub(super) fn entry(reply: ReplyEntry, ttl: &Duration, outcome: Outcome<Attr>) {
    match outcome {
        Ok(attr) => reply.entry(ttl, &file_attr(&attr), FIRST),
        Err(e) => reply.error(errno(e)),
    }
}

pub(super) fn written(reply: ReplyWrite, outcome: Outcome<usize>) {
    match outcome {
        Ok(written) => reply.written(written as u32),
        Err(e) => reply.error(errno(e)),
    }
}

/// Size 0 asks how long the value is; one that does not fit is ERANGE.
pub(super) fn xattr(reply: ReplyXattr, size: u32, outcome: Outcome<Vec<u8>>) {
    match outcome {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(e) => reply.error(errno(e)),
    }
}
