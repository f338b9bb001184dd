//! davit as a snapshotter inside Debian's containerd, as its users would have it.

use std::process::Output;
use std::time::{Duration, Instant};

use super::containerd::Containerd;
use super::host::{Host, busybox_layout, sh};

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

fn ok(out: &Output) -> String {
    assert!(out.status.success(), "{}", text(out));
    text(out)
}

async fn containerd_of(driver: &str) -> (Host, Containerd) {
    let host = Host::with_config(&format!("driver = \"{driver}\"")).await;
    let containerd = Containerd::start(Some(&host.tmp.path().join("run/snapshots.sock"))).await;
    (host, containerd)
}

fn snapshots(containerd: &Containerd, command: &[&str]) -> Vec<String> {
    let mut args = vec!["snapshots", "--snapshotter", "davit"];
    args.extend(command);
    ok(&containerd.ctr(&args)).lines().skip(1).map(str::to_owned).collect()
}

async fn an_image_is_imported_run_and_removed(driver: &str) {
    let (host, containerd) = containerd_of(driver).await;
    let layout = busybox_layout(host.tmp.path());
    let tar = host.tmp.path().join("layout.tar");
    sh(&format!("tar -cf {} -C {} .", tar.display(), layout.display()));
    let tar = tar.to_str().unwrap();
    ok(&containerd.ctr(&["image", "import", "--snapshotter", "davit", "--base-name", "x/y", tar]));
    // Three layers, of which two images share the lowest.
    let all = snapshots(&containerd, &["ls"]);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all.iter().all(|l| l.contains("Committed")));

    // A cgroup of our own, at the top, which runc removes with the container.
    let cgroup = format!("/davit-storage-test-{}-{driver}", std::process::id());
    let script = "cat /dir/above; test ! -e /gone && test ! -e /dir/below && echo holes; echo mine > /dir/mine; ls /dir";
    let run = [
        "run",
        "--rm",
        "--snapshotter",
        "davit",
        "--cgroup",
        &cgroup,
        "x/y:two",
        "c1",
        "/bin/sh",
        "-c",
        script,
    ];
    assert_eq!(ok(&containerd.ctr(&run)), "above\nholes\nabove\nmine\n");
    // It is gone with its container, and the image is as it was.
    assert_eq!(snapshots(&containerd, &["ls"]), all);
    let script = "test ! -e /dir/mine && test -e /dir/above && echo clean";
    let run = [
        "run",
        "--rm",
        "--snapshotter",
        "davit",
        "--cgroup",
        &cgroup,
        "x/y:two",
        "c2",
        "/bin/sh",
        "-c",
        script,
    ];
    assert_eq!(ok(&containerd.ctr(&run)), "clean\n");
    let usage = snapshots(&containerd, &["usage"]);
    assert!(usage.len() == 3 && usage.iter().any(|l| l.contains("MiB")), "{usage:?}");

    ok(&containerd.ctr(&["snapshots", "--snapshotter", "davit", "prepare", "by-hand"]));
    assert_eq!(snapshots(&containerd, &["ls"]).len(), 4);
    ok(&containerd.ctr(&["snapshots", "--snapshotter", "davit", "rm", "by-hand"]));
    ok(&containerd.ctr(&["image", "rm", "--sync", "x/y:base", "x/y:two"]));
    let began = Instant::now();
    while host.names("containerd/s") != Vec::<String>::new() {
        assert!(began.elapsed() < Duration::from_secs(10), "left: {:?}", host.names("containerd/s"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(snapshots(&containerd, &["ls"]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_imports_runs_and_removes_over_overlay() {
    an_image_is_imported_run_and_removed("overlay").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_imports_runs_and_removes_over_fuse() {
    an_image_is_imported_run_and_removed("fuse").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_imports_runs_and_removes_over_copies() {
    an_image_is_imported_run_and_removed("copy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storaged_may_be_killed_and_replaced_under_containerd() {
    let (mut host, containerd) = containerd_of("overlay").await;
    let layout = busybox_layout(host.tmp.path());
    let tar = host.tmp.path().join("layout.tar");
    sh(&format!("tar -cf {} -C {} .", tar.display(), layout.display()));
    ok(&containerd.ctr(&[
        "image",
        "import",
        "--snapshotter",
        "davit",
        "--base-name",
        "x/y",
        tar.to_str().unwrap(),
    ]));
    let before = snapshots(&containerd, &["ls"]);
    host.kill();
    assert!(!containerd.ctr(&["snapshots", "--snapshotter", "davit", "usage"]).status.success());
    host.start().await;
    let cgroup = format!("/davit-storage-test-{}-again", std::process::id());
    let run = [
        "run",
        "--rm",
        "--snapshotter",
        "davit",
        "--cgroup",
        &cgroup,
        "x/y:two",
        "c",
        "/bin/cat",
        "/dir/above",
    ];
    // The client of a replaced server may need a moment to see that it is back.
    let began = Instant::now();
    loop {
        let out = containerd.ctr(&run);
        if out.status.success() {
            assert_eq!(text(&out), "above\n");
            assert_eq!(snapshots(&containerd, &["ls"]), before);
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{}", text(&out));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
