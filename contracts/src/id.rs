//! Identifiers as newtypes, so that a container's id is never handed over where a network's is wanted.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not the identifier that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Ids are 64 lower-case hexadecimal digits.
    #[error("'{0}' is not a {1} id: 64 lower-case hexadecimal digits are expected")]
    NotHex(String, &'static str),
    /// Names are `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, docker's rule, at most 128 bytes.
    #[error("'{0}' is not a valid name: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed, at most 128 bytes")]
    BadName(String),
}

fn is_hex64(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! hex_id {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes 64 lower-case hexadecimal digits.
            pub fn parse(s: impl Into<String>) -> Result<Self, InvalidId> {
                let s = s.into();
                if is_hex64(&s) { Ok(Self(s)) } else { Err(InvalidId::NotHex(s, $what)) }
            }

            /// Makes an id of 32 random bytes.
            pub fn from_random(bytes: [u8; 32]) -> Self {
                use std::fmt::Write as _;
                let mut s = String::with_capacity(64);
                for b in bytes {
                    write!(s, "{b:02x}").expect("writing to a String cannot fail");
                }
                Self(s)
            }

            /// All 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits, what people see.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(s: String) -> Result<Self, InvalidId> {
                Self::parse(s)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    )*};
}

hex_id! {
    /// A container's (or pod's) id.
    ContainerId, "container";
    /// A network's id.
    NetworkId, "network";
    /// An endpoint's id.
    EndpointId, "endpoint";
    /// An exec session's id.
    ExecId, "exec";
}

/// Checks a container, network, volume or pod name against docker's rule.
pub fn check_name(name: &str) -> Result<(), InvalidId> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= 128 { Ok(()) } else { Err(InvalidId::BadName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hex_digits() {
        assert!(ContainerId::parse("a".repeat(64)).is_ok());
        assert!(ContainerId::parse("A".repeat(64)).is_err());
        assert!(ContainerId::parse("a".repeat(63)).is_err());
        assert_eq!(NetworkId::from_random([0xab; 32]).short(), "abababababab");
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["a", "web-1", "A.b_c", "0x"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "a b", "a/b", "é", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
