//! A server that answers what a test wants, right or wrong, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::host::sh;

/// One request.
pub struct Asked {
    pub method: String,
    pub path: String,
    /// In lower case, with its value as it came.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The last part of the path, without a query.
    pub fn last(&self) -> &str {
        self.path.split('?').next().unwrap().rsplit('/').next().unwrap()
    }

    /// From where a range is wanted.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// Bytes to write, and then.
pub struct Answer {
    bytes: Vec<u8>,
    then: Then,
}

pub enum Then {
    Close,
    /// Neither more bytes nor an end.
    Stall,
    /// These bytes for ever.
    Repeat(Vec<u8>),
}

/// An answer with a status, headers ("Name: value\r\n" each) and a body.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())
            .into_bytes();
    bytes.extend(body);
    Answer { bytes, then: Then::Close }
}

/// Not a word, and no end.
pub fn silence() -> Answer {
    Answer { bytes: Vec::new(), then: Then::Stall }
}

pub fn ok(body: &[u8]) -> Answer {
    answer("200 OK", "", body)
}

impl Answer {
    /// Only so many bytes of the body that was promised.
    pub fn cut_to(mut self, body: usize) -> Self {
        let head = self.bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        self.bytes.truncate(head + body);
        self
    }

    /// The body ends with the connection.
    pub fn without_length(mut self) -> Self {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        let at = text.find("Content-Length").unwrap();
        let end = at + text[at..].find("\r\n").unwrap() + 2;
        self.bytes.drain(at..end);
        self
    }

    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// The server. It ends with the test's process; its connections with their clients.
pub struct Fake {
    pub port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        Self { port, seen }
    }

    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// "METHOD path" of each request.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|s| s.contains(part)).count()
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&Asked) -> Answer, log: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    let mut buf = [0; 4096];
    while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buf) {
            Ok(n) if n > 0 => bytes.extend(&buf[..n]),
            _ => return,
        }
        if bytes[0] == 0x16 {
            // The greeting of TLS.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            return;
        }
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let headers = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    let asked = Asked {
        method: first.next().unwrap(),
        path: first.next().unwrap_or_default(),
        headers: headers.collect(),
    };
    log.lock().unwrap().push(format!("{} {}", asked.method, asked.path));
    let answer = answer(&asked);
    if stream.write_all(&answer.bytes).is_err() {
        return;
    }
    match answer.then {
        Then::Close => {}
        // Until the client goes.
        Then::Stall => while matches!(stream.read(&mut buf), Ok(n) if n > 0) {},
        Then::Repeat(bytes) => while stream.write_all(&bytes).is_ok() {},
    }
}

/// An image in an OCI layout, to be served.
#[derive(Clone)]
pub struct Image {
    blobs: PathBuf,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn of(layout: &Path, tag: &str) -> Self {
        let digest = sh(&format!("skopeo inspect --format '{{{{.Digest}}}}' oci:{}:{tag}", layout.display()));
        let digest = digest.trim().to_owned();
        let blobs = layout.join("blobs/sha256");
        let manifest = std::fs::read(blobs.join(digest.trim_start_matches("sha256:"))).unwrap();
        Self { blobs, manifest }
    }

    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        std::fs::read(self.blobs.join(digest.trim_start_matches("sha256:"))).ok()
    }

    /// Honest answers but for blobs of more than some kilobytes, which `large` answers.
    pub fn serve(self, large: impl Fn(&Asked, &[u8]) -> Answer + Send + Sync + 'static) -> Fake {
        Fake::start(move |asked| self.answer(asked, &large))
    }

    pub fn answer(&self, asked: &Asked, large: &dyn Fn(&Asked, &[u8]) -> Answer) -> Answer {
        if asked.path.contains("/manifests/") {
            return ok(&self.manifest);
        }
        match self.blob(asked.last()) {
            None => answer("404 Not Found", "", b""),
            Some(body) if body.len() > 10_000 => large(asked, &body),
            Some(body) => ok(&body),
        }
    }
}

/// What a server that knows ranges answers.
pub fn part(asked: &Asked, body: &[u8]) -> Answer {
    match asked.from() {
        None => ok(body),
        Some(from) if from >= body.len() => answer("416 Range Not Satisfiable", "", b""),
        Some(from) => {
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
            answer("206 Partial Content", &range, &body[from..])
        }
    }
}
