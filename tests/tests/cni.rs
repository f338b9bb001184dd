//! davit-cni with a caller of Debian's: podman, whose networks are CNI's.

use std::fs;

use davit_tests::{Host, eventually, fixture};

/// The configuration that the README shows.
fn example() -> String {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.into_iter().find(|b| b.contains("\"davit-cni\"")).expect("the README shows one").to_owned()
}

/// What podman is started with. Its state is below /run and /var/lib, which are made the test's own.
fn set_up(host: &Host) -> String {
    let net = host.work("net.d");
    fs::create_dir(&net).expect("a directory of the host");
    fs::write(net.join("my-bridge.conflist"), example()).expect("a file of the host");
    let conf = host.work("containers.conf");
    let plugins = davit_tests::host::binaries();
    fs::write(
        &conf,
        format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
             [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{}\", \"/usr/lib/cni\"]\n\
             network_config_dir = \"{}\"\n",
            plugins.display(),
            net.display()
        ),
    )
    .expect("a file of the host");
    let state = host.path().join("state").display().to_string();
    host.sh("mount -t tmpfs tmpfs /var/lib").ok();
    let podman = format!(
        "CONTAINERS_CONF={} podman --root {state}/podman --runroot /run/containers/storage --storage-driver vfs",
        conf.display()
    );
    host.sh(&format!("{podman} load -q -i {}", fixture::busybox().archive())).ok();
    podman
}

#[test]
fn containers_of_podman_and_of_davit_meet_on_a_network_of_davits() {
    let host = Host::with_busybox();
    host.net_create("my-bridge");
    let server =
        ["--hostname", "db", "--net", "my-bridge", "busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];
    let db = host.run_detached("db", &server);
    let podman = set_up(&host);
    let images = host.sh(&format!("{podman} images --format '{{{{.Repository}}}}:{{{{.Tag}}}}'")).ok();
    let image = images.stdout.lines().find(|l| l.ends_with("busybox:1")).expect("it was loaded");
    host.sh(&format!(
        "{podman} run -d --name web --hostname web --network my-bridge -p 8088:80 {image} nc -ll -p 80 -e hostname"
    ))
    .ok();
    // From podman's to ours by name, and back.
    let ask = format!("{podman} run --rm --network my-bridge {image} nc -w 5 db 80");
    eventually("db answers", || {
        let ran = host.sh(&format!("{ask} </dev/null"));
        if ran.text() == "db" { Ok(()) } else { Err(ran.to_string()) }
    });
    eventually("web answers", || {
        let ran = db.sh("nc -w 5 web 80 </dev/null");
        if ran.text() == "web" { Ok(()) } else { Err(ran.to_string()) }
    });
    eventually("the published port answers", || {
        let ran = host.sh("nc -w 5 127.0.0.1 8088 </dev/null || busybox nc -w 5 127.0.0.1 8088 </dev/null");
        if ran.text() == "web" { Ok(()) } else { Err(ran.to_string()) }
    });
    let address = host.sh(&format!("{podman} inspect -f '{{{{.NetworkSettings.Networks}}}}' web")).ok();
    assert!(!address.text().is_empty());
    host.davit(["net", "inspect", "my-bridge"]).ok().says("web");
    host.davit(["net", "rm", "my-bridge"]).exits(1).refused(&["my-bridge"]);
    // netd is replaced; what podman attached goes on and can be removed.
    host.davit(["down"]).ok();
    host.davit(["up"]).ok();
    assert_eq!(db.sh("nc -w 5 web 80 </dev/null").ok().text(), "web");
    host.sh(&format!("{podman} rm -f -t 0 web")).ok();
    db.does_not_resolve("web");
    db.remove();
    host.davit(["net", "rm", "my-bridge"]).ok();
    // podman leaves its groups and a mount behind, those of this host.
    host.sh("find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} +; umount /run/netns /var/lib")
        .ok();
}
