//! The one error shape that crosses sockets, and its mappings to gRPC statuses and exit codes.

use std::fmt;

use prost::Message as _;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::plugin::ErrorDetail;
pub use crate::plugin::error_detail::Kind;

/// Metadata entry that carries [`ErrorDetail`].
pub const DETAIL_KEY: &str = "davit-error-bin";

/// A failed call: what kind, one line for a person, what it is about, what to do next, and the chain of causes.
///
/// Daemons turn their own error enums into this once, at the server boundary; clients get it back out of a
/// [`Status`] by [`From`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    subject: String,
    hint: String,
    causes: Vec<String>,
}

impl Error {
    /// An error of `kind` with one line that says what failed and why.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            subject: String::new(),
            hint: String::new(),
            causes: Vec::new(),
        }
    }

    /// Builds an error from any error and its chain of sources.
    pub fn from_error(kind: Kind, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut me = Self::new(kind, error.to_string());
        let mut source = error.source();
        while let Some(s) = source {
            me.causes.push(s.to_string());
            source = s.source();
        }
        me
    }

    /// Puts what only the caller knows before the line: `archive.tar: it is not a tar archive`.
    #[must_use]
    pub fn within(mut self, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        if !self.message.starts_with(&what) {
            self.message = format!("{what}: {}", self.message);
        }
        self
    }

    /// Names what the error is about (an image reference, a container's name, a path).
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Says what the person can do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The first line, without causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the error is about; may be empty.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What to do next; may be empty.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The chain of sources, outermost first.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// The exit code of a command that runs a container and failed with this: docker's 125, 126, 127.
    pub fn run_exit_code(&self) -> u8 {
        match self.kind {
            Kind::CommandNotRunnable => 126,
            Kind::CommandNotFound => 127,
            _ => 125,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The gRPC code of each kind.
pub fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::NotFound | Kind::CommandNotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::InUse | Kind::WrongState | Kind::CommandNotRunnable => Code::FailedPrecondition,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Unavailable => Code::Unavailable,
        Kind::NoSpace => Code::ResourceExhausted,
        Kind::Corrupt => Code::DataLoss,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Cancelled => Code::Cancelled,
        Kind::Internal | Kind::Unspecified => Code::Internal,
    }
}

fn kind_of(code: Code) -> Kind {
    match code {
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => Kind::InvalidArgument,
        Code::FailedPrecondition | Code::Aborted => Kind::WrongState,
        Code::PermissionDenied => Kind::PermissionDenied,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::Unavailable => Kind::Unavailable,
        Code::ResourceExhausted => Kind::NoSpace,
        Code::DataLoss => Kind::Corrupt,
        Code::Unimplemented => Kind::Unsupported,
        Code::DeadlineExceeded => Kind::Timeout,
        Code::Cancelled => Kind::Cancelled,
        Code::Internal | Code::Unknown | Code::Ok => Kind::Internal,
    }
}

impl From<Error> for Status {
    fn from(e: Error) -> Self {
        let detail = ErrorDetail {
            kind: e.kind as i32,
            subject: e.subject.clone(),
            hint: e.hint.clone(),
            causes: e.causes.clone(),
        };
        // HTTP/2 header lists are bounded (16 KiB by default): a huge message must not turn into a protocol error.
        let mut message = e.message;
        if message.len() > 3000 {
            let end = (0..=3000).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
        }
        let mut status = Status::new(code_of(e.kind), message);
        let bytes = detail.encode_to_vec();
        if bytes.len() < 4096 {
            status.metadata_mut().insert_bin(DETAIL_KEY, MetadataValue::from_bytes(&bytes));
        }
        status
    }
}

impl From<Status> for Error {
    fn from(s: Status) -> Self {
        let detail = s
            .metadata()
            .get_bin(DETAIL_KEY)
            .and_then(|v| v.to_bytes().ok())
            .and_then(|b| ErrorDetail::decode(b.as_ref()).ok());
        match detail {
            Some(d) => Self {
                kind: d.kind(),
                message: s.message().to_owned(),
                subject: d.subject.clone(),
                hint: d.hint.clone(),
                causes: d.causes,
            },
            None if is_cut(&s) => Self::new(Kind::Unavailable, s.message()),
            None => Self::new(kind_of(s.code()), s.message()),
        }
    }
}

/// Whether no daemon answered: the connection ended before. What comes over it has no source, and ours has the detail.
pub fn is_cut(status: &Status) -> bool {
    let ours = matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable);
    let local = std::error::Error::source(status).is_some();
    ours && local && status.metadata().get_bin(DETAIL_KEY).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_a_status() {
        let e = Error::new(Kind::NotFound, "no image 'alpin'")
            .with_subject("alpin")
            .with_hint("did you mean alpine?");
        let back = Error::from(Status::from(e.clone()));
        assert_eq!(e, back);
    }

    #[test]
    fn every_kind_survives_with_its_code() {
        for n in 1..=16 {
            let kind = Kind::try_from(n).unwrap();
            let status = Status::from(Error::new(kind, "x"));
            assert_eq!(status.code(), code_of(kind));
            assert_eq!(Error::from(status).kind(), kind);
        }
    }

    #[test]
    fn what_a_message_begins_with_is_not_said_twice() {
        let about = |message: &str| Error::new(Kind::Corrupt, message).within("/a").message().to_owned();
        assert_eq!(about("/a is corrupt"), "/a is corrupt");
        assert_eq!(about("it is corrupt"), "/a: it is corrupt");
    }

    #[test]
    fn a_foreign_status_keeps_its_meaning() {
        assert_eq!(Error::from(Status::unavailable("down")).kind(), Kind::Unavailable);
    }

    #[test]
    fn a_connection_that_ends_is_a_daemon_that_is_away() {
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let cut = Status::from_error(Box::new(broken()));
        assert!(is_cut(&cut) && !is_cut(&Status::unknown("x")) && !is_cut(&Status::unavailable("x")));
        assert_eq!(Error::from(cut).kind(), Kind::Unavailable);
        assert_eq!(Error::from(Status::unknown("x")).kind(), Kind::Internal);
    }

    #[test]
    fn a_huge_message_is_cut_at_a_character() {
        let status = Status::from(Error::new(Kind::Internal, "é".repeat(5000)));
        assert!(status.message().len() <= 3000);
    }
}
