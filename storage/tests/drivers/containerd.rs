//! A containerd of the test's own: Debian's program with its own root, state, socket and mount namespace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use davit_contracts::containerd::client::Snapshotter;

use super::tree::cowfs;

/// What it is started without: nothing here needs it, and some of it warns or takes its time.
const WITHOUT: [&str; 8] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
    "io.containerd.internal.v1.opt",
];

pub struct Containerd {
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl Containerd {
    /// Starts one; `plugin` is the socket of a snapshotter that it is to know as "davit".
    pub async fn start(plugin: Option<&Path>) -> Self {
        let dir = tempfile::Builder::new().prefix("davit-ctrd").tempdir().unwrap();
        let at = dir.path().display();
        let mut config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = {WITHOUT:?}\n\
             [grpc]\naddress = \"{at}/containerd.sock\"\n[ttrpc]\naddress = \"{at}/ttrpc.sock\"\n"
        );
        if let Some(socket) = plugin {
            config += "[proxy_plugins.davit]\ntype = \"snapshot\"\n";
            config.extend(["address = \"", socket.to_str().unwrap(), "\"\n"]);
        }
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut me = Self { dir, process: None };
        me.restart().await;
        me
    }

    pub async fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        // Shims listen below /run/containerd, whatever the configuration says.
        let script = format!(
            "mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && exec containerd --config {}",
            self.dir.path().join("config.toml").display()
        );
        let process = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-ec", &script])
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let began = Instant::now();
        while self.snapshotter("native", "davit").stat("none").await.is_err() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(30), "containerd does not start: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    pub fn snapshotter(&self, name: &str, namespace: &str) -> Snapshotter {
        Snapshotter::lazy(&self.socket(), name, namespace).unwrap()
    }

    /// containerd's own command line, inside its mount namespace.
    pub fn ctr(&self, args: &[&str]) -> Output {
        let pid = self.process.as_ref().unwrap().id().to_string();
        Command::new("nsenter")
            .args(["-t", &pid, "-m", "ctr", "--address", self.socket().to_str().unwrap(), "-n", "tests"])
            .args(args)
            // It unpacks images itself, and mounts for that.
            .env("PATH", path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// Mounts of type fuse3.davit-cowfs run that program.
fn path() -> String {
    format!("{}:{}", cowfs().parent().unwrap().display(), std::env::var("PATH").unwrap())
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- containerd, last line first ---\n{}", tail.join("\n"));
        }
        self.kill();
    }
}
