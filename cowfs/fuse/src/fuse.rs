//! The kernel's requests as calls of [`CowFs`]: translation only.
//!
//! What the kernel need not ask is not answered twice: open, opendir, flush and create answer ENOSYS once, after which the kernel opens
//! without a message, keeps pages and directory listings in its cache over opens, and makes files by MKNOD (Linux 4.9 to 5.1; fs/fuse).
//! That holds because files are known by inode alone and nobody else changes the layers.

mod attr;
mod init;
mod reply;
mod splice;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use davit_cowfs::{Caller, Change, CowFs, RenameMode, StatFs};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use crate::crew::{Crew, May, Turn};
use crate::options::Serving;

use attr::{file_attr, time_change};
use reply::{FIRST, errno};

/// Longer than any mount lives. The kernel takes what does not fit its clock for its maximum.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The offset of an invalidation that leaves the data as they are.
const ONLY_ATTRIBUTES: i64 = -1;

/// The kernel takes it for "not supported" and never asks again.
const NEVER_AGAIN: Errno = Errno::ENOSYS;

/// A read that may take long enough for others to matter.
const BIG: u32 = 32 << 10;

/// A read from which on the data are not copied through this process.
const SPLICED: u64 = 64 << 10;

/// The file system as fuser drives it.
#[derive(Debug)]
pub struct Adapter {
    fs: CowFs,
    crew: Crew,
    wanted: init::Wanted,
    ttl: Duration,
    /// Whether extended attributes are served.
    xattrs: bool,
    /// Whether the kernel leaves the umask to us.
    masks: bool,
    /// Whether answers may be written to the crew's device: with a device for each thread it would have to be that thread's.
    splices: bool,
    /// The file that has lost its capabilities last.
    stripped: AtomicU64,
    /// Set once there is a session.
    notifier: Arc<OnceLock<Notifier>>,
}

thread_local! {
    /// Read data on its way: made once a thread, never cleared.
    static DATA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adapter {
    /// Serves `fs` as `serving` says, by the threads of `crew`.
    pub fn new(fs: CowFs, xattrs: bool, serving: &Serving, crew: Crew) -> Self {
        let wanted = init::Wanted { acl: serving.acl && xattrs, writeback: serving.writeback };
        let ttl = serving.timeout.unwrap_or(FOR_EVER).min(FOR_EVER);
        Self {
            fs,
            crew,
            wanted,
            ttl,
            xattrs,
            masks: false,
            splices: !serving.clone_fd,
            stripped: AtomicU64::new(0),
            notifier: Arc::default(),
        }
    }

    /// Where the session's notifier is to be put.
    pub fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.notifier)
    }

    /// A turn for a change, before which a file may have to be copied up.
    fn change_turn(&self, ino: INodeNo) -> Turn<'_> {
        if self.fs.is_upper(ino.0) {
            return self.crew.turn();
        }
        let bytes = self.fs.getattr(ino.0).map_or(0, |attr| attr.size);
        self.crew.long_turn(May::CopyUp, bytes)
    }

    fn caller(&self, req: &Request, umask: u32) -> Caller {
        Caller { uid: req.uid(), gid: req.gid(), umask: if self.masks { umask } else { 0 } }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.masks = init::negotiate(config, self.wanted);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.crew.turn();
        match self.fs.lookup(parent.0, name.as_bytes()) {
            Ok(Some(found)) => reply.entry(&self.ttl, &file_attr(&found), FIRST),
            // Inode 0: that there is none may be kept as well.
            Ok(None) => reply.entry(&self.ttl, &attr::NONE, FIRST),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.fs.forget(ino.0, lookups);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.crew.turn();
        reply::attr(reply, &self.ttl, self.fs.getattr(ino.0));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _turn = self.change_turn(ino);
        // The kernel says so in a flag that fuser drops: for chown always, for truncate of a caller without CAP_FSETID.
        let chown = uid.is_some() || gid.is_some();
        // A chown of nothing, which takes privileges away all the same, is a request to change nothing.
        let of_nothing = mode.is_none() && size.is_none() && atime.is_none() && mtime.is_none();
        // The same comes before a write to a file with capabilities by somebody who keeps set-user-id; then they have just been removed.
        let of_nothing = of_nothing && self.stripped.swap(0, Ordering::Relaxed) != ino.0;
        if of_nothing && !chown && req.uid() != 0 {
            // Only the owner may; others are refused, as chown(2) refuses them, where there is something to take away.
            match self.fs.getattr(ino.0) {
                Ok(attr) if attr.uid == req.uid() => {}
                Ok(attr) if attr.mode & 0o4000 != 0 || attr.mode & 0o2010 == 0o2010 => {
                    return reply.error(Errno::EPERM);
                }
                other => return reply::attr(reply, &self.ttl, other),
            }
        }
        let kill_privileges = chown || of_nothing || (size.is_some() && req.uid() != 0);
        let change = Change {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(time_change),
            mtime: mtime.map(time_change),
            kill_privileges,
        };
        reply::attr(reply, &self.ttl, self.fs.setattr(ino.0, &change));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.crew.turn();
        match self.fs.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.crew.turn();
        let made = self.fs.mknod(parent.0, name.as_bytes(), mode, rdev, &self.caller(req, umask));
        reply::entry(reply, &self.ttl, made);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _turn = self.crew.turn();
        reply::entry(
            reply,
            &self.ttl,
            self.fs.mkdir(parent.0, name.as_bytes(), mode, &self.caller(req, umask)),
        );
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _turn = self.crew.turn();
        let target = target.as_os_str().as_bytes();
        let made = self.fs.symlink(parent.0, name.as_bytes(), target, &self.caller(req, 0));
        reply::entry(reply, &self.ttl, made);
    }

    fn link(&self, _req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.change_turn(ino);
        reply::entry(reply, &self.ttl, self.fs.link(ino.0, parent.0, name.as_bytes()));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.crew.turn();
        reply::empty(reply, self.fs.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.crew.turn();
        reply::empty(reply, self.fs.rmdir(parent.0, name.as_bytes()));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.turn();
        let mode = match flags {
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            none if none.is_empty() => RenameMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (from, to) = ((parent.0, name.as_bytes()), (new_parent.0, new_name.as_bytes()));
        reply::empty(reply, self.fs.rename(from, to, mode));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(NEVER_AGAIN);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(NEVER_AGAIN);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(NEVER_AGAIN);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(NEVER_AGAIN);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        mut reply: ReplyData,
    ) {
        let _turn = if size >= BIG { self.crew.long_turn(May::Read, 0) } else { self.crew.turn() };
        if u64::from(size) >= SPLICED && self.splices {
            match self.fs.data(ino.0) {
                Ok((file, end)) => {
                    let len = end.saturating_sub(offset).min(size.into());
                    if (SPLICED..=splice::MOST).contains(&len) {
                        let sent =
                            splice::answer(self.crew.device(), req, &*file, offset, len as usize, reply);
                        reply = match sent {
                            Ok(()) => return,
                            Err(reply) => reply,
                        };
                    }
                }
                Err(e) => return reply.error(errno(e)),
            }
        }
        let size = size as usize;
        DATA.with_borrow_mut(|data| {
            if data.len() < size {
                data.resize(size.next_power_of_two(), 0);
            }
            match self.fs.read(ino.0, offset, &mut data[..size]) {
                Ok(read) => reply.data(&data[..read]),
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _open_flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _turn = self.change_turn(ino);
        let kill = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let written = self.fs.write(ino.0, offset, data, kill);
        // Through a mapping: the kernel has not moved the times that it keeps, and does not ask for ours.
        if flags.contains(WriteFlags::FUSE_WRITE_CACHE)
            && !self.wanted.writeback
            && let Some(notifier) = self.notifier.get()
        {
            let _ = notifier.inval_inode(ino, ONLY_ATTRIBUTES, 0);
        }
        reply::written(reply, written);
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let _turn = self.crew.long_turn(May::Sync, 0);
        reply::empty(reply, self.fs.fsync(ino.0, data_only));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let _turn = self.crew.long_turn(May::Sync, 0);
        reply::empty(reply, self.fs.fsync(ino.0, data_only));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _turn = self.crew.turn();
        let read = self.fs.readdir(ino.0, offset, &mut |entry| {
            !reply.add(
                INodeNo(entry.ino),
                entry.next,
                attr::file_type(entry.kind),
                OsStr::from_bytes(entry.name),
            )
        });
        match read {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.crew.turn();
        let read = self.fs.readdirplus(ino.0, offset, &mut |entry, found| {
            let name = OsStr::from_bytes(entry.name);
            !reply.add(INodeNo(entry.ino), entry.next, name, &self.ttl, &file_attr(found), FIRST)
        });
        match read {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let _turn = self.crew.turn();
        match self.fs.statfs() {
            Ok(StatFs {
                blocks,
                blocks_free,
                blocks_available,
                files,
                files_free,
                block_size,
                fragment_size,
                name_max,
            }) => reply.statfs(
                blocks,
                blocks_free,
                blocks_available,
                files,
                files_free,
                block_size,
                name_max,
                fragment_size,
            ),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.change_turn(ino);
        if !self.xattrs {
            return reply.error(NEVER_AGAIN);
        }
        reply::empty(reply, self.fs.setxattr(ino.0, name.as_bytes(), value, flags as u32));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = self.crew.turn();
        if !self.xattrs {
            return reply.error(NEVER_AGAIN);
        }
        reply::xattr(reply, size, self.fs.getxattr(ino.0, name.as_bytes()));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.crew.turn();
        if !self.xattrs {
            return reply.error(NEVER_AGAIN);
        }
        // Who may not read them does not see them; that CAP_SYS_ADMIN decides it is not told, so root does.
        let hidden = |name: &[u8]| req.uid() != 0 && name.starts_with(b"trusted.");
        let names = self.fs.listxattr(ino.0).map(|all| {
            all.split_inclusive(|b| *b == 0).filter(|name| !hidden(name)).flatten().copied().collect()
        });
        reply::xattr(reply, size, names);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.change_turn(ino);
        if !self.xattrs {
            return reply.error(NEVER_AGAIN);
        }
        let removed = self.fs.removexattr(ino.0, name.as_bytes());
        if removed.is_ok() && name == "security.capability" {
            self.stripped.store(ino.0, Ordering::Relaxed);
        }
        reply::empty(reply, removed);
    }

    /// The kernel checks permissions itself.
    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(NEVER_AGAIN);
    }

    /// FS_IOC_GETFLAGS and its like: those of the layers' file system are not those of this one.
    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready.
    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(NEVER_AGAIN);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.long_turn(May::Range, length);
        reply::empty(reply, self.fs.fallocate(ino.0, mode, offset, length));
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _turn = self.crew.turn();
        // lseek(2): what lies before the beginning is beyond the file.
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.fs.lseek(ino.0, offset, whence) {
            Ok(found) => reply.offset(found as i64),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        from: INodeNo,
        _from_fh: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _to_fh: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _turn = self.crew.long_turn(May::Range, len);
        // The answer is 32 bits wide.
        let len = len.min(1 << 30) as usize;
        reply::written(reply, self.fs.copy_file_range((from.0, from_offset), (to.0, to_offset), len));
    }
}
