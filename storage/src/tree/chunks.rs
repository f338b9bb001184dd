//! Bytes on their way out of a thread that may block: pieces that a consumer takes at its own pace.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;

/// Bytes in one piece, and pieces that wait for their consumer.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// Collects bytes to pieces and hands them on; fails with a broken pipe when nobody takes them any more.
pub struct Chunks {
    hand_on: Box<dyn FnMut(Vec<u8>) -> bool + Send>,
    piece: Vec<u8>,
}

impl Chunks {
    /// `hand_on` may block; it answers whether there is still someone to take pieces.
    pub fn new(hand_on: impl FnMut(Vec<u8>) -> bool + Send + 'static) -> Self {
        Self { hand_on: Box::new(hand_on), piece: Vec::new() }
    }
}

impl Write for Chunks {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.piece.reserve_exact(PIECE.saturating_sub(self.piece.len()));
        let n = buf.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buf[..n]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() || (self.hand_on)(piece) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

/// Runs `write` on a thread of its own; what it writes and flushes can be read, and after it how it ended.
pub fn piped<E: std::error::Error + Send + Sync + 'static>(
    write: impl FnOnce(Chunks) -> Result<(), E> + Send + 'static,
) -> io::Result<Pieces> {
    let (sender, pieces) = mpsc::channel(WAITING);
    let last = sender.clone();
    let chunks = Chunks::new(move |piece| sender.blocking_send(Ok(piece)).is_ok());
    std::thread::Builder::new().name("archive".into()).spawn(move || {
        if let Err(e) = write(chunks) {
            let _ = last.blocking_send(Err(io::Error::other(e)));
        }
    })?;
    Ok(Pieces { coming: pieces, current: Vec::new(), at: 0 })
}

/// What [`piped`] reads from.
pub struct Pieces {
    coming: mpsc::Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.coming.blocking_recv() {
                None => return Ok(0),
                Some(piece) => (self.current, self.at) = (piece?, 0),
            }
        }
        let n = buf.len().min(self.current.len() - self.at);
        buf[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_failure_comes_after_it() {
        let mut ok =
            piped(|mut out| out.write_all(&vec![7; 3 * PIECE + 5]).and_then(|()| out.flush())).unwrap();
        let mut all = Vec::new();
        ok.read_to_end(&mut all).unwrap();
        assert!(all.len() == 3 * PIECE + 5 && all.iter().all(|b| *b == 7));
        let mut failing = piped(|mut out| {
            out.write_all(&vec![7; PIECE])?;
            Err(io::Error::from_raw_os_error(28))
        })
        .unwrap();
        let e = failing.read_to_end(&mut all).unwrap_err();
        assert_eq!(crate::failure::condition(&e), Some(crate::failure::Condition::NoSpace));
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_writer() {
        let (sender, ended) = std::sync::mpsc::channel();
        let reader = piped(move |mut out| {
            let result = io::copy(&mut io::repeat(0), &mut out).map(drop);
            let _ = sender.send(result.as_ref().map_err(io::Error::kind).copied());
            result
        });
        drop(reader.unwrap());
        assert_eq!(ended.recv().unwrap(), Err(io::ErrorKind::BrokenPipe));
    }
}
