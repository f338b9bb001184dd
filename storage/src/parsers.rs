//! The root of a second crate: storaged's readers of outside bytes alone, for the fuzz targets in `fuzz/`, which would
//! otherwise build the whole server with instrumentation. Nothing of the daemon refers to this file.
#![allow(dead_code, missing_docs, unused_imports)] // the daemon uses the rest

pub mod digest;
#[path = "archive/docker.rs"]
mod docker;
pub mod failpoint;
pub mod failure;
pub mod ledger;
pub mod oci;
pub mod reference;
pub mod tarball;
pub mod trash;
pub mod unpack;

/// Reads a docker-archive's manifest.json; answers how many images it names.
pub fn docker_manifest(bytes: &[u8]) -> Option<usize> {
    docker::parse(bytes).ok().map(|images| images.len())
}
