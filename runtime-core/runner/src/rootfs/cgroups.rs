//! The `cgroup` mount: what the container sees of its own control groups.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use davit_sys::rootfs::{self as sys, MountAttributes, Target};
use rustix::fs::Mode;

use super::options::MountOptions;
use super::{Planned, mounts};
use crate::cgroup::Placement;
use crate::error::{Context, Result};

/// v2, and `cgroup2` where there is v1 too: the container's cgroup itself. v1 and hybrid: a tmpfs with one directory a joined hierarchy, named as on the host.
pub fn mount(planned: &Planned, placement: &Placement, root: BorrowedFd<'_>) -> Result<()> {
    let destination = &planned.mount.destination;
    let set = planned.options.set & !sys::ATTR_ATIME;
    let only = match placement.joined.as_slice() {
        [only] if only.controllers.is_empty() => Some(only),
        // Asked for by its name: what an init needs that knows the unified hierarchy alone.
        _ if planned.mount.kind == "cgroup2" => placement.unified(),
        _ => None,
    };
    if let Some(only) = only {
        let target = mounts::target(root, destination, Target::Directory)?;
        return bind(&only.directory, target.as_fd(), set);
    }
    let mut tmpfs = Planned { mount: planned.mount.clone(), options: MountOptions::default(), tree: None };
    tmpfs.mount.kind = "tmpfs".into();
    tmpfs.mount.source = "tmpfs".into();
    tmpfs.options.set = planned.options.set & !sys::ATTR_RDONLY;
    tmpfs.options.data = vec![("mode".into(), Some("755".into()))];
    let nothing = super::Plan {
        root: "/".into(),
        bundle: "/".into(),
        mounts: vec![],
        propagation: None,
        bind_devices: false,
        tree: None,
    };
    mounts::mount(&nothing, &tmpfs, root)?;
    let top = sys::open_in_root(root, destination, rustix::fs::OFlags::PATH)
        .context(|| format!("open {}", destination.display()))?;
    for group in &placement.joined {
        let name = group.mount_point.file_name().unwrap_or("unified".as_ref());
        rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755))
            .context(|| "make a directory for a cgroup")?;
        let target = sys::open_in_root(top.as_fd(), Path::new(name), rustix::fs::OFlags::PATH)
            .context(|| "open a cgroup's directory")?;
        bind(&group.directory, target.as_fd(), set)?;
        for controller in group.controllers.iter().filter(|c| name != c.as_str() && !c.contains('=')) {
            let linked = rustix::fs::symlinkat(name, &top, controller.as_str());
            linked.context(|| format!("link the cgroup controller {controller}"))?;
        }
    }
    let attributes = MountAttributes { set: set & sys::ATTR_RDONLY, ..MountAttributes::default() };
    sys::set_attributes(top.as_fd(), attributes, false)
        .context(|| format!("make {} read-only", destination.display()))
}

fn bind(directory: &Path, target: BorrowedFd<'_>, set: u64) -> Result<()> {
    let tree = mounts::clone_source(directory, false)?;
    let attributes = MountAttributes { set, ..MountAttributes::default() };
    let operation = || format!("show the cgroup {}", directory.display());
    sys::set_attributes(tree.as_fd(), attributes, false).context(operation)?;
    sys::attach(tree.as_fd(), target).context(operation)
}
