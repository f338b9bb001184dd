//! `runtimed.toml`: which OCI runtimes there are, and defaults for logs.
//!
//! ```toml
//! default_runtime = "davit-runner"
//!
//! [runtimes.crun-debug]
//! path = "/usr/bin/crun"
//! args = ["--debug"]
//! timeout_s = 30
//!
//! [log]
//! driver = "local"
//! options = { max-size = "20m", max-file = "5" }
//!
//! [userns]
//! start = 1000000
//! count = 1000000
//!
//! [fuse]
//! program = "/usr/libexec/davit/davit-cowfs"
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use davit_contracts::runtime::LogConfig;
use davit_daemon_kit::paths::Layout;
use davit_sys::served::PROGRAM;
use davit_wire::config::RuntimeCommand;
use serde::Deserialize;

use crate::error::RuntimeError;
use crate::logs::options;
use crate::nearest::nearest;
use crate::spec::userns::{BUILT_IN, Range};

/// The runtime that is part of davit.
pub const BUILT_IN_RUNTIME: &str = "davit-runner";

/// Runtimes that are found in PATH by their names without any configuration.
const WELL_KNOWN: &[&str] = &[BUILT_IN_RUNTIME, "crun", "runc", "youki"];

/// The content of `runtimed.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the runtime that a container gets when it asks for none; davit-runner when empty.
    pub default_runtime: String,
    /// OCI runtimes by name.
    pub runtimes: BTreeMap<String, RuntimeEntry>,
    /// Log defaults.
    pub log: LogDefaults,
    /// The storage driver fuse.
    pub fuse: Fuse,
    /// User ids for containers with a user namespace of their own.
    pub userns: Userns,
}

/// The ids of the host that `--userns=auto` takes from; the same numbers for users and groups.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Userns {
    /// The first; unset: that of the user `davit` in /etc/subuid and /etc/subgid, else 1879048192.
    pub start: Option<u32>,
    /// How many.
    pub count: Option<u32>,
}

impl Userns {
    /// Where ranges come from.
    pub fn pool(&self) -> Result<Range, RuntimeError> {
        match (self.start, self.count) {
            (None, None) => {}
            (Some(start), Some(count)) if count > 0 && start.checked_add(count).is_some() => {
                return Ok(Range { start, count });
            }
            _ => {
                let text = "runtimed.toml: [userns] needs start and count, which make a range of ids";
                return Err(RuntimeError::Invalid(text.to_owned()));
            }
        }
        let of = |path: &str| subid(&std::fs::read_to_string(path).unwrap_or_default());
        match (of("/etc/subuid"), of("/etc/subgid")) {
            (None, None) => Ok(BUILT_IN),
            (Some(uids), Some(gids)) if uids == gids => Ok(uids),
            _ => Err(RuntimeError::Invalid(
                "the ranges of the user davit in /etc/subuid and /etc/subgid are to be the same".to_owned(),
            )),
        }
    }
}

/// The range of the user `davit` in the text of a subuid(5) file.
fn subid(text: &str) -> Option<Range> {
    let line = text.lines().find_map(|l| l.strip_prefix("davit:"))?;
    let (start, count) = line.split_once(':')?;
    let range = Range { start: start.trim().parse().ok()?, count: count.trim().parse().ok()? };
    (range.count > 0 && range.start.checked_add(range.count).is_some()).then_some(range)
}

/// What serves roots of the storage driver `fuse`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fuse {
    /// A program with davit-cowfs's command line; unset: davit-cowfs beside davit-runtimed. storaged.toml has the same key.
    pub program: Option<PathBuf>,
}

/// One OCI runtime.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeEntry {
    /// Absolute path of its binary.
    pub path: PathBuf,
    /// Arguments before the subcommand.
    pub args: Vec<String>,
    /// After so many seconds a call of it is killed and has failed; 0: 120.
    pub timeout_s: u32,
}

/// How output is logged unless a container says otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogDefaults {
    /// json-file when empty.
    pub driver: String,
    /// docker's `--log-opt`, for containers with this driver.
    pub options: BTreeMap<String, String>,
    /// Of json-file, where `options` has no `max-size`.
    /// Bytes of one file; 0: never rotated (docker's default).
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

impl Default for LogDefaults {
    fn default() -> Self {
        Self { driver: String::new(), options: BTreeMap::new(), max_size: 0, max_files: 1 }
    }
}

impl Config {
    /// Refuses log defaults that no container could be made with.
    pub fn check(&self) -> Result<(), RuntimeError> {
        let mut log = LogConfig::default();
        options::settle(&mut log, &self.log);
        options::plan(&log, &options::About::default(), Path::new("/"))
            .map(drop)
            .map_err(|e| RuntimeError::Invalid(format!("[log] in runtimed.toml: {e}")))
    }

    /// The name that a container's `runtime` means, and the command behind it; the binary exists and is executable.
    pub fn runtime(&self, asked: &str) -> Result<(String, RuntimeCommand), RuntimeError> {
        let name = match (asked, self.default_runtime.as_str()) {
            ("", "") => BUILT_IN_RUNTIME,
            ("", default) => default,
            (asked, _) => asked,
        };
        let command = if let Some(entry) = self.runtimes.get(name) {
            RuntimeCommand { path: entry.path.clone(), args: entry.args.clone(), timeout_s: entry.timeout_s }
        } else if name.starts_with('/') {
            RuntimeCommand { path: name.into(), ..RuntimeCommand::default() }
        } else if WELL_KNOWN.contains(&name) {
            let path = Layout::binary(name).ok_or_else(|| RuntimeError::NoRuntime {
                name: name.to_owned(),
                why: "no such program beside davit-runtimed nor in PATH".to_owned(),
                nearest: None,
            })?;
            RuntimeCommand { path, ..RuntimeCommand::default() }
        } else {
            let known = self.runtimes.keys().map(String::as_str).chain(WELL_KNOWN.iter().copied());
            return Err(RuntimeError::NoRuntime {
                name: name.to_owned(),
                why: "runtimed.toml names none like it".to_owned(),
                nearest: nearest(name, known).into_iter().next(),
            });
        };
        check_executable(name, &command.path)?;
        Ok((name.to_owned(), command))
    }

    /// The program that serves roots of the storage driver `fuse`.
    pub fn cowfs(&self) -> Result<PathBuf, RuntimeError> {
        let found = self.fuse.program.clone().or_else(|| Layout::binary(PROGRAM));
        let path = found.ok_or_else(|| RuntimeError::NoRuntime {
            name: PROGRAM.to_owned(),
            why: "no such program beside davit-runtimed nor in PATH".to_owned(),
            nearest: None,
        })?;
        check_executable(PROGRAM, &path)?;
        Ok(path)
    }
}

fn check_executable(name: &str, path: &Path) -> Result<(), RuntimeError> {
    let why = match std::fs::metadata(path) {
        Ok(m) if m.is_file() && m.permissions().mode() & 0o111 != 0 => return Ok(()),
        Ok(_) => "it is no executable file".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(RuntimeError::NoRuntime {
        name: name.to_owned(),
        why: format!("{}: {why}", path.display()),
        nearest: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_found_by_name_path_and_default() {
        let config: Config =
            toml::from_str("default_runtime = \"a\"\n[runtimes.a]\npath = \"/bin/sh\"\nargs = [\"-x\"]")
                .unwrap();
        let (name, command) = config.runtime("").unwrap();
        assert_eq!((name.as_str(), command.args.len()), ("a", 1));
        assert_eq!(config.runtime("/bin/sh").unwrap().1.path, Path::new("/bin/sh"));
    }

    #[test]
    fn ranges_come_from_the_file_or_from_subuid() {
        let config: Config = toml::from_str("[userns]\nstart = 5\ncount = 7").unwrap();
        assert_eq!(config.userns.pool().unwrap(), Range { start: 5, count: 7 });
        assert!(Userns { start: Some(1), count: None }.pool().is_err());
        assert!(Userns { start: Some(9), count: Some(u32::MAX) }.pool().is_err());
        assert_eq!(subid("a:1:2\ndavit:300:40\n"), Some(Range { start: 300, count: 40 }));
        assert!(subid("davit:1:0").is_none() && subid("davit:x").is_none() && subid("").is_none());
    }

    #[test]
    fn a_missing_binary_and_an_unknown_name_are_told_apart() {
        let config: Config = toml::from_str("[runtimes.crum]\npath = \"/nonexistent/crum\"").unwrap();
        let e = config.runtime("crum").unwrap_err().to_string();
        assert!(e.contains("/nonexistent/crum"), "{e}");
        let e = config.runtime("crux").unwrap_err();
        assert!(matches!(e, RuntimeError::NoRuntime { nearest: Some(_), .. }));
        assert!(toml::from_str::<Config>("runtime = 1").is_err());
        let log: Config = toml::from_str("[log]\ndriver = \"local\"\noptions = { labels = \"a\" }").unwrap();
        assert!(
            log.check().unwrap_err().to_string().contains("[log] in runtimed.toml: unknown log opt 'labels'")
        );
    }
}
