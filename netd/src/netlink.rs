//! Netlink, spoken by hand: an encoder of messages and attributes, blocking sockets, and the rtnetlink messages that
//! netd needs.
//!
//! The kernel works a netlink request off inside send(2), so an exchange is two system calls and never waits; async
//! I/O would buy nothing here. Several requests go in one send, which is what keeps an attach short. A socket speaks
//! for the namespace that it was opened in, see [`davit_sys::netns`].
//!
//! ```text
//! message   encode headers and nested attributes, walk those that come back   netlink(7)
//! socket    send a batch, read the acknowledgements, name the request that failed
//! link      interfaces on top of others: macvlan, ipvlan, vlan
//! links     links, read in full
//! diag      sockets that listen                                                  sock_diag(7)
//! fdb       entries of bridges
//! conntrack connections that the kernel remembers               linux/netfilter/nfnetlink_conntrack.h
//! reach     addresses and routes that are there
//! route     links, addresses, routes                                          rtnetlink(7)
//! view      the same read in full, routes looked up
//! neighbours  Ethernet addresses of neighbours                               arp(7)
//! adjust    repairs of what is there
//! tc        limits of interfaces                                              tc-tbf(8)
//! watch     hears of addresses and routes that come and go
//! ```

pub mod adjust;
pub mod conntrack;
pub mod diag;
pub mod fdb;
pub mod inward;
pub mod link;
pub mod links;
pub mod mac;
pub mod message;
pub mod neighbours;
pub mod reach;
pub mod route;
pub mod socket;
pub mod tc;
pub mod view;
pub mod watch;

pub use message::{Attrs, Batch, Flags};
pub use socket::{NetlinkError, Protocol, Socket};
