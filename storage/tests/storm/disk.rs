//! A disk with a volatile write cache: files of a FUSE file system in memory, which a loop device makes a disk of.
//!
//! What was written is in the cache until a flush (the loop device turns it into fsync) makes it stable. A *crash image* is
//! what a power cut may leave: everything stable, and of what is in the cache any part, in blocks of 4 KiB.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request,
    Session, TimeOrNow, WriteFlags,
};
use rand::Rng;

const BLOCK: usize = 4096;
type Block = Option<Arc<[u8; BLOCK]>>;

#[derive(Default)]
struct Image {
    /// As a reader sees it.
    live: Vec<Block>,
    /// As it is after a power cut, but for luck.
    stable: Vec<Block>,
    /// Written since the last flush.
    cached: Vec<(usize, Block)>,
}

/// What a crash image is made of.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cut {
    pub cached: usize,
    pub lost: usize,
}

#[derive(Default)]
struct Images {
    by_number: HashMap<u64, Image>,
    flushes: u64,
}

/// The file system; file `N` is the disk of that number, from 2.
#[derive(Clone, Default)]
pub struct Disks(Arc<Mutex<Images>>);

/// The disk that is written to.
pub const LIVE: u64 = 2;

impl Disks {
    /// With an empty disk of so many bytes, mounted at `at`.
    pub fn mount(at: &Path, size: usize) -> (Self, BackgroundSession) {
        let disks = Self::default();
        let blocks = size / BLOCK;
        let image = Image { live: vec![None; blocks], stable: vec![None; blocks], cached: Vec::new() };
        disks.lock().by_number.insert(LIVE, image);
        let session = Session::new(disks.clone(), at, &Config::default()).unwrap().spawn().unwrap();
        (disks, session)
    }

    fn lock(&self) -> MutexGuard<'_, Images> {
        self.0.lock().unwrap()
    }

    /// A power cut now, as disk `number`.
    pub fn crash(&self, number: u64, random: &mut impl Rng) -> Cut {
        let mut images = self.lock();
        let live = &images.by_number[&LIVE];
        let mut blocks = live.stable.clone();
        // Everything is lost, nothing is, or something between.
        let share = [0.0, 0.1, 0.5, 0.9, 1.0][random.random_range(0..5)];
        let mut cut = Cut { cached: live.cached.len(), lost: 0 };
        for (number, block) in &live.cached {
            if random.random_bool(share) {
                blocks[*number].clone_from(block);
            } else {
                cut.lost += 1;
            }
        }
        images.by_number.insert(number, Image { live: blocks, ..Image::default() });
        cut
    }

    pub fn remove(&self, number: u64) {
        self.lock().by_number.remove(&number);
    }

    /// How often the disk was flushed.
    pub fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, blocks) = if ino == INodeNo::ROOT {
            (FileType::Directory, 0)
        } else {
            (FileType::RegularFile, self.lock().by_number.get(&ino.0)?.live.len())
        };
        Some(FileAttr {
            ino,
            size: (blocks * BLOCK) as u64,
            blocks: (blocks * BLOCK / 512) as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        })
    }
}

const NEVER_KEPT: Duration = Duration::ZERO;

impl Filesystem for Disks {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|n| n.parse().ok());
        match number.and_then(|n| self.attributes(INodeNo(n))) {
            Some(attributes) => reply.entry(&NEVER_KEPT, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&NEVER_KEPT, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.getattr(request, ino, handle, reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let images = self.lock();
        let Some(image) = images.by_number.get(&ino.0) else { return reply.error(Errno::EIO) };
        let end = (offset as usize + size as usize).min(image.live.len() * BLOCK);
        let mut out = Vec::with_capacity(size as usize);
        let mut at = offset as usize;
        while at < end {
            let (block, within) = (at / BLOCK, at % BLOCK);
            let n = (BLOCK - within).min(end - at);
            match &image.live[block] {
                Some(bytes) => out.extend_from_slice(&bytes[within..within + n]),
                None => out.resize(out.len() + n, 0),
            }
            at += n;
        }
        drop(images);
        reply.data(&out);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut images = self.lock();
        let Some(image) = images.by_number.get_mut(&ino.0) else { return reply.error(Errno::EIO) };
        let mut at = offset as usize;
        let mut rest = data;
        while !rest.is_empty() {
            let (number, within) = (at / BLOCK, at % BLOCK);
            let n = (BLOCK - within).min(rest.len());
            if number >= image.live.len() {
                return reply.error(Errno::ENOSPC);
            }
            let mut block = image.live[number].as_ref().map_or([0; BLOCK], |b| **b);
            block[within..within + n].copy_from_slice(&rest[..n]);
            let block = Some(Arc::new(block));
            image.live[number].clone_from(&block);
            if ino.0 == LIVE {
                image.cached.push((number, block));
            }
            at += n;
            rest = &rest[n..];
        }
        drop(images);
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut images = self.lock();
        if ino.0 == LIVE {
            images.flushes += 1;
            let image = images.by_number.get_mut(&LIVE).unwrap();
            for (number, block) in image.cached.drain(..) {
                image.stable[number] = block;
            }
        }
        drop(images);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
