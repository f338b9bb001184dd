//! Upstream servers, asked from the namespace that netd runs in.
//!
//! Each question has a socket and so a random port of its own; a reply counts only from the server that was asked, with
//! the same id and question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::Way;
use super::resolvconf::ResolvConf;

/// How long one server may take. The C library waits 5 seconds in all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many servers are asked.
const SERVERS: usize = 2;
/// How long the host's configuration is believed without looking whether the file changed.
const FRESH: Duration = Duration::from_secs(1);

/// Why no reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// No server is configured.
    Nobody,
    /// None answered.
    Failed,
}

/// The host's servers, read again when the file changes.
#[derive(Debug, Default)]
pub struct Upstream {
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    looked: Instant,
    modified: Option<SystemTime>,
    conf: Arc<ResolvConf>,
}

impl Upstream {
    /// The host's resolver configuration.
    pub fn host(&self) -> Arc<ResolvConf> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(k) = &*known
            && k.looked.elapsed() < FRESH
        {
            return k.conf.clone();
        }
        let modified = std::fs::metadata("/etc/resolv.conf").and_then(|m| m.modified()).ok();
        let conf = match &*known {
            Some(k) if k.modified == modified => k.conf.clone(),
            _ => Arc::new(ResolvConf::host()),
        };
        *known = Some(Known { looked: Instant::now(), modified, conf: conf.clone() });
        conf
    }

    /// Asks `servers`, or the host's when there are none.
    pub async fn ask(&self, query: &[u8], servers: &[IpAddr], way: Way) -> Result<Vec<u8>, Silence> {
        let host = self.host();
        let servers = if servers.is_empty() { host.servers.as_slice() } else { servers };
        if servers.is_empty() {
            return Err(Silence::Nobody);
        }
        for server in servers.iter().take(SERVERS) {
            let server = SocketAddr::new(*server, 53);
            let asked = async {
                match way {
                    Way::Udp => over_udp(query, server).await,
                    Way::Tcp => over_tcp(query, server).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => tracing::debug!(%server, %error, "an upstream name server failed"),
                Err(_) => tracing::debug!(%server, "an upstream name server did not answer"),
            }
        }
        Err(Silence::Failed)
    }
}

async fn over_udp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let n = socket.recv(&mut buffer).await?;
        if answers(query, &buffer[..n]) {
            buffer.truncate(n);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes()[..], query].concat()).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    if answers(query, &reply) { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Same id, marked as a response, same question (its bytes come right after the 12 of the header in both).
fn answers(query: &[u8], reply: &[u8]) -> bool {
    let end = question_end(query).unwrap_or(12);
    reply.len() >= end
        && query.len() >= end
        && reply[..2] == query[..2]
        && reply[2] & 0x80 != 0
        && reply[12..end].eq_ignore_ascii_case(&query[12..end])
}

fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 5),
            n if n < 64 => at += n + 1,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reply_to_the_very_question_counts() {
        let query = b"\x01\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01".to_vec();
        let mut reply = query.clone();
        assert!(!answers(&query, &reply), "a question is no reply");
        reply[2] |= 0x80;
        reply[14] = b'B';
        assert!(answers(&query, &reply));
        let mut other = reply.clone();
        other[1] = 9;
        assert!(!answers(&query, &other));
        let mut other = reply.clone();
        other[13] = b'x';
        assert!(!answers(&query, &other));
        assert!(!answers(&query, &reply[..11]));
    }
}
