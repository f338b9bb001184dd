//! Calls by path.

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};

use super::{Result, Tree, stat_of};
use crate::op::{Node, Op, Outcome, TIMES, pattern};

impl Tree {
    /// `None`: the call is not by path.
    pub(super) fn names(&mut self, op: &Op) -> Option<Result> {
        Some(match op {
            Op::Open { path, slot, flags, mode } => self.open(path, *slot, *flags, *mode),
            Op::Stat { path, follow } => self.stat(path, *follow),
            Op::Access { path, mode } => {
                let access = rustix::fs::Access::from_bits_truncate(*mode);
                done(rustix::fs::accessat(CWD, self.at(path), access, AtFlags::EACCESS))
            }
            Op::Readdir { path } => self.readdir(path),
            Op::Readlink { path } => rustix::fs::readlink(self.at(path), Vec::new())
                .map(|t| Outcome::Target(t.to_string_lossy().into_owned())),
            Op::GetXattr { .. } | Op::ListXattr { .. } | Op::SetXattr { .. } | Op::RemoveXattr { .. } => {
                self.xattr(op)
            }
            _ => done(self.change(op)?),
        })
    }

    fn change(&self, op: &Op) -> Option<Result<()>> {
        Some(match op {
            Op::Mkdir { path, mode } => rustix::fs::mkdir(self.at(path), Mode::from_raw_mode(*mode)),
            Op::Rmdir { path } => rustix::fs::rmdir(self.at(path)),
            Op::Unlink { path } => rustix::fs::unlink(self.at(path)),
            Op::Rename { from, to, flags } => {
                let flags = RenameFlags::from_bits_retain(*flags);
                rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags)
            }
            Op::Link { from, to } => rustix::fs::link(self.at(from), self.at(to)),
            Op::Symlink { target, path } => rustix::fs::symlink(target.as_str(), self.at(path)),
            Op::Mknod { path, kind, mode } => {
                let (kind, device) = match kind {
                    Node::Regular => (FileType::RegularFile, 0),
                    Node::Fifo => (FileType::Fifo, 0),
                    Node::Socket => (FileType::Socket, 0),
                    Node::Null => (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
                };
                rustix::fs::mknodat(CWD, self.at(path), kind, Mode::from_raw_mode(*mode), device)
            }
            // Whether this moves the file's time depends on the file system where the size stays.
            Op::Truncate { path, len }
                if rustix::fs::stat(self.at(path))
                    .is_ok_and(|s| stat_of(&s).is_file() && s.st_size as u64 == *len) =>
            {
                Ok(())
            }
            Op::Truncate { path, len } => {
                nix::unistd::truncate(&self.at(path), *len as i64).map_err(to_rustix)
            }
            Op::Chmod { path, mode } => rustix::fs::chmod(self.at(path), Mode::from_raw_mode(*mode)),
            Op::Chown { path, uid, gid, follow } => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                rustix::fs::chownat(CWD, self.at(path), uid, gid, at_flags(*follow))
            }
            Op::Utimens { path, time, follow } => {
                rustix::fs::utimensat(CWD, self.at(path), &times(*time), at_flags(*follow))
            }
            _ => return None,
        })
    }

    fn open(&mut self, path: &str, slot: u8, flags: i32, mode: u32) -> Result {
        let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::open(self.at(path), flags, Mode::from_raw_mode(mode))?;
        self.slots[usize::from(slot) % super::SLOTS] = Some(opened);
        Ok(Outcome::Done)
    }

    fn stat(&self, path: &str, follow: bool) -> Result {
        let path = self.at(path);
        let stat = if follow { rustix::fs::stat(path) } else { rustix::fs::lstat(path) };
        Ok(Outcome::Stat(stat_of(&stat?)))
    }

    fn readdir(&self, path: &str) -> Result {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(self.at(path), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir)? {
            let entry = entry?;
            let kind = FileType::as_raw_mode(entry.file_type()) >> 12;
            names.push((entry.file_name().to_string_lossy().into_owned(), kind as u8));
        }
        names.sort();
        Ok(Outcome::Names(names))
    }

    fn xattr(&self, op: &Op) -> Result {
        let mut buffer = vec![0; 65536];
        match op {
            Op::GetXattr { path, name, follow } => {
                let (path, name) = (self.at(path), name.as_str());
                let n = if *follow {
                    rustix::fs::getxattr(path, name, &mut buffer)
                } else {
                    rustix::fs::lgetxattr(path, name, &mut buffer)
                }?;
                Ok(super::bytes(&buffer[..n]))
            }
            Op::ListXattr { path, follow } => {
                let path = self.at(path);
                let n = if *follow {
                    rustix::fs::listxattr(path, &mut buffer)
                } else {
                    rustix::fs::llistxattr(path, &mut buffer)
                }?;
                let names = buffer[..n].split(|b| *b == 0).filter(|n| !n.is_empty());
                let mut names: Vec<_> = names.map(|n| (String::from_utf8_lossy(n).into_owned(), 0)).collect();
                names.sort();
                Ok(Outcome::Names(names))
            }
            Op::SetXattr { path, name, len, flags, follow } => {
                let (path, value) = (self.at(path), pattern(3, *len as usize));
                let flags = XattrFlags::from_bits_retain(*flags);
                if *follow {
                    done(rustix::fs::setxattr(path, name.as_str(), &value, flags))
                } else {
                    done(rustix::fs::lsetxattr(path, name.as_str(), &value, flags))
                }
            }
            Op::RemoveXattr { path, name, follow } => {
                let path = self.at(path);
                if *follow {
                    done(rustix::fs::removexattr(path, name.as_str()))
                } else {
                    done(rustix::fs::lremovexattr(path, name.as_str()))
                }
            }
            _ => unreachable!("only those are sent here"),
        }
    }
}

pub(super) fn done(result: Result<()>) -> Result {
    result.map(|()| Outcome::Done)
}

pub(super) fn to_rustix(errno: nix::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(errno as i32)
}

fn at_flags(follow: bool) -> AtFlags {
    if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW }
}

/// One of the known times for both.
pub(super) fn times(which: u8) -> Timestamps {
    let (sec, nsec) = TIMES[usize::from(which) % TIMES.len()];
    let time = Timespec { tv_sec: sec, tv_nsec: nsec.into() };
    Timestamps { last_access: time, last_modification: time }
}
