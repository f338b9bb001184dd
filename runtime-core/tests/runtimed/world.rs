//! One test's machine: namespaces, directories, stand-ins, a runtimed to start and kill.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use davit_contracts::Error;
use davit_contracts::client::lazy;
use davit_contracts::runtime::containers_client::ContainersClient;
use davit_contracts::runtime::execs_client::ExecsClient;
use davit_contracts::runtime::{
    Container, ContainerSpec, InspectRequest, ListRequest, LogsRequest, RunRequest, RunResponse, WaitRequest,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use super::peers::{Peers, Served};

/// How long anything may take before a test says that it does not happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub peers: Peers,
    pub dir: tempfile::TempDir,
    daemon: Option<Child>,
    pub storage: Option<Served>,
    _network: Served,
    cgroup: String,
}

/// Runs a test in a world of its own.
pub fn world(test: impl AsyncFnOnce(&mut World) + Send + 'static) {
    build_siblings();
    // A thread of our own: its namespaces, which its children inherit, are not those of other tests.
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("root runs these tests");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.start().await;
            test(&mut world).await;
            world.end().await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The monitor and the runner are programs of other packages: cargo builds them once a test run.
fn build_siblings() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("DAVIT_BIN_DIR").is_some() {
            return;
        }
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "davit-monitor", "-p", "davit-runner"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success(), "the monitor and the runner do not build");
    });
}

impl World {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rt").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for sub in ["state", "run", "config", "roots"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let runtime = std::env::var("DAVIT_TEST_RUNTIME").unwrap_or_else(|_| "davit-runner".into());
        fs::write(dir.path().join("config/runtimed.toml"), format!("default_runtime = \"{runtime}\"\n"))
            .unwrap();
        let peers = Peers::new(&dir.path().join("roots"));
        let storage = peers.serve_storage(&dir.path().join("run/storaged.sock"));
        let network = peers.serve_network(&dir.path().join("run/netd.sock"));
        let cgroup = format!("davit-test-{}", dir.path().file_name().unwrap().to_string_lossy());
        Self { peers, dir, daemon: None, storage: Some(storage), _network: network, cgroup }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run/runtime")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state/runtime")
    }

    pub fn storage_socket(&self) -> PathBuf {
        self.dir.path().join("run/storaged.sock")
    }

    /// Starts runtimed and waits until it answers.
    pub async fn start(&mut self) {
        self.start_with(&[]).await;
    }

    /// Waits until it has died by itself.
    pub async fn died(&mut self, what: &str) {
        let mut child = self.daemon.take().expect("it was started");
        eventually(what, async || child.try_wait().unwrap().is_some()).await;
        let _ = fs::remove_file(self.dir.path().join("run/runtimed.sock"));
    }

    /// Whether it has died by itself.
    pub fn is_dead(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    /// The same with more in its environment.
    pub async fn start_with(&mut self, env: &[(&str, &str)]) {
        let base = self.dir.path();
        let log = fs::OpenOptions::new().create(true).append(true).open(base.join("runtimed.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_davit-runtimed"))
            .env("DAVIT_STATE_DIR", base.join("state"))
            .env("DAVIT_RUN_DIR", base.join("run"))
            .env("DAVIT_CONFIG_DIR", base.join("config"))
            .env("DAVIT_LOG", "debug,h2=info,hyper=info,tower=info")
            .envs(env.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
        eventually("runtimed answers", async || self.client().list(ListRequest::default()).await.is_ok())
            .await;
    }

    /// kill -9.
    pub fn kill_daemon(&mut self) {
        let mut child = self.daemon.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = fs::remove_file(self.dir.path().join("run/runtimed.sock"));
    }

    fn channel(&self) -> Channel {
        lazy(&self.dir.path().join("run/runtimed.sock"))
    }

    pub fn client(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel())
    }

    pub fn execs(&self) -> ExecsClient<Channel> {
        ExecsClient::new(self.channel())
    }

    /// A busybox container without a network that runs a shell command.
    pub fn sh(&self, name: &str, script: &str) -> ContainerSpec {
        self.spec(name, &["sh", "-c", script])
    }

    pub fn spec(&self, name: &str, command: &[&str]) -> ContainerSpec {
        ContainerSpec {
            name: name.into(),
            image: "busybox".into(),
            command: command.iter().map(ToString::to_string).collect(),
            cgroup_parent: self.cgroup.clone(),
            ..ContainerSpec::default()
        }
    }

    pub async fn run(&self, spec: ContainerSpec, hold: bool) -> Result<RunResponse, Error> {
        let request = RunRequest { spec: Some(spec), hold_for_attach: hold };
        self.client().run(request).await.map(tonic::Response::into_inner).map_err(Error::from)
    }

    pub async fn inspect(&self, name: &str) -> Result<Container, Error> {
        let answer = self.client().inspect(InspectRequest { container: name.into() }).await?;
        Ok(answer.into_inner().container.unwrap())
    }

    pub async fn status(&self, name: &str) -> String {
        match self.inspect(name).await {
            Ok(c) => c.state.unwrap().status,
            Err(e) => e.to_string(),
        }
    }

    pub async fn wait(&self, name: &str) -> i32 {
        let request = WaitRequest { container: name.into(), condition: 0, states: Vec::new() };
        tokio::time::timeout(PATIENCE, self.client().wait(request))
            .await
            .unwrap()
            .unwrap()
            .into_inner()
            .exit_code
    }

    pub async fn logs(&self, request: LogsRequest) -> String {
        let mut stream = self.client().logs(request).await.unwrap().into_inner();
        let mut text = String::new();
        let read = async {
            while let Some(entry) = stream.next().await {
                text.push_str(&String::from_utf8_lossy(&entry.unwrap().data));
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the log ends");
        text
    }

    pub async fn log_of(&self, name: &str) -> String {
        self.logs(LogsRequest { container: name.into(), ..LogsRequest::default() }).await
    }

    /// Nothing of any container is left but records that are listed.
    pub async fn assert_clean(&self) {
        let none = async || !entries(&self.run_dir()).iter().any(|e| e.is_dir());
        eventually("no run directory is left", none).await;
        eventually("no removal is pending", async || entries(&self.state_dir().join("trash")).is_empty())
            .await;
        let request = ListRequest { all: true, ..ListRequest::default() };
        let records = self.client().list(request).await.unwrap().into_inner().containers.len();
        eventually("no snapshot is left", async || self.peers.held().snapshots.len() == records).await;
        eventually("no directory is left", async || {
            entries(&self.state_dir().join("containers")).len() == records
        })
        .await;
        eventually("no sandbox is left", async || self.peers.held().sandboxes.is_empty()).await;
        assert!(self.processes().is_empty(), "no monitor is left: {:?}", self.processes());
        assert!(self.cgroups().is_empty(), "no cgroup is left: {:?}", self.cgroups());
    }

    /// Processes whose command line names our directory, but for runtimed.
    pub fn processes(&self) -> Vec<i32> {
        let needle = self.run_dir().display().to_string();
        let ours = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|c| String::from_utf8_lossy(&c).contains(&needle))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(ours)
            .collect()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let parents = entries(Path::new("/sys/fs/cgroup")).into_iter().map(|h| h.join(&self.cgroup));
        parents.flat_map(|p| entries(&p)).filter(|p| p.is_dir()).collect()
    }

    async fn end(&mut self) {
        let request = ListRequest { all: true, ..ListRequest::default() };
        for c in self.client().list(request).await.unwrap().into_inner().containers {
            let request =
                davit_contracts::runtime::RemoveRequest { container: c.id, force: true, volumes: true };
            self.client().remove(request).await.unwrap();
        }
        self.assert_clean().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for cgroup in self.cgroups() {
            for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
                let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(100));
            let _ = fs::remove_dir(cgroup);
        }
        for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
            let _ = fs::remove_dir(hierarchy.join(&self.cgroup));
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.path().join("runtimed.log")).unwrap_or_default());
        }
    }
}

pub fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

/// Waits until something holds; fails the test when it never does.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "never: {what}");
}
