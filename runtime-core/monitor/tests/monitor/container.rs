//! A container below one monitor, in a directory of its own, removed at the end whatever happens.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use davit_wire::config::{CreateSpec, FileLog, LogSink, Mount, RuntimeCommand};
use davit_wire::{Attach, ExecSpec, Failure, MonitorConfig, Reply, Request, Role};
use serde_json::json;

use crate::client::Client;

const APPLETS: [&str; 22] = [
    "sh", "true", "false", "echo", "cat", "sleep", "stty", "kill", "dd", "head", "yes", "wc", "ls", "seq",
    "env", "mkfifo", "printf", "tail", "ip", "id", "ps", "touch",
];

pub struct Container {
    pub dir: PathBuf,
    pub id: String,
    pub control: Client,
    monitor: Child,
}

pub struct Wanted {
    pub args: Vec<String>,
    pub config: MonitorConfig,
    /// Before the monitor, in its namespaces.
    pub prepare: &'static str,
    /// Bytes; 0: no limit.
    pub memory: u64,
}

/// The OCI runtime under test.
pub fn runtime() -> PathBuf {
    std::env::var_os("DAVIT_TEST_RUNTIME").map_or_else(|| "/usr/sbin/runc".into(), PathBuf::from)
}

pub fn wanted(args: &[&str]) -> Wanted {
    let runtime = RuntimeCommand { path: runtime(), ..RuntimeCommand::default() };
    Wanted {
        args: args.iter().map(ToString::to_string).collect(),
        config: MonitorConfig { new_netns: true, runtime, ..MonitorConfig::default() },
        prepare: "",
        memory: 0,
    }
}

impl Wanted {
    pub fn tty(mut self) -> Self {
        self.config.tty = true;
        self.stdin()
    }

    pub fn stdin(mut self) -> Self {
        self.config.open_stdin = true;
        self.config.stdin_once = true;
        self
    }

    pub fn log(mut self, max_size: u64, max_files: u32) -> Self {
        self.config.log = LogSink::JsonFile(FileLog { max_size, max_files, ..FileLog::default() });
        self
    }

    pub fn prepared(mut self, script: &'static str, runtime: &str) -> Self {
        self.prepare = script;
        self.config.runtime.path = runtime.into();
        self
    }

    /// A monitor that waits for Create.
    pub fn monitor(mut self) -> Container {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("davit-monitor-test-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        for name in [
            "run/bundle/rootfs",
            "state",
            "lower/bin",
            "lower/proc",
            "lower/dev",
            "lower/sys",
            "upper",
            "work",
        ] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::create_dir_all(dir.join("lower/etc")).unwrap();
        fs::write(dir.join("lower/etc/plain"), "text").unwrap();
        fs::copy("/bin/busybox", dir.join("lower/bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", dir.join("lower/bin").join(applet)).unwrap();
        }
        self.config.container_id.clone_from(&id);
        self.config.state_dir = dir.join("state");
        if let LogSink::JsonFile(log) | LogSink::Local(log) = &mut self.config.log {
            log.path = dir.join("state/container.log");
        }
        let run = dir.join("run");
        fs::write(run.join("monitor.json"), serde_json::to_vec(&self.config).unwrap()).unwrap();
        fs::write(run.join("bundle/config.json"), oci_config(&self)).unwrap();
        let script = format!("{} exec \"$0\" \"$1\"", self.prepare);
        let monitor = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", &script, env!("CARGO_BIN_EXE_davit-monitor")])
            .arg(&run)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("monitor.log")).unwrap())
            .spawn()
            .unwrap();
        let pid_file = run.join("monitor.pid");
        until("the monitor listens", || pid_file.exists());
        let control = Client::hello(&run.join("monitor.sock"), Role::Control);
        Container { dir, id, control, monitor }
    }

    pub fn create(self) -> Container {
        let mut container = self.monitor();
        container.create().unwrap();
        container
    }

    /// Created and started.
    pub fn run(self) -> Container {
        let mut container = self.create();
        container.start();
        container
    }
}

impl Container {
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/monitor.sock")
    }

    pub fn pid(&self) -> u32 {
        self.monitor.id()
    }

    pub fn create(&mut self) -> Result<i32, Failure> {
        let spec = CreateSpec { mounts: vec![self.root()], ..CreateSpec::default() };
        match self.control.request(Request::Create(Box::new(spec)))? {
            Reply::Created { pid, .. } => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    pub fn root(&self) -> Mount {
        let at = |name: &str| self.dir.join(name).display().to_string();
        Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            options: vec![
                format!("lowerdir+={}", at("lower")),
                format!("upperdir={}", at("upper")),
                format!("workdir={}", at("work")),
            ],
            target: String::new(),
            server: None,
        }
    }

    pub fn start(&mut self) -> i32 {
        match self.control.request(Request::Start { hold_for_attach: false }).unwrap() {
            Reply::Started { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    pub fn hold(&mut self) {
        let reply = self.control.request(Request::Start { hold_for_attach: true }).unwrap();
        assert_eq!(reply, Reply::Started { pid: 0 });
    }

    pub fn attach(&self, attach: Attach) -> Client {
        Client::hello(&self.socket(), Role::Attach(attach))
    }

    pub fn exec(
        &mut self,
        exec_id: &str,
        args: &[&str],
        change: impl FnOnce(&mut ExecSpec),
    ) -> Result<Reply, Failure> {
        let mut spec = ExecSpec { exec_id: exec_id.into(), ..ExecSpec::default() };
        change(&mut spec);
        spec.process = process(args, spec.tty).to_string();
        self.control.request(Request::Exec(Box::new(spec)))
    }

    /// The log's content by stream, from the oldest file on.
    pub fn log(&self) -> Vec<(String, String)> {
        let base = self.dir.join("state/container.log");
        let numbered = (1..100).rev().map(|n| base.with_extension(format!("log.{n}")));
        let mut lines = Vec::new();
        for path in numbered.chain([base.clone()]) {
            for line in fs::read_to_string(path).unwrap_or_default().lines() {
                let v: serde_json::Value = serde_json::from_str(line).unwrap();
                lines.push((v["stream"].as_str().unwrap().to_owned(), v["log"].as_str().unwrap().to_owned()));
            }
        }
        lines
    }

    /// kill -9.
    pub fn kill_monitor(&mut self) {
        self.monitor.kill().unwrap();
        self.monitor.wait().unwrap();
    }

    /// Shutdown, and then nothing of it is left.
    pub fn shut_down(mut self) {
        let init = self.control.state().pid;
        assert_eq!(self.control.request(Request::Shutdown), Ok(Reply::Done));
        assert!(!self.socket().exists());
        until("the monitor ends", || self.monitor.try_wait().unwrap().is_some());
        assert!(self.monitor.wait().unwrap().success());
        assert!(init == 0 || !Path::new(&format!("/proc/{init}")).exists(), "process {init} is left");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.id), "a mount is left");
        let left: Vec<_> =
            fs::read_dir(self.dir.join("run/runtime")).map(Iterator::collect).unwrap_or_default();
        assert!(left.is_empty(), "the runtime left {left:?}");
        let files = fs::read_dir(self.dir.join("run")).unwrap().map(|e| e.unwrap().file_name());
        let calls: Vec<_> = files.filter(|n| n.to_string_lossy().starts_with("call")).collect();
        assert!(calls.is_empty(), "{calls:?} are left");
    }

    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
        while let Some((dir, depth)) = open.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.to_string_lossy() == self.id {
                    found.push(entry.path());
                }
                if depth < 5 && entry.file_type().is_ok_and(|t| t.is_dir()) {
                    open.push((entry.path(), depth + 1));
                }
            }
        }
        found
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("monitor: {}", fs::read_to_string(self.dir.join("monitor.log")).unwrap_or_default());
        }
        if let Ok(None) = self.monitor.try_wait() {
            let _ = self.monitor.kill();
            let _ = self.monitor.wait();
        }
        let root = self.dir.join("run/runtime");
        if root.join(&self.id).exists() {
            let _ = Command::new(runtime())
                .arg("--root")
                .arg(&root)
                .args(["delete", "--force", &self.id])
                .output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What `seq LAST` writes.
pub fn numbers(last: u32) -> String {
    (1..=last).fold(String::new(), |text, n| text + &n.to_string() + "\n")
}

/// Waits for something that comes without a message of its own.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn process<S: AsRef<str>>(args: &[S], tty: bool) -> serde_json::Value {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let caps = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_NET_ADMIN"];
    json!({
        "terminal": tty, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
        "env": ["PATH=/bin", "TERM=xterm"],
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "oomScoreAdj": 0
    })
}

fn oci_config(wanted: &Wanted) -> String {
    let namespaces: Vec<_> = ["pid", "ipc", "uts", "mount"].iter().map(|t| json!({"type": t})).collect();
    let memory = if wanted.memory > 0 { json!({"limit": wanted.memory}) } else { json!({}) };
    json!({
        "ociVersion": "1.0.2",
        "process": process(&wanted.args, wanted.config.tty),
        "root": {"path": "rootfs"},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {"namespaces": namespaces, "resources": {"memory": memory}}
    })
    .to_string()
}
