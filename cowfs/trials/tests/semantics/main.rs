//! One readable test for each thing that a file system over layers has to get right. Most run on overlayfs too, which shows that the test
//! itself is right.

#![allow(clippy::unwrap_used)]

mod attributes;
mod data;
mod format;
mod inodes;
mod locks;
mod meanwhile;
mod names;
mod sizes;
