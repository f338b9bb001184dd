//! Landlock (landlock(7), Linux 5.13): a process gives up rights to files, for itself and all that it will start, for ever.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: libc::c_int = 1;

const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

/// Rights to read files, list directories and execute.
pub const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
/// All rights to files that any version knows.
pub const ALL: u64 = (1 << 16) - 1;
/// What means something for a file that is no directory.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// The version of the kernel's interface; 0: it has none, or it is switched off.
pub fn version() -> u32 {
    // SAFETY: with this flag the kernel reads no memory and only answers a number.
    let r = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(r).unwrap_or(0)
}

/// The rights to files that a version of the interface can take away.
pub fn handled(version: u32) -> u64 {
    match version {
        0 => 0,
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => ALL,
    }
}

/// Rules under construction.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// A set without rules: all rights that this kernel can take away are taken.
    pub fn new() -> io::Result<Self> {
        let handled = handled(version());
        if handled == 0 {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        // SAFETY: the first member of struct landlock_ruleset_attr alone, with its size: older and newer kernels take that.
        let r = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0u32)
        };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the result is a new descriptor, ours alone.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(r as i32) }, handled })
    }

    /// Leaves `rights` to what lies at or below `path`.
    pub fn allow(&self, path: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
        #[repr(C, packed)]
        struct PathBeneath {
            rights: u64,
            parent: i32,
        }
        let directory = rustix::fs::fstat(path)
            .map(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Directory)?;
        let rights = rights & self.handled & if directory { ALL } else { OF_FILES };
        let rule = PathBeneath { rights, parent: path.as_raw_fd() };
        // SAFETY: the struct is laid out as the kernel's packed one and lives over the call.
        let r = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.fd.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0u32,
            )
        };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Puts the rules in force for the calling thread; needs no_new_privs or CAP_SYS_ADMIN.
    pub fn restrict_self(self) -> io::Result<()> {
        // SAFETY: integer arguments only.
        let r = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_fd().as_raw_fd(), 0u32) };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_names_is_gone_and_what_one_names_stays() {
        if version() == 0 {
            assert_eq!(Ruleset::new().unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
            return;
        }
        let outcome = std::thread::spawn(|| {
            let rules = Ruleset::new().unwrap();
            rules.allow(std::fs::File::open("/proc").unwrap().as_fd(), READ).unwrap();
            rules.allow(std::fs::File::open("/dev/null").unwrap().as_fd(), READ).unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            rules.restrict_self().unwrap();
            (
                std::fs::read("/proc/version").is_ok(),
                std::fs::File::open("/dev/null").is_ok(),
                std::fs::File::options().write(true).open("/dev/null").unwrap_err().kind(),
                std::fs::read_dir("/etc").unwrap_err().kind(),
            )
        });
        let denied = io::ErrorKind::PermissionDenied;
        assert_eq!(outcome.join().unwrap(), (true, true, denied, denied));
    }

    #[test]
    fn versions_take_away_ever_more() {
        assert_eq!((handled(0), handled(1), handled(3), handled(9)), (0, 0x1fff, 0x7fff, 0xffff));
        assert!(READ & !handled(1) == 0);
    }
}
