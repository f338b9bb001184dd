//! Which driver makes new snapshots, and which one answers for those that another one made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use davit_cowfs::Namespace;

use super::{Driver, copy, overlay, proxy};
use crate::settings::Settings;
use crate::snapshot::SnapshotError;

/// What is answered for the driver that is still to come.
const NO_FUSE: &str = "it is not in this version of davit";
/// The names that a configuration may have.
const KNOWN: &str = "overlay, copy and proxy";

/// The driver of new snapshots, and those of older ones.
pub struct Drivers {
    state: PathBuf,
    namespace: Namespace,
    settings: Settings,
    current: Arc<dyn Driver>,
    others: Mutex<HashMap<String, Arc<dyn Driver>>>,
}

impl Drivers {
    /// Takes the configured driver, or the first of overlay and copy that works here.
    pub fn open(state: &Path, settings: &Settings, namespace: Namespace) -> Result<Self, SnapshotError> {
        let current = choose(state, settings, namespace)?;
        tracing::info!(driver = current.name(), why = current.reason(), "snapshot driver");
        Ok(Self {
            state: state.to_path_buf(),
            namespace,
            settings: settings.clone(),
            current,
            others: Mutex::default(),
        })
    }

    /// For new snapshots.
    pub fn current(&self) -> &Arc<dyn Driver> {
        &self.current
    }

    /// The driver of this name, which has to work for snapshots that it made before.
    pub fn named(&self, name: &str) -> Result<Arc<dyn Driver>, SnapshotError> {
        if name == self.current.name() {
            return Ok(Arc::clone(&self.current));
        }
        let mut others = self.others.lock().expect("no one panics with the table of drivers locked");
        if let Some(driver) = others.get(name) {
            return Ok(Arc::clone(driver));
        }
        let why = || "a snapshot of it is still there".to_owned();
        let driver: Arc<dyn Driver> = match name {
            "overlay" => {
                let driver = overlay::Overlay::probe(&self.state, self.namespace, why());
                Arc::new(driver.map_err(|e| no_driver("overlay", e))?)
            }
            "copy" => Arc::new(copy::Copy::probe(&self.state, self.namespace, &why())),
            "proxy" => Arc::new(proxy::Proxy::new(&self.state, &self.settings.proxy, self.namespace, why())?),
            other => return Err(SnapshotError::NoDriver(format!("'{other}' is unknown; there are {KNOWN}"))),
        };
        others.insert(name.to_owned(), Arc::clone(&driver));
        Ok(driver)
    }
}

/// Whether the kernel's overlayfs can be used with layers below `state`; if not, why.
pub fn overlay_works(state: &Path, namespace: Namespace) -> Result<(), String> {
    overlay::Overlay::probe(state, namespace, String::new()).map(|_| ())
}

fn no_driver(name: &str, why: impl std::fmt::Display) -> SnapshotError {
    SnapshotError::NoDriver(format!("{name}: {why}"))
}

fn choose(state: &Path, settings: &Settings, namespace: Namespace) -> Result<Arc<dyn Driver>, SnapshotError> {
    let configured = || "configured".to_owned();
    match settings.driver.as_str() {
        "" => Ok(first_that_works(state, namespace)),
        "overlay" => match overlay::Overlay::probe(state, namespace, configured()) {
            Ok(driver) => Ok(Arc::new(driver)),
            Err(why) => Err(no_driver("overlay", why)),
        },
        "copy" => Ok(Arc::new(copy::Copy::probe(state, namespace, &configured()))),
        "proxy" => {
            let why = format!("configured: {} at {}", settings.proxy.snapshotter, settings.proxy.address);
            let driver = proxy::Proxy::new(state, &settings.proxy, namespace, why)?;
            driver.probe()?;
            Ok(Arc::new(driver))
        }
        "fuse" => Err(no_driver("fuse", NO_FUSE)),
        other => Err(SnapshotError::NoDriver(format!("'{other}' is unknown; there are {KNOWN}"))),
    }
}

fn first_that_works(state: &Path, namespace: Namespace) -> Arc<dyn Driver> {
    match overlay::Overlay::probe(state, namespace, "the kernel's overlayfs works here".to_owned()) {
        Ok(driver) => Arc::new(driver),
        Err(why) => {
            tracing::warn!(%why, "the kernel's overlayfs cannot be used; images are copied for each container");
            let reason = format!("overlay: {why}; fuse: {NO_FUSE}");
            Arc::new(copy::Copy::probe(state, namespace, &reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(driver: &str) -> String {
        let tmp = tempfile::tempdir().unwrap();
        let settings = Settings { driver: driver.into(), ..Settings::default() };
        match Drivers::open(tmp.path(), &settings, Namespace::Trusted) {
            Ok(_) => panic!("{driver} was accepted"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn an_unknown_driver_is_refused_with_the_names_there_are() {
        assert!(refused("btrfs").contains("'btrfs' is unknown; there are overlay, copy and proxy"));
        assert!(refused("fuse").contains("not in this version"));
    }

    #[test]
    fn copy_says_what_it_was_chosen_for_and_whether_blocks_are_shared() {
        let tmp = tempfile::tempdir().unwrap();
        let settings = Settings { driver: "copy".into(), ..Settings::default() };
        let drivers = Drivers::open(tmp.path(), &settings, Namespace::Trusted).unwrap();
        let reason = drivers.current().reason();
        assert!(reason.starts_with("configured; ") && reason.contains("shared"), "{reason}");
    }
}
