//! Whether a container is well, found out by its monitor; and what is said when its memory runs out.

use davit_tests::{Host, eventually};

const QUICK: [&str; 4] = ["--health-interval", "100ms", "--health-retries", "2"];

fn run(host: &Host, name: &str, options: &[&str], command: &[&str]) {
    let args = [&["run", "-d", "--name", name, "--net", "none"], options, &["busybox:1"], command];
    host.davit(args.concat()).ok();
}

fn status(host: &Host, name: &str) -> String {
    host.davit(["inspect", "-f", "{{.State.Health.Status}}", name]).ok().text().to_owned()
}

#[track_caller]
fn becomes(host: &Host, name: &str, wanted: &str) {
    eventually(&format!("{name} is {wanted}"), || match status(host, name) {
        now if now == wanted => Ok(()),
        now => Err(now),
    });
}

/// A container with each way to find out, and without any.
fn run_one_of_each(host: &Host) {
    let sleep = ["sleep", "1000"];
    let cmd =
        [&["--health-cmd", "echo well; test ! -e /ill || exit 3", "--health-timeout", "20s"][..], &QUICK]
            .concat();
    run(host, "cmd", &cmd, &sleep);
    run(
        host,
        "tcp",
        &[&["--health-tcp", "80"][..], &QUICK].concat(),
        &["nc", "-ll", "-p", "80", "-e", "true"],
    );
    let server = ["sh", "-c", "mkdir /www; echo hi > /www/index.html; exec httpd -f -p 8080 -h /www"];
    run(host, "http", &[&["--health-http", "8080/index.html"][..], &QUICK].concat(), &server);
    run(host, "lost", &[&["--health-http", "http://127.0.0.1:8080/nope"][..], &QUICK].concat(), &server);
    let slow = ["--health-cmd", "sleep 4321 & sleep 4321", "--health-timeout", "200ms"];
    run(host, "slow", &[&slow[..], &QUICK].concat(), &["sh", "-c", "while :; do sleep 0.2; done"]);
    run(host, "late", &["--health-cmd", "true", "--health-interval", "1h"], &sleep);
    run(host, "never", &["--no-healthcheck"], &sleep);
}

#[test]
fn health_is_found_out_in_every_way_and_shown_as_docker_does() {
    let host = Host::with_busybox();
    run_one_of_each(&host);
    for (name, wanted) in [
        ("cmd", "healthy"),
        ("tcp", "healthy"),
        ("http", "healthy"),
        ("lost", "unhealthy"),
        ("slow", "unhealthy"),
    ] {
        becomes(&host, name, wanted);
    }
    host.davit(["ps", "--format", "{{.Names}} {{.Status}}"])
        .ok()
        .says("(healthy)")
        .says("(unhealthy)")
        .says("(health: starting)");
    for (filter, name) in [("healthy", "cmd"), ("unhealthy", "lost"), ("starting", "late"), ("none", "never")]
    {
        let filter = format!("health={filter}");
        host.davit(["ps", "--filter", &filter, "--format", "{{.Names}}"]).ok().says(name);
    }
    let output = |name: &str| host.davit(["inspect", "-f", "{{json .State.Health}}", name]).ok().json();
    let last = |name: &str| output(name)["Log"].as_array().and_then(|l| l.last().cloned()).expect("a result");
    assert_eq!((&last("cmd")["Output"], &last("cmd")["ExitCode"]), (&"well\n".into(), &0.into()));
    assert_eq!(
        (&last("lost")["Output"], &last("lost")["ExitCode"]),
        (&"HTTP/1.1 404 Not Found".into(), &1.into())
    );
    assert_eq!(
        (&last("slow")["Output"], &last("slow")["ExitCode"]),
        (&"Health check exceeded timeout (200ms)".into(), &(-1).into())
    );
    // Nothing of a probe that took too long goes on: at most one is under way, of two processes and a shell.
    host.davit(["stop", "-t", "0", "slow"]).ok();
    eventually("no probe is left", || {
        let left = host.sh("pgrep -f 'sleep [4]321'");
        if left.code == 1 { Ok(()) } else { Err(left.to_string()) }
    });
    // The probes are nobody's exec sessions.
    let events = host.davit(["events", "--since", "10m", "--until", "0s", "--filter", "container=cmd"]).ok();
    events.says("health_status: healthy").says_not("exec_");
    host.davit(["healthcheck", "run", "late"]).ok().prints("");
    becomes(&host, "late", "healthy");
    host.davit(["healthcheck", "run", "lost"]).exits(1).says("unhealthy");
    host.davit(["healthcheck", "run", "never"]).exits(125).refused(&["no health check"]);
    host.davit(["healthcheck", "run", "slow"]).exits(125).refused(&["not running"]);

    // The monitor goes on while no daemon is there.
    host.davit(["down"]).ok();
    let pid = host.sh("pgrep -o -f '^sleep 1000'").ok();
    host.sh(&format!("touch /proc/{}/root/ill", pid.text())).ok();
    let ill = host.sh("sleep 1");
    assert_eq!(ill.code, 0);
    host.davit(["up"]).ok();
    becomes(&host, "cmd", "unhealthy");
    let since = [
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "event=health_status",
        "--filter",
        "container=cmd",
    ];
    eventually("the change is told", || {
        let ran = host.davit(since).ok();
        if ran.stdout.contains("health_status: unhealthy") { Ok(()) } else { Err(ran.to_string()) }
    });
    // An image's check is that of its containers, and while they are paused nothing is tried.
    host.davit(["commit", "http", "checked:1"]).ok();
    host.davit(["run", "-d", "--name", "from-image", "--net", "none", "checked:1"]).ok();
    becomes(&host, "from-image", "healthy");
    host.davit(["pause", "from-image"]).ok();
    let count = || last("from-image")["Start"].clone();
    let before = count();
    host.sh("sleep 0.5").ok();
    assert_eq!(count(), before);
    host.davit(["unpause", "from-image"]).ok();
    eventually("probes go on", || if count() == before { Err(String::new()) } else { Ok(()) });
}

#[test]
fn a_failing_check_can_end_or_restart_a_container() {
    let host = Host::with_busybox();
    let fails = [&["--health-cmd", "test ! -e /ill"][..], &QUICK].concat();
    for action in ["kill", "stop", "restart"] {
        run(&host, action, &[&["--health-on-failure", action][..], &fails].concat(), &["sleep", "1000"]);
        becomes(&host, action, "healthy");
        if action == "kill" {
            host.davit(["down"]).ok();
            let pid = host.sh("pgrep -o -f '^sleep 1000'").ok();
            host.sh(&format!("touch /proc/{}/root/ill", pid.text())).ok();
            eventually("it is killed with no daemon there", || {
                let ran = host.sh(&format!("kill -0 {}", pid.text()));
                if ran.code == 0 { Err(ran.to_string()) } else { Ok(()) }
            });
            host.davit(["wait", "kill"]).ok().prints("137");
            continue;
        }
        let pid = host.davit(["inspect", "-f", "{{.State.Pid}}", action]).ok().text().to_owned();
        // The file is gone with the program's own directory: a restart finds it again, and starts anew.
        host.davit(["exec", action, "touch", "/ill"]).ok();
        eventually("the action is taken", || {
            let now = host.davit(["inspect", "-f", "{{.State.Pid}}", action]).ok().text().to_owned();
            let taken = if action == "stop" { now == "0" } else { now != "0" && now != pid };
            if taken { Ok(()) } else { Err(now) }
        });
        host.davit(["rm", "-f", action]).ok();
    }
    host.leaves_nothing(|| {
        for (options, part) in [
            (&["--health-http", "https://localhost/"][..], "http://HOST:PORT/PATH"),
            (&["--health-tcp", "db:80"], "localhost or an IP address"),
            (&["--health-cmd", "true", "--health-interval", "1us"], "cannot be less than 1ms"),
            (&["--no-healthcheck", "--health-cmd", "true"], "--no-healthcheck conflicts"),
        ] {
            let args = [&["run", "--net", "none"], options, &["busybox:1", "true"]].concat();
            host.davit(args).exits(125).refused(&[part]);
        }
    });
}

#[test]
fn who_was_killed_for_want_of_memory_is_told_everywhere() {
    let host = Host::with_busybox();
    let limits = ["--net", "none", "-m", "64m"];
    let ran =
        host.davit([&["run", "--name", "whole"][..], &limits, &["busybox:1", "tail", "/dev/zero"]].concat());
    let report = "killed: memory limit 64M, peak 64M, by pid 1 tail";
    ran.exits(137).complains(report);
    let state = host.davit(["inspect", "-f", "{{json .State}}", "whole"]).ok().json();
    assert_eq!((&state["Error"], &state["OOMKilled"]), (&report.into(), &true.into()));
    host.davit(["logs", "whole"]).ok().complains(report);
    host.davit(["ps", "-a"]).ok().says("(out of memory)");

    let script = "tail /dev/zero; echo child $?; sleep 1000";
    host.davit([&["run", "-d", "--name", "part"][..], &limits, &["busybox:1", "sh", "-c", script]].concat())
        .ok();
    eventually("the container goes on without its child", || {
        let ran = host.davit(["logs", "part"]).ok();
        let told = ran.stdout.contains("child 137") && ran.stderr.contains("peak 64M, by pid ");
        if told { Ok(()) } else { Err(ran.to_string()) }
    });
    let state = host.davit(["inspect", "-f", "{{json .State}}", "part"]).ok().json();
    assert_eq!(
        (&state["Running"], &state["OOMKilled"], &state["Error"]),
        (&true.into(), &true.into(), &"".into())
    );
    let events = host.davit(["events", "--since", "10m", "--until", "0s", "--filter", "event=oom"]).ok();
    assert_eq!(events.stdout.lines().count(), 2, "{events}");
    // A runtimed that comes back knows it, and tells it only once.
    host.sh("pkill -9 -x davit-runtimed").ok();
    let state = host.davit(["inspect", "-f", "{{.State.OOMKilled}}", "part"]).ok();
    state.prints("true");
    let events = host.davit(["events", "--since", "10m", "--until", "0s", "--filter", "event=oom"]).ok();
    assert_eq!(events.stdout.lines().count(), 2, "{events}");
    // A person's SIGKILL is none of it.
    host.davit(["stop", "-t", "0", "part"]).ok();
    host.davit(["inspect", "-f", "{{.State.ExitCode}} {{.State.Error}}", "part"]).ok().prints("137");
    // It is told also when nobody was there to hear of it.
    let late = "until [ -e /go ]; do sleep 0.1; done; exec tail /dev/zero";
    host.davit([&["run", "-d", "--name", "late"][..], &limits, &["busybox:1", "sh", "-c", late]].concat())
        .ok();
    let pid = host.davit(["inspect", "-f", "{{.State.Pid}}", "late"]).ok();
    host.davit(["down"]).ok();
    host.sh(&format!("touch /proc/{}/root/go", pid.text())).ok();
    eventually("it is killed", || {
        let ran = host.sh("pgrep -f 'tail /dev/[z]ero'; pgrep -f '[-]e /go'");
        if ran.text().is_empty() { Ok(()) } else { Err(ran.to_string()) }
    });
    let events =
        ["events", "--since", "10m", "--until", "0s", "--filter", "container=late", "--filter", "event=oom"];
    host.davit(["up"]).ok();
    eventually("the event is told", || {
        let ran = host.davit(events).ok();
        if ran.stdout.contains(" oom ") { Ok(()) } else { Err(ran.to_string()) }
    });
}
