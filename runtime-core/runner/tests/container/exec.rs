//! exec: another process in a running container.

use std::fs;

use serde_json::{Value, json};

use crate::bundle::{Bundle, alive, text, until};

fn running(script: &str) -> Bundle {
    let b = Bundle::new(script).with(|c| c["process"]["env"] = json!(["PATH=/bin", "A=container"]));
    b.create();
    b.start();
    b.await_status("running");
    b
}

#[test]
fn it_joins_every_namespace_and_cgroup_with_the_containers_capabilities() {
    let b = running("exec sleep 1000");
    let out = b.ok(&[
        "exec",
        &b.id,
        "sh",
        "-c",
        "ls -l /proc/self/ns; cat /proc/self/cgroup; cat /proc/self/status; hostname; env",
    ]);
    for kind in ["pid", "net", "mnt", "ipc", "uts", "cgroup"] {
        let link = fs::read_link(format!("/proc/{}/ns/{kind}", b.pid())).unwrap();
        assert!(out.contains(link.to_str().unwrap()), "{kind}");
    }
    let first = fs::read_to_string(format!("/proc/{}/status", b.pid())).unwrap();
    for line in first
        .lines()
        .filter(|l| l.starts_with("Cap") || l.starts_with("NoNewPrivs") || l.starts_with("Seccomp:"))
    {
        assert!(out.contains(line), "{line}");
    }
    assert!(out.contains("\nboat\n") && out.contains("A=container"));
    let theirs = fs::read_to_string(format!("/proc/{}/cgroup", b.pid())).unwrap();
    assert!(
        theirs.contains(&format!("pids:/davit-runner-test/{}", b.id))
            || theirs.contains("0::/davit-runner-test")
    );
    assert!(
        out.contains("pids:/\n") || out.contains("0::/\n"),
        "the exec'd process is not in the container's cgroup: {out}"
    );
    b.delete();
}

#[test]
fn options_change_what_is_inherited() {
    let b = running("exec sleep 1000");
    let args = [
        "exec",
        "--cwd",
        "/etc",
        "--env",
        "A=mine",
        "--user",
        "12:34",
        &b.id,
        "sh",
        "-c",
        "pwd; echo $A; id -u; id -g",
    ];
    assert_eq!(b.ok(&args), "/etc\nmine\n12\n34\n");
    assert_eq!(b.output(&["exec", &b.id, "sh", "-c", "exit 5"]).status.code(), Some(5));
    assert_eq!(b.output(&["exec", &b.id, "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    b.delete();
}

#[test]
fn failures_are_worded_as_at_create() {
    let b = running("exec sleep 1000");
    assert!(
        b.refused(&["exec", &b.id, "frob"]).ends_with("exec: \"frob\": executable file not found in $PATH")
    );
    assert!(b.refused(&["exec", &b.id, "/frob"]).ends_with("no such file or directory"));
    b.ok(&["kill", &b.id, "KILL"]);
    b.await_status("stopped");
    assert!(b.refused(&["exec", &b.id, "true"]).contains("in the stopped state"));
    b.delete();
    assert!(b.refused(&["exec", &b.id, "true"]).contains("does not exist"));
}

#[test]
fn a_detached_one_goes_on_and_writes_its_pid() {
    let b = running("exec sleep 1000");
    let process = json!({"args": ["sh", "-c", "echo detached > /result; exec sleep 1000"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}});
    fs::write(b.dir.join("process.json"), process.to_string()).unwrap();
    let (file, pid_file) = (b.dir.join("process.json"), b.dir.join("exec.pid"));
    let args = [
        "exec",
        "--process",
        file.to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "--detach",
        &b.id,
    ];
    let status = b
        .command(&args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    until("it has run", || fs::read_to_string(b.rootfs().join("result")).is_ok_and(|t| t == "detached\n"));
    assert!(alive(pid));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("CapBnd:\t0000000000000000"), "a process object without capabilities gets none");
    b.delete();
    until("it died with its container", || !alive(pid));
}

#[test]
fn no_descriptor_of_the_runner_is_open_in_it() {
    let b = running("exec sleep 1000");
    assert_eq!(
        b.ok(&["exec", &b.id, "ls", "/proc/self/fd"]).split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    b.delete();
}

#[test]
fn an_exec_before_start_works() {
    let b = Bundle::new("true");
    b.create();
    assert_eq!(b.ok(&["exec", &b.id, "hostname"]), "boat\n");
    let ps: Value = serde_json::from_str(&b.ok(&["ps", "--format", "json", &b.id])).unwrap();
    assert_eq!(ps, json!([b.pid()]));
    assert!(text(b.ok(&["ps", &b.id]).as_bytes()).lines().count() == 2);
    b.delete();
}
