//! Pseudo-terminals: receiving the master from an OCI runtime's console socket, and its size.
//!
//! A runtime started with `--console-socket PATH` connects there and sends one message that carries the master by SCM_RIGHTS (unix(7)); it
//! has done so when its process ends.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::Winsize;

/// Takes the master that a runtime has sent to `listener`. The listener must not block; `WouldBlock` means that nothing came.
pub fn receive_master(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    receive_descriptor(&stream)
}

/// Takes the one descriptor that the next message on `stream` carries, close-on-exec.
pub fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0u8; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut name)];
    rustix::net::recvmsg(stream, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            received = descriptors.into_iter().next_back().or(received);
        }
    }
    received.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the message carries no descriptor"))
}

/// Sets a terminal's size (TIOCSWINSZ, ioctl_tty(2)); its foreground process group gets SIGWINCH.
pub fn set_size(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::IoSlice;

    #[test]
    fn a_descriptor_arrives_and_its_absence_is_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = [null.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let flags = SendFlags::empty();
        rustix::net::sendmsg(&a, &[IoSlice::new(b"ptmx")], &mut control, flags).unwrap();
        let got = receive_descriptor(&b).unwrap();
        assert_eq!(rustix::fs::fstat(&got).unwrap().st_rdev, rustix::fs::fstat(&null).unwrap().st_rdev);
        let mut none = SendAncillaryBuffer::default();
        rustix::net::sendmsg(&a, &[IoSlice::new(b"x")], &mut none, flags).unwrap();
        assert!(receive_descriptor(&b).is_err());
    }
}
