//! The image below a snapshot: its layers, merged by looking into each, without a mount.
//!
//! Layers are written by `unpack` alone and never change, so that a path found to be a directory stays one. Nothing is held open but
//! the layers' roots, however deep a hostile image is.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use davit_cowfs::{Namespace, OPAQUE_VALUE};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::{joined, member};

/// The layers, topmost first.
pub(super) struct Lower {
    layers: Vec<OwnedFd>,
    namespace: Namespace,
}

/// A directory of the image: the layers that have a part of it, topmost first.
#[derive(Debug, Clone)]
pub(super) struct LowerDir {
    path: Vec<u8>,
    parts: Vec<usize>,
}

/// A file of the image.
#[derive(Debug, Clone)]
pub(super) struct LowerFile {
    pub(super) stat: Stat,
    /// Where it is; for its attributes.
    layer: usize,
    path: Vec<u8>,
    /// Set for a directory.
    pub(super) dir: Option<LowerDir>,
}

impl Lower {
    /// Opens the layers' roots.
    pub(super) fn open(layers: &[PathBuf], namespace: Namespace) -> io::Result<Self> {
        let open = |p: &PathBuf| davit_sys::beneath::open_root(p).map_err(|e| e.source);
        Ok(Self { layers: layers.iter().map(open).collect::<io::Result<_>>()?, namespace })
    }

    /// The root directory.
    pub(super) fn root(&self) -> LowerDir {
        LowerDir { path: Vec::new(), parts: (0..self.layers.len()).collect() }
    }

    /// What the image has under a name.
    pub(super) fn find(&self, dir: &LowerDir, name: &[u8]) -> io::Result<Option<LowerFile>> {
        let path = joined(&dir.path, name);
        let mut found: Option<LowerFile> = None;
        for layer in &dir.parts {
            let stat = match rustix::fs::statat(
                &self.layers[*layer],
                OsStr::from_bytes(&path),
                AtFlags::SYMLINK_NOFOLLOW,
            ) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => continue,
                Err(e) => return Err(e.into()),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            match &mut found {
                None if is_whiteout(&stat) => return Ok(None),
                None => {
                    let dir = is_dir.then(|| LowerDir { path: path.clone(), parts: vec![*layer] });
                    found = Some(LowerFile { stat, layer: *layer, path: path.clone(), dir });
                }
                Some(LowerFile { dir: Some(above), .. }) if is_dir => above.parts.push(*layer),
                Some(_) => break,
            }
            if !is_dir || self.is_opaque(*layer, &path)? {
                break;
            }
        }
        Ok(found)
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, dir: &LowerDir) -> io::Result<Vec<Box<[u8]>>> {
        let mut seen: BTreeMap<Box<[u8]>, bool> = BTreeMap::new();
        for layer in &dir.parts {
            let fd = self.open_part(*layer, &dir.path)?;
            for name in member::names(fd.as_fd())?.unwrap_or_default() {
                if seen.contains_key(&name) {
                    continue;
                }
                let stat = rustix::fs::statat(&fd, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW)?;
                seen.insert(name, !is_whiteout(&stat));
            }
        }
        Ok(seen.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect())
    }

    /// The attributes of a file that belong to the tree.
    pub(super) fn attributes(&self, file: &LowerFile) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = OsStr::from_bytes(&file.path);
        Ok(member::kept(davit_sys::xattr::all_at(self.layers[file.layer].as_fd(), path)?))
    }

    fn is_opaque(&self, layer: usize, path: &[u8]) -> io::Result<bool> {
        let fd = self.open_part(layer, path)?;
        let value = davit_sys::xattr::get(fd.as_fd(), OsStr::new(self.namespace.opaque()))?;
        Ok(value.is_some_and(|v| v == OPAQUE_VALUE))
    }

    fn open_part(&self, layer: usize, path: &[u8]) -> io::Result<OwnedFd> {
        let path = Path::new(OsStr::from_bytes(path));
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        davit_sys::beneath::open(self.layers[layer].as_fd(), path, flags, Mode::empty()).map_err(|e| e.source)
    }
}

/// A character device 0:0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    let (major, minor) = davit_cowfs::WHITEOUT_RDEV;
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_merge_as_overlayfs_merges_them() {
        let tmp = tempfile::tempdir().unwrap();
        let (top, middle, bottom) = (tmp.path().join("top"), tmp.path().join("mid"), tmp.path().join("low"));
        for dir in [&top, &middle, &bottom] {
            std::fs::create_dir_all(dir.join("etc/sub")).unwrap();
        }
        std::fs::create_dir(bottom.join("opaque")).unwrap();
        std::fs::write(bottom.join("opaque/below"), "").unwrap();
        std::fs::create_dir(middle.join("opaque")).unwrap();
        std::fs::write(middle.join("opaque/above"), "").unwrap();
        let opaque = std::fs::File::open(middle.join("opaque")).unwrap();
        davit_sys::xattr::set(opaque.as_fd(), OsStr::new("trusted.overlay.opaque"), b"y").unwrap();
        std::fs::write(bottom.join("etc/gone"), "").unwrap();
        std::fs::write(bottom.join("etc/kept"), "").unwrap();
        let etc = std::fs::File::open(middle.join("etc")).unwrap();
        rustix::fs::mknodat(&etc, "gone", FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        std::fs::write(top.join("etc/new"), "longer").unwrap();
        std::fs::write(bottom.join("etc/new"), "").unwrap();

        let lower = Lower::open(&[top, middle, bottom], Namespace::Trusted).unwrap();
        let etc = lower.find(&lower.root(), b"etc").unwrap().unwrap().dir.unwrap();
        let names = |dir: &LowerDir| -> Vec<String> {
            let all = lower.names(dir).unwrap();
            all.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect()
        };
        assert_eq!(names(&etc), ["kept", "new", "sub"]);
        assert!(lower.find(&etc, b"gone").unwrap().is_none());
        assert_eq!(lower.find(&etc, b"new").unwrap().unwrap().stat.st_size, 6);
        let opaque = lower.find(&lower.root(), b"opaque").unwrap().unwrap().dir.unwrap();
        assert_eq!(names(&opaque), ["above"]);
        assert!(lower.find(&opaque, b"below").unwrap().is_none());
    }
}
