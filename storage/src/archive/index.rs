//! Where each file of a tar is, from one pass over its headers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::ArchiveError;
use crate::tarball::{BLOCK, Kind, TarError, TarReader};

/// An archive of images has some files a layer; this is room for hundreds of images.
const MAX_FILES: usize = 100_000;
/// Old docker versions write a repeated layer as a link to the first.
const MAX_LINKS: usize = 8;

enum Member {
    File { offset: u64, length: u64 },
    Link(String),
}

/// Names to places.
pub(super) struct TarIndex {
    members: HashMap<String, Member>,
}

impl TarIndex {
    pub(super) fn read(file: &File, origin: &str) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Tar { path: origin.to_owned(), source };
        let mut at = file;
        at.seek(SeekFrom::Start(0)).map_err(|e| failed(TarError::Read(e)))?;
        let length = file.metadata().map_err(|e| failed(TarError::Read(e)))?.len();
        let mut reader =
            TarReader::new(Skipping { inner: BufReader::with_capacity(BLOCK * 8, at), position: 0, length });
        let mut members = HashMap::new();
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            let name = normalise(&String::from_utf8_lossy(&entry.path));
            let member = match entry.kind {
                // A sparse file's bytes are not in one piece: no tool writes such an archive.
                Kind::File if entry.sparse.is_none() => {
                    Member::File { offset: reader.inner().position, length: entry.size }
                }
                Kind::Symlink => {
                    let base = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    Member::Link(normalise(&format!("{base}/{}", String::from_utf8_lossy(&entry.link))))
                }
                Kind::HardLink => Member::Link(normalise(&String::from_utf8_lossy(&entry.link))),
                _ => continue,
            };
            members.insert(name, member);
            if members.len() > MAX_FILES {
                return Err(ArchiveError::TooManyFiles(MAX_FILES));
            }
        }
        Ok(Self { members })
    }

    /// Offset and length of a file, links followed.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = normalise(name);
        for _ in 0..MAX_LINKS {
            match self.members.get(&name)? {
                Member::File { offset, length } => return Some((*offset, *length)),
                Member::Link(to) => name.clone_from(to),
            }
        }
        None
    }
}

/// "./a/../b//c" is "b/c"; names never mean anything outside the archive.
fn normalise(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Counts the position, and seeks over data instead of reading it.
pub(super) struct Skipping<'a> {
    inner: BufReader<&'a File>,
    position: u64,
    length: u64,
}

impl Read for Skipping<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl crate::tarball::Skip for Skipping<'_> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let possible = count.min(self.length.saturating_sub(self.position));
        self.inner.seek_relative(possible as i64)?;
        self.position += possible;
        Ok(possible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_archive() {
        assert_eq!(normalise("./a/../b//c"), "b/c");
        assert_eq!(normalise("../../etc/passwd"), "etc/passwd");
    }

    #[test]
    fn links_are_followed_and_cycles_end() {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        let mut h = tar::Header::new_gnu();
        h.set_size(3);
        h.set_mode(0o644);
        builder.append_data(&mut h, "one/layer.tar", &b"abc"[..]).unwrap();
        let mut link = |name: &str, to: &str| {
            let mut h = tar::Header::new_gnu();
            h.set_entry_type(tar::EntryType::Symlink);
            h.set_size(0);
            builder.append_link(&mut h, name, to).unwrap();
        };
        link("two/layer.tar", "../one/layer.tar");
        link("x", "y");
        link("y", "x");
        let file = builder.into_inner().unwrap();
        let index = TarIndex::read(&file, "test").unwrap();
        assert_eq!(index.find("two/layer.tar"), index.find("./one/layer.tar"));
        assert_eq!(index.find("one/layer.tar"), Some((512, 3)));
        assert_eq!(index.find("x"), None);
    }
}
