//! davit-cni with callers of Debian's: podman, whose networks are CNI's, and containerd.

use std::fs;

use davit_tests::host::Running;
use davit_tests::{Host, eventually, fixture};
use serde_json::{Value, json};

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

/// A configuration beside the README's, for another network.
fn configure(host: &Host, name: &str) {
    let list = example().replace("my-bridge", name);
    fs::write(host.work("net.d").join(format!("{name}.conflist")), list).expect("a file of the host");
}

#[test]
fn a_container_of_podman_on_two_networks_keeps_its_port_as_networks_come_and_go() {
    let host = Host::with_busybox();
    let podman = set_up(&host);
    for name in ["my-bridge", "second"] {
        host.net_create(name);
        configure(&host, name);
    }
    let images = host.sh(&format!("{podman} images --format '{{{{.Repository}}}}:{{{{.Tag}}}}'")).ok();
    let image = images.stdout.lines().find(|l| l.ends_with("busybox:1")).expect("it was loaded");
    let answers = |what: &str| {
        eventually(what, || {
            let ran =
                host.sh("nc -w 5 127.0.0.1 8088 </dev/null || busybox nc -w 5 127.0.0.1 8088 </dev/null");
            if ran.text() == "web" { Ok(()) } else { Err(ran.to_string()) }
        });
    };
    let program = format!("{image} nc -ll -p 80 -e hostname");
    let run = |networks: &str| {
        host.sh(&format!(
            "{podman} run -d --name web --hostname web --network {networks} -p 8088:80 {program}"
        ))
        .ok();
    };
    // podman asks for the port on both.
    run("my-bridge,second");
    answers("the published port answers");
    // DEL and ADD, while conmon has the port.
    host.sh(&format!("{podman} network reload web")).ok();
    answers("it does after a reload");
    for name in ["my-bridge", "second"] {
        host.sh(&format!("{podman} network disconnect {name} web")).ok();
        answers("the other network has it");
        host.sh(&format!("{podman} network connect {name} web")).ok();
        answers("it has it still");
    }
    let routes = host.sh(&format!("{podman} exec web ip route")).ok();
    assert_eq!(routes.stdout.matches("default").count(), 1, "{routes}");
    host.sh(&format!("{podman} rm -f -t 0 web")).ok();
    for name in ["my-bridge", "second"] {
        host.davit(["net", "rm", name]).ok();
    }
    host.sh("find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} +; umount /run/netns /var/lib")
        .ok();
}

/// Debian's containerd on the private host, and the words that call its ctr. ctr looks for its networks at fixed places, so it runs
/// where these are the test's own.
fn containerd(host: &Host) -> (Running, String) {
    let dir = host.work("containerd");
    let cni = host.work("cni");
    for path in [&dir, &cni.join("net.d"), &cni.join("bin")] {
        fs::create_dir_all(path).expect("a directory of the host");
    }
    fs::write(cni.join("net.d/10-davit.conflist"), example()).expect("a file of the host");
    let plugin = davit_tests::host::binaries().join("davit-cni");
    std::os::unix::fs::symlink(plugin, cni.join("bin/davit-cni")).expect("a file of the host");
    let at = dir.display();
    let without = ["grpc.v1.cri", "snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper"]
        .map(|name| format!("io.containerd.{name}"));
    let config = format!(
        "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = {without:?}\n\
         [grpc]\naddress = \"{at}/containerd.sock\"\n[ttrpc]\naddress = \"{at}/ttrpc.sock\"\n"
    );
    fs::write(dir.join("config.toml"), config).expect("a file of the host");
    let file = dir.join("config.toml").display().to_string();
    let running = host.command("containerd").args(["--config", &file, "--log-level", "error"]).start();
    eventually("containerd listens", || {
        if dir.join("containerd.sock").exists() { Ok(()) } else { Err(running.so_far().to_string()) }
    });
    let places = "mount -t tmpfs tmpfs /etc && mount -t tmpfs tmpfs /opt && mkdir /etc/cni /opt/cni";
    let ctr = format!(
        "unshare -m sh -c '{places} && ln -s {cni}/net.d /etc/cni/net.d && ln -s {cni}/bin /opt/cni/bin && \
         exec ctr -a {at}/containerd.sock -n shop \"$@\"' sh",
        cni = cni.display()
    );
    (running, ctr)
}

#[test]
fn containers_of_containerd_come_to_a_network_of_davits_and_go() {
    let host = Host::with_busybox();
    host.net_create("my-bridge");
    let server =
        ["--hostname", "db", "--net", "my-bridge", "busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];
    let db = host.run_detached("db", &server);
    let (_containerd, ctr) = containerd(&host);
    host.sh(&format!("{ctr} images import --snapshotter native {}", fixture::busybox().archive())).ok();
    let image = host.sh(&format!("{ctr} images ls -q")).ok().text().to_owned();
    let run = |flags: &str, name: &str, program: &str| {
        format!("{ctr} run --cni --snapshotter native {flags} {image} {name} {program}")
    };
    host.sh(&run("-d", "web", "nc -ll -p 80 -e echo web")).ok();
    // containerd calls it by namespace and name. It has an address of the network and reaches davit's; ctr writes no resolv.conf.
    let containers = "{{range .Containers}}{{.Name}} {{end}}";
    let inspect = || host.davit(["net", "inspect", "-f", containers, "my-bridge"]).ok();
    inspect().says("shop-web").says("db");
    eventually("web answers", || {
        let ran = db.sh("nc -w 5 shop-web 80 </dev/null");
        if ran.text() == "web" { Ok(()) } else { Err(ran.to_string()) }
    });
    let address = host.davit(["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db"]).ok();
    let ask = format!("nc -w 5 {} 80", address.text());
    let exec = host.sh(&format!("{ctr} task exec --exec-id ask web {ask} </dev/null")).ok();
    assert_eq!(exec.text(), "db", "{exec}");
    // netd is replaced under it.
    host.davit(["down"]).ok();
    host.davit(["up"]).ok();
    assert_eq!(db.sh("nc -w 5 shop-web 80 </dev/null").ok().text(), "web");
    // One that ctr waits for is detached by DEL, which comes when its namespace is gone.
    let once = host.sh(&format!("{} </dev/null", run("--rm", "once", &ask))).ok();
    assert_eq!(once.text(), "db", "{once}");
    inspect().says_not("shop-once");
    // ctr sends no DEL for one that runs detached: a name is free again when its namespace is gone.
    let remove =
        || host.sh(&format!("{ctr} task kill -s KILL web && {ctr} task rm -f web; {ctr} container rm web"));
    remove();
    host.sh(&run("-d", "web", "nc -ll -p 80 -e echo again")).ok();
    eventually("another web answers", || {
        let ran = db.sh("nc -w 5 shop-web 80 </dev/null");
        if ran.text() == "again" { Ok(()) } else { Err(ran.to_string()) }
    });
    remove();
    gc(&host);
    inspect().says_not("shop-web");
    db.remove();
    host.davit(["net", "rm", "my-bridge"]).ok();
    // containerd leaves the group of its namespace behind, one of this host.
    host.sh("rmdir /sys/fs/cgroup/*/shop").ok();
}

/// What a plugin gets of the README's list.
fn configuration() -> Value {
    let list: Value = serde_json::from_str(&example()).expect("it is JSON");
    let mut config = list["plugins"][0].clone();
    config["cniVersion"] = "1.1.0".into();
    config["name"] = list["name"].clone();
    config["cni.dev/valid-attachments"] = json!([]);
    config
}

/// What containerd's libcni does from version 2 on: Debian's asks for neither GC nor STATUS.
fn gc(host: &Host) {
    for verb in ["STATUS", "GC"] {
        let plugin = host.command("davit-cni").env("CNI_COMMAND", verb).env("CNI_PATH", "/opt/cni/bin");
        plugin.stdin(configuration().to_string()).start().wait().ok();
    }
}

#[test]
fn a_plain_user_is_told_that_the_socket_is_not_for_them() {
    let host = Host::new();
    host.net_create("my-bridge");
    let socket = host.sh("ls $DAVIT_RUN_DIR/netd.sock").ok().text().to_owned();
    let mut config = configuration();
    config["socket"] = socket.clone().into();
    // It may work for another user, so for STATUS it is the specification's "not available".
    for (verb, code) in [("ADD", 104), ("DEL", 104), ("GC", 104), ("STATUS", 50)] {
        let plugin = host.command("davit-cni").as_sailor().stdin(config.to_string());
        let plugin = plugin.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0");
        let ran = plugin.env("CNI_NETNS", "/proc/self/ns/net").env("CNI_PATH", "/opt/cni/bin").start().wait();
        let (ran, error) = (ran.clone().exits(1), ran.json());
        assert_eq!((&error["code"], &error["cniVersion"]), (&json!(code), &json!("1.1.0")), "{ran}");
        let message = error["msg"].as_str().unwrap_or_default();
        assert!(message.contains(&socket) && message.contains("ermission denied"), "{ran}");
        assert!(error["details"].as_str().is_some_and(|d| d.contains("run as root")), "{ran}");
    }
}
