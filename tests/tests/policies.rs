//! Restart policies, update, wait, stats, and containers whose start is held up.

use davit_tests::host::objects;
use davit_tests::{Host, eventually};

/// A container that ends when /end is there, with the code in it.
const UNTIL_END: &str = "echo up; until [ -e /end ]; do sleep 0.05; done; c=$(cat /end); rm /end; exit $c";

fn field(host: &Host, name: &str, template: &str) -> String {
    host.davit(["inspect", "--format", template, name]).ok().text().to_owned()
}

fn until(host: &Host, name: &str, template: &str, wanted: &str) {
    eventually(&format!("{template} of {name} is {wanted}"), || {
        let now = field(host, name, template);
        if now == wanted { Ok(()) } else { Err(now) }
    });
}

const STATE: &str = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";

#[test]
fn a_policy_starts_again_what_ended_until_a_person_stops_it() {
    let host = Host::with_busybox();
    let run = |name: &str, policy: &str, script: &str| {
        host.run_detached(name, &["--restart", policy, "--net", "none", "busybox:1", "sh", "-c", script]);
    };
    run("loop", "on-failure:2", "echo run; exit 7");
    host.davit(["wait", "loop"]).ok().prints("7");
    until(&host, "loop", STATE, "exited 7 2");
    host.davit(["logs", "loop"]).ok().prints("run\nrun\nrun");
    // A person's start counts anew.
    host.davit(["start", "loop"]).ok();
    host.davit(["wait", "loop"]).ok();
    until(&host, "loop", STATE, "exited 7 2");

    run("well", "on-failure", "exit 0");
    host.davit(["wait", "well"]).ok().prints("0");
    assert_eq!(field(&host, "well", STATE), "exited 0 0");

    run("crash", "always", "exit 3");
    host.davit(["wait", "--condition", "restarting", "crash"]).ok();
    // By now it waits long enough for what follows.
    eventually("it has waited a few times", || {
        let count: u32 = field(&host, "crash", "{{.RestartCount}}").parse().unwrap_or(0);
        if count >= 6 { Ok(()) } else { Err(count.to_string()) }
    });
    host.davit(["wait", "--condition", "restarting", "crash"]).ok();
    host.davit(["ps"]).ok().says("Restarting (3)");
    assert_eq!(field(&host, "crash", "{{.State.Running}} {{.State.Restarting}}"), "true true");
    host.davit(["exec", "crash", "true"]).refused(&["restarting", "wait until"]);
    host.davit(["pause", "crash"]).refused(&["restarting", "wait until"]);
    host.davit(["rm", "crash"]).refused(&["restarting"]);
    host.davit(["kill", "-s", "USR1", "crash"]).refused(&["restarting"]);
    host.davit(["kill", "crash"]).ok().prints("crash");
    assert!(field(&host, "crash", STATE).starts_with("exited 3"));
    host.davit(["start", "crash"]).ok();
    host.davit(["wait", "--condition", "restarting", "crash"]).ok();
    host.davit(["update", "--restart", "no", "crash"]).ok().prints("crash");
    host.davit(["wait", "crash"]).ok().prints("3");
    host.davit(["rm", "crash"]).ok();

    let refused = |words: &[&str], says: &[&str]| {
        host.davit(["run", "-d"].iter().chain(words).chain(&["busybox:1", "true"])).refused(says);
    };
    refused(&["--rm", "--restart", "always"], &["--rm", "--restart"]);
    refused(&["--restart", "always:3"], &["policy"]);
    refused(&["--restart", "sometimes"], &["policy", "unless-stopped"]);

    // What cannot start says why, and starts when it can.
    host.sh("mkdir $DAVIT_STATE_DIR/source").ok();
    let source = host.sh("echo $DAVIT_STATE_DIR/source").ok();
    let mount = format!("type=bind,source={},target=/mnt", source.text());
    let rest =
        ["--restart", "always", "--net", "none", "--mount", &mount, "busybox:1", "sh", "-c", UNTIL_END];
    host.run_detached("late", &rest).logs_until("up");
    host.sh("rmdir $DAVIT_STATE_DIR/source; davit exec late sh -c 'echo 4 > /end.new; mv /end.new /end'")
        .ok();
    eventually("it says why it does not start", || {
        let now = field(&host, "late", "{{.State.Status}} {{.State.Error}}");
        if now.starts_with("restarting") && now.contains("source") { Ok(()) } else { Err(now) }
    });
    host.sh("mkdir $DAVIT_STATE_DIR/source").ok();
    host.davit(["wait", "--condition", "running", "late"]).ok();
    assert_eq!(field(&host, "late", "{{.State.Error}}"), "");
}

#[test]
fn a_policy_holds_over_the_death_of_the_daemon_and_over_a_boot() {
    let host = Host::with_busybox();
    for (name, policy) in [
        ("goes", "unless-stopped"),
        ("rests", "unless-stopped"),
        ("always", "always"),
        ("fails", "on-failure"),
        ("plain", "no"),
    ] {
        let rest = ["--restart", policy, "--net", "none", "busybox:1", "sh", "-c", UNTIL_END];
        host.run_detached(name, &rest).logs_until("up");
    }
    host.davit(["stop", "-t", "0", "rests", "always"]).ok();
    // One ends while runtimed is away.
    host.sh("kill -STOP $(pgrep -x davit-superviso); kill -9 $(pgrep -x davit-runtimed)").ok();
    host.sh("for m in $(pgrep -x davit-monitor); do for p in $(cat /proc/$m/task/$m/children); do kill -9 $p; done; done").ok();
    host.sh("kill -CONT $(pgrep -x davit-superviso)").ok();
    until(&host, "goes", STATE, "running 0 1");
    until(&host, "fails", STATE, "running 0 1");
    assert_eq!(field(&host, "plain", STATE), "exited 137 0");
    assert!(field(&host, "always", STATE).starts_with("exited 137"), "a daemon's death is no boot");

    // A boot: nothing runs, and the run directory is empty.
    host.sh("davit down -q; for m in $(pgrep -x davit-monitor); do for p in $(cat /proc/$m/task/$m/children); do kill -9 $p; done; kill -9 $m; done")
        .ok();
    eventually("all are dead", || {
        let left = host.sh("pgrep -x 'davit-monitor|davit-runtimed|davit-superviso'");
        if left.text().is_empty() { Ok(()) } else { Err(left.to_string()) }
    });
    host.sh("rm -rf /run/davit/*").ok();
    for name in ["goes", "fails", "always"] {
        until(&host, name, "{{.State.Status}}", "running");
    }
    assert!(field(&host, "rests", STATE).starts_with("exited 137"), "a person stopped it");
    assert!(field(&host, "plain", STATE).starts_with("exited 137"), "it has no policy");
}

#[test]
fn a_start_that_is_held_up_is_seen_and_cut_short() {
    let host = Host::with_busybox();
    host.davit(["create", "--name", "made", "busybox:1", "sleep", "1000"]).ok();
    host.sh("pkill -STOP -x davit-netd").ok();
    let running = host.start_davit(["run", "-d", "--name", "slow", "busybox:1", "sleep", "1000"]);
    let starting = host.start_davit(["start", "made"]);
    eventually("both are seen", || {
        let ran = host.davit(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
        if ran.text() == "slow created\nmade created" { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["rm", "-f", "slow"]).ok().prints("slow");
    running.wait().refused(&["cut short"]);
    host.davit(["stop", "made"]).ok().prints("made");
    starting.wait().refused(&["cut short"]);
    assert_eq!(field(&host, "made", "{{.State.Status}}"), "created");
    host.sh("pkill -CONT -x davit-netd").ok();
    host.davit(["start", "made"]).ok();
    host.davit(["start", "made"]).ok().prints("made");

    host.davit(["net", "check"]).ok();
    host.davit(["rm", "-f", "made"]).ok();
    host.davit(["ps", "-aq"]).ok().prints("");
}

#[test]
fn a_daemon_that_does_not_start_stops_only_what_needs_it() {
    let host = Host::with_busybox();
    host.run_detached("c", &["busybox:1", "sh", "-c", "echo up; sleep 1000"]).logs_until("up");
    host.sh("davit down -q; echo 'broken = [' > $DAVIT_CONFIG_DIR/netd.toml").ok();
    host.davit(["ps"]).ok().says("busybox:1");
    host.davit(["logs", "c"]).ok().prints("up");
    host.davit(["exec", "c", "true"]).ok();
    assert_eq!(field(&host, "c", "{{.State.Status}}"), "running");
    host.davit(["net", "ls"]).refused(&["netd", "netd.toml"]);
    host.davit(["run", "-d", "busybox:1", "true"]).refused(&["netd", "netd.toml"]);
    host.davit(["rm", "-f", "c"]).ok();
    host.davit(["ps", "-aq"]).ok().prints("");
    host.sh("rm $DAVIT_CONFIG_DIR/netd.toml; davit down -q").ok();
    host.davit(["net", "ls"]).ok();
}

#[test]
fn limits_change_while_it_runs_and_figures_are_told() {
    let host = Host::with_busybox();
    let eats = "x=$(head -c 20000000 /dev/zero | tr '\\0' a); echo up; sleep 1000 & wait";
    for runtime in ["davit-runner", "runc"] {
        let rest = ["--runtime", runtime, "-m", "64m", "--pids-limit", "50", "busybox:1", "sh", "-c", eats];
        host.run_detached(runtime, &rest).logs_until("up");
        let inside = |file: &str| {
            let pid = field(&host, runtime, "{{.State.Pid}}");
            let find = format!(
                "l=$(grep -E ':{file}' /proc/{pid}/cgroup) || l=$(grep ^0: /proc/{pid}/cgroup); echo ${{l##*:}}"
            );
            host.sh(&find).ok().text().to_owned()
        };
        let limit = || {
            let path = inside("memory:");
            host.sh(&format!("cat /sys/fs/cgroup/memory{path}/memory.limit_in_bytes /sys/fs/cgroup{path}/memory.max 2>/dev/null; true"))
                .ok().text().to_owned()
        };
        let update = |words: &[&str]| host.davit(["update"].iter().chain(words).chain(&[runtime]));
        update(&["-m", "100m", "--pids-limit", "60", "--cpus", "0.5"]).ok().prints(runtime);
        assert_eq!(limit(), (100 << 20).to_string());
        let shown = field(
            &host,
            runtime,
            "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}}",
        );
        assert_eq!(shown, format!("{} 60 500000000", 100 << 20));
        update(&["-m", "300m"]).refused(&["memoryswap"]);
        update(&["-m", "8m"]).refused(&[]);
        update(&["--cpuset-cpus", "4000", "--pids-limit", "70"]).refused(&[]);
        assert_eq!(limit(), (100 << 20).to_string(), "a refusal changes nothing");
        assert_eq!(field(&host, runtime, "{{.HostConfig.PidsLimit}}"), "60");
        let pids = inside("pids:");
        host.sh(&format!(
            "cat /sys/fs/cgroup/pids{pids}/pids.max 2>/dev/null || cat /sys/fs/cgroup{pids}/pids.max"
        ))
        .ok()
        .prints("60");
        let stats = host.davit(["stats", "--no-stream", "--format", "json", runtime]).ok();
        let row = &objects(&stats)[0];
        assert_eq!(row["Name"], runtime);
        assert!(row["MemUsage"].as_str().is_some_and(|m| m.ends_with("/ 100MiB")), "{stats}");
        assert!(row["PIDs"].as_str().is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0)), "{stats}");
        assert!(row["NetIO"].as_str().is_some_and(|n| n.contains(" / ")), "{stats}");
    }
    host.davit(["update", "runc"]).refused(&["flags"]);
    host.davit(["stop", "-t", "0", "runc"]).ok();
    host.davit(["update", "--memory", "80m", "--memory-swap", "-1", "runc"]).ok();
    host.davit(["start", "runc"]).ok();
    assert_eq!(
        field(&host, "runc", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"),
        format!("{} -1", 80 << 20)
    );
    host.davit(["stop", "-t", "0", "runc"]).ok();
    let table = host.davit(["stats", "-a", "--no-stream"]).ok().says("CPU %").says("0B / 0B");
    assert_eq!(table.stdout.lines().count(), 3, "{table}");
    host.davit(["stats", "--no-stream"]).ok().says_not("runc");
    host.davit(["stats", "nobody"]).refused(&["nobody"]);
    let live = host.start_davit(["stats", "--format", "{{.Name}} {{.CPUPerc}}"]);
    live.until("davit-runner");
    // It goes on over a restart of the daemon.
    host.sh("kill -9 $(pgrep -x davit-runtimed)").ok();
    let before = live.so_far().stdout.len();
    eventually("more figures come", || {
        let now = live.so_far();
        if now.stdout.len() > before + 60 { Ok(()) } else { Err(now.to_string()) }
    });
}

#[test]
fn an_init_comes_first_reaps_and_hands_signals_on() {
    let host = Host::with_busybox();
    let script = "trap 'exit 6' TERM; (sleep 0.1 &); echo up; while :; do sleep 0.05; done";
    for runtime in ["davit-runner", "runc"] {
        let rest =
            ["--init", "--read-only", "--net", "none", "--runtime", runtime, "busybox:1", "sh", "-c", script];
        let c = host.run_detached(runtime, &rest);
        c.logs_until("up");
        c.sh("tr '\\0' ' ' < /proc/1/cmdline").ok().says("/sbin/docker-init -- sh -c");
        eventually("the orphan is reaped", || {
            let ran = c.sh("grep -l 'Z (zombie)' /proc/[0-9]*/status; grep -c . /proc/[0-9]*/comm | wc -l");
            if ran.stdout.contains("status") { Err(ran.to_string()) } else { Ok(()) }
        });
        c.sh("echo x > /sbin/docker-init").code_is_not_zero();
        host.davit(["stop", runtime]).ok();
        assert_eq!(field(&host, runtime, "{{.State.ExitCode}} {{.HostConfig.Init}} {{.Path}}"), "6 true sh");
    }
    let run = |words: &[&str]| {
        host.davit(["run", "--rm", "--init", "--net", "none", "busybox:1"].iter().chain(words))
    };
    run(&["sh", "-c", "exit 9"]).exits(9);
    run(&["sh", "-c", "kill -9 $$"]).exits(137);
    run(&["no-such-program"]).exits(127);
}
