//! Probes that need no process: a TCP connection, and a GET over one. The monitor lives in the container's network namespace.
//!
//! `localhost` is 127.0.0.1 and, where nobody listens there, ::1.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use davit_wire::Probe;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::reactor::{Interest, Reactor, Token, Watched};

/// A status line is shorter, or it is none.
const LONGEST: usize = 4096;

/// A connection under way.
#[derive(Debug)]
pub struct NetProbe {
    socket: Watched,
    /// Tried next.
    others: Vec<SocketAddr>,
    /// None: to be connected is enough.
    request: Option<Vec<u8>>,
    connected: bool,
    sent: usize,
    answer: Vec<u8>,
}

/// What a probe came to: success or not, and a line about it.
pub type Verdict = (bool, String);

impl NetProbe {
    /// Begins to connect; an error is a verdict already.
    pub fn start(probe: &Probe, reactor: &Reactor) -> Result<Self, String> {
        let (host, port, request) = match probe {
            Probe::Tcp { host, port } => (host, *port, None),
            Probe::Http { host, port, path } => (host, *port, Some(get(host, *port, path))),
            Probe::Exec { .. } => return Err("a program is no connection".into()),
        };
        let mut others = targets(host, port)?;
        let first = others.remove(0);
        let socket = open(first).map_err(|e| refused(first, &e))?;
        let mut this = Self { socket, others, request, connected: false, sent: 0, answer: Vec::new() };
        this.want(reactor, Interest::Write)?;
        Ok(this)
    }

    fn want(&mut self, reactor: &Reactor, interest: Interest) -> Result<(), String> {
        self.socket.want(reactor, interest).map_err(|e| format!("cannot wait for the connection: {e}"))
    }

    /// Something happened to the socket.
    pub fn ready(&mut self, reactor: &Reactor) -> Option<Verdict> {
        self.advance(reactor).unwrap_or_else(|why| Some((false, why)))
    }

    fn advance(&mut self, reactor: &Reactor) -> Result<Option<Verdict>, String> {
        if !self.connected {
            if let Err(e) = sockopt::socket_error(&self.socket)
                .map_err(io::Error::from)
                .and_then(|r| r.map_err(Into::into))
            {
                return self.next(reactor, &e);
            }
            self.connected = true;
        }
        let Some(request) = &self.request else { return Ok(Some((true, "connected".into()))) };
        while self.sent < request.len() {
            match rustix::io::write(&self.socket, &request[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(e) => return Err(format!("the connection broke: {}", io::Error::from(e))),
            }
        }
        self.want(reactor, Interest::Read)?;
        self.receive()
    }

    fn receive(&mut self) -> Result<Option<Verdict>, String> {
        let mut buffer = [0; 1024];
        while self.answer.len() <= LONGEST {
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(0) => break,
                Ok(n) => self.answer.extend_from_slice(&buffer[..n]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(e) => return Err(format!("the connection broke: {}", io::Error::from(e))),
            }
            if let Some(end) = self.answer.iter().position(|b| *b == b'\n') {
                return Ok(Some(verdict(&self.answer[..end])));
            }
        }
        Err("the answer is no HTTP".into())
    }

    /// The next address, where there is one.
    fn next(&mut self, reactor: &Reactor, e: &io::Error) -> Result<Option<Verdict>, String> {
        let Some(address) = self.others.pop() else { return Err(format!("cannot connect: {e}")) };
        self.socket = open(address).map_err(|e| refused(address, &e))?;
        self.want(reactor, Interest::Write)?;
        Ok(None)
    }
}

fn refused(address: SocketAddr, e: &io::Error) -> String {
    format!("cannot connect to {address}: {e}")
}

fn targets(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if host == "localhost" {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(both.map(|ip| SocketAddr::new(ip, port)).into());
    }
    let ip = host.parse().map_err(|_| format!("'{host}' is neither localhost nor an IP address"))?;
    Ok(vec![SocketAddr::new(ip, port)])
}

fn open(address: SocketAddr) -> io::Result<Watched> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(Watched::new(socket, Token::Probe)),
        Err(e) => Err(e.into()),
    }
}

fn get(host: &str, port: u16, path: &str) -> Vec<u8> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let version = env!("CARGO_PKG_VERSION");
    let lines = [
        format!("GET {path} HTTP/1.1"),
        format!("Host: {host}:{port}"),
        format!("User-Agent: davit-health/{version}"),
        "Accept: */*".into(),
        "Connection: close".into(),
    ];
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

/// From the status line.
fn verdict(line: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    let status =
        text.strip_prefix("HTTP/").and_then(|t| t.split(' ').nth(1)).and_then(|s| s.parse::<u16>().ok());
    match status {
        Some(200..400) => (true, text),
        Some(_) => (false, text),
        None => (false, "the answer is no HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    fn run(probe: &Probe) -> Verdict {
        let reactor = Reactor::new().unwrap();
        let mut net = match NetProbe::start(probe, &reactor) {
            Ok(net) => net,
            Err(why) => return (false, why),
        };
        let end = Instant::now() + Duration::from_secs(20);
        let mut ready = Vec::new();
        while Instant::now() < end {
            reactor.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
            assert!(ready.iter().all(|(token, _)| *token == Token::Probe));
            if let Some(verdict) = net.ready(&reactor) {
                return verdict;
            }
        }
        panic!("no verdict");
    }

    fn answering(parts: &'static [&'static str]) -> Verdict {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            for part in parts {
                client.write_all(part.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            String::from_utf8(request).unwrap()
        });
        let verdict = run(&Probe::Http { host: "localhost".into(), port, path: "/x?y".into() });
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /x?y HTTP/1.1\r\nHost: localhost:"), "{request}");
        verdict
    }

    #[test]
    fn the_status_decides_however_it_arrives() {
        assert_eq!(answering(&["HTTP/1.1 204 No Content\r\n\r\n"]), (true, "HTTP/1.1 204 No Content".into()));
        assert_eq!(answering(&["HTTP/1.0 30", "2 Found\r\n", "\r\n"]), (true, "HTTP/1.0 302 Found".into()));
        assert_eq!(answering(&["HTTP/1.1 503 Busy\r\n\r\n"]), (false, "HTTP/1.1 503 Busy".into()));
        assert_eq!(answering(&["SSH-2.0-x\r\n"]), (false, "the answer is no HTTP".into()));
        assert_eq!(answering(&["HTTP/1.1 200"]), (false, "the answer is no HTTP".into()));
        assert_eq!(answering(&[]), (false, "the answer is no HTTP".into()));
    }

    #[test]
    fn a_connection_is_enough_and_localhost_is_both_families() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = |host: &str| run(&Probe::Tcp { host: host.into(), port });
        assert_eq!(tcp("localhost"), (true, "connected".into()));
        assert_eq!(tcp("::1"), (true, "connected".into()));
        drop(listener);
        let (ok, why) = tcp("localhost");
        assert!(!ok && why.contains("cannot connect"), "{why}");
        assert!(tcp("example.com").1.contains("neither localhost nor an IP address"));
    }
}
