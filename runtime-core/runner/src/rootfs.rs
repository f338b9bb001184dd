//! The container's root file system: mounts, devices, hidden paths, and the change into it. Runs in the new mount namespace.
//!
//! Invariants: the image is hostile. Every target is resolved inside the root by descriptor ([`davit_sys::rootfs`]), mounts are attached to
//! descriptors, and nothing of the host is opened through a path that the image controls. All of it happens before the pivot, while the
//! host's /proc is still the one that we see.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::rootfs::{self as sys, MountAttributes};

use crate::error::{Context, Error, Result};
use crate::spec::{Linux, Mount, NamespaceKind, Spec};
use rustix::fs::{Mode, OFlags};

pub mod cgroups;
pub mod copy_up;
pub mod devices;
pub mod hide;
pub mod idmap;
pub mod mounts;
pub mod options;

use options::{MountOptions, parse};

/// A mount of the config with its options understood.
#[derive(Debug)]
pub struct Planned {
    /// As configured.
    pub mount: Mount,
    /// Its options.
    pub options: MountOptions,
    /// A bind mount's tree, cloned by the privileged parent where a user namespace would be in the way.
    pub tree: Option<OwnedFd>,
}

/// Everything to mount, in order.
#[derive(Debug)]
pub struct Plan {
    /// Absolute, on the host.
    pub root: PathBuf,
    /// Absolute: where relative sources of bind mounts start.
    pub bundle: PathBuf,
    /// In the config's order.
    pub mounts: Vec<Planned>,
    /// MS_* of the root mount in the end.
    pub propagation: Option<(u64, bool)>,
    /// Device nodes cannot be made: bind the host's.
    pub bind_devices: bool,
    /// The root's tree, cloned by the privileged parent: root of a user namespace may be unable to walk there.
    pub tree: Option<OwnedFd>,
}

/// Reads the mounts of a config.
pub fn plan(spec: &Spec, bundle: &Path, bind_devices: bool) -> Result<Plan> {
    let root = spec.root.as_ref().ok_or_else(|| Error::Config("root is missing".into()))?;
    let path = bundle.join(&root.path);
    let path = path.canonicalize().context(|| format!("find the root file system {}", path.display()))?;
    let mounts = spec.mounts.iter().map(|m| {
        if !m.destination.is_absolute() && m.destination.as_os_str().is_empty() {
            return Err(Error::Config("a mount has no destination".into()));
        }
        Ok(Planned { mount: m.clone(), options: parse(m)?, tree: None })
    });
    let propagation = match spec.linux.rootfs_propagation.as_str() {
        "" => None,
        name => Some(options::propagation(name).ok_or_else(|| {
            Error::Config(format!("rootfsPropagation {name:?} is none of private, slave, shared, unbindable"))
        })?),
    };
    Ok(Plan {
        root: path,
        bundle: bundle.to_owned(),
        mounts: mounts.collect::<Result<_>>()?,
        propagation,
        bind_devices,
        tree: None,
    })
}

impl Plan {
    /// Clones the trees of bind mounts with our rights: all of them before entering a user namespace that may lack them, otherwise those that are
    /// to be shared, which are no peers of their sources any more once the new mount namespace is cut off.
    pub fn clone_sources(&mut self, linux: &Linux) -> Result<()> {
        let all = linux.has(NamespaceKind::User);
        if all {
            self.tree = match sys::clone_tree_at(&self.root, true) {
                Ok(tree) => Some(tree),
                // A plain user: his new user namespace has the right, and himself can walk to his own files.
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => None,
                Err(e) => return Err(e).context(|| format!("clone the mount of {}", self.root.display())),
            };
        }
        let shared = |p: &Planned| p.options.propagation.iter().any(|(kind, _)| kind & libc::MS_SHARED != 0);
        let mut ids = idmap::Namespaces::of(linux);
        let early = |p: &Planned| p.options.bind && (all || p.options.idmap.is_some() || shared(p));
        for planned in self.mounts.iter_mut().filter(|p| early(p)) {
            let source = self.bundle.join(&planned.mount.source);
            let tree = mounts::clone_source(&source, planned.options.recursive)?;
            if let Some(recursive) = planned.options.idmap {
                ids.map(tree.as_fd(), &planned.mount, recursive)?;
            }
            planned.tree = Some(tree);
        }
        Ok(())
    }

    /// Cuts this mount namespace off from its parent's and mounts the root; gives a descriptor of the root mount.
    pub fn enter(&self) -> Result<OwnedFd> {
        let outside = self.mounts.iter().flat_map(|m| &m.options.propagation).chain(&self.propagation);
        let follow = outside.into_iter().any(|(p, _)| *p & (libc::MS_SLAVE | libc::MS_SHARED) != 0);
        let kind = if follow { libc::MS_SLAVE } else { libc::MS_PRIVATE };
        let flags = rustix::mount::MountPropagationFlags::from_bits_retain((kind | libc::MS_REC) as u32);
        rustix::mount::mount_change("/", flags).context(|| "cut the mount namespace off from the host's")?;
        let shown = self.root.display();
        if let Some(tree) = &self.tree {
            // Over the old root, which nobody walks through any more: the pivot takes it from there.
            let target = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .context(|| "open the root directory")?;
            sys::attach(tree.as_fd(), target.as_fd())
                .context(|| format!("mount the root file system {shown}"))?;
            return tree.try_clone().context(|| "duplicate a descriptor");
        }
        let tree = sys::clone_tree_at(&self.root, true).context(|| format!("clone the mount of {shown}"))?;
        let target = rustix::fs::open(&self.root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {shown}"))?;
        sys::attach(tree.as_fd(), target.as_fd())
            .context(|| format!("mount the root file system at {shown}"))?;
        Ok(tree)
    }

    /// The last step before the pivot: the root is read-only where that is wanted.
    pub fn seal(&self, root: &OwnedFd, read_only: bool) -> Result<()> {
        if read_only {
            let attributes = MountAttributes { set: sys::ATTR_RDONLY, ..MountAttributes::default() };
            sys::set_attributes(root.as_fd(), attributes, false)
                .context(|| "make the root file system read-only")?;
        }
        Ok(())
    }

    /// After the pivot, which pivot_root(2) refuses for a shared root: how mounts below the root spread.
    pub fn spread(&self, root: &OwnedFd) -> Result<()> {
        let Some((propagation, recursive)) = self.propagation else { return Ok(()) };
        let attributes = MountAttributes { propagation, ..MountAttributes::default() };
        sys::set_attributes(root.as_fd(), attributes, recursive).context(|| "set the root's propagation")
    }

    /// Whether /dev is ours to fill (not the host's, bound).
    pub fn fills_dev(&self) -> bool {
        !self.mounts.iter().any(|m| m.options.bind && m.mount.destination == Path::new("/dev"))
    }
}

/// Makes the root mount this process's root.
pub fn change_root(root: &OwnedFd, no_pivot: bool) -> Result<()> {
    if !no_pivot {
        return sys::pivot(root.as_fd()).context(|| "pivot into the root file system");
    }
    rustix::process::fchdir(root).context(|| "enter the root file system")?;
    rustix::mount::mount_move(".", "/").context(|| "move the root file system to /")?;
    sys::chroot(root.as_fd()).context(|| "change the root")
}
