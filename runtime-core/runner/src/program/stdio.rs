//! The program's three standard descriptors: who owns them, and the terminal behind them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use davit_sys::fork::{self, channel::Channel};
use davit_sys::rootfs::open_in_root;
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;

use crate::error::{Context, Result};
use crate::spec::process::ConsoleSize;

/// Gives the standard descriptors to `uid`, so that it can open /dev/stdout again. What cannot be owned is left as it is.
pub fn own(uid: u32) {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let null = rustix::fs::makedev(1, 3);
        if stat.st_uid != uid && stat.st_rdev != null {
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// A new pseudo-terminal of the container's devpts.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    /// The program's side.
    pub slave: OwnedFd,
}

impl Terminal {
    /// Opens one; `root` is the container's root directory.
    pub fn open(root: &OwnedFd, size: Option<ConsoleSize>) -> Result<Self> {
        let open = |path: &str| open_in_root(root.as_fd(), Path::new(path), OFlags::RDWR | OFlags::NOCTTY);
        let master =
            open("/dev/pts/ptmx").context(|| "open /dev/pts/ptmx in the container (is devpts mounted?)")?;
        rustix::pty::unlockpt(&master).context(|| "unlock the terminal")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).context(|| "open the terminal")?;
        if let Some(size) = size.filter(|s| s.height > 0 || s.width > 0) {
            let window = rustix::termios::Winsize {
                ws_row: size.height,
                ws_col: size.width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(&slave, window).context(|| "set the terminal's size")?;
        }
        Ok(Self { master, slave })
    }

    /// Sends the master side over the console socket (runc's protocol: one descriptor with the terminal's name as data) and takes the slave as
    /// standard descriptors, and with `controlling` as controlling terminal: the caller leads its session.
    pub fn take(self, socket: OwnedFd, controlling: bool) -> Result<()> {
        Channel::from_fd(socket)
            .send(b"/dev/ptmx", &[self.master.as_fd()])
            .context(|| "send the terminal over the console socket")?;
        if controlling {
            fork::set_controlling_terminal(self.slave.as_fd())
                .context(|| "make the terminal the controlling one")?;
        }
        for target in 0..=2 {
            fork::replace_stdio(self.slave.as_fd(), target)
                .context(|| "connect the standard descriptors to the terminal")?;
        }
        Ok(())
    }
}
