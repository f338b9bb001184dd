//! Real programs at work on a mounted davit-cowfs, over a lower layer that has what they start from.
//!
//! Each load prepares a lower layer, works on the mount, and then has what it made verified three times: where it was made, on a fresh
//! mount of the same layers, and on the kernel's overlayfs. The lower layer is the same afterwards.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

mod build;
mod database;
mod disk;
mod packages;
mod repository;
mod stress;

use std::path::Path;

use davit_cowfs_trials::Host;
use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::mount::{Engine, Layers, Manner};

/// What a test is made of. Each part is given the directory to do it in.
struct Load<'a> {
    /// Fills the lower layer.
    prepare: &'a (dyn Fn(&Path) + Sync),
    /// Works on the mount.
    work: &'a (dyn Fn(&Path) + Sync),
    /// Looks at what the work has made.
    verify: &'a (dyn Fn(&Path) + Sync),
}

impl Load<'_> {
    #[track_caller]
    fn run(&self) {
        Host::run(|host| {
            let lower = host.dir("lower");
            (self.prepare)(&lower);
            let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, Layers::new(host, "root", &[lower]));
            (self.work)(&fs.path(""));
            (self.verify)(&fs.path(""));
            for engine in [Engine::Cowfs, Engine::Kernel] {
                println!("verifying again: {engine:?}");
                fs.remount_by(engine);
                (self.verify)(&fs.path(""));
            }
            fs.end();
        });
    }
}
