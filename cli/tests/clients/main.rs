//! The real `davit` with stand-ins for the daemons and for a container's monitor.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod attach;
mod bench;
mod daemons;
mod monitor;
mod terminal;
mod words;
