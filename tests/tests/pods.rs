//! Pods: containers that share what an infra container holds.

use davit_tests::{Host, eventually};

/// Answers every connection with its host name.
const SERVER: &[&str] = &["busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];

#[test]
fn a_pods_containers_share_network_host_name_and_ipc_and_its_ports_are_published() {
    let host = Host::with_busybox();
    host.net_create("n");
    let id = host
        .davit(["pod", "create", "--name", "front", "--net", "n", "-p", "8080:80"])
        .ok()
        .text()
        .to_owned();
    assert_eq!(id.len(), 64, "{id}");
    host.davit(["pod", "ps"]).ok().says("front").says("Created").says(&id[..12]);
    let web = host.run_detached("web", &[&["--pod", "front"], SERVER].concat());
    let side = host.run_detached("side", &["--pod", "front", "busybox:1", "sleep", "1000"]);
    host.run_detached("other", &["--net", "n", "busybox:1", "sleep", "1000"]);

    // One network: localhost, the published port, one address, whose name is the pod's.
    side.sh("nc -w 5 127.0.0.1 80 </dev/null").ok().prints("front");
    host.sh("nc -w 5 127.0.0.1 8080 </dev/null").ok().prints("front");
    host.davit(["exec", "other", "sh", "-c", "nc -w 5 front 80 </dev/null"]).ok().prints("front");
    let address =
        |c: &str| host.davit(["exec", c, "ip", "-4", "-o", "addr", "show", "eth0"]).ok().text().to_owned();
    assert_eq!(address("web"), address("side"));
    for namespace in ["net", "ipc", "uts"] {
        let of = |c: &str| {
            host.davit(["exec", c, "readlink", &format!("/proc/self/ns/{namespace}")]).ok().text().to_owned()
        };
        assert_eq!(of("web"), of("side"), "{namespace}");
        assert_ne!(of("web"), of("other"), "{namespace}");
    }
    web.sh("echo said > /dev/shm/x").ok();
    side.sh("cat /dev/shm/x; hostname; cat /etc/hostname; grep -c front /etc/hosts")
        .ok()
        .prints("said\nfront\nfront\n1");
    // Not the processes: those are shared only where it is asked for.
    side.sh("ps -o args").ok().says("sleep 1000").says_not("nc -ll");

    host.davit(["pod", "ps"]).ok().says("Running").says("3");
    let seen = host.davit(["pod", "inspect", "front"]).ok().json();
    assert_eq!(seen[0]["SharedNamespaces"], serde_json::json!(["ipc", "net", "uts"]), "{seen:#}");
    assert_eq!(seen[0]["NumContainers"], 3);

    // All of it outlives the daemons, and a member that comes back joins again.
    host.davit(["down"]).ok();
    host.davit(["up"]).ok();
    side.sh("nc -w 5 127.0.0.1 80 </dev/null").ok().prints("front");
    host.davit(["restart", "-t", "0", "web"]).ok();
    eventually("web listens again", || {
        let ran = side.sh("nc -w 5 127.0.0.1 80 </dev/null");
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });

    host.davit(["pod", "stop", "front"]).ok();
    host.davit(["pod", "ps"]).ok().says("Exited");
    host.davit(["pod", "start", "front"]).ok();
    eventually("the port answers again", || {
        let ran = host.sh("nc -w 5 127.0.0.1 8080 </dev/null");
        if ran.text() == "front" { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["pod", "rm", "front"]).refused(&["front", "running"]);
    host.davit(["pod", "rm", "-f", "front"]).ok();
    host.davit(["ps", "-a", "--format", "{{.Names}}"]).ok().prints("other");
    host.davit(["pod", "ps", "-q"]).ok().prints("");
    host.davit(["events", "--since", "10m", "--until", "0s", "--filter", "type=pod"])
        .ok()
        .says("create")
        .says("remove");
}

#[test]
fn a_container_is_added_to_a_pod_and_processes_may_be_shared() {
    let host = Host::with_busybox();
    host.davit(["pod", "create", "--net", "none", "--share", "pid,net", "p"]).ok();
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    host.davit(["pod", "add", "p", "c"]).refused(&["c", "running"]);
    host.davit(["stop", "-t", "0", "c"]).ok();
    host.davit(["pod", "add", "p", "c"]).ok();
    host.davit(["pod", "add", "p", "c"]).ok();
    host.davit(["start", "c"]).ok();
    let d = host.run_detached("d", &["--pod", "p", "busybox:1", "sleep", "2000"]);
    d.sh("ps -o args").ok().says("sleep 1000").says("sleep 2000").says("docker-init");
    assert_eq!(c.inspect(&["HostConfig", "NetworkMode"]), d.inspect(&["HostConfig", "NetworkMode"]));

    // The infra container's end takes the processes along; its members' next start brings it back.
    let infra = host.davit(["pod", "inspect", "-f", "{{.InfraContainerID}}", "p"]).ok().text().to_owned();
    host.davit(["rm", "-f", &infra]).refused(&["pod p"]);
    host.davit(["rename", &infra, "x"]).refused(&["pod p"]);
    host.davit(["kill", &infra]).ok();
    eventually("they have ended", || {
        let ran = host.davit(["ps", "-q"]).ok();
        if ran.text().is_empty() { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["start", "d"]).ok();
    host.davit(["pod", "ps"]).ok().says("Degraded");
    d.sh("ps -o args").ok().says("docker-init");

    host.leaves_nothing(|| host.davit(["pod", "create", "p"]).refused(&["p", "already"]));
    host.leaves_nothing(|| host.davit(["pod", "create", "--share", "mount", "q"]).refused(&["mount"]));
    host.leaves_nothing(|| host.davit(["pod", "create", "--net", "nowhere", "q"]).refused(&["nowhere"]));
    host.leaves_nothing(|| {
        host.davit(["run", "--pod", "nobody", "busybox:1", "true"]).exits(125).refused(&["nobody"])
    });
    for flags in [&["-p", "80:80"][..], &["--net", "bridge"], &["--pid", "host"]] {
        let words = [&["run", "--rm", "--pod", "p"], flags, &["busybox:1", "true"]].concat();
        host.leaves_nothing(|| host.davit(words).exits(125).refused(&["pod"]));
    }
    for verb in ["inspect", "rm", "start", "stop"] {
        host.davit(["pod", verb, "nobody"]).refused(&["nobody"]);
    }
    // A crash in the middle leaves a pod that is whole.
    host.sh("pkill -9 -x davit-runtimed").ok();
    host.davit(["pod", "rm", "-f", "p"]).ok();
    host.davit(["ps", "-aq"]).ok().prints("");
}
