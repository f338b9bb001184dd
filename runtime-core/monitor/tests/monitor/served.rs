//! Roots that a program serves. The program is a script that mounts an overlay in place of its own file system and notices when that is
//! unmounted, so that it can be slow, fail and die exactly when a test wants it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use davit_wire::config::{CreateSpec, Mount};
use davit_wire::{Failure, FailureKind, Phase, Reply, Request};

use crate::container::{Container, until, wanted};

/// Mounts, waits for the end of its mount or for `DIR/die`, and says the last line when that comes from `end`.
fn server(c: &Container, end: &str) -> PathBuf {
    let path = c.dir.join("server");
    let dir = c.dir.display();
    let script = format!(
        "#!/bin/sh\nmount -t overlay overlay -o \"$3\" \"$4\" || exit 1\n\
         while grep -q \" $4 overlay\" /proc/self/mounts; do [ ! -e {dir}/die ] || exit 9; sleep 0.01; done\n\
         cd {dir}; {end}\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn create(c: &mut Container, server: PathBuf) -> Result<Reply, Failure> {
    let root = Mount { r#type: "fuse.davit-cowfs".into(), server: Some(server), ..c.root() };
    let spec = CreateSpec { mounts: vec![root], ..CreateSpec::default() };
    c.control.request(Request::Create(Box::new(spec)))
}

fn running(args: &[&str], ephemeral: bool, end: &str) -> Container {
    let mut w = wanted(args);
    w.config.ephemeral = ephemeral;
    let mut c = w.monitor();
    let program = server(&c, end);
    create(&mut c, program).unwrap();
    c.start();
    c
}

#[test]
fn an_exit_is_told_when_the_server_has_written_everything() {
    let mut c = running(&["sh", "-c", "echo x > /made; exit 3"], false, "sleep 0.5; touch flushed");
    let record = c.control.exited();
    assert!(c.dir.join("flushed").exists(), "the exit was told before the server had ended");
    assert_eq!((record.code, record.error.as_str()), (3, ""));
    assert_eq!(fs::read_to_string(c.dir.join("upper/made")).unwrap(), "x\n");
    c.shut_down();
}

#[test]
fn what_is_removed_at_once_is_not_waited_for_but_ended_all_the_same() {
    // Beside its directory, which goes with the container.
    let end = "until [ -e told ]; do sleep 0.01; done; touch $PWD.flushed";
    let mut c = running(&["true"], true, end);
    let flushed = c.dir.with_extension("flushed");
    assert_eq!(c.control.exited().code, 0);
    assert!(!flushed.exists());
    fs::write(c.dir.join("told"), "").unwrap();
    c.shut_down();
    fs::remove_file(flushed).unwrap();
}

#[test]
fn a_server_that_fails_to_write_is_told_of() {
    let mut c = running(&["true"], false, "echo no space >&2; exit 5");
    let record = c.control.exited();
    assert_eq!(record.code, 0);
    assert!(
        record.error.contains("ended with status 5 (no space): what was written last may be lost"),
        "{record:?}"
    );
    c.shut_down();
}

#[test]
fn the_death_of_the_server_ends_the_container() {
    for paused in [false, true] {
        let mut c = running(&["sleep", "1000"], false, "");
        if paused {
            assert_eq!(c.control.request(Request::Pause), Ok(Reply::Done));
        }
        fs::write(c.dir.join("die"), "").unwrap();
        let record = c.control.exited();
        assert_eq!((record.code, record.signal), (137, Some(9)));
        assert!(
            record.error.contains("root ended with status 9: the container was ended with it"),
            "{record:?}"
        );
        c.shut_down();
    }
}

#[test]
fn a_server_is_killed_with_its_monitor() {
    let mut c = running(&["sleep", "1000"], false, "");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", c.pid())).unwrap();
    let is_server = |pid: &&str| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("/server\0")
    };
    let server = children.split_whitespace().find(is_server).unwrap().to_owned();
    let init = c.control.state().pid;
    c.kill_monitor();
    until("the server is gone", || !PathBuf::from(format!("/proc/{server}/exe")).exists());
    davit_sys::resident::signal_child(init, 9).unwrap();
}

#[test]
fn what_cannot_be_served_is_refused_with_the_servers_words() {
    let mut c = wanted(&["true"]).monitor();
    let refusing = c.dir.join("refusing");
    fs::write(&refusing, "#!/bin/sh\necho no such layer >&2; exit 1\n").unwrap();
    fs::set_permissions(&refusing, fs::Permissions::from_mode(0o755)).unwrap();
    let failure = create(&mut c, refusing).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(failure.message.contains("did not mount: no such layer"), "{failure:?}");
    let failure = create(&mut c, "/absent".into()).unwrap_err();
    assert!(failure.message.contains("cannot run /absent"), "{failure:?}");
    let root = Mount { r#type: "fuse.davit-cowfs".into(), ..c.root() };
    let inner = Mount { server: Some("/bin/true".into()), target: "etc".into(), ..root.clone() };
    for mounts in [vec![root], vec![c.root(), inner]] {
        let spec = CreateSpec { mounts, ..CreateSpec::default() };
        let failure = c.control.request(Request::Mount(Box::new(spec))).unwrap_err();
        assert_eq!(failure.kind, FailureKind::InvalidArgument, "{failure:?}");
    }
    // None of it is in the way of a good one.
    assert_eq!(c.control.state().phase, Phase::Ready);
    let good = server(&c, "");
    create(&mut c, good).unwrap();
    c.start();
    assert_eq!(c.control.exited().code, 0);
    c.shut_down();
}
