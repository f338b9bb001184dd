//! Containers whose root davit-cowfs serves, as root and as a plain user: every command, swaps, kills, and nothing left.

use davit_tests::host::objects;
use davit_tests::sailor::BUSYBOX;
use davit_tests::{Container, Host, Sailor, eventually, fixture};

/// A host whose storaged is told to use the driver.
fn host() -> Host {
    let host = Host::new();
    configure(&host, "storaged", "driver = \"fuse\"\n");
    host.load_busybox();
    host
}

fn configure(host: &Host, daemon: &str, toml: &str) {
    std::fs::write(host.path().join(format!("config/{daemon}.toml")), toml)
        .expect("the test's own directory");
}

/// The processes that serve roots of containers; storaged has some of its own for as long as it works.
fn servers(host: &Host) -> Vec<i32> {
    let ran = host.sh("pgrep -x davit-cowfs -P $(pgrep -d , -x davit-monitor)");
    ran.stdout.lines().map(|l| l.parse().expect("pgrep prints pids")).collect()
}

#[track_caller]
fn no_server_is_left(host: &Host) {
    eventually("no davit-cowfs is left", || {
        let left = host.sh("pgrep -x davit-cowfs");
        if left.text().is_empty() { Ok(()) } else { Err(left.to_string()) }
    });
}

fn sleeper<'h>(host: &'h Host, name: &str, options: &[&str]) -> Container<'h> {
    let run = [&["--net", "none"], options, &["busybox:1", "sleep", "1000"]].concat();
    host.run_detached(name, &run)
}

#[test]
fn every_command_works_on_a_container_that_runs_and_on_one_that_does_not() {
    let host = host();
    host.leaves_nothing(|| {
        let c = sleeper(&host, "c", &[]);
        assert_eq!(servers(&host).len(), 1);
        c.sh("grep ' / ' /proc/mounts").ok().says("fuse");
        c.sh("mkdir /made; echo text > /made/file; ln -s file /made/link; rm /etc/group; chown web /made")
            .ok();
        let (one, out) = (host.work("one").display().to_string(), host.work("out").display().to_string());
        host.sh(&format!("echo one > {one}")).ok();
        for stopped in [false, true] {
            if stopped {
                host.davit(["stop", "-t", "0", "c"]).ok();
                no_server_is_left(&host);
            }
            host.davit(["cp", "-q", &one, &format!("c:/made/in-{stopped}")]).ok();
            host.davit(["cp", "-q", "c:/made/.", &out]).ok();
            host.sh(&format!("cat {out}/file {out}/in-{stopped}; readlink {out}/link; rm -r {out}"))
                .ok()
                .prints("text\none\nfile");
            host.sh("davit export c | tar -tf - | grep -x made/link").ok();
            let lines = if stopped { "\nA /made/in-true" } else { "" };
            host.davit(["diff", "c"]).ok().prints(&format!(
                "C /etc\nD /etc/group\nA /made\nA /made/file\nA /made/in-false{lines}\nA /made/link"
            ));
            host.davit(["commit", "c", "made:1"]).ok();
            let look = "cat /made/link /made/in-false; stat -c %U /made; test ! -e /etc/group";
            host.davit(["run", "--rm", "--net", "none", "made:1", "sh", "-c", look])
                .ok()
                .prints("text\none\nweb");
            host.davit(["image", "rm", "made:1"]).ok();
        }
        host.davit(["start", "c"]).ok();
        c.sh("cat /made/file /made/in-true; test ! -e /etc/group").ok().prints("text\none");
        host.davit(["restart", "-t", "0", "c"]).ok();
        c.sh("cat /made/file").ok().prints("text");
        host.davit(["rm", "-f", "c"]).ok();
        no_server_is_left(&host);
    });
}

#[test]
fn what_was_written_last_is_in_what_is_read_of_the_container() {
    let host = host();
    // The kernel is to collect what is written; without that only what is written through a mapping waits in it.
    let wrapper = host.work("collecting");
    let cowfs = host.path().join("bin/davit-cowfs");
    host.sh(&format!(
        "printf '#!/bin/sh\nexec {} -o writeback=1 \"$@\"\n' > {1}; chmod 755 {1}",
        cowfs.display(),
        wrapper.display()
    ))
    .ok();
    configure(&host, "runtimed", &format!("[fuse]\nprogram = \"{}\"\n", wrapper.display()));
    host.davit(["down"]).ok();
    // The file stays open while it runs: the kernel writes back what is collected for it when a descriptor of it is closed. No command
    // that is not the shell's own may be run, because its end would close one.
    let write = "exec >/data; i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo $i; done; : 4>/ready";
    let script = format!("{write}; exec sleep 1000");
    let c = host.run_detached("runs", &["--net", "none", "busybox:1", "sh", "-c", &script]);
    eventually("it has written", || {
        let ran = c.exec(&["test", "-e", "/ready"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["run", "--name", "ended", "--net", "none", "busybox:1", "sh", "-c", write]).ok();
    // Whatever storaged is told meanwhile.
    for driver in ["overlay", "fuse"] {
        configure(&host, "storaged", &format!("driver = \"{driver}\"\n"));
        host.davit(["down"]).ok();
        host.sh("seq 60000 > /run/wanted; davit export runs | tar -xOf - data | cmp - /run/wanted").ok();
    }
    for name in ["ended", "runs"] {
        host.sh(&format!(
            "seq 60000 > /run/wanted; davit export {name} | tar -xOf - data | cmp - /run/wanted"
        ))
        .ok();
        host.davit(["commit", name, "made:1"]).ok();
        let read = "davit run --rm --net none made:1 cat /data | cmp - /run/wanted && rm /run/wanted";
        host.sh(read).ok();
    }
}

#[test]
fn a_container_outlives_every_daemon_and_stays_with_its_server() {
    let host = host();
    let script = "while :; do date +%s%N > /now; cat /now >> /log; sleep 0.05; done";
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sh", "-c", script]);
    let before = servers(&host);
    assert_eq!(before.len(), 1);
    for daemon in ["davit-storaged", "davit-runtimed", "davit-netd"] {
        host.sh(&format!("pkill -9 -x {}", &daemon[..daemon.len().min(15)])).ok();
        host.davit(["exec", "c", "sh", "-c", "tail -n 1 /log"]).ok();
        assert_eq!(servers(&host), before, "after {daemon}");
    }
    host.davit(["down"]).ok();
    assert_eq!(servers(&host), before);
    host.davit(["up"]).ok();
    let seen = c.sh("wc -l < /log").ok().text().to_owned();
    eventually("it goes on writing", || {
        let now = c.sh("wc -l < /log").ok();
        if now.text() == seen { Err(now.to_string()) } else { Ok(()) }
    });
    // What is new goes on working too, and so does the other driver beside it.
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "true"]).ok();
    configure(&host, "storaged", "driver = \"overlay\"\n");
    host.davit(["down"]).ok();
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "grep", "^overlay / ", "/proc/mounts"]).ok();
    host.davit(["restart", "-t", "0", "c"]).ok();
    c.sh("grep '^overlay / ' /proc/mounts && test -s /log").ok();
    no_server_is_left(&host);
    host.davit(["rm", "-f", "c"]).ok();
}

#[test]
fn a_container_whose_server_is_killed_says_so_and_starts_again() {
    let host = host();
    let c = sleeper(&host, "c", &[]);
    let other = sleeper(&host, "other", &[]);
    c.sh("echo kept > /file; sync").ok();
    // Paused, so that it cannot have ended by itself.
    for pause in [false, true] {
        if pause {
            host.davit(["pause", "c"]).ok();
        }
        let pid = c.inspect(&["State", "Pid"]);
        host.sh(&format!("pkill -9 -x davit-cowfs -P $(ps -o ppid= -p {pid})")).ok();
        host.davit(["wait", "c"]).ok().prints("137");
        host.davit(["inspect", "-f", "{{.State.Status}}", "c"]).ok().prints("exited");
        let error = host.davit(["inspect", "-f", "{{.State.Error}}", "c"]).ok();
        error
            .says("the server of the container's root was ended by signal 9")
            .says("the container was ended with it");
        other.exec(&["true"]).ok();
        host.davit(["start", "c"]).ok();
        c.sh("cat /file").ok().prints("kept");
        host.davit(["inspect", "-f", "{{.State.Error}}", "c"]).ok().prints("");
    }
    host.davit(["rm", "-f", "c", "other"]).ok();
    no_server_is_left(&host);
}

#[test]
fn a_monitor_that_is_killed_takes_the_server_with_it() {
    let host = host();
    host.leaves_nothing(|| {
        sleeper(&host, "c", &[]);
        host.sh("pkill -9 -x davit-monitor").ok();
        no_server_is_left(&host);
        host.davit(["wait", "c"]).ok().prints("137");
        host.davit(["inspect", "-f", "{{.State.Error}}", "c"]).ok().says("monitor died");
        host.davit(["rm", "c"]).ok();
    });
}

#[test]
fn a_start_that_fails_tells_what_the_server_said_and_leaves_nothing() {
    let host = host();
    configure(&host, "runtimed", "[fuse]\nprogram = \"/bin/false\"\n");
    host.davit(["down"]).ok();
    host.leaves_nothing(|| {
        let ran = host.davit(["run", "--name", "c", "--net", "none", "busybox:1", "true"]);
        ran.exits(125).refused(&["/bin/false did not mount", "exit status: 1"]);
    });
    configure(&host, "runtimed", "[fuse]\nprogram = \"/absent/cowfs\"\n");
    host.davit(["down"]).ok();
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "true"]).exits(125).refused(&["/absent/cowfs"]);
    configure(&host, "runtimed", "");
    host.davit(["down"]).ok();
    host.leaves_nothing(|| {
        // A program that does not exist: the root was mounted for it.
        host.davit(["run", "--rm", "--net", "none", "busybox:1", "/no/such"]).exits(127);
        no_server_is_left(&host);
    });
}

#[test]
fn volumes_limits_and_a_read_only_root_are_as_with_the_kernels_overlay() {
    let host = host();
    host.davit([
        "run",
        "--rm",
        "--net",
        "none",
        "-v",
        "vol:/etc",
        "busybox:1",
        "sh",
        "-c",
        "echo x > /etc/new; ls /etc",
    ])
    .ok()
    .says("passwd")
    .says("new");
    host.davit(["run", "--rm", "--net", "none", "-v", "vol:/v", "busybox:1", "cat", "/v/new"])
        .ok()
        .prints("x");
    host.davit(["run", "--rm", "--net", "none", "--read-only", "busybox:1", "touch", "/x"])
        .exits(1)
        .refused(&["Read-only file system"]);
    // The server is outside of the container's cgroup: reading far more than its limit through it is no reason to be killed.
    let script = "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null && cat /big | wc -c";
    host.davit(["run", "--rm", "--net", "none", "-m", "32m", "busybox:1", "sh", "-c", script])
        .ok()
        .prints("67108864");
    // Whoever is not root sees what it may see.
    let who = [
        "run",
        "--rm",
        "--net",
        "none",
        "-u",
        "web",
        "busybox:1",
        "sh",
        "-c",
        "cat /etc/passwd >/dev/null && ! touch /x",
    ];
    host.davit(who).ok();
}

#[test]
fn a_database_of_a_real_program_is_whole_after_restarts() {
    let host = host();
    host.davit(["image", "from-host", "-t", "sqlite", "/bin/sh", "/usr/bin/sqlite3"]).ok();
    let insert = "sqlite3 /db 'create table if not exists t(a integer primary key, b text);
        with recursive n(i) as (select 1 union all select i+1 from n where i<2000)
        insert into t(b) select hex(randomblob(200)) from n; select count(*) from t; pragma integrity_check'";
    host.davit(["run", "--name", "db", "--net", "none", "sqlite", "/bin/sh", "-c", insert])
        .ok()
        .prints("2000\nok");
    for rows in ["4000\nok", "6000\nok"] {
        host.davit(["start", "-a", "db"]).ok().says(rows);
    }
}

#[test]
fn the_driver_is_taken_when_the_kernels_overlay_is_not_there_and_says_why() {
    // No whiteouts of the kernel's kind and no overlay: what a path that is too long for it does, too.
    let host = Host::builder().create().expect("tests run as root");
    configure(&host, "storaged", "");
    let deep = host.path().join("state").join("d".repeat(120));
    let davit = |args: &[&str]| {
        host.command("davit").args(args).env("DAVIT_STATE_DIR", deep.to_str().expect("ASCII")).start().wait()
    };
    davit(&["image", "load", "-i", &fixture::busybox().archive()]).ok();
    davit(&["run", "--rm", "--net", "none", "busybox:1", "true"]).ok();
    let rows = objects(&davit(&["status", "--format", "json"]).ok());
    let shown = serde_json::to_string(&rows).expect("parsed from JSON");
    assert!(shown.contains("fuse (overlay: the path"), "{shown}");
    davit(&["info"]).ok().says("fuse (overlay: the path");
    davit(&["down"]).ok();
}

#[test]
fn a_plain_user_has_it_too() {
    let sailor = Sailor::new();
    sailor.host.share_fuse();
    let before = sailor.host.inventory();
    let config =
        "mkdir -p ~sailor/.config/davit; echo 'driver = \"fuse\"' > ~sailor/.config/davit/storaged.toml";
    sailor.host.sh(config).ok();
    sailor.davit(&["image", "load", "-i", BUSYBOX]).ok();
    let run = ["run", "-d", "--name", "c", "--net", "none", "busybox:1", "sleep", "1000"];
    sailor.davit(&run).ok();
    sailor
        .davit(&[
            "exec",
            "c",
            "sh",
            "-c",
            "grep ' / ' /proc/mounts; echo text > /file; rm /etc/group; chown web /file",
        ])
        .ok()
        .says("fuse");
    let (one, out) =
        (sailor.host.work("one").display().to_string(), sailor.host.work("out").display().to_string());
    sailor.host.sh(&format!("echo one > {one}; chmod 666 {one}")).ok();
    for _ in 0..2 {
        sailor.davit(&["cp", "-q", &one, "c:/one"]).ok();
        sailor.davit(&["cp", "-q", "c:/file", &out]).ok();
        sailor.host.sh(&format!("cat {out}")).ok().prints("text");
        sailor.davit(&["diff", "c"]).ok().prints("C /etc\nD /etc/group\nA /file\nA /one");
        sailor.davit(&["commit", "--pause=false", "c", "made:1"]).ok();
        let look = "cat /file /one; stat -c %U /file; test ! -e /etc/group";
        sailor
            .davit(&["run", "--rm", "--net", "none", "made:1", "sh", "-c", look])
            .ok()
            .prints("text\none\nweb");
        sailor.davit(&["stop", "-t", "0", "c"]).ok();
    }
    sailor.davit(&["start", "c"]).ok();
    sailor.davit(&["exec", "c", "cat", "/file"]).ok().prints("text");
    sailor.host.sh("pkill -9 -x davit-cowfs").ok();
    sailor.davit(&["wait", "c"]).ok().prints("137");
    sailor.davit(&["inspect", "-f", "{{.State.Error}}", "c"]).ok().says("ended by signal 9");
    sailor.davit(&["status"]).ok().says("fuse");
    sailor.davit(&["rm", "-f", "c"]).ok();
    sailor.davit(&["down"]).ok();
    eventually("nothing is left", || {
        let left = sailor.host.inventory().beyond(&before);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
}
