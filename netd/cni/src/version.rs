//! Versions of the specification: what a configuration says in `cniVersion`.

use crate::failure::{Code, Failure};

/// A version that we speak. Later ones compare as greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Results with interfaces, chains.
    V0_3_1,
    /// CHECK, and prevResult for DEL.
    V0_4_0,
    /// Addresses without `version`.
    V1_0_0,
    /// GC, STATUS, MTU in results.
    V1_1_0,
}

impl Version {
    /// All, the oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What is spoken to who did not say.
    pub const LATEST: Self = Self::V1_1_0;

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads one. A configuration without a version is of 0.1.0, says the specification.
    pub fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let text = text.unwrap_or("0.1.0");
        Self::ALL.into_iter().find(|v| v.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Failure::new(Code::Version, format!("cniVersion {text} is not spoken here"))
                .with_details(format!("davit-cni speaks {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_read_as_it_is_written() {
        for version in Version::ALL {
            assert_eq!(Version::parse(Some(version.name())).unwrap(), version);
        }
        for text in [None, Some("2.0.0"), Some("0.2.0"), Some("1.1"), Some("")] {
            assert_eq!(Version::parse(text).unwrap_err().code, Code::Version, "{text:?}");
        }
    }
}
