//! Layers, mounted by the kernel's overlayfs or by davit-cowfs.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::host::{Host, binary};
use crate::op::Stat;

/// How long davit-cowfs may take to end after it was unmounted. It does at once; on a busy machine it is late, but it does not wait for a
/// time to pass.
const END: Duration = Duration::from_secs(5);

/// Who shows the layers as one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// overlayfs.
    Kernel,
    /// davit-cowfs.
    Cowfs,
}

/// The directories of one file system.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
    /// The writable one and its work directory.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Where it is mounted.
    pub at: PathBuf,
}

/// How layers are shown; the same words for both engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Whether directories of lower layers can be renamed (`redirect_dir`).
    pub redirect: bool,
    /// Whether overlay's attributes are in `user.`, as they are in a user namespace.
    pub userxattr: bool,
    /// Whether overlayfs keeps hard links over copy-up (`index`); davit-cowfs always does.
    pub index: bool,
    /// Whether the kernel may keep what is written to davit-cowfs for a while (`writeback`).
    pub writeback: bool,
}

impl Manner {
    /// As root, with everything that overlayfs can.
    pub const ROOT: Self = Self { redirect: true, userxattr: false, index: true, writeback: false };
    /// As root, as overlayfs is by default.
    pub const PLAIN: Self = Self { redirect: false, userxattr: false, index: false, writeback: false };
    /// In a user namespace, where overlayfs refuses the rest.
    pub const USER: Self = Self { redirect: false, userxattr: true, index: false, writeback: false };

    /// Whether a file's inode number stays. In a user namespace the attribute that says what was copied from where fits files and
    /// directories only.
    pub fn keeps_number(self, stat: &Stat) -> bool {
        !self.userxattr || stat.is_dir() || stat.is_file()
    }

    fn options(self, engine: Engine) -> String {
        let mut options = String::new();
        if self.userxattr {
            options += ",userxattr";
        } else {
            options += if self.redirect { ",redirect_dir=on" } else { ",redirect_dir=follow" };
        }
        if engine == Engine::Cowfs && self.writeback {
            options += ",writeback";
        }
        if engine == Engine::Kernel && !self.userxattr {
            options += if self.index { ",index=on" } else { ",index=off" };
            options += ",metacopy=off";
        }
        options
    }
}

impl Layers {
    /// Below `host`'s `name`: `upper`, `work` and `mnt`, over these lowers.
    pub fn new(host: &Host, name: &str, lowers: &[PathBuf]) -> Self {
        let upper = host.dir(&format!("{name}/upper"));
        let work = host.dir(&format!("{name}/work"));
        let at = host.dir(&format!("{name}/mnt"));
        Self { lowers: lowers.to_vec(), upper: Some((upper, work)), at }
    }

    /// The same without an upper layer.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.upper = None;
        self
    }

    /// The upper directory.
    pub fn upper(&self) -> &Path {
        &self.upper.as_ref().expect("it has one").0
    }

    /// The work directory.
    pub fn work(&self) -> &Path {
        &self.upper.as_ref().expect("it has one").1
    }

    fn options(&self) -> String {
        let lowers: Vec<&str> = self.lowers.iter().map(|l| l.to_str().unwrap()).collect();
        let upper = self.upper.as_ref().map_or_else(String::new, |(upper, work)| {
            format!(",upperdir={},workdir={}", upper.display(), work.display())
        });
        format!("lowerdir={}{upper}", lowers.join(":"))
    }

    /// Mounts them.
    #[track_caller]
    pub fn mount(&self, engine: Engine, manner: Manner) -> Mounted {
        let options = self.options() + &manner.options(engine);
        match engine {
            Engine::Kernel => kernel(&self.at, &options),
            Engine::Cowfs => cowfs(&self.at, &options, &[]),
        }
    }

    /// Mounts them by overlayfs with options of its own.
    #[track_caller]
    pub fn mount_kernel(&self, options: &str) -> Mounted {
        kernel(&self.at, &(self.options() + options))
    }

    /// Mounts them by davit-cowfs with further options and environment.
    #[track_caller]
    pub fn mount_cowfs(&self, manner: Manner, options: &str, env: &[(&str, &str)]) -> Mounted {
        let all = self.options() + &manner.options(Engine::Cowfs) + options;
        cowfs(&self.at, &all, env)
    }
}

#[track_caller]
fn kernel(at: &Path, options: &str) -> Mounted {
    let words: Vec<String> = options.split(',').map(str::to_owned).collect();
    let target = std::fs::File::open(at).unwrap();
    // In the test's namespaces it is gone with them, also after a panic.
    davit_sys::mount::mount_at("overlay", Path::new("overlay"), &words, target.as_fd())
        .unwrap_or_else(|e| panic!("overlay mount with {options}: {e}: {:?}", std::error::Error::source(&e)));
    Mounted { at: at.to_owned(), server: None }
}

#[track_caller]
fn cowfs(at: &Path, options: &str, env: &[(&str, &str)]) -> Mounted {
    let before = rustix::fs::stat(at).unwrap().st_dev;
    let program = std::env::var_os("DAVIT_TRIAL_COWFS").map_or_else(|| binary("davit-cowfs"), PathBuf::from);
    let mut command = Command::new(program);
    command.args(["-f", "-o", options]).arg(at).envs(env.iter().copied()).stdin(Stdio::null());
    let mut server = command.spawn().unwrap();
    let start = Instant::now();
    while rustix::fs::stat(at).map_or(before, |s| s.st_dev) == before {
        if let Some(status) = server.try_wait().unwrap() {
            panic!("davit-cowfs -o {options} ended with {status}");
        }
        assert!(start.elapsed() < Duration::from_secs(30), "davit-cowfs -o {options} does not mount");
        std::thread::sleep(Duration::from_micros(300));
    }
    Mounted { at: at.to_owned(), server: Some(server) }
}

/// A mounted file system. When it is dropped, it is taken out of the tree, and its server ended.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    server: Option<Child>,
}

impl Mounted {
    /// Where it is.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// What davit-cowfs has in memory, from a line of /proc/PID/status (`VmRSS`, `VmHWM`), in KiB.
    pub fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server())).unwrap();
        let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let number = found.and_then(|l| l.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {line} in {status}"))
    }

    /// The pid of davit-cowfs.
    pub fn server(&self) -> u32 {
        self.server.as_ref().expect("the kernel has no server").id()
    }

    /// Unmounts it and waits for its server to end well.
    #[track_caller]
    pub fn unmount(mut self) {
        let start = Instant::now();
        while let Err(e) = rustix::mount::unmount(&self.at, UnmountFlags::empty()) {
            // Where tests are threads of one process, another of them may have forked while a file here was open, and not exec'd yet.
            let passes = e == rustix::io::Errno::BUSY && start.elapsed() < END;
            assert!(passes, "unmounting {}: {e}", self.at.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(mut server) = self.server.take() {
            let start = Instant::now();
            let status = loop {
                if let Some(status) = server.try_wait().unwrap() {
                    break status;
                }
                if start.elapsed() > END {
                    let _ = server.kill();
                    panic!("davit-cowfs does not end after it was unmounted");
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            assert!(status.success(), "davit-cowfs ended with {status}");
        }
    }

    /// Kills its server (SIGKILL). The dead mount stays.
    pub fn kill_server(&mut self) {
        let server = self.server.as_mut().expect("the kernel cannot be killed");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Kills its server (SIGKILL) and takes the dead mount away.
    pub fn kill(mut self) {
        self.kill_server();
        self.server = None;
        rustix::mount::unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }

    /// Has the kernel forget every inode that is not in use: a remount drops the unused names of this file system alone.
    pub fn forget(&self) {
        rustix::mount::mount_remount(&self.at, MountFlags::empty(), c"").unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.server.is_some() || !std::thread::panicking() {
            let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
