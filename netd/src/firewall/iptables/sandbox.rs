//! The resolver's redirection inside a container, where the kernel has no nf_tables. The commands are started by the
//! thread that visits the container, and work on its namespace.

use std::net::IpAddr;

use super::children::Children;
use super::command::Tool;
use crate::firewall::FirewallError;

const CHAIN: &str = "DAVIT-NAMES";

/// Sends `resolver`:53 to our sockets' ports at the same address, in place of what was set before.
pub fn redirect(resolver: IpAddr, udp: u16, tcp: u16) -> Result<(), FirewallError> {
    let tool = Tool::of(false, Children::default())?;
    tool.restore(&script(resolver, udp, tcp))?;
    tool.ensure("nat", "OUTPUT", &format!("-d {resolver} -j {CHAIN}"))
}

/// Takes it away; fine where there is none.
pub fn leave(resolver: IpAddr) -> Result<(), FirewallError> {
    let tool = Tool::of(false, Children::default())?;
    if !tool.has_chain("nat", CHAIN)? {
        return Ok(());
    }
    tool.drop_all("nat", "OUTPUT", &format!("-d {resolver} -j {CHAIN}"))?;
    tool.restore(&format!("*nat\n-F {CHAIN}\n-X {CHAIN}\nCOMMIT\n"))
}

fn script(resolver: IpAddr, udp: u16, tcp: u16) -> String {
    format!(
        "*nat\n:{CHAIN} - [0:0]\n\
         -A {CHAIN} -p udp -m udp --dport 53 -j DNAT --to-destination {resolver}:{udp}\n\
         -A {CHAIN} -p tcp -m tcp --dport 53 -j DNAT --to-destination {resolver}:{tcp}\n\
         COMMIT\n"
    )
}
