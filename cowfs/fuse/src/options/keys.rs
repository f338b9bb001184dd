//! The keys of `-o`: fuse-overlayfs's, and those of the kernel's overlay that have a meaning here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use davit_cowfs::{Config, Namespace, Redirect};

use super::{MountWords, OptionError, Options, Serving, ids, text};

/// What has been read so far.
pub(super) struct Line {
    pub(super) names: Vec<OsString>,
    pub(super) foreground: bool,
    pub(super) debug: bool,
    pub(super) serving: Serving,
    config: Config,
    mount: MountWords,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            foreground: false,
            debug: false,
            serving: Serving::default(),
            // Layers that podman unpacks for a mount program spell whiteouts so.
            config: Config { aufs_whiteouts: true, ..Config::new(Vec::new()) },
            mount: MountWords::default(),
        }
    }
}

/// A key and, unless it is a flag, its value with escapes.
type Value<'a> = Option<&'a [u8]>;

impl Line {
    /// Reads the value of one `-o`.
    pub(super) fn group(&mut self, group: &[u8]) -> Result<(), OptionError> {
        for option in text::split(group, b',').into_iter().filter(|o| !o.is_empty()) {
            let (key, value) = match option.iter().position(|b| *b == b'=') {
                Some(at) => (&option[..at], Some(&option[at + 1..])),
                None => (option, None),
            };
            let key = std::str::from_utf8(key).map_err(|_| OptionError::unknown(option))?;
            let known = self.layers(key, value)?
                || self.shown(key, value)?
                || self.served(key, value)?
                || without_effect(key, value)?
                || self.mount.take(key, value)?;
            if !known {
                return Err(OptionError::unknown(option));
            }
        }
        Ok(())
    }

    /// Which directories.
    fn layers(&mut self, key: &str, value: Value<'_>) -> Result<bool, OptionError> {
        match key {
            "lowerdir" => {
                let value = needed(key, value)?;
                self.config.lowers = text::split(value, b':')
                    .into_iter()
                    .map(|one| if one.starts_with(b"//") { Err(plugin(key)) } else { path(key, one) })
                    .collect::<Result<_, _>>()?;
            }
            "lowerdir+" => self.config.lowers.push(path(key, needed(key, value)?)?),
            "upperdir" => self.config.upper = Some(path(key, needed(key, value)?)?),
            "workdir" => self.config.work = Some(path(key, needed(key, value)?)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What is shown of them.
    fn shown(&mut self, key: &str, value: Value<'_>) -> Result<bool, OptionError> {
        match key {
            "uidmapping" => self.config.uid_map = ids::map(key, needed(key, value)?)?,
            "gidmapping" => self.config.gid_map = ids::map(key, needed(key, value)?)?,
            "squash_to_root" => {
                if switch(key, value)? {
                    (self.config.squash.uid, self.config.squash.gid) = (Some(0), Some(0));
                }
            }
            "squash_to_uid" => self.config.squash.uid = Some(id(key, value)?),
            "squash_to_gid" => self.config.squash.gid = Some(id(key, value)?),
            "redirect_dir" => {
                self.config.redirect = match needed(key, value)? {
                    b"on" => Redirect::On,
                    b"off" | b"follow" => Redirect::Follow,
                    b"nofollow" => Redirect::NoFollow,
                    other => {
                        return Err(OptionError::value(key, other, "on, off, follow or nofollow is wanted"));
                    }
                }
            }
            "userxattr" => {
                self.config.namespace = if switch(key, value)? { Some(Namespace::User) } else { None };
            }
            "noxattrs" => self.config.xattrs = !switch(key, value)?,
            "aufs_whiteouts" => self.config.aufs_whiteouts = switch(key, value)?,
            "volatile" => self.config.sync = !switch(key, value)?,
            "fsync" => self.config.sync = switch(key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// How it is served.
    fn served(&mut self, key: &str, value: Value<'_>) -> Result<bool, OptionError> {
        match key {
            "timeout" | "entry_timeout" | "attr_timeout" => {
                let value = needed(key, value)?;
                let seconds = std::str::from_utf8(value).ok().and_then(|t| t.parse::<f64>().ok());
                let timeout = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
                let why = "a number of seconds is wanted";
                self.serving.timeout = Some(timeout.ok_or_else(|| OptionError::value(key, value, why))?);
            }
            "writeback" => self.serving.writeback = switch(key, value)?,
            "noacl" => self.serving.acl = !switch(key, value)?,
            "threaded" => self.serving.workers = if switch(key, value)? { None } else { Some(1) },
            "max_threads" => self.serving.workers = Some(threads(key, value)?),
            "clone_fd" => self.serving.clone_fd = switch(key, value)?,
            "debug" => self.debug = switch(key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The whole, checked for what does not need the file system.
    pub(super) fn finish(mut self) -> Result<Options, OptionError> {
        let mut names = self.names.into_iter();
        let mountpoint = match (names.next(), names.next(), names.next()) {
            (None, ..) => return Err(OptionError::NoMountpoint),
            (Some(only), None, _) => only,
            (Some(_source), Some(second), None) => second,
            (.., Some(third)) => return Err(OptionError::TooManyNames(third.to_string_lossy().into_owned())),
        };
        if self.config.lowers.is_empty() {
            return Err(OptionError::NoLower);
        }
        match self.config.upper {
            Some(_) if self.config.work.is_none() => return Err(OptionError::NoWork),
            Some(_) => {}
            // Whoever leaves only upperdir= out wants to read; fuse-overlayfs and overlayfs let it pass too.
            None => self.config.work = None,
        }
        Ok(Options {
            mountpoint: mountpoint.into(),
            foreground: self.foreground || self.debug,
            debug: self.debug,
            config: self.config,
            serving: self.serving,
            mount: self.mount,
        })
    }
}

/// Options that are right as they are, whatever they say, and those that would ask for too much.
fn without_effect(key: &str, value: Value<'_>) -> Result<bool, OptionError> {
    let refuse = |what| Err(OptionError::Unsupported { key: key.to_owned(), what });
    match (key, value) {
        ("plugins", Some(list)) if !list.is_empty() => refuse("plugins that load layers"),
        ("xattr_permissions", Some(level)) if level != b"0" => refuse("owners and modes kept in xattrs"),
        ("nfs_export", Some(b"on")) => refuse("export by NFS"),
        ("verity", Some(b"require")) => refuse("fs-verity digests of layers"),
        ("datadir+", _) => refuse("layers of data only"),
        (
            // Numbers of inodes and of links are always stable and right, layers with metacopy are read, and none is written.
            "fast_ino" | "static_nlink" | "ino32_t" | "plugins" | "xattr_permissions" | "metacopy" | "xino" | "index"
            | "nfs_export" | "verity" | "uuid" | "override_creds"
            // How libfuse runs its threads and moves its data.
            | "max_idle_threads" | "max_read" | "max_readahead" | "max_background" | "congestion_threshold"
            | "async_read" | "sync_read" | "big_writes" | "nonempty" | "blkdev" | "no_remote_lock" | "umask"
            | "splice_read" | "splice_write" | "splice_move" | "no_splice_read" | "no_splice_write" | "no_splice_move"
            // mount(8)'s own, which it leaves in where it calls a helper.
            | "auto" | "noauto" | "user" | "nouser" | "users" | "group" | "owner" | "_netdev" | "nofail" | "comment",
            _,
        ) => Ok(true),
        _ => Ok(key.starts_with("x-")),
    }
}

fn plugin(key: &str) -> OptionError {
    OptionError::Unsupported { key: key.to_owned(), what: "a plugin that loads layers" }
}

fn needed<'a>(key: &str, value: Value<'a>) -> Result<&'a [u8], OptionError> {
    value.ok_or_else(|| OptionError::NoValue(key.to_owned()))
}

fn path(key: &str, value: &[u8]) -> Result<PathBuf, OptionError> {
    let plain = text::unescape(value);
    if plain.is_empty() || plain.contains(&0) {
        return Err(OptionError::value(key, value, "a directory is wanted"));
    }
    Ok(OsString::from_vec(plain).into())
}

/// A flag that may carry 0 or 1, on or off.
fn switch(key: &str, value: Value<'_>) -> Result<bool, OptionError> {
    match value {
        None | Some(b"1" | b"on" | b"true" | b"yes") => Ok(true),
        Some(b"0" | b"off" | b"false" | b"no") => Ok(false),
        Some(other) => Err(OptionError::value(key, other, "0 or 1 is wanted")),
    }
}

fn id(key: &str, value: Value<'_>) -> Result<u32, OptionError> {
    let value = needed(key, value)?;
    ids::number(value)
        .filter(|n| *n != u32::MAX)
        .ok_or_else(|| OptionError::value(key, value, "an id is wanted"))
}

fn threads(key: &str, value: Value<'_>) -> Result<usize, OptionError> {
    let value = needed(key, value)?;
    ids::number(value)
        .filter(|n| (1..=256).contains(n))
        .map(|n| n as usize)
        .ok_or_else(|| OptionError::value(key, value, "a number from 1 to 256 is wanted"))
}
