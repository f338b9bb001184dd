//! Daemons come and go; containers, their logs, names and ports stay.

use std::fs;

use davit_tests::host::{Running, objects};
use davit_tests::{Container, Host, Ran, eventually};

/// Seconds for a command that is refused after some: far more than it needs.
const PATIENCE: u32 = 90;
/// What timeout(1) ends with.
const TIMED_OUT: i32 = 124;

/// Counts, ten times a second.
const COUNTER: &[&str] = &["busybox:1", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"];

/// Kills a daemon as the kernel would, and waits until it is gone.
fn kill_9(host: &Host, daemon: &str) {
    let comm = &daemon[..daemon.len().min(15)];
    let old = host.sh(&format!("pgrep -x {comm}")).ok();
    host.sh(&format!("pkill -9 -x {comm}")).ok();
    eventually("the killed process is gone", || {
        let now = host.sh(&format!("pgrep -x {comm}"));
        if now.text() == old.text() { Err(now.to_string()) } else { Ok(()) }
    });
}

/// Asserts that the log counts on from where it was, with no number missing or twice, and answers where it is.
fn counts_on(c: &Container<'_>, host: &Host, from: usize) -> usize {
    let wanted = format!("\n{}\n", from + 3);
    let ran = eventually("the log goes on", || {
        let ran = host.davit(["logs", &c.name]);
        if ran.code == 0 && ran.stdout.contains(&wanted) { Ok(ran) } else { Err(ran.to_string()) }
    });
    for (index, line) in ran.stdout.lines().enumerate() {
        assert_eq!(line, (index + 1).to_string(), "the log has a gap: {ran}");
    }
    ran.stdout.lines().count()
}

fn survives(daemon: &str) {
    let host = Host::with_busybox();
    host.net_create("n");
    let counter = host.run_detached("counter", &[&["--net", "n"], COUNTER].concat());
    let server = ["--net", "n", "-p", "8080:80", "busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];
    host.run_detached("web", &server);
    let pid = counter.inspect(&["State", "Pid"]);
    let seen = counts_on(&counter, &host, 1);
    kill_9(&host, daemon);
    host.davit(["exec", "counter", "true"]).ok();
    let seen = counts_on(&counter, &host, seen);
    assert_eq!(counter.inspect(&["State", "Pid"]), pid, "the same process");
    assert!(!counter.resolves("web").is_empty());
    counter.sh("nc -w 5 web 80 </dev/null").ok();
    let port = host.sh("nc -w 5 127.0.0.1 8080 </dev/null").ok();
    assert!(!port.text().is_empty(), "{port}");
    // Everything else works as before, too.
    host.davit(["run", "--rm", "--net", "n", "busybox:1", "true"]).ok();
    let follower = host.start_davit(["logs", "-f", "--tail", "1", "counter"]);
    follower.until(&format!("{}\n", seen + 10));
    host.davit(["rm", "-f", "counter", "web"]).ok();
    host.davit(["net", "rm", "n"]).ok();
}

#[test]
fn a_container_survives_the_death_of_storaged() {
    survives("davit-storaged");
}

#[test]
fn a_container_survives_the_death_of_netd() {
    survives("davit-netd");
}

#[test]
fn a_container_survives_the_death_of_runtimed() {
    survives("davit-runtimed");
}

#[test]
fn a_container_survives_the_death_of_the_supervisor() {
    survives("davit-supervisor");
}

#[test]
fn an_attached_client_outlives_runtimed() {
    let host = Host::with_busybox();
    let script = "i=0; while [ ! -e /end ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 5";
    let running = host.start_davit(["run", "--name", "c", "--net", "none", "busybox:1", "sh", "-c", script]);
    running.until("3\n");
    kill_9(&host, "davit-runtimed");
    running.until("15\n");
    host.davit(["exec", "c", "touch", "/end"]).ok();
    let ran = running.wait().exits(5);
    for (index, line) in ran.stdout.lines().enumerate() {
        assert_eq!(line, (index + 1).to_string(), "{ran}");
    }
}

#[test]
fn an_exit_while_no_daemon_runs_is_known_afterwards() {
    let host = Host::with_busybox();
    host.net_create("n");
    let dir = host.work("shared");
    std::fs::create_dir(&dir).unwrap();
    let volume = format!("{}:/shared", dir.display());
    let script = "until [ -e /shared/end ]; do sleep 0.05; done; echo last words; exit 7";
    host.run_detached("c", &["--net", "n", "-v", &volume, "busybox:1", "sh", "-c", script]);
    host.davit(["down"]).ok();
    std::fs::write(dir.join("end"), "").unwrap();
    eventually("the program has ended", || {
        let ran = host.sh("pgrep -f '[s]hared/end'");
        if ran.text().is_empty() { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["wait", "c"]).ok().prints("7");
    host.davit(["logs", "c"]).ok().prints("last words");
    host.davit(["rm", "c"]).ok();
}

#[test]
fn down_leaves_containers_running_and_up_finds_them() {
    let host = Host::with_busybox();
    let c = host.run_detached("counter", &[&["--net", "none"], COUNTER].concat());
    let seen = counts_on(&c, &host, 1);
    host.davit(["down"]).ok();
    let left = host.inventory().matching("process ").join("\n");
    for daemon in ["davit-storaged", "davit-netd", "davit-runtimed", "davit-supervisor"] {
        assert!(!left.contains(daemon), "{daemon} still runs:\n{left}");
    }
    assert!(left.contains("davit-monitor"), "the monitor holds the container:\n{left}");
    host.davit(["up"]).ok();
    host.davit(["ps"]).ok().says("counter");
    counts_on(&c, &host, seen);
    c.exec(&["true"]).ok();
}

#[test]
fn status_shows_the_three_daemons() {
    let host = Host::new();
    assert_eq!(host.davit(["status"]).code, 1, "nothing runs yet");
    host.davit(["up"]).ok();
    let table = host.davit(["status"]).ok();
    for word in
        ["davit-storaged", "davit-netd", "davit-runtimed", "davit.storage", "davit.network", "davit.runtime"]
    {
        assert!(table.stdout.contains(word), "no {word} in {table}");
    }
    let rows = objects(&host.davit(["status", "--format", "json"]).ok());
    assert!(!rows.is_empty());
    host.davit(["down"]).ok();
    let up = host.davit(["up"]);
    up.ok();
}

#[test]
fn concurrent_first_commands_start_one_set_of_daemons() {
    let host = Host::new();
    let commands: Vec<_> = (0..6).map(|_| host.start_davit(["image", "ls"])).collect();
    for command in commands {
        command.wait().ok();
    }
    for daemon in ["davit-storaged", "davit-netd", "davit-runtimed", "davit-supervisor"] {
        host.sh(&format!("pgrep -x -c {}", &daemon[..daemon.len().min(15)])).ok().prints("1");
    }
}

#[test]
fn a_second_daemon_on_a_state_directory_is_refused() {
    let host = Host::with_busybox();
    for daemon in ["davit-storaged", "davit-netd", "davit-runtimed"] {
        let second = host.command(daemon).env("DAVIT_RUN_DIR", "/run/second").start().wait();
        assert!(second.code != 0, "{second}");
        let said = second.stderr.to_lowercase();
        assert!(said.contains("state") && (said.contains("another") || said.contains("already")), "{second}");
        assert!(!said.contains("panicked"), "{second}");
    }
    let words = ["--run-dir", "/run/second", "image", "ls"];
    let ran = host.davit(words);
    assert!(ran.code != 0, "a second suite on the same state: {ran}");
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "true"]).ok();
    host.sh("rm -rf /run/second").ok();
}

/// davit-netd on a socket of its own, with the other two under a supervisor.
fn netd_alone(host: &Host) -> Running {
    let alone = host.command("davit-netd").start();
    eventually("it serves", || {
        let ran = host.sh("test -S /run/davit/netd.sock");
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["up"]).ok();
    assert_eq!(netd(host).0, "elsewhere");
    alone
}

/// The state and the pid of netd.
fn netd(host: &Host) -> (String, String) {
    let status = host.davit(["status", "--format", "json"]).ok().json();
    let daemons = status["Daemons"].as_array().expect("a list").iter();
    let netd = daemons.into_iter().find(|d| d["Name"] == "davit-netd").expect("one of three");
    (netd["State"].as_str().unwrap_or_default().to_owned(), netd["Pid"].to_string())
}

#[test]
fn a_call_waits_for_the_successor_of_a_daemon_that_ran_alone() {
    for signal in ["TERM", "KILL"] {
        let host = Host::new();
        let alone = netd_alone(&host);
        let (_, first) = netd(&host);
        host.sh(&format!("kill -{signal} {first}")).ok();
        alone.wait();
        let left = host.sh("test -e /run/davit/netd.sock").code == 0;
        assert_eq!(left, signal == "KILL", "one that ends in order takes its socket with it");
        host.davit(["net", "ls", "-q"]).ok();
        assert_eq!(netd(&host).0, "running");
    }
}

#[test]
fn a_run_waits_for_the_successor_of_a_netd_that_ran_alone() {
    let host = Host::with_busybox();
    host.davit(["down"]).ok();
    let alone = netd_alone(&host);
    host.net_create("n");
    let (_, first) = netd(&host);
    host.sh(&format!("kill {first}")).ok();
    alone.wait();
    host.davit(["run", "--rm", "--net", "n", "busybox:1", "true"]).ok();
    assert_eq!(netd(&host).0, "running");
}

#[test]
fn a_call_waits_for_a_daemon_alone_that_listens_no_more_and_has_not_ended() {
    let host = Host::new();
    let alone = netd_alone(&host);
    let (_, first) = netd(&host);
    host.sh("rm /run/davit/netd.sock").ok();
    let call = host.start_davit(["net", "ls", "-q"]);
    // By now the call has found nobody; later is no failure.
    host.sh(&format!("sleep 1; kill {first}")).ok();
    alone.wait();
    call.wait().ok();
    assert_eq!(netd(&host).0, "running");
}

/// Asserts that a command fails soon, and says why.
fn refused_for_netd(ran: &Ran) {
    assert_ne!(ran.code, 0, "{ran}");
    assert_ne!(ran.code, TIMED_OUT, "it hangs: {ran}");
    assert!(ran.stderr.contains("davit-netd does not start: "), "{ran}");
}

#[test]
fn commands_that_need_a_netd_which_cannot_start_say_so() {
    let host = Host::with_busybox();
    host.net_create("n");
    let sleep = ["busybox:1", "sleep", "1000"];
    let run = |name: &str| host.run_detached(name, &[&["--net", "n"][..], &sleep].concat());
    let asker = run("asker");
    for name in ["killed", "stopped", "there", "connected"] {
        run(name);
    }
    let toml = host.path().join("config/netd.toml");
    fs::write(&toml, "garbage = [").unwrap();
    kill_9(&host, "davit-netd");

    let davit = |words: &str| host.sh(&format!("timeout {PATIENCE} davit {words}"));
    let answers = |words: &str| davit(words).ok();
    refused_for_netd(&davit("run -d --name late --net n busybox:1 sleep 1000").exits(125));
    answers("stop -t 0 stopped");
    answers("kill killed");
    eventually("its end is seen", || {
        let state = host.davit(["inspect", "-f", "{{.State.Status}}", "killed"]).ok();
        if state.text() == "exited" { Ok(()) } else { Err(state.to_string()) }
    });
    refused_for_netd(&davit("start killed"));
    refused_for_netd(&davit("network connect bridge connected"));
    refused_for_netd(&davit("rename connected other"));
    answers("rm stopped");
    answers("rm -f there killed");
    answers("run --rm --net host busybox:1 true");

    fs::remove_file(&toml).unwrap();
    eventually("netd serves", || {
        let ran = host.davit(["net", "ls"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    // What was refused has not been done meanwhile.
    host.davit(["ps", "-a"]).ok().says_not("late").says("connected");
    assert!(!asker.resolves("connected").is_empty());
    asker.does_not_resolve("other");
    host.davit(["run", "--rm", "--net", "n", "busybox:1", "nslookup", "asker"]).ok();
    eventually("nothing is left", || {
        let ran = host.davit(["net", "check"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["restart", "-t", "0", "connected"]).ok();
    host.davit(["rm", "-f", "asker", "connected"]).ok();
    host.davit(["net", "rm", "n"]).ok();
}

#[test]
fn an_exited_container_is_removed_while_netd_hangs() {
    let host = Host::with_busybox();
    host.net_create("n");
    for name in ["stopped", "there"] {
        host.run_detached(name, &["--net", "n", "busybox:1", "sleep", "1000"]);
    }
    let (_, pid) = netd(&host);
    host.sh(&format!("kill -STOP {pid}")).ok();
    for words in ["stop -t 0 stopped", "rm stopped", "rm -f there"] {
        host.sh(&format!("timeout {PATIENCE} davit {words}")).ok();
    }
    host.sh(&format!("kill -CONT {pid}")).ok();
    eventually("netd lets go of both", || {
        let ran = host.davit(["net", "rm", "n"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
}

#[test]
fn a_newer_state_directory_is_refused_by_name() {
    let host = Host::new();
    host.davit(["up"]).ok();
    host.davit(["down"]).ok();
    host.sh("echo 999 > \"$DAVIT_STATE_DIR\"/storage/format").ok();
    let ran = host.command("davit-storaged").start().wait();
    assert!(ran.code != 0 && ran.stderr.contains("999"), "{ran}");
    host.davit(["image", "ls"]).refused(&["999"]);
    // Who needs no storage does without it.
    host.davit(["ps"]).ok();
    host.sh("echo 1 > \"$DAVIT_STATE_DIR\"/storage/format").ok();
}

#[test]
fn kill_9_in_the_middle_of_runs_leaks_nothing() {
    let host = Host::with_busybox();
    host.net_create("n");
    for daemon in ["davit-runtimed", "davit-netd", "davit-storaged"] {
        let runs: Vec<_> =
            (0..4).map(|_| host.start_davit(["run", "--rm", "--net", "n", "busybox:1", "true"])).collect();
        std::thread::sleep(std::time::Duration::from_millis(30));
        kill_9(&host, daemon);
        for run in runs {
            // Whether a run was hit or not: it ends, and what it made goes.
            let _ = run.wait();
        }
        host.davit(["run", "--rm", "--net", "n", "busybox:1", "true"]).ok();
    }
    eventually("all containers are gone", || {
        let ran = host.davit(["ps", "-a"]).ok();
        if ran.stdout.lines().count() == 1 { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["net", "rm", "n"]).ok();
}

#[test]
fn many_containers_at_once() {
    let host = Host::with_busybox();
    let runs: Vec<_> =
        (0..12).map(|n| host.start_davit(["run", "--rm", "busybox:1", "echo", &n.to_string()])).collect();
    for (n, run) in runs.into_iter().enumerate() {
        run.wait().ok().prints(&n.to_string());
    }
}
