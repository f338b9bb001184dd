//! Which driver makes new snapshots, and which one answers for those that another one made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use davit_cowfs::Namespace;

use super::{Driver, copy, fuse, layered, overlay, proxy};
use crate::settings::Settings;
use crate::snapshot::SnapshotError;

/// The names that a configuration may have.
const KNOWN: &str = "overlay, fuse, copy and proxy";

/// The driver of new snapshots, and those of older ones.
pub struct Drivers {
    state: PathBuf,
    namespace: Namespace,
    settings: Settings,
    current: Arc<dyn Driver>,
    others: Mutex<HashMap<String, Arc<dyn Driver>>>,
}

impl Drivers {
    /// Takes the configured driver, or the first of overlay, fuse and copy that works here.
    pub fn open(state: &Path, settings: &Settings, namespace: Namespace) -> Result<Self, SnapshotError> {
        layered::sweep(state);
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

    /// The driver for snapshots that the one of this name made before: itself, or of overlay and fuse the one in use, or else the one that
    /// works.
    pub fn named(&self, name: &str) -> Result<Arc<dyn Driver>, SnapshotError> {
        let layered = |name| layered::NAMES.contains(&name);
        if name == self.current.name() || (layered(name) && layered(self.current.name())) {
            return Ok(Arc::clone(&self.current));
        }
        let mut others = self.others.lock().expect("no one panics with the table of drivers locked");
        if let Some(driver) = others.get(name) {
            return Ok(Arc::clone(driver));
        }
        let why = || "a snapshot of it is still there".to_owned();
        let driver: Arc<dyn Driver> = match name {
            "overlay" => self.probed(["overlay", "fuse"])?,
            "fuse" => self.probed(["fuse", "overlay"])?,
            "copy" => Arc::new(copy::Copy::probe(&self.state, self.namespace, &why())),
            "proxy" => Arc::new(proxy::Proxy::new(&self.state, &self.settings.proxy, self.namespace, why())?),
            other => return Err(SnapshotError::NoDriver(format!("'{other}' is unknown; there are {KNOWN}"))),
        };
        others.insert(name.to_owned(), Arc::clone(&driver));
        Ok(driver)
    }

    /// The first of overlay and fuse, in this order, that works; the first one's refusal is told.
    fn probed(&self, names: [&str; 2]) -> Result<Arc<dyn Driver>, SnapshotError> {
        let probe = |name| {
            layered_driver(
                name,
                &self.state,
                &self.settings,
                self.namespace,
                "a snapshot of it is still there".into(),
            )
        };
        probe(names[0]).or_else(|why| probe(names[1]).map_err(|_| no_driver(names[0], why)))
    }
}

/// Which of overlay and fuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Works {
    /// The kernel's overlayfs.
    Overlay,
    /// davit-cowfs.
    Fuse,
}

/// The configured one of overlay and fuse, or the first of them that can be used with layers below `state`; if none can, why.
pub fn first_of_the_layered(
    state: &Path,
    settings: &Settings,
    namespace: Namespace,
) -> Result<Works, String> {
    let works = |name| layered_driver(name, state, settings, namespace, String::new()).map(drop);
    match settings.driver.as_str() {
        "overlay" => works("overlay").map(|()| Works::Overlay),
        "fuse" => works("fuse").map(|()| Works::Fuse),
        _ => match works("overlay") {
            Ok(()) => Ok(Works::Overlay),
            Err(why) => works("fuse").map(|()| Works::Fuse).map_err(|e| format!("overlay: {why}; fuse: {e}")),
        },
    }
}

/// Overlay or fuse, if it works; else why not.
fn layered_driver(
    name: &str,
    state: &Path,
    settings: &Settings,
    namespace: Namespace,
    reason: String,
) -> Result<Arc<dyn Driver>, String> {
    Ok(match name {
        "fuse" => Arc::new(fuse::Fuse::probe(state, namespace, settings.fuse.program.as_deref(), reason)?),
        _ => Arc::new(overlay::Overlay::probe(state, namespace, reason)?),
    })
}

fn no_driver(name: &str, why: impl std::fmt::Display) -> SnapshotError {
    SnapshotError::NoDriver(format!("{name}: {why}"))
}

fn choose(state: &Path, settings: &Settings, namespace: Namespace) -> Result<Arc<dyn Driver>, SnapshotError> {
    let configured = || "configured".to_owned();
    match settings.driver.as_str() {
        "" => Ok(first_that_works(state, settings, namespace)),
        name @ ("overlay" | "fuse") => {
            layered_driver(name, state, settings, namespace, configured()).map_err(|why| no_driver(name, why))
        }
        "copy" => Ok(Arc::new(copy::Copy::probe(state, namespace, &configured()))),
        "proxy" => {
            let why = format!("configured: {} at {}", settings.proxy.snapshotter, settings.proxy.address);
            let driver = proxy::Proxy::new(state, &settings.proxy, namespace, why)?;
            driver.probe()?;
            Ok(Arc::new(driver))
        }
        other => Err(SnapshotError::NoDriver(format!("'{other}' is unknown; there are {KNOWN}"))),
    }
}

fn first_that_works(state: &Path, settings: &Settings, namespace: Namespace) -> Arc<dyn Driver> {
    let probe = |name, reason| layered_driver(name, state, settings, namespace, reason);
    let no_overlay = match probe("overlay", "the kernel's overlayfs works here".to_owned()) {
        Ok(driver) => return driver,
        Err(why) => format!("overlay: {why}"),
    };
    match probe("fuse", no_overlay.clone()) {
        Ok(driver) => driver,
        Err(why) => {
            let reason = format!("{no_overlay}; fuse: {why}");
            tracing::warn!(
                why = reason,
                "no copy-on-write file system can be used; images are copied for each container"
            );
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
        assert!(refused("btrfs").contains("'btrfs' is unknown; there are overlay, fuse, copy and proxy"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let program = Some(tmp.path().join("absent"));
        let fuse = crate::settings::FuseSettings { program };
        let settings = Settings { driver: "fuse".into(), fuse, ..Settings::default() };
        let Err(e) = Drivers::open(tmp.path(), &settings, Namespace::Trusted) else { panic!("accepted") };
        let said = e.to_string();
        // Without /dev/fuse the program is not even looked for.
        assert!(
            said.contains("fuse: cannot run") && said.contains("/absent") || said.contains("/dev/fuse"),
            "{said}"
        );
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
