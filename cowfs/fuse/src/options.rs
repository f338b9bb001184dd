//! The command line: fuse-overlayfs's, and mount(8)'s for a helper (source first, then the mount point).
//!
//! Parsing is pure: words in, [`Options`] out; nothing is opened or looked up. Options in `-o` are separated by commas; a backslash takes
//! the next character as it is, or up to three octal digits as a byte, as libfuse and mount(8) have it.

mod errors;
mod general;
mod ids;
mod keys;
#[cfg(test)]
mod tests;
mod text;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use davit_cowfs::Config;

pub use errors::OptionError;
pub use general::{Access, MountWords};

use keys::Line;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// To mount.
    Mount(Box<Options>),
    /// To print how it is used.
    Help,
    /// To print the version.
    Version,
}

/// A mount as the command line describes it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where.
    pub mountpoint: PathBuf,
    /// Stays in the foreground.
    pub foreground: bool,
    /// Logs every request.
    pub debug: bool,
    /// The layers and how they are shown.
    pub config: Config,
    /// How the kernel is asked to use the file system.
    pub serving: Serving,
    /// What the mount itself is like.
    pub mount: MountWords,
}

/// How requests are served and what the kernel may keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Serving {
    /// How long the kernel may keep names and attributes; `None`: for ever, as nobody else changes the layers.
    pub timeout: Option<Duration>,
    /// Whether the kernel collects writes in its page cache.
    pub writeback: bool,
    /// Whether POSIX ACLs are served.
    pub acl: bool,
    /// How many threads serve; `None` chooses.
    pub workers: Option<usize>,
    /// Whether each thread has a descriptor of its own.
    pub clone_fd: bool,
}

impl Default for Serving {
    fn default() -> Self {
        Self { timeout: None, writeback: false, acl: true, workers: None, clone_fd: false }
    }
}

/// Reads a command line without the program's name.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, OptionError> {
    let mut line = Line::default();
    let mut words = words.into_iter();
    let mut only_names = false;
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if only_names || bytes == b"-" || !bytes.starts_with(b"-") {
            line.names.push(word);
            continue;
        }
        match bytes {
            b"--" => only_names = true,
            b"-h" | b"--help" => return Ok(Command::Help),
            b"-V" | b"--version" => return Ok(Command::Version),
            b"-f" => line.foreground = true,
            b"-d" | b"--debug" => line.debug = true,
            b"-s" => line.serving.workers = Some(1),
            // mount(8) hands them to its helpers.
            b"-n" | b"-v" => {}
            b"-o" => line.group(words.next().ok_or(OptionError::Missing("-o"))?.as_bytes())?,
            b"-t" => drop(words.next().ok_or(OptionError::Missing("-t"))?),
            _ if bytes.starts_with(b"-o") => line.group(&bytes[2..])?,
            _ => return Err(OptionError::Unknown(word.to_string_lossy().into_owned())),
        }
    }
    line.finish().map(|options| Command::Mount(Box::new(options)))
}
