//! What can go wrong in runtimed, and the one mapping of it to the contract's error.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use davit_contracts::id::InvalidId;
use davit_contracts::{Error, Kind};
use davit_wire::FailureKind;

use crate::monitor::link::LinkError;

/// A refused or failed operation on containers.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nothing has this name or id.
    #[error("no such container: {name}")]
    NoContainer {
        /// As asked.
        name: String,
        /// Names like it.
        nearest: Vec<String>,
    },
    /// More than one id begins so.
    #[error("'{0}' is the beginning of more than one container's id: give more of it")]
    Ambiguous(String),
    /// No pod has this name or id.
    #[error("no such pod: {name}")]
    NoPod {
        /// As asked.
        name: String,
        /// Names like it.
        nearest: Vec<String>,
    },
    /// A pod has the name already.
    #[error("the pod name \"{name}\" is already in use by pod {holder}")]
    PodNameInUse {
        /// The name.
        name: String,
        /// The pod that has it.
        holder: String,
    },
    /// docker's words.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The name.
        name: String,
        /// The id that has it.
        holder: String,
    },
    /// The name breaks docker's rule.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// Not legal in the container's present state.
    #[error("{0}")]
    WrongState(String),
    /// A value in the request cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Nothing here does this (yet).
    #[error("{0}")]
    Unsupported(String),
    /// The image's user database lacks a name.
    #[error("unable to find {what} {name}: no matching entries in {what_file} file")]
    NoUser {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// `passwd` or `group`.
        what_file: &'static str,
    },
    /// The OCI runtime is not there.
    #[error("the OCI runtime '{name}' cannot be used: {why}")]
    NoRuntime {
        /// As asked.
        name: String,
        /// Why.
        why: String,
        /// A configured name like it.
        nearest: Option<String>,
    },
    /// storaged or netd refused or failed.
    #[error("{0}")]
    Peer(Box<Error>),
    /// storaged or netd cannot be reached.
    #[error("{daemon} cannot be reached at {socket}: {why}")]
    PeerDown {
        /// Which daemon.
        daemon: &'static str,
        /// Its socket.
        socket: PathBuf,
        /// The transport's words.
        why: String,
    },
    /// The supervisor started storaged or netd in vain, again and again.
    #[error("davit-{daemon} does not start: {why}")]
    PeerHopeless {
        /// Which daemon.
        daemon: &'static str,
        /// How it ended last.
        why: String,
        /// What the supervisor writes.
        log: PathBuf,
    },
    /// storaged or netd takes longer than anybody wants to wait here.
    #[error("{daemon} has not answered within {} seconds", .patience.as_secs())]
    PeerLate {
        /// Which daemon.
        daemon: &'static str,
        /// How long it had.
        patience: Duration,
    },
    /// The monitor, or the OCI runtime behind it, refused.
    #[error("{message}")]
    Monitor {
        /// What kind.
        kind: FailureKind,
        /// Its words.
        message: String,
    },
    /// The connection to the monitor failed.
    #[error("the monitor of container {id} failed")]
    Link {
        /// Short id.
        id: String,
        /// How.
        #[source]
        source: LinkError,
    },
    /// The monitor did not come up.
    #[error("the monitor of container {id} did not start: {why}")]
    MonitorStart {
        /// Short id.
        id: String,
        /// Its last words, or the system's.
        why: String,
    },
    /// No such exec session.
    #[error("no such exec: {0}")]
    NoExec(String),
    /// Somebody stopped or removed the container before its start was done.
    #[error("the start was cut short: the container was stopped or removed meanwhile")]
    Cut,
    /// The container's task is gone, because the container is being removed.
    #[error("container {0} is being removed")]
    Removing(String),
    /// A system call failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Wraps an I/O error with what was tried on which path.
pub fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::Io { operation, path, source }
}

impl RuntimeError {
    /// The contract's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoContainer { .. } | Self::NoPod { .. } | Self::NoExec(_) => Kind::NotFound,
            Self::NameInUse { .. } | Self::PodNameInUse { .. } => Kind::AlreadyExists,
            Self::Ambiguous(_)
            | Self::Name(_)
            | Self::Invalid(_)
            | Self::NoUser { .. }
            | Self::NoRuntime { .. } => Kind::InvalidArgument,
            Self::WrongState(_) | Self::Removing(_) | Self::Cut => Kind::WrongState,
            Self::Unsupported(_) => Kind::Unsupported,
            Self::Peer(e) => e.kind(),
            Self::PeerDown { .. } | Self::PeerHopeless { .. } | Self::PeerLate { .. } => Kind::Unavailable,
            Self::Monitor { kind, .. } => match kind {
                FailureKind::CommandNotFound => Kind::CommandNotFound,
                FailureKind::CommandNotRunnable => Kind::CommandNotRunnable,
                FailureKind::WrongState => Kind::WrongState,
                FailureKind::InvalidArgument => Kind::InvalidArgument,
                FailureKind::NotFound => Kind::NotFound,
                FailureKind::Version => Kind::Unsupported,
                FailureKind::Internal => Kind::Internal,
            },
            Self::Io { source, .. } => io_kind(source),
            Self::Link { .. } | Self::MonitorStart { .. } => Kind::Internal,
        }
    }

    /// docker's exit code of a program that could not be run, if that is what failed.
    pub fn command_exit_code(&self) -> Option<i32> {
        match self.kind() {
            Kind::CommandNotFound => Some(127),
            Kind::CommandNotRunnable => Some(126),
            _ => None,
        }
    }

    /// One line with the chain of causes.
    pub fn line(&self) -> String {
        Error::from_error(self.kind(), self).to_string()
    }

    fn subject_and_hint(&self) -> (String, String) {
        match self {
            Self::NoContainer { name, nearest } | Self::NoPod { name, nearest } => {
                (name.clone(), did_you_mean(nearest))
            }
            Self::Ambiguous(name) | Self::NoExec(name) | Self::Removing(name) => {
                (name.clone(), String::new())
            }
            Self::PodNameInUse { name, .. } => {
                (name.clone(), "choose another name, or remove that pod".into())
            }
            Self::NameInUse { name, .. } => {
                (name.clone(), "choose another name, or remove that container".into())
            }
            Self::NoRuntime { name, nearest, .. } => {
                let near: Vec<String> = nearest.iter().cloned().collect();
                let hint = if near.is_empty() {
                    "install it, or name its path in runtimed.toml under [runtimes.NAME]".into()
                } else {
                    did_you_mean(&near)
                };
                (name.clone(), hint)
            }
            Self::PeerDown { daemon, .. } => ((*daemon).to_owned(), "start it with `davit up`".into()),
            Self::PeerHopeless { daemon, log, .. } => {
                ((*daemon).to_owned(), format!("its log is {}", log.display()))
            }
            Self::NoUser { name, .. } => {
                (name.clone(), "name a user of the image, or give numbers as uid:gid".into())
            }
            _ => (String::new(), String::new()),
        }
    }
}

fn io_kind(e: &io::Error) -> Kind {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
        _ => Kind::Internal,
    }
}

fn did_you_mean(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("did you mean {}?", names.join(" or ")) }
}

/// The server boundary: every failed call leaves runtimed through here.
impl From<RuntimeError> for Error {
    fn from(e: RuntimeError) -> Self {
        if let RuntimeError::Peer(inner) = e {
            return *inner;
        }
        let (subject, hint) = e.subject_and_hint();
        Error::from_error(e.kind(), &e).with_subject(subject).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_container_names_its_neighbours() {
        let e = RuntimeError::NoContainer { name: "wbe".into(), nearest: vec!["web".into()] };
        let e = Error::from(e);
        assert_eq!((e.kind(), e.hint(), e.subject()), (Kind::NotFound, "did you mean web?", "wbe"));
    }

    #[test]
    fn commands_that_cannot_run_have_dockers_codes() {
        let of = |kind| RuntimeError::Monitor { kind, message: "x".into() }.command_exit_code();
        assert_eq!(of(FailureKind::CommandNotFound), Some(127));
        assert_eq!(of(FailureKind::CommandNotRunnable), Some(126));
        assert_eq!(of(FailureKind::Internal), None);
    }

    #[test]
    fn a_full_disk_is_no_space() {
        let e = io_error("write", Path::new("/x"))(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(e.kind(), Kind::NoSpace);
        assert!(e.line().starts_with("cannot write /x: "), "{}", e.line());
    }
}
