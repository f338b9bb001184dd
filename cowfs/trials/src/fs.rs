//! One file system over layers that a test makes.

use std::path::{Path, PathBuf};

use crate::actor::Actor;
use crate::host::{Host, sh};
use crate::layer::{Digest, changed, digest};
use crate::mount::{Engine, Layers, Manner, Mounted};

/// A mounted file system with its layers in reach.
#[derive(Debug)]
pub struct Fs<'a> {
    /// Where it lives.
    pub host: &'a Host,
    /// Who shows it.
    pub engine: Engine,
    /// Its directories.
    pub layers: Layers,
    manner: Manner,
    mounted: Option<Mounted>,
    before: Vec<Digest>,
}

/// Runs a test on overlayfs, which shows that the test is right, and on davit-cowfs. `lower` is a shell script that makes the lower
/// layer in its working directory. The lower layer must be as it was afterwards.
pub fn on_both(manner: Manner, lower: &str, test: impl Fn(&mut Fs<'_>) + Sync) {
    for engine in [Engine::Kernel, Engine::Cowfs] {
        on(engine, manner, lower, &test);
    }
}

/// Runs a test on davit-cowfs alone: what overlayfs does not do.
pub fn on_cowfs(manner: Manner, lower: &str, test: impl Fn(&mut Fs<'_>) + Sync) {
    on(Engine::Cowfs, manner, lower, &test);
}

fn on(engine: Engine, manner: Manner, lower: &str, test: &(impl Fn(&mut Fs<'_>) + Sync)) {
    println!("on {engine:?}");
    Host::run(|host| {
        sh(&host.dir("lower"), lower);
        let layers = Layers::new(host, engine.name(), &[host.path("lower")]);
        let mut fs = Fs::mount(host, engine, manner, layers);
        test(&mut fs);
        fs.end();
    });
}

impl<'a> Fs<'a> {
    /// Mounts layers that exist.
    pub fn mount(host: &'a Host, engine: Engine, manner: Manner, layers: Layers) -> Self {
        let before = layers.lowers.iter().map(|l| digest(l)).collect();
        let mounted = Some(layers.mount(engine, manner));
        Self { host, engine, layers, manner, mounted, before }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.layers.at.join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A path in the upper layer.
    pub fn upper(&self, name: &str) -> PathBuf {
        self.layers.upper().join(name)
    }

    /// A path in the topmost lower layer.
    pub fn lower(&self, name: &str) -> PathBuf {
        self.layers.lowers[0].join(name)
    }

    /// Runs a shell script in its root; answers what it prints.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        sh(&self.layers.at, script)
    }

    /// A file's bytes.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("reading {name}: {e}"))
    }

    /// Replaces a file.
    #[track_caller]
    pub fn write(&self, name: &str, data: &[u8]) {
        std::fs::write(self.path(name), data).unwrap_or_else(|e| panic!("writing {name}: {e}"));
    }

    /// lstat(2).
    #[track_caller]
    pub fn stat(&self, name: &str) -> rustix::fs::Stat {
        rustix::fs::lstat(self.path(name)).unwrap_or_else(|e| panic!("stat of {name}: {e}"))
    }

    /// Its server, or the kernel's part of it.
    pub fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().expect("it is mounted between calls")
    }

    /// The kernel forgets every inode that is not in use.
    pub fn forget(&self) {
        self.mounted().forget();
    }

    /// Unmounts it, if it is mounted, and mounts it again.
    #[track_caller]
    pub fn remount(&mut self) {
        self.remount_by(self.engine);
    }

    /// Unmounts it and has another engine mount the same.
    #[track_caller]
    pub fn remount_by(&mut self, engine: Engine) {
        if self.mounted.is_some() {
            self.unmount();
        }
        self.mounted = Some(self.layers.mount(engine, self.manner));
    }

    /// Kills the server (SIGKILL); the dead mount stays.
    pub fn kill_server(&mut self) {
        self.mounted.as_mut().expect("it is mounted between calls").kill_server();
    }

    /// Kills the server (SIGKILL) and takes the dead mount away.
    pub fn kill(&mut self) {
        self.mounted.take().expect("it is mounted between calls").kill();
    }

    /// Unmounts it.
    #[track_caller]
    pub fn unmount(&mut self) {
        self.mounted.take().expect("it is mounted between calls").unmount();
    }

    /// A process that acts on it.
    pub fn actor(&self, id: u32) -> Actor {
        let mut actor = Actor::start(id);
        actor.trees(&[&self.layers.at]);
        actor
    }

    /// Unmounts it, and checks that no lower layer has changed.
    #[track_caller]
    pub fn end(mut self) {
        if self.mounted.is_some() {
            self.unmount();
        }
        let after = self.layers.lowers.iter().map(|l: &PathBuf| digest(l));
        if let Some(wrong) = self.before.iter().zip(after).find_map(|(b, a)| changed(b, &a)) {
            panic!("{wrong}");
        }
    }
}

impl Engine {
    /// For directories.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cowfs => "cowfs",
        }
    }
}

/// Whether a path is a whiteout: a character device 0:0.
pub fn is_whiteout(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok_and(|s| s.st_mode & 0o170_000 == 0o020_000 && s.st_rdev == 0)
}
