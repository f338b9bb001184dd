//! Volumes: directories that outlive containers.
//!
//! A volume is `volumes/<name>/` with `volume.json`, `_data` (what is mounted) and `users/<container>`, an empty file for
//! each use. It is made under a temporary name and renamed. A named volume is durable before it is acknowledged; an anonymous one
//! lives on the start path of a container and is not fsynced, nor are uses, which a power cut ends anyway.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use davit_contracts::{Kind, id};
use serde::{Deserialize, Serialize};

use crate::failpoint;
use crate::failure::{At, PathError};
use crate::trash::Trash;

/// Why a volume cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A system call failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Not a name.
    #[error(transparent)]
    BadName(#[from] id::InvalidId),
    /// Nothing has this name.
    #[error("no volume '{0}'")]
    Unknown(String),
    /// Containers use it.
    #[error("volume '{name}' is in use by {}", users.join(", "))]
    InUse {
        /// Which.
        name: String,
        /// By which containers.
        users: Vec<String>,
    },
    /// The name is taken by a volume with other options.
    #[error("volume '{0}' exists already with other options")]
    Differs(String),
    /// An option that the local driver does not have.
    #[error("the local volume driver has no option '{0}'")]
    UnknownOption(String),
    /// Its record is torn.
    #[error("the record of volume '{name}' is damaged")]
    Record {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The image's content could not be copied in.
    #[error("cannot copy the image's content into volume '{name}'")]
    Copy {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl VolumeError {
    /// For the contract.
    pub fn kind(&self) -> Kind {
        match self {
            Self::BadName(_) | Self::UnknownOption(_) => Kind::InvalidArgument,
            Self::Unknown(_) => Kind::NotFound,
            Self::InUse { .. } => Kind::InUse,
            Self::Differs(_) => Kind::AlreadyExists,
            Self::Record { .. } => Kind::Corrupt,
            Self::Path(_) | Self::Copy { .. } => Kind::Internal,
        }
    }
}

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_unix_ns: i64,
    /// Free-form.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Of the driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Made for one container.
    #[serde(default)]
    pub anonymous: bool,
    /// Who uses it; not stored here.
    #[serde(skip)]
    pub users: Vec<String>,
}

/// All volumes.
pub struct Volumes {
    dir: PathBuf,
    trash: Trash,
    changing: Mutex<()>,
}

impl Volumes {
    /// Opens the directory and sweeps what was being made.
    pub fn open(state: &Path, trash: Trash) -> Result<Self, VolumeError> {
        let dir = state.join("volumes");
        std::fs::create_dir_all(&dir).at("create", &dir)?;
        for entry in std::fs::read_dir(&dir).at("read", &dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".new-") {
                trash.discard(&entry.path())?;
            }
        }
        Ok(Self { dir, trash, changing: Mutex::new(()) })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().expect("no one panics while changing volumes")
    }

    /// What is mounted for a volume.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("_data")
    }

    /// Makes a volume; one of the same options that is there already is the answer, too.
    pub fn create(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<VolumeRecord, VolumeError> {
        let anonymous = name.is_empty();
        let name = if anonymous { random_name() } else { name.to_owned() };
        id::check_name(&name)?;
        if let Some(option) = options.keys().next() {
            return Err(VolumeError::UnknownOption(option.clone()));
        }
        let _changing = self.lock();
        if let Some(there) = self.read(&name)? {
            return if there.options == options { Ok(there) } else { Err(VolumeError::Differs(name)) };
        }
        self.make(
            VolumeRecord { name, created_unix_ns: now_ns(), labels, options, anonymous, users: Vec::new() },
            true,
        )
    }

    fn make(&self, record: VolumeRecord, durable: bool) -> Result<VolumeRecord, VolumeError> {
        let staged = self.dir.join(format!(".new-{:016x}", rand::random::<u64>()));
        let made = self.fill(&staged, &record, durable);
        if made.is_err() {
            let _ = self.trash.discard(&staged);
        }
        made?;
        failpoint::pass("volume.made");
        Ok(record)
    }

    fn fill(&self, staged: &Path, record: &VolumeRecord, durable: bool) -> Result<(), VolumeError> {
        use std::os::unix::fs::PermissionsExt;
        let data = staged.join("_data");
        for dir in [staged, &data, &staged.join("users")] {
            std::fs::create_dir(dir).at("create", dir)?;
        }
        failpoint::pass("volume.staged");
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755))
            .at("set the mode of", &data)?;
        let path = staged.join("volume.json");
        std::fs::write(&path, serde_json::to_vec(record).expect("a record of strings is JSON"))
            .at("write", &path)?;
        let sync = |path: &Path| File::open(path).and_then(|f| f.sync_all()).at("sync", path);
        if durable {
            sync(&path)?;
            sync(staged)?;
        }
        failpoint::pass("volume.recorded");
        std::fs::rename(staged, self.dir.join(&record.name)).at("rename", staged)?;
        failpoint::pass("volume.named");
        if durable {
            sync(&self.dir)?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<VolumeRecord>, VolumeError> {
        let path = self.dir.join(name).join("volume.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at("read", &path)?,
        };
        let mut record: VolumeRecord = serde_json::from_slice(&bytes)
            .map_err(|source| VolumeError::Record { name: name.to_owned(), source })?;
        let users = std::fs::read_dir(self.dir.join(name).join("users"));
        record.users =
            users.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        record.users.sort();
        Ok(Some(record))
    }

    /// The volume of this name.
    pub fn get(&self, name: &str) -> Result<VolumeRecord, VolumeError> {
        if id::check_name(name).is_err() {
            return Err(VolumeError::Unknown(name.to_owned()));
        }
        self.read(name)?.ok_or_else(|| VolumeError::Unknown(name.to_owned()))
    }

    /// All volumes, by name. One whose record is torn is left out and reported.
    pub fn list(&self) -> Result<Vec<VolumeRecord>, VolumeError> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir).at("read", &self.dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match self.read(&name) {
                Ok(Some(record)) => all.push(record),
                Ok(None) => {}
                Err(e) => tracing::warn!(error = %e, "a volume is left out"),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Removes a volume that nobody uses. `force` makes an unknown name a success, as docker's does.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), VolumeError> {
        let _changing = self.lock();
        let record = match self.get(name) {
            Err(VolumeError::Unknown(_)) if force => return Ok(()),
            other => other?,
        };
        if !record.users.is_empty() {
            return Err(VolumeError::InUse { name: name.to_owned(), users: record.users });
        }
        failpoint::pass("volume.removing");
        self.trash.discard(&self.dir.join(name))?;
        // What was reported removed stays removed after a power cut.
        File::open(&self.dir).and_then(|d| d.sync_all()).at("sync", &self.dir)?;
        failpoint::pass("volume.removed");
        Ok(())
    }

    /// Records a use; makes the volume when it is missing. On first use of an empty volume `populate` may fill it.
    pub fn acquire(
        &self,
        name: &str,
        user: &str,
        populate: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<VolumeRecord, VolumeError> {
        id::check_name(user)?;
        let _changing = self.lock();
        let anonymous = name.is_empty();
        let name = if anonymous { random_name() } else { name.to_owned() };
        id::check_name(&name)?;
        let record = if let Some(record) = self.read(&name)? {
            record
        } else {
            let (labels, options) = (BTreeMap::new(), BTreeMap::new());
            let record = VolumeRecord {
                name: name.clone(),
                created_unix_ns: now_ns(),
                labels,
                options,
                anonymous,
                users: Vec::new(),
            };
            self.make(record, !anonymous)?
        };
        let data = self.data(&name);
        let empty = std::fs::read_dir(&data).at("read", &data)?.next().is_none();
        if empty && record.users.is_empty() {
            populate(&data).map_err(|source| VolumeError::Copy { name: name.clone(), source })?;
        }
        failpoint::pass("volume.populated");
        let users = self.dir.join(&name).join("users");
        std::fs::create_dir_all(&users).at("create", &users)?;
        std::fs::write(users.join(user), b"").at("write", &users)?;
        failpoint::pass("volume.used");
        self.get(&name)
    }

    /// Ends all uses of a container; answers the anonymous volumes that were removed with it.
    pub fn release(&self, user: &str, remove_anonymous: bool) -> Result<Vec<String>, VolumeError> {
        id::check_name(user)?;
        let _changing = self.lock();
        let mut removed = Vec::new();
        for record in self.list()?.into_iter().filter(|r| r.users.iter().any(|u| u == user)) {
            // In one step: a use that is gone before its anonymous volume would keep that for ever after a crash.
            if remove_anonymous && record.anonymous && record.users.len() == 1 {
                self.trash.discard(&self.dir.join(&record.name))?;
                removed.push(record.name);
            } else {
                let path = self.dir.join(&record.name).join("users").join(user);
                std::fs::remove_file(&path).at("remove", &path)?;
            }
            failpoint::pass("volume.released");
        }
        Ok(removed)
    }
}

fn random_name() -> String {
    use std::fmt::Write as _;
    let bytes: [u8; 32] = rand::random();
    bytes.iter().fold(String::with_capacity(64), |mut text, b| {
        write!(text, "{b:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let tmp = tempfile::tempdir().unwrap();
        let trash = Trash::open(tmp.path().join("trash")).unwrap();
        let volumes = Volumes::open(tmp.path(), trash).unwrap();
        (tmp, volumes)
    }

    #[test]
    fn a_volume_in_use_is_kept() {
        let (_tmp, volumes) = volumes();
        volumes.create("data", BTreeMap::new(), BTreeMap::new()).unwrap();
        let fill = |dir: &Path| std::fs::write(dir.join("from-image"), "x");
        volumes.acquire("data", "c1", fill).unwrap();
        volumes.acquire("data", "c1", |_| panic!("filled twice")).unwrap();
        assert!(matches!(volumes.remove("data", true), Err(VolumeError::InUse { .. })));
        assert_eq!(volumes.release("c1", true).unwrap(), Vec::<String>::new());
        assert!(volumes.data("data").join("from-image").exists());
        volumes.remove("data", false).unwrap();
        assert!(matches!(volumes.get("data"), Err(VolumeError::Unknown(_))));
        volumes.remove("data", true).unwrap();
    }

    #[test]
    fn an_anonymous_volume_goes_with_its_last_user() {
        let (_tmp, volumes) = volumes();
        let made = volumes.acquire("", "c1", |_| Ok(())).unwrap();
        assert!(made.anonymous && made.name.len() == 64);
        assert_eq!(volumes.release("c1", true).unwrap(), [made.name]);
        assert!(volumes.list().unwrap().is_empty());
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let (_tmp, volumes) = volumes();
        for bad in ["../x", "a/b", ".new-x", "."] {
            assert!(volumes.create(bad, BTreeMap::new(), BTreeMap::new()).is_err(), "{bad}");
            assert!(volumes.get(bad).is_err(), "{bad}");
        }
        assert!(volumes.acquire("ok", "../evil", |_| Ok(())).is_err());
    }
}
