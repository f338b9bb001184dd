//! One sequence, tried on davit-cowfs, on the kernel's overlayfs and on a plain directory that holds the merged tree.
//!
//! The plain directory decides what is right. What overlayfs does differently, and says so (Documentation/filesystems/overlayfs.rst,
//! "Non-standard behavior"), is left out of its comparison, never of davit-cowfs's:
//! - renaming a directory of a lower layer without `redirect_dir` is EXDEV, for both of them;
//! - without an index, copy-up breaks hard links;
//! - where an operation fails that cannot (EEXIST of its index, EIO, ESTALE), it is left out of the rest of the sequence;
//! - a shared mapping made by a read-only descriptor shows the lower file for ever.

mod check;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::host::{Host, sh};
use crate::layer;
use crate::mount::{Engine, Layers, Manner, Mounted};
use crate::op::{Op, Outcome, Whence};
use check::Checks;

/// Layers made by sequences of their own over [`layer::base`], and a sequence on them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// Bottom first.
    pub layers: Vec<Vec<Step>>,
    /// What is tried.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Step {
    /// An actor (0: root, 1: uid 1000) makes a call.
    Make(u8, Op),
    /// The kernel forgets every inode that is not in use.
    Forget,
    /// All is let go of, unmounted and mounted again.
    Remount,
    /// The same, and each engine goes on in the upper layer of the other.
    Swap,
}

/// After so many steps the whole trees are compared.
const OFTEN: usize = 8;

const COWFS: usize = 0;
const KERNEL: usize = 1;
const PLAIN: usize = 2;

/// Where sequences are tried, one after the other.
#[derive(Debug)]
pub struct Stage<'a> {
    host: &'a Host,
    manner: Manner,
    ground: Ground,
    actors: [Actor; 2],
    number: usize,
    retired: usize,
}

/// What the layers lie on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ground {
    /// O_DIRECT has to be aligned to the disk's blocks.
    pub aligned: bool,
    /// The lowest layer is on a file system of its own.
    pub split: bool,
    /// Inode numbers are given to new files when the old ones are gone, so that they name files only at one moment.
    pub reuses_numbers: bool,
}

/// The trees of one case.
struct Trees {
    cowfs: Layers,
    kernel: Layers,
    plain: PathBuf,
    manner: Manner,
    mounted: Option<[Mounted; 2]>,
}

impl<'a> Stage<'a> {
    /// For layers shown in this manner.
    pub fn new(host: &'a Host, manner: Manner) -> Self {
        Self::on(host, manner, Ground::default())
    }

    /// The same on another ground.
    pub fn on(host: &'a Host, manner: Manner, ground: Ground) -> Self {
        Self { host, manner, ground, actors: [Actor::start(0), Actor::start(1000)], number: 0, retired: 0 }
    }

    /// In how many cases overlayfs had to be left out, of how many.
    pub fn retired(&self) -> (usize, usize) {
        (self.retired, self.number)
    }

    /// Tries one case; says what is wrong.
    pub fn run(&mut self, case: &Case) -> Result<(), String> {
        self.number += 1;
        let name = self.number.to_string();
        let result = self.run_in(&name, case);
        for actor in &mut self.actors {
            actor.release();
        }
        if self.ground.split {
            sh(&self.host.path(&name), "umount base");
        }
        std::fs::remove_dir_all(self.host.path(&name)).unwrap();
        result
    }

    fn run_in(&mut self, name: &str, case: &Case) -> Result<(), String> {
        let lowers = self.layers(name, case);
        let mut trees = Trees {
            cowfs: Layers::new(self.host, &format!("{name}/cowfs"), &lowers),
            kernel: Layers::new(self.host, &format!("{name}/kernel"), &lowers),
            plain: self.host.dir(&format!("{name}/plain/tree")),
            manner: self.manner,
            mounted: None,
        };
        for upper in [trees.cowfs.upper(), trees.kernel.upper()] {
            root_like(&lowers[0], upper);
        }
        let before: Vec<_> = lowers.iter().map(|l| layer::digest(l)).collect();
        trees.mount();
        layer::copy(&trees.kernel.at, &trees.plain);
        for actor in &mut self.actors {
            actor.trees(&[&trees.cowfs.at, &trees.kernel.at, &trees.plain]);
        }
        let mut checks = Checks::new(self.manner, self.ground);
        checks.trees(&trees).map_err(|e| format!("before the first step: {e}"))?;
        for (n, step) in case.steps.iter().enumerate() {
            let wrong = |e| format!("step {n}, {step:?}: {e}");
            self.step(step, &mut trees, &mut checks).map_err(wrong)?;
            if n % OFTEN == OFTEN - 1 {
                checks.trees(&trees).map_err(wrong)?;
            }
        }
        checks.trees(&trees).map_err(|e| format!("after the last step: {e}"))?;
        self.actors.iter_mut().for_each(Actor::release);
        trees.unmount();
        self.retired += usize::from(checks.retired);
        checks.exchanged(&trees)?;
        let after = lowers.iter().map(|l| layer::digest(l));
        before.iter().zip(after).find_map(|(b, a)| layer::changed(b, &a)).map_or(Ok(()), Err)
    }

    /// Has the kernel make the case's layers; topmost first.
    fn layers(&mut self, name: &str, case: &Case) -> Vec<PathBuf> {
        let base = self.host.dir(&format!("{name}/base"));
        if self.ground.split {
            sh(&base, "mount -t tmpfs -o mode=755 tmpfs $PWD");
        }
        layer::base(&base, self.manner.index);
        let mut lowers = vec![base];
        let manner = Manner { index: false, ..self.manner };
        for (n, steps) in case.layers.iter().enumerate() {
            let layers = Layers::new(self.host, &format!("{name}/layer{n}"), &lowers);
            root_like(&lowers[0], layers.upper());
            let mounted = layers.mount(Engine::Kernel, manner);
            let actor = &mut self.actors[0];
            actor.trees(&[&layers.at]);
            for step in steps {
                match step {
                    // Without an index overlayfs would break them above.
                    Step::Make(_, Op::Link { .. }) if !self.manner.index => {}
                    Step::Make(_, op) => drop(actor.one(op)),
                    Step::Forget | Step::Remount | Step::Swap => {}
                }
            }
            actor.release();
            mounted.unmount();
            lowers.insert(0, layers.upper().to_owned());
        }
        lowers
    }

    fn step(&mut self, step: &Step, trees: &mut Trees, checks: &mut Checks) -> Result<(), String> {
        match step {
            // What is written through a mapping, davit-cowfs writes, and in a user namespace that takes set-user-id away.
            Step::Make(_, Op::MapWrite { .. }) if self.manner.userxattr => Ok(()),
            // Holes are asked of davit-cowfs, which has not got yet what the kernel keeps.
            Step::Make(_, Op::Seek { whence: Whence::Data | Whence::Hole, .. }) if self.manner.writeback => {
                Ok(())
            }
            Step::Make(actor, op) => {
                let actor = &mut self.actors[usize::from(*actor)];
                let mut outcomes = actor.make(&[COWFS, KERNEL], op);
                let (kernel, cowfs) = (outcomes.pop().unwrap(), outcomes.pop().unwrap());
                if checks.is_refused_everywhere(op, &cowfs, &kernel) {
                    return Ok(());
                }
                let plain = actor.one_of(PLAIN, op);
                checks.outcomes(op, &plain, &cowfs, &kernel)
            }
            Step::Forget => {
                trees.mounted.iter().flatten().for_each(Mounted::forget);
                Ok(())
            }
            Step::Remount | Step::Swap => {
                self.actors.iter_mut().for_each(Actor::release);
                trees.unmount();
                // Without an index, hard links that span layers are not links for the other.
                if matches!(step, Step::Swap) && self.manner.index && !checks.retired {
                    std::mem::swap(&mut trees.cowfs.upper, &mut trees.kernel.upper);
                    checks.swapped();
                }
                trees.mount();
                Ok(())
            }
        }
    }
}

impl Trees {
    fn mount(&mut self) {
        let kernel = self.kernel.mount(Engine::Kernel, self.manner);
        let cowfs = self.cowfs.mount(Engine::Cowfs, self.manner);
        self.mounted = Some([cowfs, kernel]);
    }

    fn unmount(&mut self) {
        self.mounted.take().into_iter().flatten().for_each(Mounted::unmount);
    }
}

/// An upper directory's own attributes are the merged root's.
fn root_like(from: &Path, to: &Path) {
    layer::attributes(from, to, &crate::act::lstat(from).unwrap());
}

/// Whether an outcome is this errno.
fn is(outcome: &Outcome, errno: rustix::io::Errno) -> bool {
    *outcome == Outcome::Failed(errno.raw_os_error())
}
