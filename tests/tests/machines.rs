//! System containers: an init that boots, has a console, shuts down and reboots.

use std::time::Duration;

use davit_tests::terminal::Terminal;
use davit_tests::{Host, eventually, fixture};

fn with(image: &fixture::Fixture) -> Host {
    let host = Host::new();
    host.davit(["image", "load", "-q", "-i", &image.archive()]).ok();
    host
}

fn state(host: &Host, name: &str) -> String {
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
    host.davit(["inspect", "-f", format, name]).ok().text().to_owned()
}

fn becomes(host: &Host, name: &str, wanted: &str) {
    eventually(&format!("{name} is {wanted}"), || {
        let now = state(host, name);
        if now == wanted { Ok(()) } else { Err(now) }
    });
}

/// Logs in at a console that asks for it.
fn log_in(terminal: &mut Terminal) {
    // A getty throws away what was typed before it asks.
    eventually("a login", || {
        if terminal.screen().matches("Password:").count() > 0 {
            return Ok(());
        }
        terminal.types("root\n");
        std::thread::sleep(Duration::from_secs(1));
        Err(terminal.screen())
    });
    std::thread::sleep(Duration::from_millis(300));
    terminal.types("davit\n");
    eventually("a shell", || {
        terminal.types("echo shell-$((40+2))\n");
        std::thread::sleep(Duration::from_millis(500));
        if terminal.screen().contains("shell-42") { Ok(()) } else { Err(terminal.screen()) }
    });
}

#[test]
fn sysvinit_boots_has_a_console_reboots_and_shuts_down() {
    let host = with(&fixture::machine());
    host.davit(["run", "-d", "--name", "vm", "--net", "none", "--system", "machine:1"]).ok();
    let mut console = host.terminal(30, 100, ["console", "vm"]);
    console.shows("INIT: version");
    console.shows("login:");
    log_in(&mut console);
    console.types("tty; stty size\n");
    console.shows("/dev/console");
    console.shows("30 100");
    // Several at once; the size is the last one's.
    let second = host.terminal(31, 101, ["console", "vm"]);
    second.shows("shell-42");
    console.types("stty size\n");
    second.shows("31 101");
    // No daemon has a part in it.
    for daemon in ["davit-runtimed", "davit-storaged"] {
        host.sh(&format!("pkill -9 -x {daemon}")).ok();
    }
    console.types("echo still-$((1+1)); echo $container; id -u\n");
    second.shows("still-2");
    second.shows("davit");
    // The end of a session hangs the terminal up: the next one is there all the same.
    let before = console.screen().matches("login:").count();
    console.types("exit\n");
    eventually("another login", || {
        let now = console.screen().matches("login:").count();
        if now > before { Ok(()) } else { Err(console.screen()) }
    });
    console.types("\u{1d}");
    assert_eq!(console.exit_code(), 0);
    // A machine that reboots is there again, and whoever sits at its console sits there still.
    let boots = second.screen().matches("INIT: version").count();
    host.davit(["exec", "vm", "/sbin/reboot"]).ok();
    eventually("a reboot", || {
        let now = second.screen().matches("INIT: version").count();
        if now > boots { Ok(()) } else { Err(second.screen()) }
    });
    becomes(&host, "vm", "running 0 1");
    // docker's flag for what is no system container: nothing of this.
    host.davit(["run", "-d", "--name", "plain", "--net", "none", "machine:1", "sleep", "1000"]).ok();
    host.davit(["console", "plain"]).refused(&["plain", "no console"]);
    host.davit(["exec", "plain", "sh", "-c", "test -z \"$container\" && ! grep ' /run ' /proc/mounts"]).ok();
    host.davit(["rm", "-f", "plain"]).ok();
    // An orderly end is no kill, and no reboot either.
    eventually("it is up", || {
        let ran = host.davit(["exec", "vm", "runlevel"]);
        if ran.stdout.trim() == "N 2" { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["stop", "vm"]).ok();
    assert_eq!(state(&host, "vm"), "exited 0 1");
    assert_eq!(second.exit_code(), 0);
    // Neither is one from inside.
    host.davit(["start", "vm"]).ok();
    eventually("it can be told to switch off", || {
        let ran = host.davit(["exec", "vm", "/sbin/poweroff"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    becomes(&host, "vm", "exited 0 1");
    let refused = [
        (&["--system", "--pid", "host", "machine:1"][..], "--pid"),
        (&["--system", "machine:1", "/bin/sleep", "9"], "which init"),
        (&["--system=upstart", "machine:1"], "upstart"),
    ];
    for (words, part) in refused {
        let ran = host.leaves_nothing(|| host.davit([&["run", "-d", "--net", "none"], words].concat()));
        assert!(ran.code != 0 && ran.stderr.contains(part), "{ran}");
    }
    host.davit(["rm", "vm"]).ok();
}

#[test]
fn runit_boots_is_frozen_cloned_and_shut_down() {
    let host = with(&fixture::machine());
    host.davit(["run", "-d", "--name", "rv", "--net", "none", "--system", "machine:1", "/sbin/runit"]).ok();
    let mut console = host.terminal(30, 100, ["console", "rv"]);
    console.shows("enter stage: /etc/runit/2");
    console.shows("login:");
    log_in(&mut console);
    console.types("echo changed > /root/mark; sync; echo done-$((1+1))\n");
    console.shows("done-2");
    // All of its processes stand still, and go on.
    let script = "(while :; do date +%s%N > /tmp/clock; sleep 0.05; done) > /dev/null 2>&1 &";
    host.davit(["exec", "rv", "sh", "-c", script]).ok();
    let clock = |name: &str| {
        let pid = host.davit(["inspect", "-f", "{{.State.Pid}}", name]).ok().text().to_owned();
        host.sh(&format!("cat /proc/{pid}/root/tmp/clock")).text().to_owned()
    };
    host.davit(["freeze", "rv"]).ok().prints("rv");
    host.davit(["inspect", "-f", "{{.State.Status}}", "rv"]).ok().prints("paused");
    let frozen = clock("rv");
    host.davit(["exec", "rv", "true"]).refused(&["paused"]);
    assert_eq!(clock("rv"), frozen);
    host.davit(["thaw", "rv"]).ok().prints("rv");
    eventually("it goes on", || if clock("rv") == frozen { Err(frozen.clone()) } else { Ok(()) });
    // A clone of it boots on its own.
    host.davit(["clone", "--run", "rv"]).ok();
    becomes(&host, "rv-clone", "running 0 0");
    host.davit(["exec", "rv-clone", "cat", "/root/mark"]).ok().prints("changed");
    let names = host.davit(["exec", "rv-clone", "hostname"]).ok().text().to_owned();
    host.davit(["exec", "rv", "hostname"]).ok().says_not(&names);
    let up = |name: &str| {
        eventually("its services are up", || {
            let ran = host.davit(["exec", name, "sv", "status", "/etc/service/console"]);
            if ran.stdout.starts_with("run:") { Ok(()) } else { Err(ran.to_string()) }
        });
    };
    up("rv-clone");
    // runit begins its third stage when it is told to, and is not killed.
    host.davit(["stop", "rv", "rv-clone"]).ok();
    assert_eq!(state(&host, "rv"), "exited 0 0");
    assert_eq!(state(&host, "rv-clone"), "exited 0 0");
    console.shows("enter stage: /etc/runit/3");
    assert_eq!(console.exit_code(), 0);
    host.davit(["rm", "rv", "rv-clone"]).ok();
}

#[test]
fn systemd_boots_in_a_cgroup_of_its_own() {
    let host = with(&fixture::systemd());
    let words = ["run", "-d", "--name", "sd", "--net", "none", "--system", "-m", "256m", "systemd:1"];
    host.davit(words).ok();
    let mut console = host.terminal(30, 100, ["console", "sd"]);
    console.shows("login:");
    log_in(&mut console);
    let up = |name: &str| {
        eventually("it is up", || {
            let ran = host.davit(["exec", name, "systemctl", "is-system-running"]);
            if ran.text() == "running" { Ok(()) } else { Err(ran.to_string()) }
        });
    };
    up("sd");
    let inside = "cat /proc/1/cgroup | grep ^0:; ls -d /sys/fs/cgroup/system.slice; stat -f -c %T /sys/fs/cgroup; systemd-detect-virt";
    host.davit(["exec", "sd", "sh", "-c", inside])
        .says("/init.scope")
        .says("/system.slice")
        .says("cgroup2fs");
    // The limits are the container's all the same.
    host.davit(["inspect", "-f", "{{.HostConfig.Memory}}", "sd"]).ok().prints("268435456");
    host.davit(["clone", "--run", "sd", "sd2"]).ok();
    up("sd2");
    host.davit(["exec", "sd", "systemctl", "reboot"]);
    becomes(&host, "sd", "running 0 1");
    up("sd");
    host.davit(["stop", "sd", "sd2"]).ok();
    assert_eq!((state(&host, "sd"), state(&host, "sd2")), ("exited 0 1".into(), "exited 0 0".into()));
    assert_eq!(console.exit_code(), 0);
    // Other runtimes cannot show it the unified hierarchy alone where there are others.
    let hybrid = host.sh("grep -q ' cgroup .*memory' /proc/mounts").code == 0;
    if hybrid {
        let words = ["run", "--net", "none", "--runtime", "runc", "--system=systemd", "-d", "systemd:1"];
        host.leaves_nothing(|| host.davit(words).refused(&["systemd", "davit's own runtime"]));
    }
    host.davit(["rm", "sd", "sd2"]).ok();
}
