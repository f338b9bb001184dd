//! x
pub mod netlink;
pub mod firewall;
pub mod network;
pub mod ipam;
pub mod endpoint;pub mod publish;pub mod sysctl;pub mod driver;pub mod dns;
