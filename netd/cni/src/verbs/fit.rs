//! Whether a network that is there is one that a configuration can mean.

use ipnet::IpNet;

use crate::config::Config;
use crate::failure::{Code, Failure};

/// Of the networks `host` and `none`.
pub(super) fn without_interface(network: &str) -> Failure {
    let message = format!("field network cannot be '{network}': it gives containers no interface");
    Failure::new(Code::Config, message).with_details("name a network of another driver")
}

/// Subnets of a network, one of which has to be of those that the configuration names of its IP version.
pub(super) fn check_subnets(config: &Config, there: &[IpNet]) -> Result<(), Failure> {
    let Some(wanted) = &config.wanted else { return Ok(()) };
    for v4 in [true, false] {
        let of_version = |net: &IpNet| net.addr().is_ipv4() == v4;
        let wanted: Vec<IpNet> = wanted.subnets().filter(of_version).collect();
        let mut there = there.iter().filter(|net| of_version(net)).peekable();
        let Some(other) = there.peek().copied() else { continue };
        if !wanted.is_empty() && !there.any(|net| wanted.contains(net)) {
            let message = format!(
                "network '{}' has the subnet {other}, which the configuration does not name",
                config.network
            );
            return Err(Failure::new(Code::Config, message)
                .with_details("correct 'subnets', or remove the network and let it be made again"));
        }
    }
    Ok(())
}
