//! Who keeps a sandbox's network namespace: a process that lives in it, or somebody's mount.
//!
//! Both are names for a namespace that somebody else made; netd opens it, checks that it is still the one meant, and
//! never keeps it open. When neither process nor mount is there any more, the sandbox is gone.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::netns::{self, NetnsError, NetnsId};
use davit_sys::process::{ProcessError, ProcessRef};
use serde::{Deserialize, Serialize};

/// Who holds a sandbox's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Holder {
    /// A process, for as long as it lives.
    Process {
        /// Its pid.
        pid: i32,
        /// Its start time.
        start_time: u64,
    },
    /// A path, for as long as this very namespace is there (`CNI_NETNS`).
    Path {
        /// Where.
        netns: PathBuf,
        /// The namespace's file: device.
        device: u64,
        /// The namespace's file: inode number, which another namespace may get later.
        inode: u64,
        /// The kernel's number of the namespace, never given twice; 0 where it tells none.
        cookie: u64,
    },
}

/// Why a sandbox's namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// What is at the path.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Another namespace has its place.
    #[error("another network namespace is at {0} now")]
    Replaced(PathBuf),
}

impl Holder {
    /// The namespace that is at a path now.
    pub fn at(path: &Path) -> Result<Self, NetnsError> {
        let NetnsId { device, inode, cookie } = netns::identify(netns::open(path)?.as_fd())?;
        Ok(Self::Path { netns: path.to_owned(), device, inode, cookie })
    }

    /// The process, when it is one.
    pub fn process(&self) -> Option<ProcessRef> {
        match *self {
            Self::Process { pid, start_time } => Some(ProcessRef { pid, start_time }),
            Self::Path { .. } => None,
        }
    }

    /// Whether both are paths, to one namespace.
    pub fn is_same_namespace(&self, other: &Self) -> bool {
        let id = |holder: &Self| match *holder {
            Self::Path { device, inode, cookie, .. } => Some((device, inode, cookie)),
            Self::Process { .. } => None,
        };
        id(self).is_some_and(|mine| Some(mine) == id(other))
    }

    /// Opens the namespace, checked to be the one meant.
    pub fn namespace(&self) -> Result<OwnedFd, HolderError> {
        match self {
            Self::Process { pid, start_time } => {
                Ok(ProcessRef { pid: *pid, start_time: *start_time }.namespace("net")?)
            }
            Self::Path { netns: path, device, inode, cookie } => {
                let fd = netns::open(path)?;
                let id = NetnsId { device: *device, inode: *inode, cookie: *cookie };
                if netns::identify(fd.as_fd())? == id {
                    Ok(fd)
                } else {
                    Err(HolderError::Replaced(path.clone()))
                }
            }
        }
    }

    /// Whether the sandbox can still be there.
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Process { pid, start_time } => ProcessRef { pid: *pid, start_time: *start_time }.is_alive(),
            Self::Path { .. } => self.namespace().is_ok(),
        }
    }

    /// A path by which others find the namespace.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Process { pid, .. } => format!("/proc/{pid}/ns/net").into(),
            Self::Path { netns, .. } => netns.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_before_are_read_and_both_kinds_come_back() {
        let process: Holder = serde_json::from_str(r#"{"pid":7,"start_time":22}"#).unwrap();
        assert_eq!(process, Holder::Process { pid: 7, start_time: 22 });
        let path = Holder::at(Path::new("/proc/self/ns/net")).unwrap();
        for holder in [process, path] {
            let text = serde_json::to_string(&holder).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), holder);
        }
    }

    #[test]
    fn another_namespace_at_the_same_path_is_not_taken_for_it() {
        let mut holder = Holder::at(Path::new("/proc/self/ns/net")).unwrap();
        assert!(holder.is_alive());
        let Holder::Path { cookie, .. } = &mut holder else { unreachable!() };
        *cookie += 1;
        assert!(!holder.is_alive());
        assert!(matches!(holder.namespace(), Err(HolderError::Replaced(_))));
    }
}
