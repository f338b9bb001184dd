//! When things go wrong: the server is killed, the upper's file system is full, or its disk fails. What is visible afterwards is for each
//! file the old or the new, whole.

#![allow(clippy::unwrap_used)]

mod disk;
mod full;
mod kill;
