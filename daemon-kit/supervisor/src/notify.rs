//! sd_notify(3) messages: parsing (pure) and receiving, with the sender's pid and descriptors.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Longest message taken; longer ones are cut, as a sender's mistake.
const LONGEST: usize = 4096;
/// Most descriptors in one message.
const MOST_FDS: usize = 64;

/// What a daemon said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// READY=1
    pub ready: bool,
    /// STOPPING=1
    pub stopping: bool,
    /// FDSTORE=1
    pub store: bool,
    /// FDSTOREREMOVE=1
    pub remove: bool,
    /// FDNAME=
    pub fd_name: Option<String>,
    /// STATUS=
    pub status: Option<String>,
}

/// A received message.
#[derive(Debug)]
pub struct Received {
    /// The sender, as the kernel vouches for it.
    pub pid: i32,
    /// What it said.
    pub message: Message,
    /// What it handed over.
    pub fds: Vec<OwnedFd>,
}

/// Reads `KEY=value` lines; unknown keys are ignored, as systemd does.
pub fn parse(text: &str) -> Message {
    let mut message = Message::default();
    for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
        match (key, value) {
            ("READY", "1") => message.ready = true,
            ("STOPPING", "1") => message.stopping = true,
            ("FDSTORE", "1") => message.store = true,
            ("FDSTOREREMOVE", "1") => message.remove = true,
            // The names travel colon-separated in LISTEN_FDNAMES.
            ("FDNAME", name) if !name.is_empty() && !name.contains(':') => {
                message.fd_name = Some(name.to_owned());
            }
            ("STATUS", text) => message.status = Some(text.to_owned()),
            _ => {}
        }
    }
    message
}

/// Takes one message; none when there is no more. A message without credentials is dropped.
pub fn receive(socket: &UnixDatagram) -> Option<Received> {
    loop {
        let mut bytes = [0u8; LONGEST];
        let mut space =
            [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let answer = match recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(answer) => answer,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        };
        let mut pid = None;
        let mut fds = Vec::new();
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(cred) => pid = Some(cred.pid.as_raw_nonzero().get()),
                _ => {}
            }
        }
        let text = String::from_utf8_lossy(&bytes[..answer.bytes]);
        if let Some(pid) = pid {
            return Some(Received { pid, message: parse(&text), fds });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_read_and_others_ignored() {
        let m = parse("READY=1\nMAINPID=7\nSTATUS=a=b\nnonsense\n");
        assert!(m.ready && !m.stopping);
        assert_eq!(m.status.as_deref(), Some("a=b"));
        let m = parse("FDSTORE=1\nFDNAME=warm");
        assert_eq!((m.store, m.fd_name.as_deref()), (true, Some("warm")));
        assert_eq!(parse("FDNAME=a:b").fd_name, None);
        assert_eq!(parse("READY=0"), Message::default());
    }

    #[test]
    fn a_message_carries_the_senders_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        rustix::net::sockopt::set_socket_passcred(&socket, true).unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &path).unwrap();
        let got = receive(&socket).unwrap();
        assert_eq!((got.pid, got.message.ready), (std::process::id() as i32, true));
        assert!(receive(&socket).is_none());
    }
}
