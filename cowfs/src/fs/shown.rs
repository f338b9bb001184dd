//! Attributes and device numbers, from how they are on disk to how they are shown.

use rustix::fs::Stat;

use super::CowFs;
use crate::config::IdMap;
use crate::types::{Attr, Ino, ROOT, Time};

impl CowFs {
    /// Attributes as they are shown.
    pub(super) fn attr_of(&self, stat: &Stat, ino: Ino, merged: bool) -> Attr {
        let shown = |squash: Option<u32>, map: &IdMap, id| squash.unwrap_or_else(|| map.to_shown(id));
        Attr {
            ino: if ino == ROOT { self.root_ino(stat) } else { ino },
            size: stat.st_size as u64,
            blocks: stat.st_blocks as u64,
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode,
            nlink: if merged { 1 } else { stat.st_nlink as u32 },
            uid: shown(self.squash.uid, &self.uid_map, stat.st_uid),
            gid: shown(self.squash.gid, &self.gid_map, stat.st_gid),
            rdev: encode_rdev(stat.st_rdev),
            blksize: stat.st_blksize as u32,
        }
    }

    fn root_ino(&self, stat: &Stat) -> Ino {
        let top = self.layers.iter().flatten().next().expect("there is a lower layer");
        self.ino(top.fs, stat.st_ino)
    }
}

fn time(sec: i64, nsec: impl TryInto<u32>) -> Time {
    Time { sec, nsec: nsec.try_into().unwrap_or(0) }
}

/// new_encode_dev of linux/kdev_t.h.
fn encode_rdev(dev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// new_decode_dev of linux/kdev_t.h.
pub(super) fn decode_rdev(rdev: u32) -> u64 {
    rustix::fs::makedev((rdev & 0xf_ff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00))
}
