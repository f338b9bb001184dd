//! What a snapshot driver is, and which one is used.
//!
//! Vocabulary: a *stack* is an image's layers, topmost first, each a directory in overlay format. A *snapshot directory*
//! is empty when `create` is called and belongs to the driver alone: overlay keeps `fs` and `work` there. `mounts`
//! only describes; the consumer mounts, in a mount namespace of its own.
//!
//! A driver keeps no state but what is below the snapshot directory, so that it may be asked again after a restart,
//! and removing a snapshot is removing its directory. A driver that runs elsewhere (FUSE, a proxy) answers mounts of
//! its own type.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use davit_cowfs::Namespace;

use super::SnapshotError;
use crate::settings::Settings;

mod copy;
mod overlay;

/// The layers that a snapshot is based on, topmost first; a layer that hides all below is the last.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    /// Directories in overlay format.
    pub layers: Vec<PathBuf>,
}

/// A mount as the contract describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// "overlay", "bind".
    pub kind: &'static str,
    /// Device or directory.
    pub source: String,
    /// In the order in which they are to be set.
    pub options: Vec<String>,
}

/// Makes writable trees of stacks.
pub trait Driver: Send + Sync {
    /// Its name: "overlay".
    fn name(&self) -> &'static str;

    /// Why it was chosen over those before it.
    fn reason(&self) -> &str;

    /// Fills an empty snapshot directory.
    fn create(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<(), SnapshotError>;

    /// How to mount it.
    fn mounts(&self, dir: &Path, stack: &Stack, read_only: bool) -> Vec<Mount>;
}

/// The configured driver, or the first that works here.
pub fn choose(
    state: &Path,
    settings: &Settings,
    namespace: Namespace,
) -> Result<Arc<dyn Driver>, SnapshotError> {
    let wanted = settings.driver.as_str();
    match wanted {
        "" | "overlay" => match overlay::Overlay::probe(state, namespace) {
            Ok(driver) => Ok(Arc::new(driver)),
            Err(why) if wanted.is_empty() => {
                tracing::warn!(%why, "the kernel's overlayfs cannot be used; images are copied for each container");
                copy::Copy::new(state, namespace, format!("overlay does not work: {why}"))
                    .map(|d| Arc::new(d) as _)
            }
            Err(why) => Err(SnapshotError::NoDriver(format!("overlay: {why}"))),
        },
        "copy" => copy::Copy::new(state, namespace, "configured".into()).map(|d| Arc::new(d) as _),
        other => Err(SnapshotError::NoDriver(format!("'{other}' is unknown; there are overlay and copy"))),
    }
}
