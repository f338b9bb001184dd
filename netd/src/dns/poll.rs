//! epoll(7), with what is ready told by what it is. All sockets are level-triggered: a report that is out of date costs a
//! read that finds nothing.

use std::io;
use std::os::fd::AsFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What may be ready, with its place in the list that it is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Changes have been sent.
    Changes,
    /// A sandbox's UDP socket.
    Queries(usize),
    /// A sandbox's TCP socket.
    Listener(usize),
    /// A client's TCP connection.
    Client(usize),
    /// A UDP socket to an upstream.
    Datagrams(usize),
    /// A TCP connection to an upstream.
    Stream(usize),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Something to read, or room to write.
    Both,
    /// Room to write.
    Write,
    /// Only that it is broken.
    Nothing,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Read => EpollFlags::EPOLLIN,
            Self::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::Nothing => EpollFlags::empty(),
        }
    }
}

const INDEX: u64 = (1 << 56) - 1;

impl Source {
    fn data(self) -> u64 {
        let (kind, at) = match self {
            Self::Changes => (0, 0),
            Self::Queries(at) => (1, at),
            Self::Listener(at) => (2, at),
            Self::Client(at) => (3, at),
            Self::Datagrams(at) => (4, at),
            Self::Stream(at) => (5, at),
        };
        kind << 56 | at as u64 & INDEX
    }

    fn of(data: u64) -> Self {
        let at = (data & INDEX) as usize;
        match data >> 56 {
            0 => Self::Changes,
            1 => Self::Queries(at),
            2 => Self::Listener(at),
            3 => Self::Client(at),
            4 => Self::Datagrams(at),
            _ => Self::Stream(at),
        }
    }
}

/// The set of sockets; one that is closed leaves it by itself.
#[derive(Debug)]
pub struct Poll {
    epoll: Epoll,
}

impl Poll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Adds a socket.
    pub fn add(&self, socket: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(interest.flags(), source.data()))?)
    }

    /// Waits for something else.
    pub fn modify(&self, socket: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(socket, &mut EpollEvent::new(interest.flags(), source.data()))?)
    }

    /// Waits until something is ready, or for `timeout` milliseconds; fills `ready`.
    pub fn wait(&self, timeout: Option<u64>, ready: &mut Vec<Source>) -> io::Result<()> {
        ready.clear();
        let mut events = [EpollEvent::empty(); 128];
        let timeout = timeout.map_or(EpollTimeout::NONE, |ms| {
            EpollTimeout::try_from(ms.min(60_000) as i32).unwrap_or(EpollTimeout::ZERO)
        });
        match self.epoll.wait(&mut events, timeout) {
            Ok(n) => ready.extend(events[..n].iter().map(|e| Source::of(e.data()))),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_what_it_was() {
        for source in [
            Source::Changes,
            Source::Queries(0),
            Source::Listener(7),
            Source::Client(1 << 40),
            Source::Datagrams(3),
            Source::Stream(4),
        ] {
            assert_eq!(Source::of(source.data()), source);
        }
    }
}
