//! Options of any mount, and those that fusermount3(1) and libfuse know.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use rustix::mount::MountFlags;

use super::{OptionError, text};

/// Who may use the mount, besides whom the file's permissions leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Everybody if root mounts, else only the user who mounts.
    #[default]
    Usual,
    /// Everybody.
    All,
    /// The user who mounts, and root.
    OwnerAndRoot,
}

/// The mount itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountWords {
    /// mount(2)'s flags.
    pub flags: MountFlags,
    /// Who may use it.
    pub access: Access,
    /// What /proc/mounts names as its source.
    pub fsname: OsString,
    /// The type is `fuse.` and this.
    pub subtype: OsString,
    /// SELinux's label of all files.
    pub context: Option<OsString>,
    /// Whether the mount goes when the process dies.
    pub auto_unmount: bool,
}

impl Default for MountWords {
    fn default() -> Self {
        Self {
            flags: MountFlags::empty(),
            access: Access::default(),
            fsname: "davit-cowfs".into(),
            subtype: "davit-cowfs".into(),
            context: None,
            auto_unmount: false,
        }
    }
}

impl MountWords {
    /// Takes an option; false if it is none of the mount's.
    pub(super) fn take(&mut self, key: &str, value: Option<&[u8]>) -> Result<bool, OptionError> {
        if value.is_none() && self.flag(key) {
            return Ok(true);
        }
        match key {
            "fsname" => self.fsname = named(key, value)?,
            "subtype" => self.subtype = named(key, value)?,
            // mount(8) quotes labels, which may hold commas.
            "context" => {
                let bare =
                    value.map(|v| v.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(v));
                self.context = Some(named(key, bare)?);
            }
            "allow_other" => self.access = Access::All,
            "allow_root" => self.access = Access::OwnerAndRoot,
            "auto_unmount" => self.auto_unmount = true,
            // The kernel always checks permissions.
            "default_permissions" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn flag(&mut self, key: &str) -> bool {
        let (flag, on) = match key {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "norelatime" => (MountFlags::RELATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "nostrictatime" => (MountFlags::STRICTATIME, false),
            "lazytime" => (MountFlags::LAZYTIME, true),
            "nolazytime" => (MountFlags::LAZYTIME, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "defaults" => {
                (MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, false)
            }
            _ => return false,
        };
        self.flags.set(flag, on);
        true
    }

    /// The flags as the words that fusermount3(1) takes.
    pub fn flag_words(&self) -> Vec<&'static str> {
        [
            (MountFlags::RDONLY, "ro"),
            (MountFlags::NOSUID, "nosuid"),
            (MountFlags::NODEV, "nodev"),
            (MountFlags::NOEXEC, "noexec"),
            (MountFlags::NOATIME, "noatime"),
            (MountFlags::SYNCHRONOUS, "sync"),
            (MountFlags::DIRSYNC, "dirsync"),
        ]
        .into_iter()
        .filter(|(flag, _)| self.flags.contains(*flag))
        .map(|(_, word)| word)
        .collect()
    }
}

fn named(key: &str, value: Option<&[u8]>) -> Result<OsString, OptionError> {
    let value = value.ok_or_else(|| OptionError::NoValue(key.to_owned()))?;
    let plain = text::unescape(value);
    if plain.is_empty() || plain.contains(&0) {
        return Err(OptionError::value(key, value, "a name is wanted"));
    }
    Ok(OsString::from_vec(plain))
}
