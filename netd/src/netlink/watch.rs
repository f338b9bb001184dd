//! Hears of addresses and routes of the host that come and go.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;

use super::message::messages;
use super::reach::{Reach, parse_address, parse_route};
use super::route::{DELADDR, DELROUTE, NEWADDR, NEWROUTE};
use super::socket::{NetlinkError, Protocol, Socket};

/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE` (linux/rtnetlink.h).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// A socket that the kernel tells.
#[derive(Debug)]
pub struct RouteWatch {
    socket: Socket,
    buffer: RefCell<Vec<u8>>,
}

impl RouteWatch {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::listen(Protocol::Route, GROUPS)?;
        Ok(Self { socket, buffer: RefCell::new(vec![0; 16 << 10]) })
    }

    /// Waits until an address or a route changed that could overlap a network; also when some of what was told got lost.
    pub fn next_change(&self) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        loop {
            let Some(n) = self.socket.hear(&mut buffer)? else { return Ok(()) };
            let mut heard = messages(&buffer[..n]);
            if heard.any(|(kind, _, payload)| reach(kind, payload).is_some_and(|r| matters(&r))) {
                return Ok(());
            }
        }
    }
}

fn reach(kind: u16, payload: &[u8]) -> Option<Reach> {
    match kind {
        NEWADDR | DELADDR => parse_address(payload),
        NEWROUTE | DELROUTE => parse_route(payload),
        _ => None,
    }
}

/// Every interface that comes up has link-local and multicast routes, and no network of ours can meet them.
fn matters(reach: &Reach) -> bool {
    let local = match reach.net.addr() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast() || ip.is_loopback(),
    };
    reach.net.prefix_len() > 0 && !local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_interface_has_is_not_heard() {
        let of = |net: &str| Reach { net: net.parse().unwrap(), index: 2 };
        for silent in ["fe80::/64", "ff00::/8", "0.0.0.0/0", "::/0", "127.0.0.0/8", "169.254.0.0/16"] {
            assert!(!matters(&of(silent)), "{silent}");
        }
        for heard in ["10.0.0.0/8", "fd00::/64", "2001:db8::/32"] {
            assert!(matters(&of(heard)), "{heard}");
        }
    }
}
