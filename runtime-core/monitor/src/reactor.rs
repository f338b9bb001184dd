//! One epoll set and the descriptors in it.
//!
//! Everything is level-triggered. A descriptor that nobody wants to hear about is taken out of the set, because a pipe whose other
//! end is gone reports EPOLLHUP for ever.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Whose event it is; packed into epoll's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The listening socket.
    Listener,
    /// The signalfd.
    Signals,
    /// The connection with this number.
    Conn(u32),
    /// A session's input.
    Stdin(u32),
    /// A session's output, or its terminal.
    Stdout(u32),
    /// A session's error output.
    Stderr(u32),
    /// The log has room, or has written all.
    Log,
    /// The container's OOM killer.
    Oom,
    /// A health probe's connection.
    Probe,
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, id) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Conn(id) => (2, id),
            Self::Stdin(id) => (3, id),
            Self::Stdout(id) => (4, id),
            Self::Stderr(id) => (5, id),
            Self::Log => (6, 0),
            Self::Oom => (7, 0),
            Self::Probe => (8, 0),
        };
        kind << 32 | u64::from(id)
    }

    fn unpack(bits: u64) -> Self {
        let id = bits as u32;
        match bits >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Conn(id),
            3 => Self::Stdin(id),
            4 => Self::Stdout(id),
            5 => Self::Stderr(id),
            6 => Self::Log,
            7 => Self::Oom,
            _ => Self::Probe,
        }
    }
}

/// What one wait brought: who, and whether the other end is gone (EPOLLHUP, EPOLLERR).
pub type Ready = (Token, bool);

/// The epoll set.
#[derive(Debug)]
pub struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    /// Makes an empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Adds a descriptor that stays as long as it is open and is always read from.
    pub fn add_reader(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token.pack()), EventFlags::IN)?)
    }

    /// Waits for events, at most for `timeout` (none: for ever).
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let mut events = [MaybeUninit::uninit(); 16];
        let timeout = timeout.map(|t| rustix::event::Timespec {
            tv_sec: t.as_secs() as i64,
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let (events, _) = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        let gone = EventFlags::HUP | EventFlags::ERR;
        ready.extend(events.iter().map(|e| (Token::unpack({ e.data }.u64()), { e.flags }.intersects(gone))));
        Ok(())
    }
}

/// What a descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Not in the set.
    None,
    /// Only the other end's going.
    Hangup,
    /// Readable.
    Read,
    /// Writable.
    Write,
    /// Both.
    ReadWrite,
}

impl Interest {
    /// From what is wanted; `Hangup` when nothing is.
    pub fn of(read: bool, write: bool) -> Self {
        match (read, write) {
            (false, false) => Self::Hangup,
            (true, false) => Self::Read,
            (false, true) => Self::Write,
            (true, true) => Self::ReadWrite,
        }
    }

    fn flags(self) -> EventFlags {
        match self {
            Self::None | Self::Hangup => EventFlags::empty(),
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::ReadWrite => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// A descriptor together with what the set knows of it.
#[derive(Debug)]
pub struct Watched {
    fd: OwnedFd,
    token: Token,
    interest: Interest,
}

impl Watched {
    /// Owns `fd`, not watched yet.
    pub fn new(fd: OwnedFd, token: Token) -> Self {
        Self { fd, token, interest: Interest::None }
    }

    /// Brings the set up to date; costs no system call where nothing changes.
    pub fn want(&mut self, reactor: &Reactor, interest: Interest) -> io::Result<()> {
        if interest == self.interest {
            return Ok(());
        }
        let data = EventData::new_u64(self.token.pack());
        match (self.interest, interest) {
            (Interest::None, _) => epoll::add(&reactor.epoll, &self.fd, data, interest.flags())?,
            (_, Interest::None) => epoll::delete(&reactor.epoll, &self.fd)?,
            _ => epoll::modify(&reactor.epoll, &self.fd, data, interest.flags())?,
        }
        self.interest = interest;
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_packing() {
        for t in [
            Token::Listener,
            Token::Signals,
            Token::Conn(7),
            Token::Stdin(u32::MAX),
            Token::Stdout(0),
            Token::Stderr(3),
            Token::Log,
            Token::Oom,
            Token::Probe,
        ] {
            assert_eq!(Token::unpack(t.pack()), t);
        }
    }

    #[test]
    fn an_unwanted_pipe_with_no_writer_does_not_wake_anyone() {
        let reactor = Reactor::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut watched = Watched::new(read, Token::Stdout(1));
        watched.want(&reactor, Interest::Read).unwrap();
        drop(write);
        let mut ready = Vec::new();
        reactor.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert_eq!(ready, [(Token::Stdout(1), true)]);
        watched.want(&reactor, Interest::None).unwrap();
        reactor.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
