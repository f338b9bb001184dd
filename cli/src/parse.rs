//! What people type, turned into typed values. Pure: text in, value or a one-line complaint out.

pub mod destination;
pub mod device;
pub mod duration;
pub mod env;
pub mod idmap;
pub mod keys;
pub mod mount;
pub mod network;
pub mod policy;
pub mod port;
pub mod rate;
pub mod signal;
pub mod size;
pub mod ulimit;
pub mod volume;
