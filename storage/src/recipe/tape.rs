//! Taking down a recipe while the tar is being unpacked.

use std::io::{self, Read};

use super::Writer;
use crate::tarball::{Passage, Skip};

/// Passes a tar's bytes through, and writes down those that are not the content of a file.
pub struct Tape<R> {
    inner: R,
    writer: Option<Writer>,
    /// Bytes of a file's content that are still to come.
    content: u64,
    failed: Option<io::Error>,
}

impl<R> Tape<R> {
    /// Writes the recipe with `writer`; without one only passes bytes through.
    pub fn new(inner: R, writer: Option<Writer>) -> Self {
        Self { inner, writer, content: 0, failed: None }
    }

    /// What it wrapped, and the recipe when it is a faithful one.
    pub fn finish(self) -> (R, io::Result<Option<Writer>>) {
        match self.failed {
            Some(e) => (self.inner, Err(e)),
            None => (self.inner, Ok(self.writer)),
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut Writer) -> io::Result<()>) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(e) = write(writer) {
            // A full disk is not the archive's fault: it is told at the end.
            (self.failed, self.writer) = (Some(e), None);
        }
    }
}

impl<R: Read> Read for Tape<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        let content = self.content.min(n as u64);
        self.content -= content;
        self.write(|w| w.bytes(&buf[content as usize..n]));
        Ok(n)
    }
}

impl<R: Read> Skip for Tape<R> {}

impl<R: Read> Passage for Tape<R> {
    fn content(&mut self, path: &[u8], length: u64) {
        if length > 0 {
            self.write(|w| w.file(path, length));
            if self.writer.is_some() {
                self.content = length;
            }
        }
    }

    fn replaced(&mut self) {
        self.writer = None;
    }
}
