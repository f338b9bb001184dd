//! What went wrong, as the specification wants it said: a number, a line, details; JSON on stdout, exit code 1.

use davit_contracts::{Error, Kind};
use serde_json::{Value, json};

use crate::version::Version;

/// Error codes: up to 99 the specification's (section 5, "Error"), above them ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The version of the configuration.
    Version,
    /// A field of the configuration that we do not know.
    Field,
    /// The container is gone: nothing to clean up.
    Unknown,
    /// A variable of the environment.
    Environment,
    /// stdin could not be read.
    Io,
    /// Not JSON, or not of the right shape.
    Decode,
    /// A configuration that makes no sense.
    Config,
    /// It may work later.
    Again,
    /// No ADD would work now.
    Unavailable,
    /// The same, and containers that are there miss something.
    Limited,
    /// netd failed.
    Netd,
    /// ADD of what was added already.
    Attached,
    /// An address, a port or a name that another has.
    InUse,
    /// No address is left.
    Full,
    /// netd's socket is not for us.
    Permission,
    /// CHECK found something else than ADD had made.
    Differs,
}

impl Code {
    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Field => 2,
            Self::Unknown => 3,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::Again => 11,
            Self::Unavailable => 50,
            Self::Limited => 51,
            Self::Netd => 100,
            Self::Attached => 101,
            Self::InUse => 102,
            Self::Full => 103,
            Self::Permission => 104,
            Self::Differs => 105,
        }
    }
}

/// A verb that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which kind of failure.
    pub code: Code,
    /// One line: what failed and why.
    pub message: String,
    /// More, and what to do next; may be empty.
    pub details: String,
}

impl Failure {
    /// A failure with its line.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// Says more.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// As it is printed.
    pub fn json(&self, version: Version) -> Value {
        let mut object =
            json!({"cniVersion": version.name(), "code": self.code.number(), "msg": self.message});
        if !self.details.is_empty() {
            object["details"] = self.details.clone().into();
        }
        object
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            Kind::Unavailable | Kind::Timeout | Kind::Cancelled => Code::Again,
            Kind::InvalidArgument | Kind::NotFound => Code::Config,
            Kind::WrongState => Code::Unknown,
            Kind::AlreadyExists => Code::Attached,
            Kind::InUse => Code::InUse,
            Kind::NoSpace => Code::Full,
            Kind::PermissionDenied | Kind::Unauthenticated => Code::Permission,
            _ => Code::Netd,
        };
        Self::new(code, error.to_string()).with_details(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_netd_keeps_its_line_and_its_hint() {
        let error =
            Error::new(Kind::NotFound, "no network 'my-brige'").with_hint("did you mean 'my-bridge'?");
        let printed = Failure::from(error).json(Version::V1_0_0);
        let wanted = json!({
            "cniVersion": "1.0.0", "code": 7, "msg": "no network 'my-brige'", "details": "did you mean 'my-bridge'?"
        });
        assert_eq!(printed, wanted);
    }

    #[test]
    fn a_daemon_that_is_away_means_try_again() {
        assert_eq!(Failure::from(Error::new(Kind::Unavailable, "x")).code.number(), 11);
    }
}
