//! Asks for a name of the world as programs do: those of a sandbox their resolver, from inside; those of the host the C library.
//! It waits, so it is for threads that may.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddrV4, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use davit_sys::netns;

use super::wire::{HEADER, Key, addresses, class, key, kind, survey};
use crate::driver::inside::RESOLVER;

/// Longer than the resolver waits for servers outside.
const PATIENCE: Duration = Duration::from_secs(12);
const LONGEST: usize = 4096;

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is at these addresses.
    Addresses(Vec<IpAddr>),
    /// It has none.
    Unknown,
    /// Nobody said, and why.
    Failed(String),
}

/// Asks the resolver of a sandbox.
pub fn inside(netns: BorrowedFd<'_>, name: &str) -> Told {
    let Some(key) = key(name) else { return Told::Unknown };
    for kind in [kind::A, kind::AAAA] {
        match netns::visit(netns, || ask(&key, kind)).map_err(io::Error::other).and_then(|r| r) {
            Ok(Told::Unknown) => {}
            Ok(told) => return told,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Told::Failed(format!("no answer came in {} seconds", PATIENCE.as_secs()));
            }
            Err(e) => return Told::Failed(format!("its resolver at {RESOLVER} does not answer: {e}")),
        }
    }
    Told::Unknown
}

/// Asks as a program of the host would.
pub fn on_host(name: &str) -> Told {
    match (name, 0).to_socket_addrs() {
        Ok(found) => Told::Addresses(found.map(|a| a.ip()).collect()),
        Err(e) => Told::Failed(e.to_string()),
    }
}

fn ask(key: &Key, kind: u16) -> io::Result<Told> {
    let to = SocketAddrV4::new(RESOLVER, 53);
    let query = query(key, kind);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.send(&query)?;
    let mut reply = vec![0; LONGEST];
    let until = Instant::now() + PATIENCE;
    loop {
        // A container may answer in our place, with anything and for ever.
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        socket.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let n = socket.recv(&mut reply)?;
        let of_ours = reply[..n].get(..2) == query.get(..2);
        match survey(&reply[..n]).filter(|_| of_ours) {
            Some(found) if found.truncated => return Ok(told(&by_stream(to, &query)?)),
            Some(_) => return Ok(told(&reply[..n])),
            None => {}
        }
    }
}

fn by_stream(to: SocketAddrV4, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], query].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let (len, until) = (usize::from(u16::from_be_bytes(len)), Instant::now() + PATIENCE);
    let mut reply = vec![0; len];
    let mut read = 0;
    while read < len {
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut reply[read..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => read += n,
        }
    }
    Ok(reply)
}

fn query(key: &Key, kind: u16) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEADER + key.len() + 5);
    query.extend(rand::random::<[u8; 2]>());
    // RD, one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend_from_slice(key);
    query.push(0);
    query.extend([kind.to_be_bytes(), class::IN.to_be_bytes()].concat());
    query
}

/// What a reply says (RFC 1035, 4.1.1).
fn told(reply: &[u8]) -> Told {
    match survey(reply).map(|s| s.code) {
        Some(0) => match addresses(reply) {
            found if found.is_empty() => Told::Unknown,
            found => Told::Addresses(found),
        },
        Some(3) => Told::Unknown,
        Some(2) => Told::Failed("SERVFAIL: none answered in time, or none could".to_owned()),
        Some(code) => Told::Failed(format!("code {code}")),
        None => Told::Failed("the reply cannot be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_written_byte_for_byte() {
        let written = query(&key("Db.x").unwrap(), kind::AAAA);
        assert_eq!(written[2..], *b"\x01\0\0\x01\0\0\0\0\0\0\x02db\x01x\0\0\x1c\0\x01");
    }

    #[test]
    fn a_reply_says_where_that_there_is_none_or_that_nobody_knows() {
        let reply = |code: u8, records: &[&[u8]]| {
            let head =
                [7, 7, 0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1];
            told(&[&head[..], &records.concat()].concat())
        };
        let cname: &[u8] = &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 3, 1, b'y', 0];
        let a: &[u8] = &[1, b'y', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 198, 51, 100, 7];
        let wrong: &[u8] = &[1, b'y', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 3, 198, 51, 100];
        assert_eq!(reply(0, &[cname, a]), Told::Addresses(vec!["198.51.100.7".parse().unwrap()]));
        assert_eq!(
            (reply(0, &[]), reply(0, &[cname]), reply(0, &[wrong])),
            (Told::Unknown, Told::Unknown, Told::Unknown)
        );
        assert_eq!(reply(3, &[]), Told::Unknown);
        assert!(matches!(reply(2, &[]), Told::Failed(why) if why.starts_with("SERVFAIL")));
        assert!(matches!(told(&[0; 11]), Told::Failed(_)));
    }
}
