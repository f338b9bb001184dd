//! create, start, state, kill, pause, delete.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, RUNNER, alive, text, until};

#[test]
fn a_created_container_waits_and_start_lets_it_run_once() {
    let b = Bundle::new("echo begun; cat /pipe; exit 3");
    b.create();
    let state = b.state();
    assert_eq!((&state["status"], state["pid"].as_i64()), (&json!("created"), Some(i64::from(b.pid()))));
    assert_eq!(b.out(), "");
    b.start();
    b.await_out("begun");
    assert!(b.refused(&["start", &b.id]).contains("cannot start container"));
    b.await_status("stopped");
    assert_eq!(b.state()["pid"], 0);
    b.ok(&["delete", &b.id]);
    b.assert_nothing_left();
    assert!(b.refused(&["state", &b.id]).contains("does not exist"));
}

#[test]
fn exit_codes_and_signals_become_the_runners_own() {
    assert_eq!(Bundle::new("exit 42").run().0, 42);
    assert_eq!(Bundle::new("exec sleep 0.01").run().0, 0);
    // A first process is not killed by a signal it does not handle from inside, but is from outside.
    let b = Bundle::new("echo up; exec sleep 1000");
    b.write();
    let out = std::fs::File::create(b.dir.join("out")).unwrap();
    let mut child =
        b.command(&["run", "--bundle", b.dir.to_str().unwrap(), &b.id]).stdout(out).spawn().unwrap();
    b.await_out("up");
    b.ok(&["kill", &b.id, "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    b.assert_nothing_left();
}

#[test]
fn signals_to_the_foreground_runner_reach_the_program() {
    let b = Bundle::new("trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.05; done");
    b.write();
    let out = std::fs::File::create(b.dir.join("out")).unwrap();
    let mut child =
        b.command(&["run", "--bundle", b.dir.to_str().unwrap(), &b.id]).stdout(out).spawn().unwrap();
    b.await_out("up");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(b.out().ends_with("got\n"));
}

#[test]
fn kill_all_reaches_every_process_also_without_a_pid_namespace() {
    let b = Bundle::new("sleep 1000 & sleep 1000 & echo up; wait").with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    b.create();
    b.start();
    b.await_out("up");
    let pids: Vec<i32> = serde_json::from_str(&b.ok(&["ps", "--format", "json", &b.id])).unwrap();
    assert_eq!(pids.len(), 3);
    b.ok(&["kill", "--all", &b.id, "KILL"]);
    until("all are dead", || !pids.iter().any(|p| alive(*p)));
    b.delete();
}

#[test]
fn delete_refuses_a_running_container_unless_forced() {
    let b = Bundle::new("sleep 1000 & echo up; wait");
    b.create();
    b.start();
    b.await_out("up");
    assert!(b.refused(&["delete", &b.id]).contains("running state"));
    let pid = b.pid();
    b.delete();
    until("it is dead", || !alive(pid));
    b.ok(&["delete", "--force", &b.id]); // nothing there is no error with force
    assert!(b.refused(&["delete", &b.id]).contains("does not exist"));
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let b = Bundle::new("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done");
    b.create();
    b.start();
    b.await_out("3");
    b.ok(&["pause", &b.id]);
    assert_eq!(b.state()["status"], "paused");
    let before = b.out();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(b.out(), before);
    assert!(b.refused(&["exec", &b.id, "true"]).contains("paused"));
    assert!(b.refused(&["pause", &b.id]).contains("paused"));
    b.ok(&["resume", &b.id]);
    until("it goes on", || b.out().len() > before.len());
    assert_eq!(b.state()["status"], "running");
    // A paused one can be killed and deleted.
    b.ok(&["pause", &b.id]);
    b.delete();
}

#[test]
fn state_has_runcs_members() {
    let b = Bundle::new("sleep 1000");
    let leaf = format!("/{}", b.id); // runc leaves the directories above its own
    let b = b.with(|c| {
        c["annotations"] = json!({"a": "b"});
        c["linux"]["cgroupsPath"] = json!(leaf);
    });
    b.create();
    let ours = b.state();
    let root = b.dir.join("runc");
    let runc = |args: &[&str]| {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&root).args(args).stdin(Stdio::null());
        command
    };
    b.delete();
    let id = format!("{}-runc", b.id);
    let mut create = runc(&["create", "--bundle", b.dir.to_str().unwrap(), &id]);
    let made = create.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(made.expect("Debian's package runc").success());
    let theirs: Value = serde_json::from_slice(&runc(&["state", &id]).output().unwrap().stdout).unwrap();
    assert!(runc(&["delete", "--force", &id]).status().unwrap().success());
    let shape = |v: &Value| -> BTreeSet<(String, bool)> {
        v.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.is_string())).collect()
    };
    assert_eq!(shape(&ours), shape(&theirs));
    for member in ["bundle", "rootfs", "status", "annotations"] {
        assert_eq!(ours[member], theirs[member], "{member}");
    }
}

#[test]
fn list_shows_all_and_ids_are_unique() {
    let b = Bundle::new("true");
    b.create();
    assert_eq!(b.ok(&["list", "--quiet"]), format!("{}\n", b.id));
    let list: Value = serde_json::from_str(&b.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["status"]), (1, &json!("created")));
    assert!(b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]).contains("already exists"));
    // The failed second create must not have touched the first.
    assert_eq!(b.state()["status"], "created");
    b.delete();
    assert_eq!(b.ok(&["list", "--format", "json"]), "[]\n");
}

#[test]
fn hooks_run_in_order_with_the_state_on_stdin() {
    let b = Bundle::new("echo program >> /log");
    let log = b.rootfs().join("log");
    let host = |name: &str| {
        let script =
            format!("read s; case $s in *'\"id\":\"{}\"'*) echo {name} >> {};; esac", b.id, log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /log"], "env": ["PATH=/bin"]}]);
    let hooks = json!({
        "prestart": host("prestart"), "createRuntime": host("createRuntime"), "createContainer": host("createContainer"),
        "startContainer": inside, "poststart": host("poststart"), "poststop": host("poststop")
    });
    let b = b.with(|c| c["hooks"] = hooks);
    b.says();
    let lines: Vec<String> = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines[..4], ["prestart", "createRuntime", "createContainer", "startContainer"]);
    let after: BTreeSet<_> = lines[4..].iter().map(String::as_str).collect();
    assert_eq!(after, BTreeSet::from(["program", "poststart", "poststop"]));
    assert_eq!(lines.last().unwrap(), "poststop");
}

#[test]
fn a_failing_hook_ends_the_creation_and_leaves_nothing() {
    let b = Bundle::new("true");
    let b = b.with(|c| {
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
    });
    b.write();
    let message = b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]);
    assert!(message.contains("hook /bin/sh: ended with exit status: 3"), "{message}");
    b.assert_nothing_left();
}

#[test]
fn features_version_and_help_are_printed() {
    let out = |args: &[&str]| text(&Command::new(RUNNER).args(args).output().unwrap().stdout);
    let features: Value = serde_json::from_str(&out(&["features"])).unwrap();
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert!(out(&["--version"]).starts_with("davit-runner version "));
    assert!(out(&["--help"]).contains("--console-socket"));
}
