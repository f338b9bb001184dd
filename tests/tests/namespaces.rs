//! Namespaces of containers: their own, the host's, and other containers'.

use davit_tests::{Host, eventually};

const KINDS: [&str; 7] = ["pid", "ipc", "uts", "cgroup", "time", "net", "user"];

/// The namespaces that a container with these options has, by kind.
fn namespaces(host: &Host, options: &[&str]) -> Vec<String> {
    let script = "for k in pid ipc uts cgroup time net user; do readlink /proc/self/ns/$k; done";
    let args = [&["run", "--rm", "--net", "none"], options, &["busybox:1", "sh", "-c", script]].concat();
    host.davit(args).ok().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn each_is_private_the_hosts_or_another_containers() {
    let host = Host::with_busybox();
    let links = "for k in pid ipc uts cgroup time net user; do readlink /proc/self/ns/$k; done";
    let own: Vec<String> = host.sh(links).ok().stdout.lines().map(str::to_owned).collect();
    let differs = |got: &[String], other: &[String]| -> Vec<&str> {
        (0..KINDS.len()).filter(|k| got[*k] != other[*k]).map(|k| KINDS[k]).collect()
    };
    assert_eq!(differs(&namespaces(&host, &[]), &own), ["pid", "ipc", "uts", "cgroup", "net"]);
    let all = ["--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host"];
    assert_eq!(differs(&namespaces(&host, &all), &own), ["net"]);
    assert_eq!(differs(&namespaces(&host, &["--time", "private"]), &own).len(), 6);

    let options =
        ["--net", "none", "--ipc", "shareable", "--hostname", "ship", "--time-offset", "boottime=100d"];
    let args = [&options[..], &["busybox:1", "sleep", "1000"]].concat();
    let donor = host.run_detached("donor", &args);
    let theirs: Vec<String> = donor.sh(links).ok().stdout.lines().map(str::to_owned).collect();
    let of = format!("container:{}", &donor.id[..20]);
    let join = |flags: &[&str]| {
        let mut options: Vec<&str> = Vec::new();
        for flag in flags {
            options.extend([*flag, of.as_str()]);
        }
        namespaces(&host, &options)
    };
    let same = differs(&join(&["--pid", "--ipc", "--uts", "--cgroupns", "--time"]), &theirs).join(" ");
    assert_eq!(same, "net");
    assert_eq!(differs(&join(&["--uts"]), &theirs), ["pid", "ipc", "cgroup", "time", "net"]);

    // What they show.
    donor.sh("echo shared > /dev/shm/x").ok();
    let run = |options: &[&str], script: &str| {
        host.davit([&["run", "--rm", "--net", "none"], options, &["busybox:1", "sh", "-c", script]].concat())
    };
    run(&["--pid", "container:donor"], "cat /proc/1/cmdline | tr '\\0' ' '").ok().prints("sleep 1000");
    run(&["--ipc", "container:donor"], "cat /dev/shm/x; echo back > /dev/shm/y").ok().prints("shared");
    donor.sh("cat /dev/shm/y").ok().prints("back");
    run(&["--uts", "container:donor"], "hostname; cat /etc/hostname").ok().prints("ship\nship");
    donor.sh("[ $(cut -d. -f1 /proc/uptime) -gt 8640000 ]").ok();
    run(&["--time", "container:donor"], "[ $(cut -d. -f1 /proc/uptime) -gt 8640000 ]").ok();
    run(&["--ipc", "none"], "grep -c /dev/shm /proc/mounts").exits(1).prints("0");
    run(&["--ipc", "host"], "grep -c /dev/shm /proc/mounts").ok().prints("1");
    let modes = donor.inspect(&["HostConfig"]);
    let modes: Vec<&str> = ["PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode"]
        .map(|k| modes[k].as_str().unwrap_or("?"))
        .to_vec();
    assert_eq!(modes, ["", "shareable", "", "", "private"]);
    host.davit(["create", "--name", "later", "--ipc", "container:donor", "busybox:1", "true"]).ok();
    let ipc = host.davit(["inspect", "-f", "{{.HostConfig.IpcMode}}", "later"]).ok();
    ipc.prints(&format!("container:{}", donor.id));
}

#[test]
fn a_joined_namespace_outlives_its_container_and_what_cannot_be_joined_is_refused() {
    let host = Host::with_busybox();
    let idle = |name: &str, options: &[&str]| {
        host.run_detached(name, &[&["--net", "none"], options, &["busybox:1", "sleep", "1000"]].concat())
    };
    idle("donor", &["--ipc", "shareable", "--hostname", "ship"]);
    let other = idle("other", &["--ipc", "container:donor", "--uts", "container:donor"]);
    let process = idle("process", &["--pid", "container:donor"]);
    other.sh("echo kept > /dev/shm/x").ok();
    host.davit([
        "create",
        "--name",
        "later",
        "--net",
        "none",
        "--pid",
        "container:donor",
        "busybox:1",
        "true",
    ])
    .ok();
    // A reference is kept by id, and runtimed may be another one by then.
    host.davit(["rename", "donor", "giver"]).ok();
    host.sh("kill -9 $(pidof davit-runtimed)").ok();
    host.davit(["start", "-a", "later"]).ok();

    host.davit(["kill", "giver"]).ok();
    // The end of a pid namespace's first process is the end of all in it.
    eventually("the container in the pid namespace ends, too", || {
        let status = process.inspect(&["State", "Status"]);
        if status == "exited" { Ok(()) } else { Err(status.to_string()) }
    });
    other.sh("cat /dev/shm/x; hostname").ok().prints("kept\nship");
    let words = ["cannot join the pid namespace of a container that is not running: giver"];
    host.davit(["start", "later"]).exits(1).refused(&words);
    other.sh("true").ok();

    let private = idle("private", &[]);
    let refuses = |options: &[&str], words: &[&str]| {
        host.davit([&["run", "--rm"], options, &["busybox:1", "true"]].concat()).exits(125).refused(words);
    };
    host.leaves_nothing(|| {
        refuses(&["--ipc", "container:private"], &["non-shareable IPC", &private.id]);
        refuses(&["--pid", "container:giver"], &["not running", "giver"]);
        refuses(&["--uts", "container:nobody"], &["No such container: nobody"]);
        refuses(&["--pid", "elsewhere"], &["--pid: invalid PID mode: elsewhere"]);
        refuses(&["--cgroupns", "shareable"], &["--cgroupns: invalid CGROUP mode"]);
        refuses(&["--uts", "host", "--hostname", "x"], &["conflicting options: hostname and the UTS mode"]);
        refuses(&["--uts", "container:private", "--domainname", "x"], &["domainname and the UTS mode"]);
        refuses(&["--time", "host", "--time-offset", "boottime=1"], &["--time-offset and the TIME mode"]);
        refuses(&["--time-offset", "wall=1"], &["unknown clock 'wall'"]);
        refuses(&["--sysctl", "vm.swappiness=1"], &["vm.swappiness", "not in a separate kernel namespace"]);
        refuses(&["--net", "host", "--sysctl", "net.core.somaxconn=1"], &["host network namespace"]);
        refuses(&["--ipc", "host", "--sysctl", "kernel.msgmax=9000"], &["hosts ipc namespace"]);
    });
}
