//! Containers with a user namespace: ids of their own, and the right owners everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use davit_tests::{Container, Host};

/// Where root of a container's user namespace is on the host, and how many ids it has.
fn range(c: &Container<'_>) -> (u32, u32) {
    let map = c.sh("cat /proc/self/uid_map").ok();
    let words: Vec<u32> =
        map.text().split_whitespace().map(|w| w.parse().expect("a map of numbers")).collect();
    assert!(words.len() == 3 && words[0] == 0, "{map}");
    (words[1], words[2])
}

#[test]
fn ranges_are_nobody_elses_and_survive_runtimed() {
    let host = Host::with_busybox();
    let toml = "[userns]\nstart = 500000\ncount = 150000\n";
    fs::write(host.path().join("config/runtimed.toml"), toml).expect("a file of the host");
    host.davit(["down"]).ok();
    let idle = |name: &str, mode: &str| {
        host.run_detached(name, &["--net", "none", "--userns", mode, "busybox:1", "sleep", "1000"])
    };
    let (a, b) = (idle("a", "auto"), idle("b", "auto"));
    assert_eq!((range(&a), range(&b)), ((500_000, 65_536), (565_536, 65_536)));
    host.sh("kill -9 $(pidof davit-runtimed)").ok();
    host.davit(["stop", "-t", "0", "a"]).ok();
    // A stopped one keeps its ids, too: what it wrote is stored once more with them at the next start.
    let c = idle("c", "auto:size=10000");
    assert_eq!(range(&c), (631_072, 10_000));
    let full = ["run", "--rm", "--net", "none", "--userns", "auto", "busybox:1", "true"];
    host.leaves_nothing(|| host.davit(full).exits(125).refused(&["no 65536 user ids are free", "[userns]"]));
    let d = idle("d", "container:c");
    assert_eq!(range(&d), range(&c));
    b.remove();
    assert_eq!(range(&idle("e", "private")), (565_536, 65_536));
    host.davit(["start", "a"]).ok();
    assert_eq!(range(&a), (500_000, 65_536));
    // Ids that are shared are free when the last one has gone.
    c.remove();
    let ids = |name: &str| range(&idle(name, "auto:size=4000")).0;
    let given = BTreeSet::from([ids("f"), ids("g")]);
    assert!(given.iter().all(|start| !(631_072..641_072).contains(start)), "{given:?}");
    d.remove();
    host.leaves_nothing(|| {
        let refuses = |options: &[&str], words: &[&str]| {
            host.davit([&["run", "--rm", "--net", "none"], options, &["busybox:1", "true"]].concat())
                .exits(125)
                .refused(words);
        };
        refuses(&["--userns", "automatic"], &["--userns: invalid USER mode: automatic"]);
        refuses(&["--userns", "auto:size=none"], &["size=NUMBER"]);
        refuses(&["--userns", "auto", "--privileged"], &["incompatible with user namespaces"]);
        refuses(&["--userns", "auto", "--pid", "host"], &["cannot share the host PID namespace"]);
        refuses(&["--userns", "auto", "--pid", "container:a"], &["--userns container:NAME"]);
        refuses(&["--uidmap", "5:1000:1"], &["id 0 of the container is not mapped"]);
        refuses(&["--userns", "auto", "--runtime", "runc"], &["davit-runner only, not with runc"]);
        refuses(&["-v", "/etc:/e:idmap"], &["cannot be id-mapped", "--userns=auto"]);
    });
}

#[test]
fn its_root_owns_its_files_and_is_nobody_outside() {
    let host = Host::with_busybox();
    fs::create_dir(host.work("mine")).expect("a directory of the host");
    fs::write(host.work("mine/secret"), "secret").expect("a file of the host");
    host.sh(&format!("chmod 600 {}", host.work("mine/secret").display())).ok();
    let bind = format!("{}:/host", host.work("mine").display());
    let mapped = format!("{}:/mapped:idmap", host.work("mine").display());
    let a = host.run_detached(
        "a",
        &["--userns", "auto", "-v", "vol:/v", "-v", &bind, "-v", &mapped, "busybox:1", "sleep", "1000"],
    );
    let b = host.run_detached("b", &["--userns", "auto", "-v", "vol:/v", "busybox:1", "sleep", "1000"]);
    // Inside everything is as ever: its files, a new one, the generated ones, volumes, a mapped bind.
    let owners = "stat -c %u /bin /etc/hosts /new /v/new /mapped/secret | tr '\\n' ' '";
    a.sh(&format!("touch /new /v/new; chown 7:8 /v/new; {owners}; echo x >> /etc/hosts; cat /mapped/secret"))
        .ok()
        .prints("0 0 0 7 0 secret");
    a.sh("hostname; ls /sys/class/net; echo out > /dev/stdout; echo x > /dev/null")
        .ok()
        .says("eth0")
        .says("out");
    a.sh("grep CapEff /proc/self/status").ok().says("a80425fb");
    host.davit(["exec", "-u", "7", "a", "id", "-u"]).ok().prints("7");
    // The other has other ids, and the same volume with the same owners.
    b.sh("stat -c %u:%g /v/new").ok().prints("7:8");
    // Outside it is nobody: neither a plain bind nor another's files are its own.
    a.sh("cat /host/secret").exits(1).prints("");
    a.sh("touch /host/x").exits(1);
    let pid = b.inspect(&["State", "Pid"]).to_string();
    let uid = host.sh(&format!("stat -c %u /proc/{pid}")).ok();
    assert_eq!(uid.text(), range(&b).0.to_string());
    let as_a = format!("setpriv --reuid {} --clear-groups ls /proc/{pid}/root", range(&a).0);
    host.sh(&as_a).code_is_not_zero();

    // cp in and out, of the running one and of the stopped one.
    let file = host.work("cp");
    for state in ["running", "stopped"] {
        fs::write(&file, state).expect("a file of the host");
        let there = format!("a:/{state}");
        host.davit(["cp", file.to_str().expect("a path of ours"), &there]).ok();
        host.davit(["cp", "a:/v/new", "-"]).ok();
        host.davit(["cp", "-a", &there, host.work("back").to_str().expect("a path of ours")]).ok();
        assert_eq!(fs::metadata(host.work("back")).expect("it was copied").uid(), 0, "{state}");
        if state == "running" {
            a.sh("stat -c %u /running; cat /running").ok().prints("0\nrunning");
            host.davit(["stop", "-t", "0", "a"]).ok();
        }
    }
    host.davit(["start", "a"]).ok();
    a.sh("stat -c %u /stopped /running").ok().prints("0\n0");
    // What is committed has the owners that the container knows.
    host.davit(["diff", "a"]).ok().says("A /new");
    host.davit(["commit", "a", "img"]).ok();
    host.davit(["run", "--rm", "--net", "none", "img", "stat", "-c", "%u", "/new"]).ok().prints("0");
    let export = host.work("export.tar");
    host.davit(["export", "-o", export.to_str().expect("a path of ours"), "a"]).ok();
    host.sh(&format!("tar -tvnf {} new", export.display())).ok().says(" 0/0 ");
    host.davit(["run", "--rm", "--uidmap", "0:700000:1000", "img", "cat", "/proc/self/uid_map"])
        .ok()
        .says("700000");
    host.davit(["rm", "-f", "a", "b"]).ok();
    host.davit(["volume", "rm", "vol"]).ok();
}
