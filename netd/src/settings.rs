//! The configuration file, netd.toml. Every key has a default; unknown keys are refused.
//!
//! ```toml
//! firewall = "auto"   # or "nftables", "iptables"
//! ```

use serde::Deserialize;

use crate::firewall::Choice;

/// All of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What rules are written with. "auto": nftables where the kernel has it, else iptables.
    pub firewall: Choice,
}
