//! fusermount3(1), set-user-id root, for those who may not mount: it mounts and hands the descriptor over a socket (SCM_RIGHTS).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;

use crate::options::{Access, MountWords};

const PROGRAM: &str = "fusermount3";

/// Mounts. What fusermount3 has to say against it goes to standard error.
pub(super) fn mount(mountpoint: &Path, words: &MountWords) -> io::Result<OwnedFd> {
    let (ours, its) = UnixStream::pair()?;
    // It finds its end by number. Nothing else is started until it has it.
    rustix::io::fcntl_setfd(&its, FdFlags::empty())?;
    let status = Command::new(PROGRAM)
        .arg("-o")
        .arg(options(words))
        .arg("--")
        .arg(mountpoint)
        .env("_FUSE_COMMFD", its.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| not_there(&e))?;
    drop(its);
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")));
    }
    davit_sys::pty::receive_descriptor(&ours)
}

/// Takes the mount out of the tree, used or not.
pub(super) fn unmount(mountpoint: &Path) -> io::Result<()> {
    let status = Command::new(PROGRAM)
        .args(["-u", "-q", "-z", "--"])
        .arg(mountpoint)
        .stdin(Stdio::null())
        .status()
        .map_err(|e| not_there(&e))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{PROGRAM} ended with {status}"))) }
}

fn options(words: &MountWords) -> OsString {
    let mut all = OsString::from("default_permissions");
    if words.access != Access::Usual {
        all.push(",allow_other");
    }
    for word in words.flag_words() {
        all.push(",");
        all.push(word);
    }
    for (key, value) in [(",fsname=", &words.fsname), (",subtype=", &words.subtype)] {
        all.push(key);
        all.push(escape(value));
    }
    all
}

/// A comma would end the value.
fn escape(value: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let escaped =
        value.as_bytes().iter().flat_map(|b| if b",\\".contains(b) { vec![b'\\', *b] } else { vec![*b] });
    OsString::from_vec(escaped.collect())
}

fn not_there(e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("cannot run {PROGRAM} (package fuse3): {e}"))
}
