//! Real programs at work on a mounted davit-cowfs, over a lower layer that has what they start from.
//!
//! Each load prepares a lower layer, works on the mount, and then has what it made verified three times: where it was made, on a fresh
//! mount of the same layers, and on the kernel's overlayfs. The lower layer is the same afterwards, byte for byte.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

mod build;
mod database;
mod disk;
mod packages;
mod repository;
mod stress;

use std::path::Path;

use davit_cowfs_trials::Host;
use davit_cowfs_trials::host::sh;
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
            let before = digest(&lower);
            let layers = Layers::new(host, "root", std::slice::from_ref(&lower));
            let mounted = layers.mount(Engine::Cowfs, Manner::ROOT);
            (self.work)(mounted.at());
            (self.verify)(mounted.at());
            mounted.unmount();
            assert_eq!(digest(&lower), before, "the lower layer has changed");
            for engine in [Engine::Cowfs, Engine::Kernel] {
                let mounted = layers.mount(engine, Manner::ROOT);
                println!("verifying again: {engine:?}");
                (self.verify)(mounted.at());
                mounted.unmount();
            }
            assert_eq!(digest(&lower), before, "the lower layer has changed");
        });
    }
}

/// One line for all names, attributes and content of a tree.
fn digest(tree: &Path) -> String {
    let names = "find . -printf '%p %y %m %U:%G %s %T@ %C@ %l %n\\n' | LC_ALL=C sort";
    let content = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum";
    sh(tree, &format!("({names}; {content}) | sha256sum"))
}
