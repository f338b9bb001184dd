//! A private host: a machine of its own made of namespaces, with davit's binaries on its PATH.
//!
//! Network, mount, pid, uts, ipc and cgroup namespaces are the host's own; /run, the state directory and the cgroup tree
//! are empty at first. Its first process is [`init`], which runs whatever the test asks for. Dropping the host removes
//! its containers and networks, ends the daemons, and asserts that nothing is left; then the namespaces go. When the test
//! process dies instead, its end of init's stdin closes and the kernel ends every process of the host.
//!
//! With DAVIT_TEST_DRIVER set every test runs over that storage driver, unless it configures storaged itself; with DAVIT_TEST_RUNTIME (runc, crun,
//! a path) its containers are made by that OCI runtime, unless they name one.

mod cgroups;
pub mod init;
mod protocol;
mod running;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};
use rustix::fs::FlockOperation;

pub use running::{Running, Start};

use crate::command::Ran;
use crate::inventory::Inventory;
use crate::wait::eventually;
use cgroups::Cgroups;

/// The uid and gid of the plain user that every private host has: `sailor`.
pub const SAILOR: u32 = 4242;

/// Set by [`use_binaries`].
static BINARIES: OnceLock<PathBuf> = OnceLock::new();

/// From now on takes davit's binaries from this directory.
pub fn use_binaries(dir: &Path) {
    BINARIES.set(dir.to_owned()).expect("called once, before any host is made");
}

/// Where davit's binaries are: what [`use_binaries`] said, `DAVIT_BIN_DIR`, else the cargo profile directory that the caller
/// runs from.
///
/// Panics when they have not been built, naming the command.
pub fn binaries() -> PathBuf {
    let chosen = BINARIES.get().map(|dir| dir.clone().into_os_string());
    let dir = chosen.or_else(|| std::env::var_os("DAVIT_BIN_DIR")).map_or_else(
        || {
            let exe = std::env::current_exe().expect("/proc is mounted");
            let dir = exe.parent().expect("an executable has a directory");
            if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
        },
        PathBuf::from,
    );
    let init = dir.join("davit-test-init");
    assert!(init.exists(), "no {}: run `cargo build --workspace` first", init.display());
    dir
}

/// What a host is to be made like.
#[derive(Debug, Default)]
pub struct Builder {
    on_disk: bool,
    disk_size: Option<String>,
    keep_quiet: bool,
    etc: Vec<(String, String)>,
    runtime: Option<String>,
}

impl Builder {
    /// The state directory is on the machine's own file system and not on a tmpfs.
    #[must_use]
    pub fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// The state directory's file system has only this size ("32m").
    #[must_use]
    pub fn disk_of(mut self, size: &str) -> Self {
        self.disk_size = Some(size.to_owned());
        self
    }

    /// A file of /etc with other content, such as `resolv.conf`.
    #[must_use]
    pub fn etc(mut self, name: &str, content: &str) -> Self {
        self.etc.push((name.to_owned(), content.to_owned()));
        self
    }

    /// The default OCI runtime. crun refuses hybrid cgroups unless the unified hierarchy is out of its sight: it then is on this host.
    #[must_use]
    pub fn runtime(mut self, name: &str) -> Self {
        self.runtime = Some(name.to_owned());
        self
    }

    /// The caller looks for leftovers itself: dropping the host removes it and asserts nothing.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.keep_quiet = true;
        self
    }

    /// Makes the host.
    pub fn create(self) -> anyhow::Result<Host> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a private host needs root (namespaces, cgroups, mounts): run `cargo xtask test` as root"
        );
        let dir =
            tempfile::Builder::new().prefix("dv").tempdir_in("/tmp").context("cannot make a directory")?;
        let root = dir.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        for name in ["state", "config", "etc", "bin", "home", "work"] {
            fs::create_dir(root.join(name))?;
        }
        std::os::unix::fs::chown(root.join("home"), Some(SAILOR), Some(SAILOR))?;
        fs::set_permissions(root.join("work"), fs::Permissions::from_mode(0o777))?;
        if !self.on_disk {
            let size = self.disk_size.as_deref().unwrap_or("4g");
            fs::write(root.join("state-on-tmpfs"), format!("mode=755,size={size}"))?;
        }
        self.write_etc(root)?;
        if let Ok(driver) = std::env::var("DAVIT_TEST_DRIVER") {
            fs::write(root.join("config/storaged.toml"), format!("driver = \"{driver}\"\n"))?;
        }
        let runtime = self.runtime.clone().or_else(|| std::env::var("DAVIT_TEST_RUNTIME").ok());
        if let Some(runtime) = &runtime {
            fs::write(root.join("config/runtimed.toml"), format!("default_runtime = \"{runtime}\"\n"))?;
        }
        let name = dir.path().file_name().expect("made above").to_string_lossy().into_owned();
        let cgroups = Cgroups::create(&name).context("cannot make cgroups")?;
        let (init, alive) = spawn_init(root, &cgroups).inspect_err(|_| cgroups.remove())?;
        let mut host = Host { dir, init, alive: Some(alive), cgroups, before: None, check: !self.keep_quiet };
        if runtime.is_some_and(|r| r.ends_with("crun")) {
            // Something of this host's covers it: crun makes directories there all the same.
            host.sh("! mountpoint -q /sys/fs/cgroup/unified || mount -t tmpfs hidden /sys/fs/cgroup/unified")
                .ok();
        }
        host.before = Some(host.inventory());
        Ok(host)
    }

    fn write_etc(&self, root: &Path) -> anyhow::Result<()> {
        let etc = root.join("etc");
        let machine = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        let home = root.join("home");
        let passwd = format!("{}sailor:x:{SAILOR}:{SAILOR}::{}:/bin/sh\n", machine("passwd"), home.display());
        fs::write(etc.join("passwd"), passwd)?;
        fs::write(etc.join("group"), format!("{}sailor:x:{SAILOR}:\n", machine("group")))?;
        fs::write(etc.join("hosts"), "127.0.0.1 localhost registry.test\n::1 localhost\n")?;
        fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        for name in ["subuid", "subgid"] {
            fs::write(etc.join(name), "sailor:200000:65536\n")?;
        }
        for (name, content) in &self.etc {
            fs::write(etc.join(name), content)?;
        }
        Ok(())
    }
}

/// Starts unshare(1) with init inside; answers it and the pipe whose end is the host's end.
fn spawn_init(root: &Path, cgroups: &Cgroups) -> anyhow::Result<(Child, std::process::ChildStdin)> {
    let enter =
        "n=$1; shift; while [ $n -gt 0 ]; do echo 0 > \"$1\" || exit 1; shift; n=$((n-1)); done; exec \"$@\"";
    let procs: Vec<PathBuf> = cgroups.procs().collect();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", enter, "sh", &procs.len().to_string()]).args(procs);
    command.args([
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--uts",
        "--ipc",
        "--cgroup",
        "--fork",
        "--kill-child",
    ]);
    command.args(["--mount-proc", "--propagation", "private", "--"]);
    command.arg(binaries().join("davit-test-init")).arg("host").arg(root);
    command.env("DAVIT_BIN_DIR", binaries()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut init = command.spawn().context("cannot start unshare (package util-linux)")?;
    let alive = init.stdin.take().expect("piped above");
    let mut line = String::new();
    BufReader::new(init.stdout.take().expect("piped above")).read_line(&mut line)?;
    if line.trim() != "ready" {
        let status = init.wait()?;
        anyhow::bail!("the private host's first process ended ({status}); its error is above");
    }
    Ok((init, alive))
}

/// A private host; see the module's documentation.
#[derive(Debug)]
pub struct Host {
    dir: tempfile::TempDir,
    init: Child,
    alive: Option<std::process::ChildStdin>,
    cgroups: Cgroups,
    before: Option<Inventory>,
    check: bool,
}

impl Host {
    /// A host with its state on a tmpfs.
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "making a machine is no default value")]
    pub fn new() -> Self {
        Builder::default().create().unwrap_or_else(|e| panic!("cannot make a private host: {e:#}"))
    }

    /// A host whose davit has loaded `busybox:1`.
    #[track_caller]
    pub fn with_busybox() -> Self {
        let host = Self::new();
        host.load_busybox();
        host
    }

    /// Loads `busybox:1`.
    #[track_caller]
    pub fn load_busybox(&self) {
        self.davit(["image", "load", "-i", &crate::fixture::busybox().archive()]).ok();
    }

    /// To make one that differs.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The host's directory, which has the same path inside and outside; `work` in it is for the test.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the directory that tests may write to.
    pub fn work(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    /// Runs `davit` with these arguments, as root, to its end.
    #[track_caller]
    pub fn davit<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.start_davit(args).wait()
    }

    /// Starts `davit` with these arguments.
    #[track_caller]
    pub fn start_davit<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        self.command("davit").args(args).start()
    }

    /// Runs a shell script as root.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        self.command("/bin/sh").args(["-c", script]).start().wait()
    }

    /// A command to set up and start.
    pub fn command(&self, program: &str) -> Start<'_> {
        Start::new(self, program)
    }

    /// What the host has now.
    #[track_caller]
    pub fn inventory(&self) -> Inventory {
        let ran = self.command("davit-test-init").args(["inventory"]).start().wait().ok();
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"))
    }

    /// A file that belongs to init's network namespace, for threads that enter it.
    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.init_pid()))
    }

    /// Init's pid on the machine: unshare's only child.
    fn init_pid(&self) -> i32 {
        let unshare = self.init.id();
        let children =
            fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap_or_default();
        children.trim().parse().expect("unshare has one child while the host lives")
    }

    /// Runs `work` on a thread inside the host's network, so that sockets made there belong to the host.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = fs::File::open(self.netns()).expect("the host lives");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("tests run as root");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Asserts that `attempt` changes nothing that lasts: no process, mount, link, rule, cgroup, container, network,
    /// image, nor file of the state directory. Waits for what davit still clears away after it has answered.
    #[track_caller]
    pub fn leaves_nothing<T>(&self, attempt: impl FnOnce() -> T) -> T {
        self.davit(["up"]).ok();
        let before = self.traces();
        let result = attempt();
        eventually("everything of a failed command is cleared away", || {
            let now = self.traces();
            let left: Vec<_> = now.iter().filter(|t| !before.contains(t)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}")) }
        });
        result
    }

    /// Everything that a failed command might leave.
    fn traces(&self) -> Vec<String> {
        let inventory = self.inventory();
        let mut traces = inventory.matching("");
        // The kernel's own for each link that is up, a moment after it is; a link that is left shows itself.
        traces.retain(|line| !line.starts_with("route fe80"));
        for list in [&["ps", "-aq"][..], &["net", "ls", "-q"], &["image", "ls", "-q"]] {
            let ran = self.davit(list).ok();
            traces.extend(ran.stdout.lines().map(|line| format!("{} {line}", list[0])));
        }
        let files = self
            .sh("cd \"$DAVIT_STATE_DIR\" && find . -mindepth 1; cd \"$DAVIT_RUN_DIR\" && find . -mindepth 1");
        // That forwarding is netd's is remembered for as long as the host forwards.
        let files = files.ok();
        // What happened is journaled in files of its own.
        let stays = |line: &&str| line.ends_with("/forwarding.json") || line.contains("/runtime/events/");
        let lines = files.stdout.lines().filter(|line| !stays(line));
        traces.extend(lines.map(|line| format!("file {line}")));
        traces
    }

    /// Removes what tests made, ends the daemons, and asserts that nothing is left.
    #[track_caller]
    fn assert_clean_end(&self) {
        let before = self.before.as_ref().expect("taken when the host was made");
        if !self.inventory().matching("davit-").is_empty() {
            let ids = self.davit(["ps", "-aq"]).ok().stdout;
            if !ids.trim().is_empty() {
                self.davit(["rm", "-f"].into_iter().chain(ids.split_whitespace())).ok();
            }
            let networks = self.davit(["net", "ls", "--format", "json"]).ok();
            for network in
                names(&networks).iter().filter(|n| !["bridge", "host", "none"].contains(&n.as_str()))
            {
                self.davit(["net", "rm", network]).ok();
            }
            self.davit(["down"]).ok();
        }
        eventually("the host is as it was before davit ran", || {
            let left = self.inventory().beyond(before);
            if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}")) }
        });
    }
}

/// The names in a JSON list, whether it is one array or one object a line.
#[track_caller]
pub fn names(ran: &Ran) -> Vec<String> {
    objects(ran).iter().filter_map(|o| o["name"].as_str().or(o["Name"].as_str())).map(str::to_owned).collect()
}

/// The objects of a JSON list, whether it is one array or one object a line.
#[track_caller]
pub fn objects(ran: &Ran) -> Vec<serde_json::Value> {
    if let Ok(serde_json::Value::Array(list)) = serde_json::from_str(&ran.stdout) {
        return list;
    }
    let parse = |l| serde_json::from_str(l).unwrap_or_else(|e| panic!("no JSON ({e}) from {ran}"));
    ran.stdout.lines().filter(|l| !l.trim().is_empty()).map(parse).collect()
}

impl Drop for Host {
    fn drop(&mut self) {
        let verdict = if self.check && !std::thread::panicking() {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.assert_clean_end()))
        } else {
            Ok(())
        };
        if std::thread::panicking() || verdict.is_err() {
            let log =
                Start::new(self, "/bin/sh").args(["-c", "tail -n 60 /run/davit/supervisor.log 2>/dev/null"]);
            if let Ok(ran) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| log.start().wait())) {
                eprintln!("--- the daemons' log\n{}\n---", ran.stdout);
            }
        }
        drop(self.alive.take());
        let _ = self.init.wait();
        self.cgroups.remove();
        if let Err(panic) = verdict {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Holds an exclusive lock on a file as long as the value lives.
pub(crate) fn lock(path: &Path) -> anyhow::Result<fs::File> {
    let file = fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}
