//! Containers whose root file systems are another program's snapshots: davit over Debian's containerd.

use davit_tests::host::Running;
use davit_tests::{Host, eventually, fixture};

/// A containerd on the private host, with only what a snapshotter needs.
fn containerd(host: &Host) -> Running {
    let dir = host.work("containerd");
    std::fs::create_dir_all(&dir).expect("the test's own directory");
    let at = dir.display();
    let without = ["grpc.v1.cri", "snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper"]
        .map(|name| format!("io.containerd.{name}"));
    let config = format!(
        "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = {without:?}\n\
         [grpc]\naddress = \"{at}/containerd.sock\"\n[ttrpc]\naddress = \"{at}/ttrpc.sock\"\n"
    );
    std::fs::write(dir.join("config.toml"), config).expect("the test's own directory");
    let file = dir.join("config.toml").display().to_string();
    let running = host.command("containerd").args(["--config", &file, "--log-level", "error"]).start();
    eventually("containerd listens", || {
        if dir.join("containerd.sock").exists() { Ok(()) } else { Err(running.so_far().to_string()) }
    });
    running
}

fn containers_run_over(snapshotter: &str) {
    let host = Host::new();
    let _containerd = containerd(&host);
    let socket = host.work("containerd").join("containerd.sock");
    let config = format!(
        "driver = \"proxy\"\n[proxy]\naddress = \"{}\"\nsnapshotter = \"{snapshotter}\"\n",
        socket.display()
    );
    std::fs::write(host.path().join("config/storaged.toml"), config).expect("the test's own directory");
    host.load_busybox();
    host.davit(["image", "load", "-i", &fixture::layered().archive()]).ok();
    let ctr = |args: &str| {
        host.sh(&format!("ctr -a {} -n davit snapshots --snapshotter {snapshotter} {args}", socket.display()))
            .ok()
            .text()
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };

    host.davit(["run", "--rm", "busybox:1", "echo", "hello"]).ok().prints("hello\n");
    let only_images = ctr("ls");
    assert!(
        !only_images.is_empty() && only_images.iter().all(|l| l.contains("Committed")),
        "{only_images:?}"
    );
    // An image of many layers: what it deletes is gone.
    let find = [
        "run",
        "--rm",
        "-u",
        "0",
        "--entrypoint",
        "/bin/sh",
        "layered:1",
        "-c",
        "find / -xdev | sort; cat /data/one",
    ];
    let proxied = host.davit(find).ok().text().to_owned();

    // What a container wrote outlives its stop, and the daemons' replacement.
    let web = host.run_detached("web", &["busybox:1", "sleep", "1000"]);
    web.sh("echo mine > /mine; rm /bin/false; mkdir /d && mv /d /e").ok();
    host.davit(["restart", "-t", "0", "web"]).ok();
    host.davit(["exec", "web", "sh", "-c", "cat /mine; test ! -e /bin/false; ls -d /e"])
        .ok()
        .prints("mine\n/e\n");
    assert_eq!(ctr("ls").iter().filter(|l| l.contains("Active")).count(), 1);
    host.davit(["rm", "-f", "web"]).ok();
    host.davit(["image", "rm", "busybox:1", "layered:1"]).ok();
    assert_eq!(ctr("ls"), Vec::<String>::new());

    // The same image over davit's own driver is the same tree.
    host.davit(["down"]).ok();
    std::fs::remove_file(host.path().join("config/storaged.toml")).expect("the test's own directory");
    host.davit(["image", "load", "-i", &fixture::layered().archive()]).ok();
    assert_eq!(host.davit(find).ok().text(), proxied);
}

#[test]
fn containers_run_over_the_native_snapshotter_of_containerd() {
    containers_run_over("native");
}

#[test]
fn containers_run_over_the_overlayfs_snapshotter_of_containerd() {
    containers_run_over("overlayfs");
}
