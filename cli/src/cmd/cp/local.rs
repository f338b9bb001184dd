//! Packing and unpacking files of this host.
//!
//! A container's files are hostile: what is unpacked goes only below the destination, through no link, and takes the place of a
//! directory never, of a file by its removal.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::naming::{Plan, split};
use crate::error::{Failure, Outcome};

/// Something of this host to be copied.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// What it is called; "." is what is in a directory.
    pub name: String,
    pub is_dir: bool,
    follow: bool,
}

impl Source {
    /// A path as it was typed: a link is followed when a slash or a dot is behind it.
    pub fn find(typed: &str, follow: bool) -> Outcome<Self> {
        let path = PathBuf::from(typed);
        let meta = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let meta = meta.map_err(|e| Failure::io(format!("cannot copy {typed}"), &e))?;
        Ok(Self { path, name: split(typed).1, is_dir: meta.is_dir(), follow })
    }
}

/// Writes a source as a tar whose top entry is called `top`.
pub fn pack(source: &Source, top: &str, out: impl Write) -> io::Result<()> {
    let mut packer = Packer { tar: tar::Builder::new(out), links: HashMap::new() };
    // "/" has no name of its own.
    let top = if top == "/" { "." } else { top };
    packer.pack(&source.path, Path::new(top), source.follow)?;
    packer.tar.into_inner()?.flush()
}

struct Packer<W: Write> {
    tar: tar::Builder<W>,
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn pack(&mut self, path: &Path, name: &Path, follow: bool) -> io::Result<()> {
        let meta = if follow { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
        let kind = meta.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_metadata_in_mode(&meta, tar::HeaderMode::Complete);
        if kind.is_dir() {
            self.tar.append_data(&mut header, name, io::empty())?;
            let mut names: Vec<OsString> =
                fs::read_dir(path)?.map(|e| Ok(e?.file_name())).collect::<io::Result<_>>()?;
            names.sort();
            for child in names {
                self.pack(&path.join(&child), &name.join(&child), false)?;
            }
            return Ok(());
        }
        if kind.is_symlink() {
            return self.tar.append_link(&mut header, name, fs::read_link(path)?);
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                return self.tar.append_link(&mut header, name, first);
            }
            self.links.insert((meta.dev(), meta.ino()), name.to_owned());
        }
        if !kind.is_file() {
            return self.special(&mut header, &meta, name);
        }
        let file = fs::File::open(path)?;
        // One that grows or shrinks meanwhile keeps the size that is announced.
        let data = file.take(meta.len()).chain(io::repeat(0)).take(meta.len());
        self.tar.append_data(&mut header, name, data)
    }

    fn special(&mut self, header: &mut tar::Header, meta: &Metadata, name: &Path) -> io::Result<()> {
        let kind = meta.file_type();
        header.set_size(0);
        header.set_entry_type(match () {
            () if kind.is_fifo() => tar::EntryType::Fifo,
            () if kind.is_char_device() => tar::EntryType::Char,
            () => tar::EntryType::Block,
        });
        header.set_device_major(rustix::fs::major(meta.rdev()))?;
        header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
        self.tar.append_data(header, name, io::empty())
    }
}

/// What was being done, and why it failed.
type Failed = (String, io::Error);

fn failed(what: &str, path: &Path) -> impl Fn(io::Error) -> Failed {
    let text = format!("cannot {what} {}", path.display());
    move |e| (text.clone(), e)
}

/// Unpacks a tar whose top entry is called `top`.
pub fn unpack(from: impl Read, top: &str, plan: &Plan, keep_owner: bool) -> Result<(), Failed> {
    let mut archive = tar::Archive::new(from);
    let mut unpacker = Unpacker { plan, top, keep_owner, directories: Vec::new() };
    let broken = |e| ("cannot read the archive".to_owned(), e);
    for entry in archive.entries().map_err(broken)? {
        unpacker.entry(&mut entry.map_err(broken)?)?;
    }
    for (path, seconds) in unpacker.directories.iter().rev() {
        set_time(path, *seconds);
    }
    Ok(())
}

struct Unpacker<'a> {
    plan: &'a Plan,
    top: &'a str,
    keep_owner: bool,
    /// With their times, which are set last.
    directories: Vec<(PathBuf, i64)>,
}

impl Unpacker<'_> {
    /// Where a member goes: below the destination, its top renamed. `None`: the destination itself.
    fn target(&self, name: &[u8]) -> Result<Option<PathBuf>, Failed> {
        let name = PathBuf::from(OsString::from_vec(name.to_vec()));
        let unsafe_name =
            || (format!("cannot unpack {}", name.display()), io::Error::other("the name is unsafe"));
        let mut parts: Vec<Component<'_>> = Vec::new();
        for component in name.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(_) => parts.push(component),
                _ => return Err(unsafe_name()),
            }
        }
        let has_top = self.top != ".";
        if has_top && parts.first().is_none_or(|p| p.as_os_str() != self.top) {
            return Err(unsafe_name());
        }
        let mut target = PathBuf::from(&self.plan.into);
        target.extend(self.plan.rename.as_deref().or(has_top.then_some(self.top)));
        let rest = &parts[usize::from(has_top)..];
        if rest.is_empty() && self.plan.rename.is_none() && !has_top {
            return Ok(None);
        }
        // No member comes through a link.
        for part in rest {
            if fs::symlink_metadata(&target).is_ok_and(|m| m.is_symlink()) {
                return Err(unsafe_name());
            }
            target.push(part);
        }
        Ok(Some(target))
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Failed> {
        let Some(target) = self.target(&entry.path_bytes())? else { return Ok(()) };
        let header = entry.header();
        let kind = header.entry_type();
        let mode = header.mode().unwrap_or(0o644) & 0o7777;
        let seconds = header.mtime().unwrap_or(0) as i64;
        let owner = (header.uid().unwrap_or(0) as u32, header.gid().unwrap_or(0) as u32);
        let device = (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
        make_room(&target, kind.is_dir())?;
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        if kind.is_dir() {
            if !target.is_dir() {
                fs::create_dir(&target).map_err(failed("create", &target))?;
            }
            self.directories.push((target.clone(), seconds));
        } else if kind.is_symlink() {
            let to = std::ffi::OsStr::from_bytes(&link);
            std::os::unix::fs::symlink(to, &target).map_err(failed("create", &target))?;
        } else if kind.is_hard_link() {
            let Some(first) = self.target(&link)? else { return Ok(()) };
            return fs::hard_link(first, &target).map_err(failed("link", &target));
        } else if kind.is_fifo() || kind.is_character_special() || kind.is_block_special() {
            let file_type = match () {
                () if kind.is_fifo() => FileType::Fifo,
                () if kind.is_character_special() => FileType::CharacterDevice,
                () => FileType::BlockDevice,
            };
            let numbers = rustix::fs::makedev(device.0.unwrap_or(0), device.1.unwrap_or(0));
            rustix::fs::mknodat(CWD, &target, file_type, Mode::RUSR | Mode::WUSR, numbers)
                .map_err(|e| failed("create", &target)(e.into()))?;
        } else {
            let mut file = fs::File::options()
                .write(true)
                .create_new(true)
                .open(&target)
                .map_err(failed("create", &target))?;
            io::copy(entry, &mut file).map_err(failed("write", &target))?;
        }
        if self.keep_owner {
            let (uid, gid) = (Some(owner.0), Some(owner.1));
            std::os::unix::fs::lchown(&target, uid, gid).map_err(failed("set the owner of", &target))?;
        }
        if !kind.is_symlink() {
            fs::set_permissions(&target, fs::Permissions::from_mode(mode))
                .map_err(failed("set the mode of", &target))?;
        }
        set_time(&target, seconds);
        Ok(())
    }
}

/// Removes a file that is in the way; a directory and something else never take each other's place.
fn make_room(target: &Path, is_dir: bool) -> Result<(), Failed> {
    let Ok(there) = fs::symlink_metadata(target) else { return Ok(()) };
    let refused = |text: &str| Err((text.to_owned(), io::Error::from_raw_os_error(libc_exists())));
    match (there.is_dir(), is_dir) {
        (true, true) => Ok(()),
        (true, false) => {
            refused(&format!("cannot overwrite directory \"{}\" with non-directory", target.display()))
        }
        (false, true) => {
            refused(&format!("cannot overwrite non-directory \"{}\" with directory", target.display()))
        }
        (false, false) => fs::remove_file(target).map_err(failed("replace", target)),
    }
}

/// EEXIST.
fn libc_exists() -> i32 {
    rustix::io::Errno::EXIST.raw_os_error()
}

/// A file system that keeps no times does not make a copy wrong.
fn set_time(path: &Path, seconds: i64) {
    let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    let _ = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_never_leave_the_destination() {
        let tmp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let plan = Plan { into: tmp.path().display().to_string(), rename: None };
        let tar_of = |members: &[(&str, Option<&str>)]| {
            let mut tar = tar::Builder::new(Vec::new());
            for (name, link) in members {
                let mut header = tar::Header::new_ustar();
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_mode(0o644);
                header.set_size(0);
                if let Some(link) = link {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name(link).unwrap();
                }
                header.set_cksum();
                tar.append(&header, io::empty()).unwrap();
            }
            tar.into_inner().unwrap()
        };
        let out = outside.path().display().to_string();
        for members in [
            &[("top/../../x", None)][..],
            &[("/top", None)],
            &[("other", None)],
            &[("top", Some(out.as_str())), ("top/x", None)],
        ] {
            let tar = tar_of(members);
            assert!(unpack(tar.as_slice(), "top", &plan, false).is_err(), "{members:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_packed_is_unpacked_the_same_under_another_name() {
        let tmp = tempfile::tempdir().unwrap();
        let from = tmp.path().join("from");
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/file"), "text").unwrap();
        fs::hard_link(from.join("sub/file"), from.join("again")).unwrap();
        std::os::unix::fs::symlink("sub/file", from.join("link")).unwrap();
        let source = Source::find(from.to_str().unwrap(), false).unwrap();
        let mut tar = Vec::new();
        pack(&source, &source.name, &mut tar).unwrap();
        let plan = Plan { into: tmp.path().display().to_string(), rename: Some("to".into()) };
        unpack(tar.as_slice(), "from", &plan, false).unwrap();
        let to = tmp.path().join("to");
        assert_eq!(fs::read_to_string(to.join("sub/file")).unwrap(), "text");
        let ino = |name: &str| to.join(name).metadata().unwrap().ino();
        assert_eq!(ino("again"), ino("sub/file"));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("sub/file"));
    }
}
