//! What networks are made of: bridges and veth pairs here, interfaces and sockets inside a sandbox.

pub mod bridge;
pub mod inside;
