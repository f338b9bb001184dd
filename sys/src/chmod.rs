//! Changing a file's mode by its name in a directory, without following a symbolic link (fchmodat2(2), Linux 6.6).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};

/// The same number on every architecture that Rust has.
const SYS_FCHMODAT2: libc::c_long = 452;

/// Sets the mode of `name` in `dir`. EOPNOTSUPP if it is a symbolic link: these have none. Without fchmodat2(2) it needs /proc.
pub fn at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    match by_one_call(dir, name, mode) {
        // A kernel or a seccomp filter that does not know it; older filters say EPERM to that. If it is really forbidden, so is this.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            by_descriptor(dir, name, mode)
        }
        other => other,
    }
}

fn by_one_call(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` ends in a zero byte; the other arguments are numbers.
    let rc = unsafe {
        libc::syscall(SYS_FCHMODAT2, dir.as_raw_fd(), name.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Pins the file, whatever its name becomes, and changes what the descriptor is open on.
fn by_descriptor(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_file_is_changed_and_a_link_is_not_followed() {
        let dir = std::env::temp_dir().join(format!("davit-chmod-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        symlink("file", dir.join("link")).unwrap();
        let fd = std::fs::File::open(&dir).unwrap();
        let mode = || std::fs::metadata(dir.join("file")).unwrap().mode() & 0o7777;
        let ways = [at, by_one_call, by_descriptor];
        for (way, wanted) in ways.into_iter().zip([0o604, 0o4750, 0o640]) {
            match way(fd.as_fd(), c"file", wanted) {
                Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                    println!("skipped: this kernel has no fchmodat2(2)");
                    continue;
                }
                done => done.unwrap(),
            }
            assert_eq!(mode(), wanted);
            let refused = way(fd.as_fd(), c"link", 0o777).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
            assert_eq!(mode(), wanted, "the link was followed");
            let missing = way(fd.as_fd(), c"missing", 0o777).unwrap_err();
            assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
