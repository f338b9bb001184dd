//! What a result says of names (specification, section 5, "dns").

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The dictionary `dns` of configurations and results; empty lists are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This one, with what it leaves open taken from another.
    #[must_use]
    pub fn over(&self, other: Self) -> Self {
        let or = |own: &Vec<String>, theirs: Vec<String>| if own.is_empty() { theirs } else { own.clone() };
        Self {
            nameservers: or(&self.nameservers, other.nameservers),
            domain: if self.domain.is_empty() { other.domain } else { self.domain.clone() },
            search: or(&self.search, other.search),
            options: or(&self.options, other.options),
        }
    }

    /// As results have it.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).expect("its keys are strings")
    }
}
