//! run, create, start, stop, kill, rm, ps, inspect, logs, exec, wait, attach.

use davit_tests::host::{names, objects};
use davit_tests::{Host, eventually};
use nix::sys::signal::Signal;

/// A container that ends at once on SIGTERM.
const POLITE: &str = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";

fn status(host: &Host, name: &str) -> String {
    host.davit(["inspect", "--format", "{{.State.Status}}", name]).ok().text().to_owned()
}

#[test]
fn output_and_error_output_arrive_apart() {
    let host = Host::with_busybox();
    let ran =
        host.davit(["run", "--rm", "--net", "none", "busybox:1", "sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"), "{ran}");
}

#[test]
fn standard_input_is_given_with_i_only() {
    let host = Host::with_busybox();
    let run = |words: &[&str]| {
        let args = ["run", "--rm", "--net", "none"].iter().chain(words);
        host.command("davit").args(args).stdin("one\ntwo\n").start().wait().ok()
    };
    run(&["-i", "busybox:1", "wc", "-l"]).prints("2");
    run(&["busybox:1", "wc", "-l"]).prints("0");
}

/// The numbers from 1, one a line.
fn counted(to: u32) -> String {
    (1..=to).fold(String::new(), |text, n| text + &n.to_string() + "\n")
}

#[test]
fn much_output_arrives_whole() {
    let host = Host::with_busybox();
    let ran = host.davit(["run", "--rm", "--net", "none", "busybox:1", "seq", "300000"]).ok();
    let expected = counted(300_000);
    assert!(ran.stdout == expected, "{} bytes instead of {}", ran.stdout.len(), expected.len());
}

#[test]
fn much_input_arrives_whole() {
    let host = Host::with_busybox();
    let input = counted(200_000);
    let run = host.command("davit").args(["run", "-i", "--rm", "--net", "none", "busybox:1", "cat"]);
    let ran = run.stdin(input.clone()).start().wait().ok();
    assert!(ran.stdout == input, "{} bytes instead of {}", ran.stdout.len(), input.len());
}

#[test]
fn a_detached_container_prints_its_id_and_goes_on() {
    let host = Host::with_busybox();
    let web = host.run_detached("web", &["--net", "none", "busybox:1", "sh", "-c", POLITE]);
    web.logs_until("up");
    assert_eq!(status(&host, "web"), "running");
    assert_eq!(status(&host, &web.id[..12]), "running");
    host.davit(["ps", "--no-trunc", "-q"]).ok().prints(&web.id);
    host.davit(["stop", "web"]).ok().prints("web");
    assert_eq!(status(&host, "web"), "exited");
    host.davit(["inspect", "--format", "{{.State.ExitCode}}", "web"]).ok().prints("0");
    host.davit(["logs", "web"]).ok().prints("up\nbye");
    host.davit(["stop", "web"]).ok();
}

#[test]
fn a_created_container_starts_and_starts_again() {
    let host = Host::with_busybox();
    host.davit([
        "create",
        "--name",
        "twice",
        "--net",
        "none",
        "busybox:1",
        "sh",
        "-c",
        "echo run >> /count; cat /count",
    ])
    .ok();
    assert_eq!(status(&host, "twice"), "created");
    host.davit(["start", "-a", "twice"]).ok().prints("run");
    assert_eq!(status(&host, "twice"), "exited");
    host.davit(["start", "-a", "twice"]).ok().prints("run\nrun");
    host.davit(["start", "twice"]).ok().prints("twice");
    host.davit(["wait", "twice"]).ok().prints("0");
    host.davit(["rm", "twice"]).ok().prints("twice");
    host.davit(["inspect", "twice"]).refused(&["twice"]);
}

#[test]
fn ps_lists_what_runs_and_with_a_what_has_ended() {
    let host = Host::with_busybox();
    host.run_detached("runs", &["--net", "none", "busybox:1", "sleep", "1000"]);
    host.davit(["run", "--name", "ended", "--net", "none", "busybox:1", "sh", "-c", "exit 3"]).exits(3);
    let table = host.davit(["ps"]).ok().says("runs").says("busybox:1").says("Up").says_not("ended");
    assert!(table.stdout.starts_with("CONTAINER ID"), "{table}");
    host.davit(["ps", "-a"]).ok().says("runs").says("ended").says("Exited (3)");
    assert_eq!(names_of(&host, &["ps", "--format", "json"]), ["runs"]);
    assert_eq!(names_of(&host, &["ps", "-a", "--filter", "status=exited", "--format", "json"]), ["ended"]);
    assert_eq!(host.davit(["ps", "-aq"]).ok().text().lines().count(), 2);
}

/// docker's key for a name in `ps` is `Names`.
fn names_of(host: &Host, words: &[&str]) -> Vec<String> {
    let ran = host.davit(words).ok();
    let plural =
        objects(&ran).iter().filter_map(|o| o["Names"].as_str().map(str::to_owned)).collect::<Vec<_>>();
    if plural.is_empty() { names(&ran) } else { plural }
}

#[test]
fn inspect_tells_what_a_container_is() {
    let host = Host::with_busybox();
    let words = [
        "--net",
        "none",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "web",
        "--hostname",
        "ship",
        "busybox:1",
        "sleep",
        "1000",
    ];
    let c = host.run_detached("c", &words);
    assert_eq!(c.inspect(&["Id"]), c.id);
    assert_eq!(c.inspect(&["Name"]), "/c");
    assert_eq!(c.inspect(&["State", "Running"]), true);
    assert_eq!(c.inspect(&["Config", "WorkingDir"]), "/tmp");
    assert_eq!(c.inspect(&["Config", "User"]), "web");
    assert_eq!(c.inspect(&["Config", "Hostname"]), "ship");
    assert!(c.inspect(&["Config", "Env"]).as_array().unwrap().iter().any(|e| e == "A=b"));
    let pid = c.inspect(&["State", "Pid"]).as_i64().unwrap();
    host.sh(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline")).ok().prints("sleep 1000");
}

#[test]
fn generated_names_differ_and_can_be_used() {
    let host = Host::with_busybox();
    for _ in 0..2 {
        host.davit(["run", "-d", "--net", "none", "busybox:1", "sleep", "1000"]).ok();
    }
    let mut names = names_of(&host, &["ps", "--format", "json"]);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2, "{names:?}");
    for name in names {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'), "{name}");
        host.davit(["exec", &name, "true"]).ok();
    }
}

#[test]
fn rm_wants_force_for_what_runs_and_a_removed_name_is_free() {
    let host = Host::with_busybox();
    for _ in 0..2 {
        let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
        host.davit(["rm", "c"]).refused(&["c", "running"]);
        c.remove();
    }
    host.davit(["ps", "-aq"]).ok().prints("");
}

#[test]
fn an_auto_removed_container_is_gone_when_the_command_returns() {
    let host = Host::with_busybox();
    for _ in 0..5 {
        host.davit(["run", "--rm", "--name", "same", "--net", "none", "busybox:1", "true"]).ok();
    }
    host.davit(["ps", "-aq"]).ok().prints("");
    host.davit(["run", "-d", "--rm", "--name", "same", "--net", "none", "busybox:1", "true"]).ok();
    eventually("the container removes itself", || {
        let ran = host.davit(["ps", "-aq"]).ok();
        if ran.text().is_empty() { Ok(()) } else { Err(ran.to_string()) }
    });
}

#[test]
fn stop_kills_what_does_not_listen() {
    let host = Host::with_busybox();
    let deaf = host.run_detached(
        "deaf",
        &["--net", "none", "busybox:1", "sh", "-c", "trap '' TERM; echo up; sleep 1000"],
    );
    deaf.logs_until("up");
    host.davit(["stop", "-t", "1", "deaf"]).ok();
    host.davit(["inspect", "--format", "{{.State.ExitCode}}", "deaf"]).ok().prints("137");
}

#[test]
fn kill_sends_the_signal_that_is_named() {
    let host = Host::with_busybox();
    let script = "trap 'echo usr1' USR1; trap 'exit 5' INT; echo up; while :; do sleep 0.05; done";
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sh", "-c", script]);
    c.logs_until("up");
    host.davit(["kill", "-s", "USR1", "c"]).ok();
    c.logs_until("usr1");
    host.davit(["kill", "--signal", "SIGINT", "c"]).ok();
    host.davit(["wait", "c"]).ok().prints("5");
    host.davit(["kill", "c"]).refused(&["c", "not running"]);
    host.davit(["start", "c"]).ok();
    host.davit(["kill", "c"]).ok();
    host.davit(["wait", "c"]).ok().prints("137");
}

#[test]
fn wait_blocks_until_the_end_and_prints_the_code() {
    let host = Host::with_busybox();
    host.run_detached(
        "c",
        &["--net", "none", "busybox:1", "sh", "-c", "until [ -e /end ]; do sleep 0.05; done; exit 9"],
    );
    let waiting = host.start_davit(["wait", "c"]);
    host.davit(["exec", "c", "touch", "/end"]).ok();
    waiting.wait().ok().prints("9");
}

#[test]
fn logs_follow_tail_and_tell_the_time() {
    let host = Host::with_busybox();
    let script = "echo one; echo two; echo three >&2; until [ -e /go ]; do sleep 0.05; done; echo four";
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sh", "-c", script]);
    eventually("all is logged", || {
        let ran = host.davit(["logs", "c"]).ok();
        if ran.stderr.contains("three") { Ok(()) } else { Err(ran.to_string()) }
    });
    let ran = host.davit(["logs", "c"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("one\ntwo\n", "three\n"), "{ran}");
    let last = host.davit(["logs", "--tail", "1", "c"]).ok();
    assert_eq!((last.stdout.as_str(), last.stderr.as_str()), ("", "three\n"), "{last}");
    let timed = host.davit(["logs", "-t", "c"]).ok();
    assert!(
        timed.stdout.lines().all(|l| l.starts_with("20") && l.contains('T') && l.contains("Z ")),
        "{timed}"
    );
    let following = host.start_davit(["logs", "-f", "c"]);
    following.until("two");
    c.exec(&["touch", "/go"]).ok();
    following.wait().ok().says("four");
}

#[test]
fn exec_runs_beside_the_program_with_its_own_user_directory_and_environment() {
    let host = Host::with_busybox();
    let c = host.run_detached("c", &["--net", "none", "-e", "A=container", "busybox:1", "sleep", "1000"]);
    c.exec(&["sh", "-c", "echo $A"]).ok().prints("container");
    let words =
        ["exec", "-u", "web", "-w", "/var/www", "-e", "A=exec", "c", "sh", "-c", "id -un; pwd; echo $A"];
    host.davit(words).ok().prints("web\n/var/www\nexec");
    c.sh("exit 7").exits(7);
    c.sh("kill -9 $$").exits(137);
    c.exec(&["no-such-program"]).exits(127);
    c.exec(&["/etc/plain"]).exits(126);
    let cat = host.command("davit").args(["exec", "-i", "c", "cat"]).stdin("typed\n").start().wait();
    cat.ok().prints("typed");
    host.davit(["exec", "-d", "c", "touch", "/made"]).ok();
    eventually("the detached exec has run", || {
        let ran = c.exec(&["test", "-e", "/made"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["kill", "c"]).ok();
    host.davit(["wait", "c"]).ok();
    c.exec(&["true"]).refused(&["c", "not running"]);
}

#[test]
fn attach_joins_a_running_container() {
    let host = Host::with_busybox();
    let script = "while read line; do echo got $line; done; echo end; exit 4";
    let c = host.run_detached("c", &["-i", "--net", "none", "busybox:1", "sh", "-c", script]);
    let mut attached = host.command("davit").args(["attach", "c"]).open_stdin().start();
    attached.write("hello\n");
    attached.until("got hello");
    c.logs_until("got hello");
    attached.signal(Signal::SIGKILL);
    assert_eq!(status(&host, "c"), "running");
    host.davit(["kill", "c"]).ok();
}

#[test]
fn several_containers_in_one_command() {
    let host = Host::with_busybox();
    for name in ["a", "b"] {
        host.run_detached(name, &["--net", "none", "busybox:1", "sh", "-c", POLITE]).logs_until("up");
    }
    host.davit(["stop", "a", "b"]).ok().prints("a\nb");
    host.davit(["rm", "a", "missing", "b"]).exits(1).says("a").says("b");
    host.davit(["ps", "-aq"]).ok().prints("");
}

#[test]
fn what_is_frozen_can_be_killed_and_is_cleared_away() {
    let host = Host::with_busybox();
    let run = |name: &str| host.run_detached(name, &["--net", "none", "busybox:1", "sleep", "1000"]);
    let ended = |name: &str, code: i32| {
        eventually("it has ended", || {
            let format = "{{.State.Status}} {{.State.ExitCode}}";
            let ran = host.davit(["inspect", "-f", format, name]).ok();
            if ran.text() == format!("exited {code}") { Ok(()) } else { Err(ran.to_string()) }
        });
    };
    for round in 0..4 {
        let name = format!("killed{round}");
        run(&name);
        host.davit(["pause", &name]).ok();
        host.davit(["kill", &name]).ok();
        ended(&name, 137);
    }
    run("stopped");
    host.davit(["pause", "stopped"]).ok();
    host.davit(["stop", "-t", "0", "stopped"]).ok();
    ended("stopped", 137);
    // Its monitor dies, and nobody is there who would thaw it.
    let lost = run("lost");
    host.davit(["pause", "lost"]).ok();
    host.davit(["down"]).ok();
    host.sh(&format!("pkill -9 -f '[d]avit-monitor .*{}'; rm -rf /run/davit/runtime/*", &lost.id[..16])).ok();
    host.davit(["up"]).ok();
    ended("lost", 137);
    host.davit(["start", "lost"]).ok();
    lost.exec(&["true"]).ok();
    host.davit(["restart", "-t", "0", "lost"]).ok();
    assert!(!lost.inspect(&["State", "FinishedAt"]).to_string().contains("0001-"), "its last end is known");
}

#[test]
fn a_record_that_cannot_be_read_costs_nothing_but_its_name() {
    let host = Host::with_busybox();
    let run = |name: &str| {
        host.run_detached(name, &["--net", "none", "busybox:1", "sh", "-c", "echo kept > /file; sleep 1000"])
    };
    let (torn, removed) = (run("torn"), run("removed"));
    host.davit(["down"]).ok();
    for c in [&torn, &removed] {
        let record = format!("\"$DAVIT_STATE_DIR\"/runtime/containers/{}/container.json", c.id);
        host.sh(&format!("cp {record} {record}.good; truncate -s 200 {record}")).ok();
    }
    host.davit(["up"]).ok();
    let listed = host.davit(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
    for c in [&torn, &removed] {
        listed.clone().says(&format!("{}-damaged dead", &c.id[..12]));
    }
    host.davit(["inspect", "-f", "{{.State.Error}}", &torn.id]).ok().says("container.json");
    host.davit(["start", &torn.id]).refused(&["dead"]);
    // What a person removes goes with its processes; the other is what it was once its record is.
    host.davit(["rm", &removed.id]).ok();
    host.davit(["down"]).ok();
    let record = format!("\"$DAVIT_STATE_DIR\"/runtime/containers/{}/container.json", torn.id);
    host.sh(&format!("mv {record}.good {record}")).ok();
    host.davit(["up"]).ok();
    host.davit(["exec", "torn", "cat", "/file"]).ok().prints("kept");
    host.davit(["ps", "-aq"]).ok().prints(&torn.id[..12]);
}
