//! Tests in a user namespace, as a container engine without root runs: its root is the owner of the layers, but may write no `trusted.`
//! attributes and make no device nodes.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

const INSIDE: &str = "DAVIT_TRIAL_USERNS";

/// Runs the test `name` (as the test runner names it) again in user and mount namespaces of its own, and there `work`.
///
/// Ids 1 to 65535 are others outside. The root stays root's own, as programs and /dev/fuse may be root's alone.
pub fn run(name: &str, work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    let holder = Holder::new();
    let pid = holder.0.id().to_string();
    let ids = ["--setuid", "0", "--setgid", "0"];
    let status = Command::new("nsenter")
        .args(["--target", &pid, "--user", "--mount"])
        .args(ids)
        .arg("--wd=.")
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in the user namespace: {status}");
}

/// Keeps the namespaces; they end with it.
struct Holder(Child);

impl Holder {
    fn new() -> Self {
        let ours = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let child = Command::new("unshare")
            .args(["--user", "--mount", "--propagation", "unchanged", "sleep", "infinity"])
            .spawn()
            .unwrap();
        let holder = Self(child);
        let proc = format!("/proc/{}", holder.0.id());
        let start = Instant::now();
        // The mount namespace comes with or after the user namespace.
        while std::fs::read_link(format!("{proc}/ns/mnt")).is_ok_and(|ns| ns == ours) {
            assert!(start.elapsed() < Duration::from_secs(10), "the kernel refuses user namespaces");
            std::thread::sleep(Duration::from_millis(1));
        }
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("{proc}/{map}"), "0 0 1\n1 100001 65535\n").unwrap();
        }
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
