//! A socket pair between a process and its clone: whole messages of up to 64 KiB with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// One end of a connected SEQPACKET (or stream) socket.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What one receive gave.
#[derive(Debug, Default)]
pub struct Received {
    /// The message; empty: the other end is closed.
    pub bytes: Vec<u8>,
    /// Descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

const MAX_FDS: usize = 32;

impl Channel {
    /// Two connected ends, both close-on-exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// Takes a socket that was connected elsewhere.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends one message with descriptors; a vanished reader is EPIPE, not a signal.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        loop {
            match sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other.map(drop).map_err(io::Error::from),
            }
        }
    }

    /// Receives one message; an empty one means that the other end is closed.
    pub fn receive(&self) -> io::Result<Received> {
        let mut buffer = vec![0u8; 65536];
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut fds = Vec::new();
        // An end that closes with something unread resets the other (unix(7)), and the kernel tells that before what was sent
        // last: only a second reset in a row means that nothing is to be had.
        let mut reset = false;
        let n = loop {
            let mut io_slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut io_slices, Some(&mut space), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ECONNRESET) if !reset => reset = true,
                Err(e) => return Err(e.into()),
                Ok(message) => {
                    for control in message.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(list) = control {
                            // SAFETY: the kernel has just installed these descriptors for us; nobody else knows of them.
                            fds.extend(list.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
                        }
                    }
                    break message.bytes;
                }
            }
        };
        buffer.truncate(n);
        Ok(Received { bytes: buffer, fds })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn messages_keep_their_bounds_and_carry_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let mut file = tempfile();
        file.write_all(b"hello").unwrap();
        file.rewind().unwrap();
        a.send(b"one", &[file.as_fd()]).unwrap();
        a.send(b"two", &[]).unwrap();
        let first = b.receive().unwrap();
        assert_eq!((first.bytes.as_slice(), first.fds.len()), (&b"one"[..], 1));
        let mut text = String::new();
        std::fs::File::from(first.fds.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(b.receive().unwrap().bytes, b"two");
        drop(a);
        assert!(b.receive().unwrap().bytes.is_empty());
        assert_eq!(b.send(b"x", &[]).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }

    fn tempfile() -> std::fs::File {
        rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
    }
}
