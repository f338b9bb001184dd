//! A TCP connection that is copied both ways: what is read from one end is spliced into a pipe and from there to the other.
//!
//! A pipe is taken only for as long as something is in it, so that a connection that waits for its ends has two
//! descriptors. The end of one direction is passed on and leaves the other open; a broken end breaks the other.

use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, socket_error};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// What a pipe holds by default.
const CHUNK: usize = 64 << 10;
/// Chunks that are moved before others have their turn.
const ROUNDS: usize = 4;
/// How long an end says nothing before it is asked whether it is there, how often it is asked again and how many times.
const SILENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(10);
const TIMES: u32 = 5;
/// Empty pipes that are kept.
const SPARE: usize = 4;

/// A pipe, empty when it is nobody's.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Empty pipes.
#[derive(Debug, Default)]
pub struct Pipes(Vec<Pipe>);

impl Pipes {
    fn take(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    fn put(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE {
            self.0.push(pipe);
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// Present while it holds something.
    pipe: Option<Pipe>,
    held: usize,
    /// Its source has said all.
    ended: bool,
    /// Its target knows.
    told: bool,
}

/// How far a stream came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for one of its ends.
    Waits,
    /// There is more to move.
    More,
    /// Both ends have said all.
    Done,
    /// One end is broken.
    Broken,
}

/// One connection.
#[derive(Debug)]
pub struct Stream {
    /// Which port it came to.
    pub port: usize,
    /// Who asked.
    pub peer: SocketAddrV6,
    pub client: OwnedFd,
    /// The container.
    pub server: OwnedFd,
    connected: bool,
    halves: [Half; 2],
}

impl Stream {
    /// Begins to connect a client to a container.
    ///
    /// # Errors
    /// It cannot be reached, or there are no descriptors left.
    pub fn open(
        port: usize,
        client: OwnedFd,
        peer: SocketAddrV6,
        to: SocketAddr,
    ) -> Result<Self, (OwnedFd, Errno)> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let server = match rustix::net::socket_with(family, SocketType::STREAM, flags, None) {
            Ok(server) => server,
            Err(e) => return Err((client, e)),
        };
        let _ = prepare(&server);
        match rustix::net::connect(&server, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err((client, e)),
        }
        Ok(Self { port, peer, client, server, connected: false, halves: Default::default() })
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, pipes: &mut Pipes) -> State {
        if !self.connected {
            match socket_error(&self.server) {
                Ok(Ok(())) if rustix::net::getpeername(&self.server).is_ok() => self.connected = true,
                Ok(Ok(())) => return State::Waits,
                _ => return State::Broken,
            }
        }
        let [there, back] = &mut self.halves;
        let moved =
            [there.pump(&self.client, &self.server, pipes), back.pump(&self.server, &self.client, pipes)];
        if moved.iter().any(Result::is_err) {
            return State::Broken;
        }
        if self.halves.iter().all(|h| h.told) {
            return State::Done;
        }
        if moved.contains(&Ok(true)) {
            return State::More;
        }
        // Nothing is read of an end that has said all, and so its being gone since shows here only.
        let gone = |end| !matches!(socket_error(end), Ok(Ok(())));
        let broken = self.halves.iter().any(|h| h.ended) && (gone(&self.client) || gone(&self.server));
        if broken { State::Broken } else { State::Waits }
    }
}

/// Has a socket hold back no small messages, and notice within two minutes of silence that its peer vanished. What a
/// listening socket is told holds for those that it accepts.
///
/// There is no TCP_USER_TIMEOUT: it would also end a connection whose peer is there and does not read for as long
/// (tcp_probe_timer), as a container that is paused.
pub fn prepare(socket: impl AsFd) -> Result<(), Errno> {
    let socket = socket.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, SILENCE)?;
    sockopt::set_tcp_keepintvl(socket, AGAIN)?;
    sockopt::set_tcp_keepcnt(socket, TIMES)
}

impl Half {
    /// Answers whether there is more to move at once.
    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd, pipes: &mut Pipes) -> Result<bool, Errno> {
        let mut more = true;
        for _ in 0..ROUNDS {
            if !self.fill(from, pipes)? || !self.drain(to)? {
                more = false;
                break;
            }
        }
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipes.put(pipe);
        }
        if self.held == 0 && self.ended && !self.told {
            rustix::net::shutdown(to, Shutdown::Write)?;
            self.told = true;
        }
        Ok(more)
    }

    /// Fills an empty pipe; false when there is nothing to do for now.
    fn fill(&mut self, from: &OwnedFd, pipes: &mut Pipes) -> Result<bool, Errno> {
        if self.held > 0 {
            return Ok(true);
        }
        if self.ended {
            return Ok(false);
        }
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        let into = &self.pipe.insert(pipe).write;
        match splice(from, None, into, None, CHUNK, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(n) => {
                (self.held, self.ended) = (n, n == 0);
                Ok(n > 0)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Empties the pipe; false when the other end takes no more for now.
    fn drain(&mut self, to: &OwnedFd) -> Result<bool, Errno> {
        let Some(pipe) = &self.pipe else { return Ok(true) };
        while self.held > 0 {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match splice(&pipe.read, None, to, None, self.held, flags) {
                Ok(n) => self.held -= n.min(self.held),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// Closes a connection so that its peer sees it broken, and nothing of it is kept.
pub fn reset(socket: OwnedFd) {
    let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    drop(socket);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    /// A client, and the stream that a server on the loopback is at the other end of.
    fn connected() -> (TcpStream, Stream, TcpStream) {
        let (front, behind) = ("127.0.0.1:0", "127.0.0.1:0");
        let (front, behind) = (TcpListener::bind(front).unwrap(), TcpListener::bind(behind).unwrap());
        let client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
        let accepted = front.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        let nobody = SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let stream = Stream::open(0, accepted.into(), nobody, behind.local_addr().unwrap()).unwrap();
        let server = behind.accept().unwrap().0;
        (client, stream, server)
    }

    fn until(stream: &mut Stream, pipes: &mut Pipes, done: impl Fn(&Stream, State) -> bool) -> State {
        loop {
            let state = stream.pump(pipes);
            if done(stream, state) {
                return state;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_end_of_one_direction_leaves_the_other_open() {
        let (mut client, mut stream, mut server) = connected();
        let mut pipes = Pipes::default();
        client.write_all(b"question").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(until(&mut stream, &mut pipes, |s, _| s.halves[0].told), State::Waits);
        let mut asked = String::new();
        server.read_to_string(&mut asked).unwrap();
        server.write_all(b"answer").unwrap();
        drop(server);
        until(&mut stream, &mut pipes, |_, state| state == State::Done);
        let mut answered = String::new();
        client.read_to_string(&mut answered).unwrap();
        assert_eq!((asked.as_str(), answered.as_str()), ("question", "answer"));
        assert!(stream.halves.iter().all(|h| h.pipe.is_none()) && pipes.0.len() == 1);
    }

    #[test]
    fn who_does_not_read_is_waited_for_and_loses_nothing() {
        let (client, mut stream, mut server) = connected();
        let mut pipes = Pipes::default();
        client.set_nonblocking(true).unwrap();
        let (mut sent, much) = (0, vec![7; 65536]);
        // Until everything between both is full.
        for _ in 0..50 {
            while let Ok(n) = (&client).write(&much) {
                sent += n;
            }
            stream.pump(&mut pipes);
        }
        assert!(stream.halves[0].held > 0, "what does not fit waits in a pipe");
        drop(client);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            all.len()
        });
        until(&mut stream, &mut pipes, |s, _| s.halves[0].told);
        assert_eq!(reader.join().unwrap(), sent);
    }

    #[test]
    fn an_end_that_is_gone_after_it_said_all_breaks_the_other() {
        let (client, mut stream, _server) = connected();
        let mut pipes = Pipes::default();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        until(&mut stream, &mut pipes, |s, _| s.halves[0].told);
        reset(client.into());
        let end = std::time::Instant::now() + Duration::from_secs(20);
        let state = until(&mut stream, &mut pipes, |_, state| {
            assert!(std::time::Instant::now() < end, "it is {state:?}");
            state != State::Waits
        });
        assert_eq!(state, State::Broken);
    }
}
