//! Id-mapped mounts (mount_setattr(2), Linux 5.12): files keep their owners on disk and are shown with others.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use davit_sys::rootfs::{self as sys, MountAttributes};

use crate::error::{Context, Error, Result};
use crate::launch::identity;
use crate::spec::{Linux, Mount, NamespaceKind};

/// The user namespaces whose maps mounts get.
#[derive(Debug)]
pub struct Namespaces<'a> {
    linux: &'a Linux,
    container: Option<OwnedFd>,
}

impl<'a> Namespaces<'a> {
    /// None is made yet.
    pub fn of(linux: &'a Linux) -> Self {
        Self { linux, container: None }
    }

    /// Maps a detached tree as the mount asks for: its own map, else the container's.
    pub fn map(&mut self, tree: BorrowedFd<'_>, mount: &Mount, recursive: bool) -> Result<()> {
        let shown = mount.destination.display();
        let own;
        let userns = if mount.uid_mappings.is_empty() {
            self.container(mount)?
        } else {
            own = identity::namespace(&mount.uid_mappings, &mount.gid_mappings)?;
            own.as_fd()
        };
        let attributes = MountAttributes {
            set: sys::ATTR_IDMAP,
            userns_fd: userns.as_raw_fd() as u64,
            ..MountAttributes::default()
        };
        sys::set_attributes(tree, attributes, recursive).context(|| {
            format!(
                "map the ids of the mount {shown} (can the file system of {} do it?)",
                mount.source.display()
            )
        })
    }

    fn container(&mut self, mount: &Mount) -> Result<BorrowedFd<'_>> {
        if self.container.is_none() {
            self.container = Some(match self.linux.joins(NamespaceKind::User) {
                Some(path) => File::open(path).context(|| format!("open {}", path.display()))?.into(),
                None if self.linux.uid_mappings.is_empty() => {
                    return Err(Error::Config(format!(
                        "mount {}: idmap needs uidMappings of its own or of the container",
                        mount.destination.display()
                    )));
                }
                None => identity::namespace(&self.linux.uid_mappings, &self.linux.gid_mappings)?,
            });
        }
        Ok(self.container.as_ref().expect("made just above").as_fd())
    }
}
