//! Why a command failed. Printed once, as one line, by `main`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use davit_sys::caps::CapsError;
use davit_sys::cgroup::CgroupError;
use davit_sys::fork::CloneError;

use crate::seccomp::SeccompError;

/// Any failure of the runner.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A system call or file operation failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried, with path or id.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A JSON file does not say what it should.
    #[error("cannot parse {path}")]
    Json {
        /// Which file.
        path: PathBuf,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// A member of a JSON file is not what it should be.
    #[error("cannot parse {path}: {member}")]
    Member {
        /// Which file.
        path: PathBuf,
        /// As `linux.resources.memory.limit`.
        member: String,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration asks for what cannot be.
    #[error("config.json: {0}")]
    Config(String),
    /// There is no such container.
    #[error("container does not exist: {0:?}")]
    NoContainer(String),
    /// The id is taken.
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    /// The container is in the wrong state.
    #[error("cannot {operation} container {id:?} in the {status} state")]
    Status {
        /// What was asked.
        operation: &'static str,
        /// Which.
        id: String,
        /// As `state` prints it.
        status: &'static str,
    },
    /// The program cannot be run; the wording is what engines recognise.
    #[error("unable to start container process: {0}")]
    Program(String),
    /// What the process inside reported before it gave up.
    #[error("{0}")]
    Inside(String),
    /// The process inside ended without a word.
    #[error(
        "the container's first process ended while it was being set up (killed by the OOM killer or a limit?)"
    )]
    Vanished,
    /// A hook failed.
    #[error("hook {path}: {problem}")]
    Hook {
        /// Which program.
        path: PathBuf,
        /// Its exit status, or that it took too long.
        problem: String,
    },
    /// No cgroup for a limit that was asked for.
    #[error("cannot limit {what}: {reason}")]
    Limit {
        /// `memory`, `pids`.
        what: String,
        /// What is missing, what to do.
        reason: String,
    },
    /// A control file.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Capabilities.
    #[error(transparent)]
    Caps(#[from] CapsError),
    /// A system call filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// A process could not be made.
    #[error(transparent)]
    Clone(#[from] CloneError),
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The message with all that lies behind it, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            // Plain io errors print as "No such file or directory (os error 2)": engines look for runc's wording.
            let cause_text = match cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                Some(number) => describe(number),
                None => cause.to_string(),
            };
            let _ = write!(text, ": {cause_text}");
            next = cause.source();
        }
        text
    }
}

/// Reads JSON; an error names the member that is wrong. Only then the text is read with an eye to where one is.
pub fn parse_json<T: serde::de::DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|source| {
        let path = path.to_owned();
        let mut again = serde_json::Deserializer::from_slice(text);
        let found = serde_path_to_error::deserialize::<_, T>(&mut again);
        match found.map_err(|e| e.path().to_string()) {
            Err(member) if member != "." && !source.is_syntax() => Error::Member { path, member, source },
            _ => Error::Json { path, source },
        }
    })
}

/// The text of an error number as Go programs print it: lower case, without the number.
pub fn describe(errno: i32) -> String {
    let text = nix::errno::Errno::from_raw(errno).desc();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// Puts a system error into the words of what was tried.
pub trait Context<T> {
    /// `operation` completes "cannot ...".
    fn context<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::Io { operation: operation().into(), source: e.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line_in_the_words_that_engines_know() {
        let e: Result<()> = Err(io::Error::from_raw_os_error(2)).context(|| "open \"/x\"");
        assert_eq!(e.unwrap_err().chain(), "cannot open \"/x\": no such file or directory");
        assert_eq!(describe(libc::EACCES), "permission denied");
        assert_eq!(describe(libc::EIO), "I/O error");
    }
}
