//! Snapshots of another program: any socket that speaks containerd's snapshots service (containerd itself, a proxy plugin).
//!
//! For an image its chain is built there: a committed snapshot a layer, named by chain id, as containerd's own unpacking names them.
//! A layer is applied by mounting what `Prepare` answers where nobody sees it (`mounted`) and copying our layer over it: what a whiteout hides
//! is deleted, through whatever file system is mounted. Committed data is synced before `Commit`.
//!
//! What is ours there carries two labels: `containerd.io/gc.root`, so that containerd's garbage collector leaves it, and
//! `davit.instance`, so that `retain` finds what a crash left. Our own keys are random, and `proxy.json` in the snapshot directory, written
//! before the other side is asked, says which is whose: no step can collide with one of an earlier life of the daemon.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use davit_contracts::containerd::client::{Labels, Snapshotter};
use davit_contracts::containerd::types;
use davit_contracts::{Error as RemoteError, Kind};
use davit_cowfs::Namespace;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::{Driver, Forking, Mount, Stack};
use crate::failure::{At, PathError};
use crate::settings::ProxySettings;
use crate::snapshot::SnapshotError;
use crate::snapshot::mounted::MountedError;

mod chain;
mod leftovers;

/// The waits between attempts to reach a snapshotter that is away. At the start of the daemon it gets a little longer.
const WAITS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1500)];
/// What is ours on the other side.
const INSTANCE: &str = "davit.instance";
/// Kept by containerd's garbage collector.
const GC_ROOT: &str = "containerd.io/gc.root";

/// Why a snapshotter elsewhere did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It refused, or is away.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A layer cannot be applied to what it answered.
    #[error("layer {layer} cannot be applied through the snapshotter")]
    Apply {
        /// Short.
        layer: String,
        /// Why.
        #[source]
        source: Box<MountedError>,
    },
    /// What we wrote down of a snapshot.
    #[error("{} does not say which snapshot it is", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What it mounts is no directory.
    #[error(
        "snapshots of the snapshotter '{snapshotter}' cannot be cloned: it answers {kind} mounts, whose files are in no directory of this host"
    )]
    CannotFork {
        /// Which.
        snapshotter: String,
        /// The type of its mounts.
        kind: String,
    },
    /// A call needs the daemon's runtime.
    #[error("the driver proxy needs a tokio runtime")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// Our own files.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl ProxyError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Remote(e) => match e.kind() {
                Kind::Unavailable | Kind::Timeout | Kind::NoSpace => e.kind(),
                Kind::InvalidArgument | Kind::Unsupported => Kind::Unsupported,
                _ => Kind::Internal,
            },
            Self::Record { .. } => Kind::Corrupt,
            Self::CannotFork { .. } => Kind::Unsupported,
            Self::Apply { .. } | Self::NoRuntime(_) | Self::Path(_) => Kind::Internal,
        }
    }
}

impl ProxyError {
    /// What to do next; may be empty.
    pub fn hint(&self) -> &str {
        if let Self::Remote(e) = self { e.hint() } else { "" }
    }
}

/// What is written down in a snapshot directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    target: ProxySettings,
    key: String,
}

pub(super) struct Proxy {
    state: PathBuf,
    namespace: Namespace,
    target: ProxySettings,
    reason: String,
    /// Tells what is ours from what others keep there.
    instance: String,
    /// Tells keys of this life of the daemon from those of earlier ones.
    life: String,
    remote: Remote,
    /// Chains are built and taken apart by one thread at a time.
    building: Mutex<()>,
}

/// A snapshotter, called from threads that may block.
#[derive(Clone)]
struct Remote {
    handle: Handle,
    client: Snapshotter,
}

impl Remote {
    fn new(handle: &Handle, target: &ProxySettings) -> Result<Self, ProxyError> {
        let _inside = handle.enter();
        let socket = Path::new(target.address.strip_prefix("unix://").unwrap_or(&target.address));
        let client = Snapshotter::lazy(socket, &target.snapshotter, &target.namespace)?;
        Ok(Self { handle: handle.clone(), client })
    }

    /// Runs a call, again while the other side is away.
    fn call<T, F>(&self, call: impl Fn(Snapshotter) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let mut waits = WAITS.iter();
        loop {
            match self.handle.block_on(call(self.client.clone())) {
                Err(e) if e.kind() == Kind::Unavailable => match waits.next() {
                    Some(wait) => std::thread::sleep(*wait),
                    None => return Err(e),
                },
                done => return done,
            }
        }
    }

    /// Removes a snapshot; one that is not there is fine.
    fn remove(&self, key: &str) -> Result<(), RemoteError> {
        match self.call(|c| async move { c.remove(key).await }) {
            Err(e) if e.kind() == Kind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Proxy {
    pub(super) fn new(
        state: &Path,
        target: &ProxySettings,
        namespace: Namespace,
        reason: String,
    ) -> Result<Self, ProxyError> {
        let remote = Remote::new(&Handle::try_current()?, target)?;
        Ok(Self {
            state: state.to_path_buf(),
            namespace,
            target: target.clone(),
            reason,
            instance: instance(state)?,
            life: format!("{:08x}", rand::random::<u32>()),
            remote,
            building: Mutex::new(()),
        })
    }

    /// Whether it answers, and knows the snapshotter.
    pub(super) fn probe(&self) -> Result<(), ProxyError> {
        self.remote.call(|c| async move { c.stat("davit-probe").await })?;
        Ok(())
    }

    fn labels(&self) -> Labels {
        let now = time::OffsetDateTime::now_utc();
        let now = now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        [(GC_ROOT.to_owned(), now), (INSTANCE.to_owned(), self.instance.clone())].into()
    }

    fn fresh_key(&self, what: &str) -> String {
        format!("davit-{what}-{}-{}-{:016x}", self.instance, self.life, rand::random::<u64>())
    }

    /// The snapshotter that a snapshot directory was made with, and the key there.
    fn of(&self, dir: &Path) -> Result<Option<(Remote, String)>, ProxyError> {
        let path = dir.join("proxy.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at("read", &path).map_err(Into::into),
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|source| ProxyError::Record { path, source })?;
        let remote = if record.target == self.target {
            self.remote.clone()
        } else {
            Remote::new(&self.remote.handle, &record.target)?
        };
        Ok(Some((remote, record.key)))
    }

    fn known(&self, dir: &Path) -> Result<(Remote, String), SnapshotError> {
        self.of(dir)?.ok_or_else(|| SnapshotError::Unknown(dir.display().to_string()))
    }
}

/// A random name that this state directory keeps.
fn instance(state: &Path) -> Result<String, PathError> {
    let path = state.join("instance");
    if let Ok(text) = std::fs::read_to_string(&path)
        && text.len() == 16
    {
        return Ok(text);
    }
    let fresh = format!("{:016x}", rand::random::<u64>());
    let staged = state.join(format!(".instance-{fresh}"));
    std::fs::write(&staged, &fresh).at("write", &staged)?;
    std::fs::rename(&staged, &path).at("rename", &staged)?;
    Ok(fresh)
}

/// Where what is written through mounts goes.
struct Written {
    directory: PathBuf,
    /// Above the image's layers: not the whole tree.
    above: bool,
}

/// None: to no directory that could be copied, as of a block device.
fn written_at(mounts: &[Mount]) -> Option<Written> {
    let [mount] = mounts else { return None };
    if let Some(upper) = mount.options.iter().find_map(|o| o.strip_prefix("upperdir=")) {
        return Some(Written { directory: upper.into(), above: true });
    }
    let bind = mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind");
    bind.then(|| Written { directory: PathBuf::from(&mount.source), above: false })
}

fn described(mounts: Vec<types::Mount>) -> Vec<Mount> {
    mounts
        .into_iter()
        .map(|m| Mount { kind: m.r#type.into(), source: m.source, options: m.options, server: None })
        .collect()
}

impl Driver for Proxy {
    fn name(&self) -> &'static str {
        "proxy"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn create(&self, dir: &Path, stack: &Stack, read_only: bool) -> Result<(), SnapshotError> {
        let key = self.fresh_key("snapshot");
        let record = Record { target: self.target.clone(), key: key.clone() };
        let path = dir.join("proxy.json");
        std::fs::write(&path, serde_json::to_vec(&record).expect("a record of strings is JSON"))
            .at("write", &path)?;
        let mut again = true;
        loop {
            let parent = self.ensure(stack)?;
            let made = self.remote.call(|c| {
                let (key, parent, labels) = (&key, &parent, self.labels());
                async move {
                    if read_only {
                        c.view(key, parent, labels).await
                    } else {
                        c.prepare(key, parent, labels).await
                    }
                }
            });
            match made {
                Ok(_) => return Ok(()),
                // An earlier attempt of this call whose answer was lost.
                Err(e) if e.kind() == Kind::AlreadyExists => return Ok(()),
                // The chain was taken away between the two calls.
                Err(e) if e.kind() == Kind::NotFound && again => again = false,
                Err(e) => return Err(ProxyError::from(e).into()),
            }
        }
    }

    fn fork(&self, source: &Path, dir: &Path, stack: &Stack, how: &Forking<'_>) -> Result<(), SnapshotError> {
        self.create(dir, stack, how.read_only)?;
        if how.read_only {
            return Ok(());
        }
        let written = |snapshot: &Path| {
            let mounts = self.mounts(snapshot, stack, false)?;
            written_at(&mounts).ok_or_else(|| {
                let kind = mounts.first().map_or("no", |m| m.kind.as_ref()).to_owned();
                SnapshotError::from(ProxyError::CannotFork {
                    snapshotter: self.target.snapshotter.clone(),
                    kind,
                })
            })
        };
        let (from, to) = (written(source)?, written(dir)?);
        if !from.above {
            // It has the image's files already, which the container may have changed.
            let there =
                davit_sys::beneath::open_root(&to.directory).map_err(|e| SnapshotError::Fork(e.source))?;
            crate::copytree::clear(there.as_fd()).map_err(SnapshotError::Fork)?;
        }
        how.copy(&from.directory, &to.directory)
    }

    fn mounts(&self, dir: &Path, _stack: &Stack, _read_only: bool) -> Result<Vec<Mount>, SnapshotError> {
        let (remote, key) = self.known(dir)?;
        let mounts = remote.call(|c| {
            let key = &key;
            async move { c.mounts(key).await }
        });
        Ok(described(mounts.map_err(ProxyError::from)?))
    }

    fn remove(&self, dir: &Path) -> Result<(), SnapshotError> {
        match self.of(dir)? {
            Some((remote, key)) => Ok(remote.remove(&key).map_err(ProxyError::from)?),
            None => Ok(()),
        }
    }

    fn usage(&self, dir: &Path) -> Result<(u64, u64), SnapshotError> {
        let (remote, key) = self.known(dir)?;
        let usage = remote.call(|c| {
            let key = &key;
            async move { c.usage(key).await }
        });
        Ok(usage.map_err(ProxyError::from)?)
    }

    fn retain(&self, chains: &BTreeSet<String>, dirs: &[PathBuf]) -> Result<(), SnapshotError> {
        Ok(self.give_up(chains, dirs)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_full_disk_behind_a_snapshotter_is_told_as_such() {
        let full = MountedError::Work(std::io::Error::from_raw_os_error(28));
        let error = ProxyError::Apply { layer: "0123".into(), source: Box::new(full) };
        assert_eq!(Error::from(SnapshotError::from(error)).kind(), Kind::NoSpace);
    }
}
