//! Contract versions and the check that two peers understand each other.

use crate::plugin::Contract;
use crate::{Error, Kind};

/// A contract that this build speaks: name, major, minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// `davit.storage`, `davit.network`, `davit.runtime` or `davit.plugin`.
    pub name: &'static str,
    /// Peers with different majors refuse one another.
    pub major: u32,
    /// Only added to; a peer with a lower minor lacks some methods or fields.
    pub minor: u32,
}

/// `davit.plugin` as this build speaks it.
pub const PLUGIN: Version = Version { name: "davit.plugin", major: 1, minor: 0 };
/// `davit.storage` as this build speaks it.
pub const STORAGE: Version = Version { name: "davit.storage", major: 1, minor: 2 };
/// `davit.network` as this build speaks it.
pub const NETWORK: Version = Version { name: "davit.network", major: 1, minor: 2 };
/// `davit.runtime` as this build speaks it.
pub const RUNTIME: Version = Version { name: "davit.runtime", major: 1, minor: 3 };

impl From<Version> for Contract {
    fn from(v: Version) -> Self {
        Contract { name: v.name.into(), major: v.major, minor: v.minor }
    }
}

/// Checks that `offered` holds `wanted` with the same major version.
///
/// # Errors
/// [`Kind::Unsupported`], with a message that names both versions.
pub fn require(peer: &str, offered: &[Contract], wanted: Version) -> Result<(), Error> {
    match offered.iter().find(|c| c.name == wanted.name) {
        Some(c) if c.major == wanted.major => Ok(()),
        Some(c) => Err(Error::new(
            Kind::Unsupported,
            format!(
                "{peer} speaks {} {}.{}, but {}.{} is needed here",
                wanted.name, c.major, c.minor, wanted.major, wanted.minor
            ),
        )
        .with_hint("run daemons and clients of the same major version")),
        None => Err(Error::new(
            Kind::Unsupported,
            format!("{peer} does not speak {} {}.{}", wanted.name, wanted.major, wanted.minor),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_major_is_refused_with_both_versions_named() {
        let offered = [Contract { name: "davit.storage".into(), major: 2, minor: 3 }];
        let e = require("storaged", &offered, STORAGE).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(
            e.to_string().contains("2.3")
                && e.to_string().contains(&format!("{}.{}", STORAGE.major, STORAGE.minor)),
            "{e}"
        );
    }

    #[test]
    fn a_newer_minor_is_accepted() {
        let offered = [Contract { name: "davit.storage".into(), major: 1, minor: 9 }];
        require("storaged", &offered, STORAGE).unwrap();
    }
}
