//! Mounted trees, and what a file of them is.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use davit_contracts::containerd::types;
use davit_contracts::storage as pb;
use davit_sys::served::{self, Served};
use davit_sys::{beneath, mount, private_mounts};

/// A mount, whoever described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

impl From<pb::Mount> for Mount {
    fn from(m: pb::Mount) -> Self {
        Self { kind: m.r#type, source: m.source, options: m.options }
    }
}

impl From<types::Mount> for Mount {
    fn from(m: types::Mount) -> Self {
        Self { kind: m.r#type, source: m.source, options: m.options }
    }
}

/// Runs `work` with the root of the mounted tree, where only it sees it.
pub fn mounted<M: Into<Mount> + Clone, T: Send>(mounts: &[M], work: impl FnOnce(&Path) -> T + Send) -> T {
    let mounts: Vec<Mount> = mounts.iter().cloned().map(Into::into).collect();
    let point = tempfile::tempdir().unwrap();
    private_mounts::run(|| {
        let mut servers = Vec::new();
        for m in &mounts {
            if served::is_served(&m.kind) {
                let log = served::nameless_log().unwrap();
                servers.push(Served::start(&cowfs(), &m.options, point.path(), log).unwrap());
                continue;
            }
            let root = beneath::open_root(point.path()).unwrap();
            mount::mount_at(&m.kind, Path::new(&m.source), &m.options, root.as_fd())
                .unwrap_or_else(|e| panic!("{m:?}: {e}: {:?}", std::error::Error::source(&e)));
        }
        let result = work(point.path());
        servers.into_iter().rev().for_each(|s| s.end().unwrap());
        result
    })
    .unwrap()
}

/// The program that serves mounts, beside storaged's.
pub fn cowfs() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_davit-storaged")).with_file_name(served::PROGRAM);
    assert!(program.exists(), "no {}: run `cargo build --workspace` first", program.display());
    program
}

/// Names in a directory, sorted.
pub fn names(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[allow(clippy::needless_pass_by_value)] // what callers join is theirs no more
pub fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    match rustix::fs::lgetxattr(path, name, value.as_mut_slice()) {
        Ok(n) => Some(value[..n].to_vec()),
        Err(rustix::io::Errno::NODATA) => None,
        Err(e) => panic!("{}: {name}: {e}", path.display()),
    }
}

/// Type and mode, owner, device, link target, modification time to the nanosecond, attributes.
pub fn facts(path: &Path) -> String {
    let m = path.symlink_metadata().unwrap();
    let target = std::fs::read_link(path).unwrap_or_default();
    let mut attributes = Vec::new();
    for name in ["user.davit", "security.capability", "system.posix_acl_access"] {
        // user.* is for files and directories only.
        if (m.is_file() || m.is_dir())
            && let Some(value) = xattr_if_any(path, name)
        {
            attributes.push(format!("{name}={value:02x?}"));
        }
    }
    format!(
        "{:o} {}:{} rdev {} -> {} at {}.{:09} {}",
        m.mode(),
        m.uid(),
        m.gid(),
        if m.mode() & 0o170_000 == 0o020_000 || m.mode() & 0o170_000 == 0o060_000 { m.rdev() } else { 0 },
        target.display(),
        m.mtime(),
        m.mtime_nsec(),
        attributes.join(" ")
    )
}

fn xattr_if_any(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let n = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    Some(value[..n].to_vec())
}

/// cap_net_bind_service=ep, version 2 (capabilities(7), "File capability extended attribute versioning").
pub fn capability() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// user::rw-,user:1000:r--,group::r--,mask::r--,other::--- (acl(5), as the kernel keeps it).
pub fn acl() -> Vec<u8> {
    let none = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, none), (2, 4, 1000), (4, 4, none), (0x10, 4, none), (0x20, 0, none)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
