//! `davit-cowfs`: mounts layers as one writable tree, with fuse-overlayfs's command line.

fn main() {}
