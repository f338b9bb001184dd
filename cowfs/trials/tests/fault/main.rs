//! When things go wrong: the server is killed, the upper's file system is full, its disk fails, or the power. What is visible afterwards is
//! for each file the old or the new, whole.

#![allow(clippy::unwrap_used)]

mod descriptors;
mod disk;
#[path = "../../../../storage/tests/storm/disk.rs"]
mod disks;
mod full;
mod kill;
mod points;
mod power;
