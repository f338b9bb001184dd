//! Volumes: directories that outlive containers.
//!
//! A volume is `volumes/<name>/` with `volume.json`, `_data` (what is mounted) and `users/<container>`, an empty file for
//! each use. It is made under a temporary name and renamed. A named volume is durable before it is acknowledged, and so is the content
//! that its first use copies in, which is filled beside `_data` and renamed: after a crash it is there whole or not yet. An anonymous one
//! lives on the start path of a container and is not fsynced; its name says all that a torn record would have said.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use davit_contracts::id;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::failpoint;
use crate::failure::{At, PathError};
use crate::filter::Filters;
use crate::trash::Trash;

mod error;
pub mod options;

pub use error::VolumeError;
pub use options::Mount;
use options::{Backing, backing};

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

/// Where content that is being copied in grows.
const FILLING: &str = ".fill-";

/// A container's wish for a volume.
#[derive(Debug, Default)]
pub struct Wish<'a> {
    /// Empty: anonymous.
    pub name: &'a str,
    /// The container.
    pub user: &'a str,
    /// For a volume that is made now.
    pub labels: BTreeMap<String, String>,
    /// For a volume that is made now.
    pub options: BTreeMap<String, String>,
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
                continue;
            }
            for inner in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                if inner.file_name().to_string_lossy().starts_with(FILLING) {
                    trash.discard(&inner.path())?;
                }
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
        backing(&options)?;
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
        if durable {
            [&path, &data, &staged.join("users"), &staged.to_owned()]
                .into_iter()
                .try_for_each(|p| sync(p))?;
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
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !self.data(name).is_dir() => {
                return Ok(None);
            }
            // A power cut may have torn what was not fsynced.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e).at("read", &path)?,
        };
        let mut record: VolumeRecord = match serde_json::from_slice(&bytes) {
            Ok(record) => record,
            Err(_) if is_random_name(name) => self.anonymous_again(name),
            Err(source) => return Err(VolumeError::Record { name: name.to_owned(), source }),
        };
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
        sync(&self.dir)?;
        failpoint::pass("volume.removed");
        Ok(())
    }

    /// The directory whose content a copy of a volume begins with.
    pub fn source(&self, name: &str) -> Result<PathBuf, VolumeError> {
        Ok(match backing(&self.get(name)?.options)? {
            Backing::Bind { device, .. } => device,
            Backing::Directory | Backing::Tmpfs(_) => self.data(name),
        })
    }

    /// Records a use; makes the volume when it is missing. On first use of an empty volume `populate` may fill the directory that it is
    /// given, and says whether it did.
    pub fn acquire(
        &self,
        wish: Wish<'_>,
        populate: impl FnOnce(&Path) -> std::io::Result<bool>,
    ) -> Result<VolumeRecord, VolumeError> {
        id::check_name(wish.user)?;
        let _changing = self.lock();
        let anonymous = wish.name.is_empty();
        let name = if anonymous { random_name() } else { wish.name.to_owned() };
        id::check_name(&name)?;
        let record = if let Some(record) = self.read(&name)? {
            record
        } else {
            backing(&wish.options)?;
            let record = VolumeRecord {
                name: name.clone(),
                created_unix_ns: now_ns(),
                labels: wish.labels,
                options: wish.options,
                anonymous,
                users: Vec::new(),
            };
            self.make(record, !anonymous)?
        };
        match backing(&record.options)? {
            Backing::Directory if record.users.is_empty() => {
                let populated = self.populate(&record, populate);
                if populated.is_err() && anonymous {
                    // Nobody knows its name.
                    self.trash.discard(&self.dir.join(&name))?;
                }
                populated?;
            }
            Backing::Bind { device, .. } if !device.exists() => return Err(VolumeError::Device(device)),
            _ => {}
        }
        failpoint::pass("volume.populated");
        let users = self.dir.join(&name).join("users");
        std::fs::create_dir_all(&users).at("create", &users)?;
        std::fs::write(users.join(wish.user), b"").at("write", &users)?;
        failpoint::pass("volume.used");
        self.get(&name)
    }

    /// Fills an empty volume beside its directory and puts the result in its place.
    fn populate(
        &self,
        record: &VolumeRecord,
        populate: impl FnOnce(&Path) -> std::io::Result<bool>,
    ) -> Result<(), VolumeError> {
        let (volume, data) = (self.dir.join(&record.name), self.data(&record.name));
        if std::fs::read_dir(&data).at("read", &data)?.next().is_some() {
            return Ok(());
        }
        let staged = volume.join(format!("{FILLING}{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&staged).at("create", &staged)?;
        let filled = populate(&staged)
            .map_err(|source| VolumeError::Copy { name: record.name.clone(), source })
            .and_then(|copied| {
                if !copied {
                    return Ok(std::fs::remove_dir(&staged).at("remove", &staged)?);
                }
                if !record.anonymous {
                    // One call for however many files.
                    File::open(&staged)
                        .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
                        .at("sync the file system of", &staged)?;
                }
                failpoint::pass("volume.filled");
                std::fs::rename(&staged, &data).at("rename", &staged)?;
                if record.anonymous { Ok(()) } else { Ok(sync(&volume)?) }
            });
        if filled.is_err() {
            let _ = self.trash.discard(&staged);
        }
        filled
    }

    /// What a container mounts of a volume. A part of it is checked here and opened again by the container's monitor, which follows no
    /// link either.
    pub fn mount(&self, record: &VolumeRecord, subpath: &str) -> Result<Mount, VolumeError> {
        let mount = |kind, source: PathBuf, options| Mount { kind, source, options };
        let mut mount = match backing(&record.options)? {
            Backing::Directory => mount("bind", self.data(&record.name), vec!["rbind".to_owned()]),
            Backing::Tmpfs(options) => mount("tmpfs", PathBuf::from("tmpfs"), options),
            Backing::Bind { device, options } => mount("bind", device, options),
        };
        if subpath.is_empty() {
            return Ok(mount);
        }
        let failed = |source: std::io::Error| VolumeError::Subpath {
            name: record.name.clone(),
            subpath: subpath.to_owned(),
            source,
        };
        if mount.kind != "bind" {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        }
        let root = File::open(&mount.source).map_err(failed)?;
        let (flags, how) = (
            OFlags::PATH | OFlags::CLOEXEC,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        );
        rustix::fs::openat2(&root, subpath, flags, Mode::empty(), how).map_err(|e| failed(e.into()))?;
        mount.options.push(format!("X-davit.subpath={subpath}"));
        Ok(mount)
    }

    /// Removes volumes that nobody uses: anonymous ones, with `all` every one. Answers their names and how many bytes they held.
    pub fn prune(&self, all: bool, filters: &Filters) -> Result<(Vec<String>, u64), crate::error::Error> {
        filters.only(&["label", "label!", "all"])?;
        let all = all || filters.flag("all")? == Some(true);
        let _changing = self.lock();
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for record in self.list()? {
            if record.users.is_empty() && (all || record.anonymous) && filters.labels(&record.labels) {
                let size = crate::usage::tree_size(&self.data(&record.name));
                self.trash.discard(&self.dir.join(&record.name)).map_err(VolumeError::from)?;
                bytes += size;
                removed.push(record.name);
            }
        }
        if !removed.is_empty() {
            sync(&self.dir).map_err(VolumeError::from)?;
        }
        Ok((removed, bytes))
    }

    /// The record of an anonymous volume whose own one was torn.
    fn anonymous_again(&self, name: &str) -> VolumeRecord {
        let made = std::fs::metadata(self.dir.join(name)).and_then(|m| m.modified()).ok();
        let since = made.and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
        VolumeRecord {
            name: name.to_owned(),
            created_unix_ns: i64::try_from(since.as_nanos()).unwrap_or(0),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            anonymous: true,
            users: Vec::new(),
        }
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

fn sync(path: &Path) -> Result<(), PathError> {
    File::open(path).and_then(|f| f.sync_all()).at("sync", path)
}

fn is_random_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
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
mod tests;
