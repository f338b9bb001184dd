//! Monitors seen from runtimed: starting one, and speaking with one.

pub mod link;
pub mod spawn;
