//! The kernel's overlayfs. Layers are used as they are: one `lowerdir+` each (Linux 6.8), so that neither their number nor
//! a colon in a path matters.

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use davit_cowfs::Namespace;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::{Driver, Mount, Stack};
use crate::failure::{At, PathError};
use crate::snapshot::SnapshotError;

/// fsconfig(2) takes values of at most 255 bytes.
const MAX_VALUE: usize = 255;

pub(super) struct Overlay {
    namespace: Namespace,
    /// An empty layer: overlayfs wants one lower directory, and two without an upper one.
    empty: PathBuf,
    reason: String,
}

impl Overlay {
    /// Mounts a small overlay, attached nowhere, and looks whether a whiteout in it works.
    pub(super) fn probe(state: &Path, namespace: Namespace, reason: String) -> Result<Self, String> {
        let empty = state.join("empty");
        make_dir(&empty).map_err(|e| format!("{e}: {}", e.source))?;
        let longest = state.join("snapshots").join("k".repeat(128)).join("work");
        if longest.as_os_str().len() > MAX_VALUE {
            return Err(format!("the path {} is too long for mount options", state.display()));
        }
        let dir = state.join(format!(".probe-{:016x}", rand::random::<u64>()));
        let result = try_mount(&dir, namespace);
        let _ = std::fs::remove_dir_all(&dir);
        result?;
        Ok(Self { namespace, empty, reason })
    }
}

fn try_mount(dir: &Path, namespace: Namespace) -> Result<(), String> {
    let paths = ["lower", "upper", "work"].map(|n| dir.join(n));
    for path in &paths {
        std::fs::create_dir_all(path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
    }
    let [lower, upper, work] = &paths;
    std::fs::write(lower.join("hidden"), b"").map_err(|e| format!("cannot write a file: {e}"))?;
    let upper_fd = std::fs::File::open(upper).map_err(|e| e.to_string())?;
    rustix::fs::mknodat(upper_fd.as_fd(), "hidden", FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(|e| format!("whiteouts cannot be made: {e}"))?;
    let opaque = std::ffi::OsStr::new(namespace.opaque());
    davit_sys::xattr::set(upper_fd.as_fd(), opaque, b"n")
        .map_err(|e| format!("{} cannot be set: {e}", namespace.opaque()))?;

    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| format!("this kernel has no overlayfs: {e}"))?;
    let set = |key: &str, value: &Path| {
        rustix::mount::fsconfig_set_string(fs.as_fd(), key, value)
            .map_err(|e| format!("option {key} is refused: {e}"))
    };
    set("lowerdir+", lower)?;
    set("upperdir", upper)?;
    set("workdir", work)?;
    if let Some(option) = namespace.mount_option() {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), option)
            .map_err(|e| format!("option {option} is refused: {e}"))?;
    }
    rustix::mount::fsconfig_create(fs.as_fd()).map_err(|e| format!("it cannot be mounted here: {e}"))?;
    let mount = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|e| format!("it cannot be mounted here: {e}"))?;
    match rustix::fs::openat(&mount, "hidden", OFlags::RDONLY, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        _ => Err("whiteouts have no effect".into()),
    }
}

/// A directory of mode 0755, whatever our umask is.
fn make_dir(path: &Path) -> Result<(), PathError> {
    std::fs::create_dir_all(path).at("create", path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).at("set the mode of", path)
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    /// The root of the mount takes its owner and mode from `fs`: they are those of the topmost layer's root.
    fn create(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<(), SnapshotError> {
        if read_only {
            return Ok(());
        }
        let (upper, work) = (dir.join("fs"), dir.join("work"));
        std::fs::create_dir(&upper).at("create", &upper)?;
        std::fs::create_dir(&work).at("create", &work)?;
        let top = stack.layers.first().unwrap_or(&self.empty);
        let meta = std::fs::metadata(top).at("look at", top)?;
        std::os::unix::fs::chown(&upper, Some(meta.uid()), Some(meta.gid()))
            .at("set the owner of", &upper)?;
        let mode = std::fs::Permissions::from_mode(meta.mode() & 0o7777);
        std::fs::set_permissions(&upper, mode).at("set the mode of", &upper)?;
        Ok(())
    }

    fn mounts(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<Vec<Mount>, SnapshotError> {
        let mut options: Vec<String> =
            stack.layers.iter().map(|l| format!("lowerdir+={}", l.display())).collect();
        if options.is_empty() {
            options.push(format!("lowerdir+={}", self.empty.display()));
        }
        if read_only {
            options.push(format!("lowerdir+={}", self.empty.display()));
        } else {
            options.push(format!("upperdir={}", dir.join("fs").display()));
            options.push(format!("workdir={}", dir.join("work").display()));
        }
        options.extend(self.namespace.mount_option().map(str::to_owned));
        Ok(vec![Mount { kind: "overlay".into(), source: "overlay".into(), options }])
    }
}
