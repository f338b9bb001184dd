//! A bundle in a temporary directory, and the runner's commands on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const RUNNER: &str = env!("CARGO_BIN_EXE_davit-runner");
const APPLETS: [&str; 22] = [
    "sh", "true", "cat", "id", "ls", "sleep", "hostname", "mount", "stat", "env", "pwd", "grep", "tty",
    "touch", "echo", "kill", "ps", "head", "test", "mknod", "stty", "chmod",
];

pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
    pub config: Value,
}

impl Bundle {
    /// A busybox root and the template config without a terminal, running `sh -c script`.
    pub fn new(script: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new("/tmp").join(format!("davit-runner-{id}"));
        fs::create_dir_all(dir.join("rootfs/bin")).unwrap();
        fs::create_dir_all(dir.join("rootfs/etc")).unwrap();
        fs::copy("/bin/busybox", dir.join("rootfs/bin/busybox")).expect("Debian's package busybox-static");
        for applet in APPLETS {
            symlink("busybox", dir.join("rootfs/bin").join(applet)).unwrap();
        }
        let spec = Command::new(RUNNER).args(["spec", "--bundle"]).arg(&dir).status().unwrap();
        assert!(spec.success());
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["root"]["readonly"] = json!(false);
        config["hostname"] = json!("boat");
        config["linux"]["cgroupsPath"] = json!(format!("/davit-runner-test/{id}"));
        Self { id, dir, config }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub fn mount(self, mount: Value) -> Self {
        self.with(|c| c["mounts"].as_array_mut().unwrap().push(mount))
    }

    pub fn write(&self) {
        fs::write(self.dir.join("config.json"), serde_json::to_vec(&self.config).unwrap()).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(RUNNER);
        command.arg("--root").arg(self.dir.join("state")).arg("--log").arg(self.dir.join("log"));
        command.args(["--log-format", "json"]).args(args).stdin(Stdio::null());
        command
    }

    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A command that must succeed; its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.output(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// A command that must fail; the message of the one JSON line on stderr, which is in the log file too.
    pub fn refused(&self, args: &[&str]) -> String {
        let _ = fs::remove_file(self.dir.join("log"));
        let out = self.output(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", text(&out.stdout));
        let line = text(&out.stderr);
        assert_eq!(fs::read_to_string(self.dir.join("log")).unwrap(), line);
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(value["level"], "error");
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
        value["msg"].as_str().unwrap().to_owned()
    }

    /// Runs it to its end: exit code, stdout, stderr.
    pub fn run(&self) -> (i32, String, String) {
        self.write();
        let bundle = self.dir.to_str().unwrap();
        let out = self.output(&["run", "--bundle", bundle, &self.id]);
        self.assert_nothing_left();
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    }

    /// Its stdout; it must end with 0.
    pub fn says(&self) -> String {
        let (code, out, err) = self.run();
        assert_eq!(code, 0, "{out}{err}");
        out
    }

    /// Creates it; stdout goes to the file `out`. The created program must not hold our pipes.
    pub fn create(&self) {
        self.write();
        let out = fs::File::create(self.dir.join("out")).unwrap();
        let err = fs::File::create(self.dir.join("err")).unwrap();
        let pid_file = self.dir.join("pid");
        let args = [
            "create",
            "--bundle",
            self.dir.to_str().unwrap(),
            "--pid-file",
            pid_file.to_str().unwrap(),
            &self.id,
        ];
        let status = self.command(&args).stdout(out).stderr(err).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(self.dir.join("err")).unwrap());
    }

    pub fn start(&self) {
        self.ok(&["start", &self.id]);
    }

    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.dir.join("pid")).unwrap().parse().unwrap()
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.dir.join("out")).unwrap()
    }

    /// Waits until what it printed contains `what`.
    pub fn await_out(&self, what: &str) {
        until(&format!("{what:?} is printed"), || self.out().contains(what));
    }

    pub fn await_status(&self, status: &str) {
        until(&format!("the container is {status}"), || self.state()["status"] == status);
    }

    pub fn delete(&self) {
        self.ok(&["delete", "--force", &self.id]);
        self.assert_nothing_left();
    }

    pub fn assert_nothing_left(&self) {
        assert!(!self.dir.join("state").join(&self.id).exists(), "the state directory is left");
        for entry in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let cgroup = entry.unwrap().path().join("davit-runner-test").join(&self.id);
            assert!(!cgroup.exists(), "{} is left", cgroup.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.to_str().unwrap()), "a mount is left");
    }

    pub fn cgroup_file(&self, controller: &str, file: &str) -> String {
        let path = format!("/sys/fs/cgroup/{controller}/davit-runner-test/{}/{file}", self.id);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.output(&["delete", "--force", &self.id]);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Polls for at most 20 s: a bound for hanging, not an expectation of time.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}
