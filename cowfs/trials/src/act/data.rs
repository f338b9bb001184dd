//! Calls by descriptor, and mappings.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use davit_sys::mapping::{self, Mapping};
use nix::fcntl::FcntlArg;
use nix::libc;
use rustix::fs::{FallocateFlags, FlockOperation, Gid, Mode, SeekFrom, Uid};
use rustix::io::Errno;

use super::names::{done, times};
use super::{Empty, MAPS, Result, SLOTS, Tree, stat_of};
use crate::op::{Lock, Op, Outcome, Sharing, Whence, pattern};

const PAGE: usize = 4096;

impl Tree {
    /// `None`: no such descriptor.
    pub(super) fn data(&mut self, op: &Op) -> Option<Result> {
        self.hold(op).unwrap_or_else(|| self.by_slot(op)).ok()
    }

    /// Calls that take or let go of something; `None`: it is none of them.
    fn hold(&mut self, op: &Op) -> Option<std::result::Result<Result, Empty>> {
        Some(match op {
            Op::Close { slot } => {
                self.slots[usize::from(*slot) % SLOTS].take().map(|_| Ok(Outcome::Done)).ok_or(Empty)
            }
            Op::Unmap { map } => {
                self.maps[usize::from(*map) % MAPS].take().map(|_| Ok(Outcome::Done)).ok_or(Empty)
            }
            Op::Map { slot, map, page, pages, sharing } => {
                let sharing = match sharing {
                    Sharing::SharedRead => mapping::Sharing::SharedRead,
                    Sharing::SharedWrite => mapping::Sharing::SharedWrite,
                    Sharing::Private => mapping::Sharing::Private,
                };
                let len = NonZeroUsize::new(PAGE * usize::from(*pages).max(1)).expect("at least a page");
                let offset = (PAGE * usize::from(*page)) as u64;
                let mapped = match self.slot(*slot) {
                    Ok(fd) => Mapping::new(fd.as_fd(), offset, len, sharing),
                    Err(empty) => return Some(Err(empty)),
                };
                Ok(mapped.map_err(errno).map(|mapped| {
                    self.maps[usize::from(*map) % MAPS] = Some(mapped);
                    Outcome::Done
                }))
            }
            _ => return None,
        })
    }

    fn by_slot(&self, op: &Op) -> std::result::Result<Result, Empty> {
        Ok(match op {
            Op::Read { slot, len } => {
                let mut buffer = vec![0; *len as usize];
                rustix::io::read(self.slot(*slot)?, &mut buffer).map(|n| super::bytes(&buffer[..n]))
            }
            Op::Pread { slot, at, len } => {
                let mut buffer = vec![0; *len as usize];
                rustix::io::pread(self.slot(*slot)?, &mut buffer, *at).map(|n| super::bytes(&buffer[..n]))
            }
            Op::Write { slot, len, seed } => {
                count(rustix::io::write(self.slot(*slot)?, &pattern(*seed, *len as usize)))
            }
            Op::Pwrite { slot, at, len, seed } => {
                count(rustix::io::pwrite(self.slot(*slot)?, &pattern(*seed, *len as usize), *at))
            }
            Op::Seek { slot, whence, at } => {
                // Where a directory ends is told differently everywhere.
                if !rustix::fs::fstat(self.slot(*slot)?).is_ok_and(|s| stat_of(&s).is_file()) {
                    return Err(Empty);
                }
                let from = match whence {
                    Whence::Start => SeekFrom::Start(at.unsigned_abs()),
                    Whence::Current => SeekFrom::Current(*at),
                    Whence::End => SeekFrom::End(*at),
                    Whence::Data => SeekFrom::Data(at.unsigned_abs()),
                    Whence::Hole => SeekFrom::Hole(at.unsigned_abs()),
                };
                rustix::fs::seek(self.slot(*slot)?, from).map(Outcome::Count)
            }
            Op::CopyRange { from, from_at, to, to_at, len } => {
                let (mut from_at, mut to_at) = (*from_at, *to_at);
                let (from, to, len) = (self.slot(*from)?, self.slot(*to)?, *len as usize);
                count(rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len))
            }
            Op::Fstat { slot } => {
                rustix::fs::fstat(self.slot(*slot)?).map(|stat| Outcome::Stat(stat_of(&stat)))
            }
            Op::MapRead { map, at, len } => {
                let mut buffer = vec![0; *len as usize];
                let read = self.map(*map)?.read(*at as usize, &mut buffer).map_err(errno);
                read.map(|n| super::bytes(&buffer[..n]))
            }
            Op::MapWrite { map, at, len, seed } => {
                let data = pattern(*seed, *len as usize);
                count(self.map(*map)?.write(*at as usize, &data).map_err(errno))
            }
            Op::MapSync { map } => done(self.map(*map)?.sync().map_err(errno)),
            _ => done(self.attributes(op)?),
        })
    }

    fn attributes(&self, op: &Op) -> std::result::Result<Result<()>, Empty> {
        Ok(match op {
            Op::Ftruncate { slot, len } => rustix::fs::ftruncate(self.slot(*slot)?, *len),
            Op::Fallocate { slot, mode, at, len } => {
                let mode = FallocateFlags::from_bits_retain(*mode as u32);
                rustix::fs::fallocate(self.slot(*slot)?, mode, *at, *len)
            }
            Op::Fsync { slot, data_only: true } => rustix::fs::fdatasync(self.slot(*slot)?),
            Op::Fsync { slot, data_only: false } => rustix::fs::fsync(self.slot(*slot)?),
            Op::Fchmod { slot, mode } => rustix::fs::fchmod(self.slot(*slot)?, Mode::from_raw_mode(*mode)),
            Op::Fchown { slot, uid, gid } => {
                rustix::fs::fchown(self.slot(*slot)?, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
            }
            Op::Futimens { slot, time } => rustix::fs::futimens(self.slot(*slot)?, &times(*time)),
            Op::Flock { slot, lock } => {
                let operation = match lock {
                    Lock::Shared => FlockOperation::NonBlockingLockShared,
                    Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
                    Lock::Unlock => FlockOperation::NonBlockingUnlock,
                };
                rustix::fs::flock(self.slot(*slot)?, operation)
            }
            Op::Lock { slot, at, len, lock } => {
                let kind = match lock {
                    Lock::Shared => libc::F_RDLCK,
                    Lock::Exclusive => libc::F_WRLCK,
                    Lock::Unlock => libc::F_UNLCK,
                };
                let range = libc::flock {
                    l_type: kind as i16,
                    l_whence: libc::SEEK_SET as i16,
                    l_start: *at as i64,
                    l_len: *len as i64,
                    l_pid: 0,
                };
                let locked = nix::fcntl::fcntl(self.slot(*slot)?, FcntlArg::F_SETLK(&range));
                locked.map(drop).map_err(super::names::to_rustix)
            }
            other => unreachable!("{other:?} is by path"),
        })
    }
}

fn count(result: Result<usize>) -> Result {
    result.map(|n| Outcome::Count(n as u64))
}

fn errno(e: impl std::borrow::Borrow<std::io::Error>) -> Errno {
    Errno::from_io_error(e.borrow()).unwrap_or(Errno::IO)
}
