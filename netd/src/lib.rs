//! davit-netd: networks, endpoints, names and published ports (the contract davit.network.v1).
//!
//! ```text
//! server     gRPC: requests to the engine, errors to statuses
//! engine     one thread that owns all state and makes all changes
//! network    what a network is, pools, options, the durable store
//! ipam       addresses of a subnet
//! failpoint  where tests kill it
//! endpoint   sandboxes and endpoints, their records
//! driver     bridges, macvlan, ipvlan; what is set up inside a sandbox
//! settings   netd.toml
//! publish    reservations of host ports
//! firewall   rules as data; nf_tables by netlink, or iptables
//! dns        the resolver inside every container
//! foreign    sandboxes with networks that CNI plugins make: records and runs in order
//! netlink    messages and sockets
//! settings   netd.toml
//! sysctl     kernel settings
//! ```

pub mod dns;
pub mod driver;
pub mod endpoint;
pub mod engine;
pub mod failpoint;
pub mod firewall;
pub mod foreign;
pub mod ipam;
pub mod netlink;
pub mod network;
pub mod publish;
pub mod server;
pub mod settings;
pub mod sysctl;
