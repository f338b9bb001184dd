//! From creation to the last trace's removal.

use std::fs;
use std::path::Path;
use std::process::Command;

use davit_wire::{
    Event, ExitRecord, FailureKind, Frame, Hello, PROTOCOL_VERSION, Phase, Reply, Request, Role,
};

use crate::client::{Client, streams};
use crate::container::{runtime, until, wanted};

#[test]
fn a_program_runs_and_its_exit_code_is_recorded() {
    let mut c = wanted(&["sh", "-c", "exit 7"]).run();
    let record = c.control.exited();
    assert_eq!((record.code, record.signal, record.oom_killed), (7, None, false));
    assert!(record.started_unix_ns > 0 && record.finished_unix_ns >= record.started_unix_ns);
    for path in ["run/exit.json", "state/exit.json"] {
        let stored: ExitRecord = serde_json::from_slice(&fs::read(c.dir.join(path)).unwrap()).unwrap();
        assert_eq!(stored, record);
    }
    let state = c.control.state();
    assert_eq!((state.phase, state.exit), (Phase::Exited, Some(record)));
    c.shut_down();
}

#[test]
fn an_ephemeral_container_leaves_its_record_in_the_run_directory_only() {
    let mut w = wanted(&["false"]);
    w.config.ephemeral = true;
    let mut c = w.run();
    assert_eq!(c.control.exited().code, 1);
    assert!(c.dir.join("run/exit.json").exists());
    assert!(!c.dir.join("state/exit.json").exists());
    c.shut_down();
}

#[test]
fn a_disk_that_takes_neither_record_nor_complaint_does_not_end_the_monitor() {
    let mut w = wanted(&["sh", "-c", "exit 4"]);
    w.prepare = "exec 2>/dev/full; mkdir \"$1/../state/exit.json\";";
    let mut c = w.run();
    assert_eq!(c.control.exited().code, 4);
    assert_eq!(c.control.state().phase, Phase::Exited);
    c.shut_down();
}

#[test]
fn a_signal_is_told_apart_from_a_code() {
    let mut c = wanted(&["sleep", "1000"]).run();
    assert_eq!(c.control.request(Request::Kill { signal: 9, all: false }), Ok(Reply::Done));
    let record = c.control.exited();
    assert_eq!((record.code, record.signal), (137, Some(9)));
    let late = c.control.request(Request::Kill { signal: 9, all: false });
    assert_eq!(late.unwrap_err().kind, FailureKind::WrongState);
    c.shut_down();
}

#[test]
fn a_signal_to_all_reaches_every_process() {
    let mut c = wanted(&[
        "sh",
        "-c",
        "trap 'echo first' TERM; sh -c 'trap \"echo second; exit 3\" TERM; echo up; while :; do sleep 0.05; done'",
    ]);
    c.config.open_stdin = true;
    let mut c = c.create();
    let mut client = c.attach(streams());
    c.start();
    client.read_until("up");
    assert_eq!(c.control.request(Request::Kill { signal: 15, all: true }), Ok(Reply::Done));
    let out = client.finish();
    assert!(out.out().contains("second"), "{out:?}");
    c.shut_down();
}

#[test]
fn a_missing_command_is_127_and_an_unusable_one_126() {
    for (command, kind) in [
        ("no-such-thing", FailureKind::CommandNotFound),
        ("/no/such/thing", FailureKind::CommandNotFound),
        ("/etc/plain", FailureKind::CommandNotRunnable),
    ] {
        let mut c = wanted(&[command]).monitor();
        let failure = c.create().unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(!failure.message.contains('\n') && failure.message.contains(command));
        assert_eq!(c.control.state().phase, Phase::Ready);
        c.shut_down();
    }
}

#[test]
fn a_runtime_that_is_not_there_is_said_so() {
    let mut c = wanted(&["true"]).prepared("", "/no/runtime").monitor();
    let failure = c.create().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(failure.message.contains("/no/runtime"), "{failure:?}");
}

#[test]
fn a_mount_that_fails_leaves_none_behind() {
    let mut c = wanted(&["true"]).monitor();
    let mut broken = c.root();
    broken.options[0] = "lowerdir+=/no/such/layer".into();
    let spec = davit_wire::config::CreateSpec { mounts: vec![c.root(), broken], ..Default::default() };
    let failure = c.control.request(Request::Create(Box::new(spec))).unwrap_err();
    assert!(failure.message.contains("/no/such/layer"), "{failure:?}");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", c.pid())).unwrap();
    assert!(!mounts.contains("bundle/rootfs"), "{mounts}");
    c.shut_down();
}

#[test]
fn the_root_can_be_mounted_before_the_container_is_created() {
    let mut c = wanted(&["true"]).monitor();
    let spec = davit_wire::config::CreateSpec { mounts: vec![c.root()], ..Default::default() };
    let mounted = c.control.request(Request::Mount(Box::new(spec))).unwrap();
    assert!(matches!(mounted, Reply::Mounted { .. }));
    let inside = format!("/proc/{}/root{}/run/bundle/rootfs/etc/plain", c.pid(), c.dir.display());
    assert_eq!(fs::read_to_string(inside).unwrap(), "text");
    assert!(!c.dir.join("run/bundle/rootfs/etc").exists(), "the mount is visible outside");
    let created = c.control.request(Request::Create(Box::default())).unwrap();
    assert!(matches!(created, Reply::Created { .. }));
    c.start();
    assert_eq!(c.control.exited().code, 0);
    c.shut_down();
}

#[test]
fn requests_out_of_order_are_refused_and_harm_nothing() {
    let mut c = wanted(&["sleep", "1000"]).monitor();
    let refused = c.control.request(Request::Start { hold_for_attach: false }).unwrap_err();
    assert_eq!(refused.kind, FailureKind::WrongState);
    c.create().unwrap();
    assert_eq!(c.create().unwrap_err().kind, FailureKind::WrongState);
    c.start();
    let refused = c.control.request(Request::Resume).unwrap_err();
    assert_eq!(refused.kind, FailureKind::WrongState);
    c.shut_down();
}

#[test]
fn a_paused_container_stands_still_and_can_be_shut_down() {
    let mut c = wanted(&["sleep", "1000"]).run();
    assert_eq!(c.control.request(Request::Pause), Ok(Reply::Done));
    assert_eq!(c.control.state().phase, Phase::Paused);
    assert_eq!(c.control.request(Request::Resume), Ok(Reply::Done));
    assert_eq!(c.control.state().phase, Phase::Running);
    assert_eq!(c.control.request(Request::Pause), Ok(Reply::Done));
    c.shut_down();
}

#[test]
fn shutdown_of_a_running_container_leaves_nothing() {
    let mut c = wanted(&["sh", "-c", "sleep 1000 & sleep 1000"]).run();
    c.exec("e1", &["sleep", "1000"], |_| {}).unwrap();
    assert!(!c.cgroups().is_empty(), "the test would see cgroups");
    c.shut_down();
}

#[test]
fn the_death_of_runtimed_changes_nothing() {
    let mut c = wanted(&["sh", "-c", "read x; echo got $x; exit 4"]).stdin().log(0, 1).create();
    let mut client = c.attach(streams());
    c.start();
    // The kernel closes a killed process's socket just as this does.
    let socket = c.socket();
    c.control = Client::raw(&socket);
    client.send(&Frame::Stdin(b"it\n".to_vec()));
    let out = client.finish();
    assert_eq!((out.out().as_str(), out.code()), ("got it\n", 4));
    c.control = Client::hello(&socket, Role::Control);
    let state = c.control.welcome.clone().unwrap().state;
    assert_eq!(state.exit.unwrap().code, 4);
    assert_eq!(c.log(), [("stdout".to_owned(), "got it\n".to_owned())]);
    c.shut_down();
}

#[test]
fn a_foreign_version_and_nonsense_are_refused() {
    let mut c = wanted(&["true"]).monitor();
    let mut client = Client::raw(&c.socket());
    client.send(&Frame::Hello(Hello { version: PROTOCOL_VERSION + 1, role: Role::Control }));
    let failure = client.finish().failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Version);
    let mut client = Client::raw(&c.socket());
    client.send(&Frame::StdinEof);
    assert_eq!(client.finish().failure.unwrap().kind, FailureKind::InvalidArgument);
    assert_eq!(c.control.state().phase, Phase::Ready);
    c.shut_down();
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_respected() {
    let c = wanted(&["true"]).monitor();
    let second = Command::new(env!("CARGO_BIN_EXE_davit-monitor")).arg(c.dir.join("run")).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("already running"));
    c.shut_down();
    let c = wanted(&["true"]).monitor();
    // What a monitor killed by SIGKILL leaves.
    let run = c.dir.join("run");
    Command::new("kill").args(["-9", &c.pid().to_string()]).status().unwrap();
    until("the monitor is dead", || {
        std::os::unix::net::UnixStream::connect(run.join("monitor.sock")).is_err()
    });
    let mut again = Command::new("unshare")
        .args(["--mount", "--net", env!("CARGO_BIN_EXE_davit-monitor")])
        .arg(&run)
        .spawn()
        .unwrap();
    until("the socket is back", || std::os::unix::net::UnixStream::connect(run.join("monitor.sock")).is_ok());
    let mut control = Client::hello(&run.join("monitor.sock"), Role::Control);
    assert_eq!(control.request(Request::Shutdown), Ok(Reply::Done));
    assert!(again.wait().unwrap().success());
}

#[test]
fn the_socket_is_private_and_the_namespaces_are_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let c = wanted(&["true"]).monitor();
    assert_eq!(fs::metadata(c.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let ours = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let theirs = |kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", c.pid())).unwrap();
    assert_ne!(ours("mnt"), theirs("mnt"));
    assert_ne!(ours("net"), theirs("net"));
    let fds = fs::read_dir(Path::new("/proc").join(c.pid().to_string()).join("fd")).unwrap().count();
    assert!(fds <= 8, "{fds} descriptors: 0 to 2, socket, signals, epoll, one client, and nothing more");
    let addresses = fs::read_to_string(format!("/proc/{}/net/fib_trie", c.pid())).unwrap();
    assert!(addresses.contains("127.0.0.1"), "loopback is down");
    c.shut_down();
}

#[test]
fn a_monitor_whose_run_directory_vanished_leaves() {
    let mut c = wanted(&["true"]).run();
    c.control.exited();
    let root = c.dir.join("run/runtime");
    Command::new(runtime()).arg("--root").arg(&root).args(["delete", "--force", &c.id]).status().unwrap();
    fs::remove_dir_all(c.dir.join("run")).unwrap();
    let pid = c.pid();
    c.control = Client::unconnected();
    until("the monitor leaves", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "))
    });
}

#[test]
fn crun_works_too() {
    // crun 1.8 refuses hybrid hosts unless the unified hierarchy is hidden.
    let hide = "if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi;";
    let w = wanted(&["sh", "-c", "echo hello; exit 5"]).prepared(hide, "/usr/bin/crun");
    let mut c = w.create();
    let mut client = c.attach(streams());
    c.start();
    let out = client.finish();
    assert_eq!((out.out().as_str(), out.code()), ("hello\n", 5));
    c.shut_down();
    let mut c = wanted(&["no-such-thing"]).prepared(hide, "/usr/bin/crun").monitor();
    assert_eq!(c.create().unwrap_err().kind, FailureKind::CommandNotFound);
    c.shut_down();
}

#[test]
fn events_come_in_order() {
    let mut c = wanted(&["true"]).create();
    c.start();
    assert!(matches!(c.control.event(), Event::Started { .. }));
    assert!(matches!(c.control.event(), Event::Exited(_)));
    c.shut_down();
}

#[test]
fn an_oom_kill_is_recorded() {
    let mut w = wanted(&["tail", "/dev/zero"]);
    w.memory = 16 << 20;
    let mut c = w.run();
    let record = c.control.exited();
    assert!(record.oom_killed, "{record:?}");
    assert_eq!(record.code, 137);
    c.shut_down();
}

#[test]
fn the_program_inherits_neither_signals_nor_descriptors() {
    let mut c = wanted(&["cat", "/proc/self/status"]).create();
    let mut client = c.attach(streams());
    c.start();
    let out = client.finish().out();
    let mask = |name: &str| {
        let line = out.lines().find_map(|l| l.strip_prefix(name)).expect(name);
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // The C library keeps signals 32 and 33 for itself: whoever ran this test may have them ignored.
    assert_eq!((mask("SigBlk:"), mask("SigIgn:") & !(3 << 31)), (0, 0), "{out}");
    c.shut_down();
    let mut c = wanted(&["ls", "/proc/1/fd"]).create();
    let mut client = c.attach(streams());
    c.start();
    // 3 is the directory that it lists.
    assert_eq!(client.finish().out(), "0\n1\n2\n3\n");
    c.shut_down();
}

#[test]
fn a_container_that_was_never_started_is_shut_down_too() {
    let c = wanted(&["true"]).create();
    c.shut_down();
    let mut c = wanted(&["true"]).tty().create();
    c.hold();
    let mut signals_only = c.attach(davit_wire::Attach::default());
    assert_eq!(c.control.state().phase, Phase::Created, "a client without streams starts nothing");
    c.shut_down();
    assert_eq!(signals_only.finish().code(), 137);
}
