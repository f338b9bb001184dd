//! The supervisor with stand-ins for the three daemons: real processes, sockets and signals.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "supervision/host.rs"]
mod host;

use std::fs;
use std::os::unix::net::UnixStream;

use host::{DAEMONS, Host, alive, kill9, namespace, until};

#[test]
fn up_starts_all_three_and_down_leaves_nothing() {
    let host = Host::new();
    assert_eq!(host.up(), "ready\n");
    host.ready();
    let mut pids: Vec<i32> = DAEMONS.iter().map(|d| host.about(d).pid).collect();
    assert_eq!(pids, DAEMONS.iter().map(|d| host.pid(d)).collect::<Vec<_>>());
    pids.push(host.pid("supervisor"));
    assert_eq!(host.ask("down").1, "ok");
    until("the supervisor's end", || !pids.iter().any(|pid| alive(*pid)));
    let mut left: Vec<_> = fs::read_dir(host.path("run"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["supervisor.lock", "supervisor.log"]);
}

#[test]
fn the_supervisor_lives_in_a_session_of_its_own() {
    let host = Host::new();
    host.up();
    let pid = nix::unistd::Pid::from_raw(host.pid("supervisor"));
    assert_eq!(
        nix::unistd::getsid(Some(pid)).unwrap(),
        nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(host.pid("netd")))).unwrap()
    );
    assert_ne!(nix::unistd::getsid(Some(pid)).unwrap(), nix::unistd::getsid(None).unwrap());
}

#[test]
fn a_killed_daemon_comes_back_behind_the_same_socket() {
    let host = Host::new();
    host.up();
    host.ready();
    for daemon in DAEMONS {
        let before = host.about(daemon);
        kill9(before.pid);
        // Never a refused connection: it waits for the next process.
        until("an answer of the next one", || ![0, before.pid].contains(&host.about(daemon).pid));
        assert_eq!(host.field(daemon, "restarts"), "1");
    }
}

#[test]
fn a_daemon_that_somebody_else_started_is_left_alone_until_it_is_gone() {
    let host = Host::new();
    let alone = host.alone("netd");
    host.up();
    host.ready();
    assert_eq!(host.about("netd").pid, alone.pid());
    assert_eq!((host.field("netd", "state"), host.pid("netd")), ("elsewhere".to_owned(), alone.pid()));
    assert_eq!(host.field("storaged", "state"), "running");
    let refused =
        format!("error netd is served by process {}, which is not ours: end that first", alone.pid());
    assert_eq!(host.ask("restart netd").1, refused);
    assert_eq!(host.ask("down").1, "ok");
    until("the supervisor's end", || UnixStream::connect(host.path("run/supervisor.sock")).is_err());
    assert_eq!(host.about("netd").pid, alone.pid(), "its socket is its own");
    assert!(!host.path("run/storaged.sock").exists());
    host.up();
    host.ready();
    let pid = alone.pid();
    drop(alone);
    fs::remove_file(host.path("run/netd.sock")).unwrap();
    host.ready();
    assert_eq!(host.field("netd", "state"), "running", "ready is said of the supervisor's own");
    assert_ne!(host.about("netd").pid, pid);
}

#[test]
fn a_daemon_that_is_started_again_by_somebody_else_stays_theirs() {
    let host = Host::new();
    let first = host.alone("netd");
    host.up();
    host.ready();
    drop(first);
    fs::remove_file(host.path("run/netd.sock")).unwrap();
    let second = host.alone("netd");
    until("that it is seen", || host.pid("netd") == second.pid());
    assert_eq!(host.field("netd", "state"), "elsewhere");
    assert_eq!(host.about("netd").pid, second.pid());
}

#[test]
fn a_second_supervisor_of_the_same_directory_goes_away_quietly() {
    let host = Host::new();
    host.up();
    let first = host.pid("supervisor");
    assert_eq!(host.up(), "ready\n");
    assert_eq!(host.pid("supervisor"), first);
    assert_eq!(host.field("netd", "restarts"), "0");
}

#[test]
fn a_daemon_that_does_not_start_is_named_with_its_own_words_and_tried_again() {
    let host = Host::new();
    host.tell("netd", "crash");
    host.up();
    let (_, answer) = host.ask("ready");
    assert_eq!(answer, "error netd does not start: exit status 3: davit-netd: told to crash");
    fs::remove_file(host.path("state/davit-netd.crash")).unwrap();
    until("netd", || host.field("netd", "state") == "running");
    assert_eq!(host.field("storaged", "restarts"), "0");
}

#[test]
fn stored_descriptors_come_back_after_a_kill() {
    let host = Host::new();
    host.tell("netd", "store");
    host.up();
    host.ready();
    let before = host.about("netd");
    assert_eq!(before.stored, "");
    kill9(before.pid);
    until("the descriptor", || host.about("netd").stored == "warm");
}

#[test]
fn a_daemon_is_swapped_alone_and_a_bad_binary_gives_way() {
    let host = Host::new();
    host.up();
    host.ready();
    let others = ["storaged", "runtimed"].map(|d| host.pid(d));
    let new = host.path("other/davit-netd");
    fs::copy(env!("CARGO_BIN_EXE_davit-standin"), &new).unwrap();
    assert_eq!(host.ask(&format!("swap netd {}", new.display())).1, "ok");
    assert_eq!(host.about("netd").dir, host.path("other"));

    let bad = host.path("other/bad");
    fs::copy("/bin/false", &bad).unwrap();
    let (_, answer) = host.ask(&format!("swap netd {}", bad.display()));
    assert!(answer.starts_with("error the new netd does not start, the old one goes on"), "{answer}");
    host.ready_again("netd");
    assert_eq!(host.about("netd").dir, host.path("other"));
    assert_eq!(["storaged", "runtimed"].map(|d| host.pid(d)), others);

    let (_, answer) = host.ask("swap netd relative/path");
    assert!(answer.contains("absolute"), "{answer}");
    let (_, answer) = host.ask("restart nobody");
    assert!(answer.contains("there is no daemon 'nobody'"), "{answer}");
}

impl Host {
    fn ready_again(&self, daemon: &str) {
        until("running again", || self.field(daemon, "state") == "running");
    }
}

#[test]
fn a_restart_on_demand_gives_another_process() {
    let host = Host::new();
    host.up();
    host.ready();
    let before = host.pid("storaged");
    assert_eq!(host.ask("restart davit-storaged").1, "ok");
    assert_ne!(host.pid("storaged"), before);
}

#[test]
fn a_daemon_deaf_to_sigterm_is_killed_at_the_end() {
    let host = Host::new();
    host.tell("storaged", "deaf");
    host.up();
    host.ready();
    let pid = host.pid("storaged");
    assert_eq!(host.ask("down").1, "ok");
    assert!(!alive(pid));
}

#[test]
fn daemons_end_with_a_killed_supervisor_and_the_next_one_serves() {
    let host = Host::new();
    host.up();
    host.ready();
    let pids = DAEMONS.map(|d| host.pid(d));
    kill9(host.pid("supervisor"));
    until("the daemons' end", || !pids.iter().any(|pid| alive(*pid)));
    host.up();
    host.ready();
    assert!(!pids.contains(&host.about("netd").pid));
}

#[test]
fn sigterm_is_down() {
    let host = Host::new();
    host.up();
    host.ready();
    let pid = host.pid("supervisor");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    until("the end", || !alive(pid));
    assert!(UnixStream::connect(host.path("run/netd.sock")).is_err());
}

#[test]
fn a_missing_daemon_is_named_before_anything_starts() {
    let host = Host::new();
    fs::remove_file(host.path("bin/davit-runtimed")).unwrap();
    let output = host.command().env("PATH", "/nonexistent").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("davit-runtimed is neither beside davit-supervisor nor in PATH"), "{error}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ready"));
    assert!(UnixStream::connect(host.path("run/storaged.sock")).is_err());
}

#[test]
fn a_plain_users_daemons_live_in_namespaces_that_outlive_the_supervisor() {
    let host = Host::of_user(65534);
    host.up();
    host.ready();
    let [storaged, netd, runtimed] = DAEMONS.map(|d| host.pid(d));
    let own = std::process::id() as i32;
    assert_ne!(namespace(storaged, "user"), namespace(own, "user"));
    assert_ne!(namespace(storaged, "mnt"), namespace(own, "mnt"));
    assert_eq!(namespace(storaged, "net"), namespace(own, "net"));
    assert_eq!(namespace(runtimed, "user"), namespace(storaged, "user"));
    assert_eq!(namespace(netd, "user"), namespace(storaged, "user"));
    assert_ne!(namespace(netd, "net"), namespace(own, "net"));

    let (user, net) = (namespace(netd, "user"), namespace(netd, "net"));
    let holder: i32 =
        fs::read_to_string(host.path("run/holder.pid")).unwrap().split(' ').next().unwrap().parse().unwrap();
    kill9(host.pid("supervisor"));
    until("the daemons' end", || !alive(netd));
    host.up();
    host.ready();
    let netd = host.pid("netd");
    assert_eq!((namespace(netd, "user"), namespace(netd, "net")), (user, net));
    assert_eq!(host.ask("down").1, "ok");
    until("the holder's end", || !alive(holder));
}
