//! The same with every OCI runtime: davit-runner, runc, crun; and runtimes that do not do what they should.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use davit_tests::{Host, Ran, eventually};

fn host_of(runtime: &str) -> Host {
    let host = Host::builder().runtime(runtime).create().expect("a private host");
    host.load_busybox();
    host
}

/// A shell script in a fresh container without network.
fn sh(host: &Host, options: &[&str], script: &str) -> Ran {
    host.davit([&["run", "--rm", "--net", "none"], options, &["busybox:1", "sh", "-c", script]].concat())
}

fn works(runtime: &str) {
    let host = host_of(runtime);
    exit_codes(&host);
    what_it_sees(&host);
    lifecycle(&host, runtime);
    limits(&host);
    let container = host.davit(["create", "--name", "named", "busybox:1", "true"]);
    container.ok();
    host.davit(["inspect", "-f", "{{.HostConfig.Runtime}}", "named"]).ok().prints(runtime);
}

fn exit_codes(host: &Host) {
    sh(host, &[], "echo out; echo err >&2; exit 7").exits(7).prints("out");
    let run = |command: &str| host.davit(["run", "--rm", "--net", "none", "busybox:1", command]);
    run("nosuch").exits(127).refused(&["nosuch", "not found"]);
    run("/no/such").exits(127).refused(&["/no/such"]);
    run("/etc/passwd").exits(126).refused(&["/etc/passwd", "permission denied"]);
    let cwd = ["run", "--rm", "--net", "none", "-w", "/etc/passwd", "busybox:1", "true"];
    host.davit(cwd).code_is_not_zero();
}

fn what_it_sees(host: &Host) {
    sh(host, &["-u", "web"], "id -u; id -g; id -Gn").ok().prints("1000\n1000\nweb ships");
    sh(host, &["-u", "7:8", "--group-add", "9"], "id -u; id -G").ok().prints("7\n8 9");
    let caps = ["--cap-drop", "ALL", "--cap-add", "CHOWN"];
    sh(host, &caps, "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status")
        .ok()
        .says("0000000000000001")
        .says("2");
    sh(host, &["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status").ok().says("1");
    sh(host, &["--hostname", "ship", "--ulimit", "nofile=64:64"], "hostname; ulimit -n")
        .ok()
        .prints("ship\n64");
    sh(host, &["-t"], "test -t 0 && test -t 2 && echo tty").ok().says("tty");
    fs::create_dir(host.work("d")).expect("a directory of the host");
    fs::write(host.work("d/f"), "bound\n").expect("a file of the host");
    let bind = format!("{}:/d:ro", host.work("d").display());
    let mounts = ["-v", &bind, "-v", "vol:/v", "--tmpfs", "/t:size=1m", "--shm-size", "2m", "--read-only"];
    let script = "cat /d/f; touch /d/x /y 2>/dev/null; touch /v/x /t/x && grep -c 'size=2048k' /proc/mounts";
    sh(host, &mounts, script).ok().prints("bound\n1");
    assert!(!host.work("d/x").exists());
    sh(
        host,
        &["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=9000"],
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
    )
    .ok()
    .prints("1\n9000");
    sh(host, &["--pid", "host", "--ipc", "host", "--uts", "host"], "[ $$ != 1 ]").ok();
    sh(host, &["--privileged"], "grep CapEff /proc/self/status; [ -e /dev/null ]")
        .ok()
        .says("000001ff")
        .says_not("a80425fb");
    host.davit(["volume", "rm", "vol"]).ok();
}

fn lifecycle(host: &Host, runtime: &str) {
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let web = host.run_detached("web", &["--ipc", "shareable", "busybox:1", "sh", "-c", script]);
    web.logs_until("up");
    web.sh("id -u; exit 5").exits(5).prints("0");
    host.davit(["exec", "-u", "7:8", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; pwd; echo $A"])
        .ok()
        .prints("7\n/tmp\nb");
    host.davit(["exec", "-t", "web", "sh", "-c", "test -t 1 && echo tty"]).ok().says("tty");
    web.exec(&["/no/such"]).exits(127).refused(&["/no/such"]);
    sh(host, &["--pid", "container:web", "--ipc", "container:web"], "cat /proc/1/cmdline").ok().says("trap");
    host.davit(["pause", "web"]).ok();
    assert_eq!(web.inspect(&["State", "Status"]), "paused");
    host.davit(["unpause", "web"]).ok();
    host.davit(["top", "web"]).ok().says("sleep 0.1");
    // Whoever takes over from a runtimed that was killed knows the runtime.
    host.sh("kill -9 $(pidof davit-runtimed)").ok();
    web.sh("echo there").ok().prints("there");
    host.davit(["stop", "web"]).ok();
    assert_eq!(web.inspect(&["State", "ExitCode"]), 9, "{runtime}");
    host.davit(["start", "web"]).ok();
    host.davit(["restart", "-t", "0", "web"]).ok();
    host.davit(["kill", "web"]).ok();
    host.davit(["wait", "web"]).ok().prints("137");
    web.remove();
}

fn limits(host: &Host) {
    let group = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null || true";
    sh(host, &["--memory", "64m", "--pids-limit", "20", "--cpus", "0.5"], group).ok().prints("67108864");
    let oom = host.davit([
        "run",
        "--name",
        "oom",
        "--net",
        "none",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox:1",
        "sh",
        "-c",
        "x=a; while :; do x=$x$x; done",
    ]);
    oom.exits(137);
    host.davit(["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "oom"]).ok().prints("true 137");
    host.davit(["rm", "oom"]).ok();
}

#[test]
fn containers_of_davit_runner() {
    works("davit-runner");
}

#[test]
fn containers_of_runc() {
    works("runc");
}

#[test]
fn containers_of_crun() {
    works("crun");
}

/// A runtime that is runc but for what `script` does: `$verb` is the command, `$pid_file` what --pid-file says, `real` runs runc.
fn strange(host: &Host, name: &str, script: &str) -> String {
    let text = format!(
        "#!/bin/sh\nverb= pid_file= last=\nfor word in \"$@\"; do\n case $word in create|start|state|delete|exec|kill) [ -n \"$verb\" ] || verb=$word;; esac\n \
         [ \"$last\" = --pid-file ] && pid_file=$word\n last=$word\ndone\nreal() {{ runc \"$@\"; }}\n{script}\nreal \"$@\"\n"
    );
    let path = host.work(name);
    fs::write(&path, text).expect("a file of the host");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of the host");
    path.display().to_string()
}

#[test]
fn a_runtime_that_misbehaves_is_reported_in_a_line_and_leaves_nothing() {
    let host = host_of("davit-runner");
    let run = |runtime: &str| {
        host.davit(["run", "--rm", "--net", "none", "--runtime", runtime, "busybox:1", "echo", "ran"])
    };
    let fine = strange(&host, "fine", "");
    run(&fine).ok().prints("ran");
    let refuses = strange(
        &host,
        "refuses",
        "[ $verb != create ] || { echo '{\"level\":\"error\",\"msg\":\"config is bad\"}' >&2; exit 1; }",
    );
    let late = strange(
        &host,
        "late",
        "[ $verb != create ] || { real \"$@\"; echo 'went wrong after all' >&2; exit 1; }",
    );
    let garbage = strange(
        &host,
        "garbage",
        "[ $verb != create ] || { real \"$@\"; echo garbage > $pid_file; exit 0; }",
    );
    let mute = strange(&host, "mute", "[ $verb != create ] || exit 3");
    let liar = strange(&host, "liar", "[ $verb != create ] || exit 0");
    let unstarted =
        strange(&host, "unstarted", "[ $verb != start ] || { echo 'will not start' >&2; exit 1; }");
    host.leaves_nothing(|| {
        run(&refuses).exits(125).refused(&["config is bad"]);
        run(&late).exits(125).refused(&["went wrong after all"]);
        run(&garbage).exits(125).refused(&["pid"]);
        run(&mute).exits(125).refused(&["3"]);
        run(&liar).exits(125).refused(&["pid"]);
        run(&unstarted).exits(125).refused(&["will not start"]);
        run("/no/such/runtime").exits(125).refused(&["/no/such/runtime"]);
        run("nonesuch").exits(125).refused(&["nonesuch"]);
    });
    // One that never comes back holds up nobody else, and is ended.
    let hangs = strange(&host, "hangs", "[ $verb != create ] || { sleep 4321; exit 1; }");
    let toml = format!("[runtimes.hangs]\npath = \"{hangs}\"\ntimeout_s = 3\n");
    fs::write(host.path().join("config/runtimed.toml"), toml).expect("a file of the host");
    host.davit(["down"]).ok();
    host.leaves_nothing(|| {
        let hanging =
            host.start_davit(["run", "--rm", "--net", "none", "--runtime", "hangs", "busybox:1", "true"]);
        eventually("the runtime hangs", || {
            let ran = host.sh("pgrep -f 'sleep [4]321'");
            if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
        });
        host.davit(["ps"]).ok();
        sh(&host, &[], "echo meanwhile").ok().prints("meanwhile");
        hanging.wait().exits(125).refused(&["hangs did not come back within 3 s"]);
        host.sh("pgrep -f 'sleep [4]321'").exits(1);
    });
}
