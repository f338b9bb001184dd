//! Where davit's directories, sockets and programs are: the one place that daemons, supervisor and clients ask.
//!
//! Pure path logic over the environment; nothing is created here. A base directory comes from an explicit override, else
//! from its `DAVIT_*_DIR` variable, else from the default of root or of a plain user (XDG base directories).

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why the directories could not be determined.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// No home directory to put a user's state in.
    #[error("HOME is not set: set it, or name a directory with DAVIT_STATE_DIR")]
    NoHome,
    /// No per-user run-time directory.
    #[error(
        "XDG_RUNTIME_DIR is not set and /run/user/{0} does not exist: log in with a session, or name a directory with DAVIT_RUN_DIR"
    )]
    NoRuntimeDir(u32),
    /// Relative directories would mean another place for every working directory.
    #[error("{variable} must be an absolute path, not {path}")]
    Relative {
        /// Which variable or option.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The effective user id is not to be had.
    #[error("cannot read /proc/self/status")]
    Proc(#[source] std::io::Error),
}

/// Base directories that a command line gives in place of the environment's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--state-dir`
    pub state: Option<PathBuf>,
    /// `--run-dir`
    pub run: Option<PathBuf>,
    /// `--config-dir`
    pub config: Option<PathBuf>,
}

/// The three base directories of one davit instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Durable state; each daemon owns one directory in it.
    pub state: PathBuf,
    /// Sockets and what a reboot ends.
    pub run: PathBuf,
    /// One TOML file a daemon.
    pub config: PathBuf,
    /// The instance belongs to a plain user.
    pub rootless: bool,
}

impl Layout {
    /// The instance that the environment means.
    pub fn from_env() -> Result<Self, PathError> {
        Self::with_overrides(Overrides::default())
    }

    /// The same, with directories from a command line going first.
    pub fn with_overrides(overrides: Overrides) -> Result<Self, PathError> {
        let uid = effective_uid()?;
        Self::resolve(overrides, uid, env::var_os::<&str>, Path::is_dir)
    }

    /// The pure half: `var` reads the environment, `is_dir` asks the file system.
    fn resolve(
        overrides: Overrides,
        uid: u32,
        var: impl Fn(&'static str) -> Option<OsString>,
        is_dir: impl Fn(&Path) -> bool,
    ) -> Result<Self, PathError> {
        // Inside the user namespace of a rootless instance we are uid 0, so the supervisor says it in the environment.
        let rootless = uid != 0 || var("DAVIT_ROOTLESS").is_some_and(|v| v == "1");
        let dir = |key| var(key).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = |below: &str| dir("HOME").map(|h| h.join(below)).ok_or(PathError::NoHome);
        let state = match overrides.state.or_else(|| dir("DAVIT_STATE_DIR")) {
            Some(path) => path,
            None if !rootless => "/var/lib/davit".into(),
            None => match dir("XDG_DATA_HOME") {
                Some(base) => base.join("davit"),
                None => home(".local/share/davit")?,
            },
        };
        let run = match overrides.run.or_else(|| dir("DAVIT_RUN_DIR")) {
            Some(path) => path,
            None if !rootless => "/run/davit".into(),
            None => {
                let fallback = PathBuf::from(format!("/run/user/{uid}"));
                let base = dir("XDG_RUNTIME_DIR").or_else(|| is_dir(&fallback).then_some(fallback));
                base.ok_or(PathError::NoRuntimeDir(uid))?.join("davit")
            }
        };
        let config = match overrides.config.or_else(|| dir("DAVIT_CONFIG_DIR")) {
            Some(path) => path,
            None if !rootless => "/etc/davit".into(),
            None => match dir("XDG_CONFIG_HOME") {
                Some(base) => base.join("davit"),
                None => home(".config/davit")?,
            },
        };
        for (variable, path) in
            [("DAVIT_STATE_DIR", &state), ("DAVIT_RUN_DIR", &run), ("DAVIT_CONFIG_DIR", &config)]
        {
            if !path.is_absolute() {
                return Err(PathError::Relative { variable, path: path.clone() });
            }
        }
        Ok(Self { state, run, config, rootless })
    }

    /// storaged's durable state.
    pub fn storage_state(&self) -> PathBuf {
        self.state.join("storage")
    }

    /// netd's durable state.
    pub fn network_state(&self) -> PathBuf {
        self.state.join("network")
    }

    /// runtimed's durable state.
    pub fn runtime_state(&self) -> PathBuf {
        self.state.join("runtime")
    }

    /// What storaged keeps until a reboot.
    pub fn storage_run(&self) -> PathBuf {
        self.run.join("storage")
    }

    /// What netd keeps until a reboot.
    pub fn network_run(&self) -> PathBuf {
        self.run.join("network")
    }

    /// What runtimed keeps until a reboot: one directory a container.
    pub fn runtime_run(&self) -> PathBuf {
        self.run.join("runtime")
    }

    /// The gRPC socket of `storaged`, `netd` or `runtimed`.
    pub fn socket(&self, daemon: &str) -> PathBuf {
        self.run.join(format!("{daemon}.sock"))
    }

    /// The supervisor's control socket.
    pub fn supervisor_socket(&self) -> PathBuf {
        self.run.join("supervisor.sock")
    }

    /// Held by flock as long as a supervisor lives.
    pub fn supervisor_lock(&self) -> PathBuf {
        self.run.join("supervisor.lock")
    }

    /// The output of the supervisor and of the daemons that it starts.
    pub fn supervisor_log(&self) -> PathBuf {
        self.run.join("supervisor.log")
    }

    /// The configuration of `storaged`, `netd` or `runtimed`; it need not exist.
    pub fn config_file(&self, daemon: &str) -> PathBuf {
        self.config.join(format!("{daemon}.toml"))
    }

    /// One of davit's own programs: in DAVIT_BIN_DIR, beside the running one, in `../libexec/davit` of it, or in PATH.
    pub fn binary(name: &str) -> Option<PathBuf> {
        let exe = env::current_exe().ok();
        candidates(name, exe.as_deref(), env::var_os::<&str>).into_iter().find(|path| is_executable(path))
    }
}

fn candidates(
    name: &str,
    exe: Option<&Path>,
    var: impl Fn(&'static str) -> Option<OsString>,
) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    dirs.extend(var("DAVIT_BIN_DIR").filter(|v| !v.is_empty()).map(PathBuf::from));
    if let Some(beside) = exe.and_then(Path::parent) {
        dirs.push(beside.to_owned());
        dirs.extend(beside.parent().map(|prefix| prefix.join("libexec/davit")));
    }
    if let Some(path) = var("PATH") {
        // An empty or relative entry means the working directory, which is no place to take a daemon from.
        dirs.extend(env::split_paths(&path).filter(|dir| dir.is_absolute()));
    }
    dirs.into_iter().map(|dir| dir.join(name)).collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn effective_uid() -> Result<u32, PathError> {
    let text = fs::read_to_string("/proc/self/status").map_err(PathError::Proc)?;
    parse_effective_uid(&text).ok_or_else(|| {
        PathError::Proc(std::io::Error::new(std::io::ErrorKind::InvalidData, "it has no Uid line"))
    })
}

/// proc(5): `Uid:` real, effective, saved, file system.
fn parse_effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&'static str) -> Option<OsString> {
        move |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| OsString::from(v))
    }

    fn resolve(uid: u32, pairs: &'static [(&'static str, &'static str)]) -> Result<Layout, PathError> {
        Layout::resolve(Overrides::default(), uid, vars(pairs), |_| false)
    }

    #[test]
    fn root_gets_the_system_directories() {
        let l = resolve(0, &[("HOME", "/root")]).unwrap();
        assert_eq!(
            (l.state.as_path(), l.run.as_path()),
            (Path::new("/var/lib/davit"), Path::new("/run/davit"))
        );
        assert_eq!(l.config_file("netd"), Path::new("/etc/davit/netd.toml"));
        assert_eq!(l.socket("storaged"), Path::new("/run/davit/storaged.sock"));
        assert!(!l.rootless);
    }

    #[test]
    fn a_user_gets_xdg_directories() {
        let l = resolve(1000, &[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/1000")]).unwrap();
        assert_eq!(l.state, Path::new("/home/u/.local/share/davit"));
        assert_eq!(l.run, Path::new("/run/user/1000/davit"));
        assert_eq!(l.config, Path::new("/home/u/.config/davit"));
        assert!(l.rootless);
        let l = resolve(
            1000,
            &[("XDG_DATA_HOME", "/d"), ("XDG_CONFIG_HOME", "/c"), ("XDG_RUNTIME_DIR", "/r"), ("HOME", "")],
        );
        assert_eq!(l.unwrap().state, Path::new("/d/davit"));
    }

    #[test]
    fn variables_go_before_defaults_and_overrides_before_variables() {
        let pairs = &[("DAVIT_STATE_DIR", "/s"), ("DAVIT_RUN_DIR", "/r"), ("DAVIT_CONFIG_DIR", "/c")];
        let l = resolve(1000, pairs).unwrap();
        assert_eq!((l.state, l.run, l.config), ("/s".into(), "/r".into(), "/c".into()));
        let overrides = Overrides { run: Some("/x".into()), ..Overrides::default() };
        let l = Layout::resolve(overrides, 0, vars(pairs), |_| false).unwrap();
        assert_eq!(l.runtime_run(), Path::new("/x/runtime"));
    }

    #[test]
    fn uid_zero_of_a_user_namespace_is_rootless() {
        let pairs = &[("DAVIT_ROOTLESS", "1"), ("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/r")];
        assert_eq!(resolve(0, pairs).unwrap().state, Path::new("/home/u/.local/share/davit"));
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        assert!(matches!(resolve(1000, &[("HOME", "/home/u")]), Err(PathError::NoRuntimeDir(1000))));
        assert!(matches!(resolve(1000, &[("XDG_RUNTIME_DIR", "/r")]), Err(PathError::NoHome)));
        assert!(matches!(resolve(0, &[("DAVIT_RUN_DIR", "here")]), Err(PathError::Relative { .. })));
        let l = Layout::resolve(Overrides::default(), 1000, vars(&[("HOME", "/h")]), |_| true).unwrap();
        assert_eq!(l.run, Path::new("/run/user/1000/davit"));
    }

    #[test]
    fn programs_are_looked_for_beside_the_running_one_first() {
        let got = candidates(
            "davit-netd",
            Some(Path::new("/opt/bin/davit")),
            vars(&[("PATH", "rel:/usr/bin::/bin")]),
        );
        let expected = [
            "/opt/bin/davit-netd",
            "/opt/libexec/davit/davit-netd",
            "/usr/bin/davit-netd",
            "/bin/davit-netd",
        ];
        assert_eq!(got, expected.map(PathBuf::from));
    }

    #[test]
    fn the_effective_uid_is_the_second_number() {
        assert_eq!(parse_effective_uid("Name:\tx\nUid:\t5\t7\t5\t5\nGid:\t1\t1\t1\t1\n"), Some(7));
        assert_eq!(parse_effective_uid("Name:\tx\n"), None);
        effective_uid().unwrap();
    }
}
