//! Where state, sockets, configuration and binaries are. The same for clients: it lives with the contracts.

pub use davit_contracts::layout::{Layout, PathError};
