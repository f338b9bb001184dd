//! x
pub mod netlink;
pub mod firewall;
pub mod network;
pub mod ipam;
