//! The configuration file, netd.toml. Every key has a default; unknown keys are refused.
//!
//! ```toml
//! firewall = "auto"        # or "nftables", "iptables"
//! forwarding = "guarded"   # or "open"
//!
//! [[default-address-pools]]
//! base = "10.200.0.0/16"
//! size = 24
//! ```

use ipnet::IpNet;
use serde::Deserialize;

use crate::firewall::Choice;
use crate::network::pools::{PoolError, Pools};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// What rules are written with. "auto": nftables where the kernel has it, else iptables.
    pub firewall: Choice,
    /// Whether a host whose forwarding netd turned on forwards for others than containers.
    pub forwarding: Forwarding,
    /// Where subnets are chosen from, in place of docker's pools.
    pub default_address_pools: Vec<AddressPool>,
}

/// For whom a host forwards that did not before netd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// For our networks only.
    #[default]
    Guarded,
    /// For whoever sends it packets.
    Open,
}

/// A network that is cut into subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    /// The whole.
    pub base: IpNet,
    /// Prefix length of the subnets.
    pub size: u8,
}

impl Settings {
    /// The pools, checked.
    pub fn pools(&self) -> Result<Pools, PoolError> {
        if self.default_address_pools.is_empty() {
            return Ok(Pools::default());
        }
        let given: Vec<_> = self.default_address_pools.iter().map(|p| (p.base, p.size)).collect();
        Pools::of(&given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netd.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            davit_daemon_kit::config::load::<Settings>(&path)
        };
        let settings = read("[[default-address-pools]]\nbase = \"10.200.0.0/16\"\nsize = 24\n").unwrap();
        let pools = settings.pools().unwrap();
        assert_eq!(pools.free(true, &[]).unwrap().to_string(), "10.200.0.0/24");
        assert_eq!(read("").unwrap().pools().unwrap(), Pools::default());
        assert!(read("[[default-address-pools]]\nbase = \"10.200.0.0/16\"\nsiz = 24\n").is_err());
        let wrong = read("[[default-address-pools]]\nbase = \"10.200.0.0/16\"\nsize = 8\n").unwrap();
        let e = wrong.pools().unwrap_err().to_string();
        assert!(e.contains("size 8") && e.contains("16 to 30"), "{e}");
    }
}
