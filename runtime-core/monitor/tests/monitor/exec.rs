//! More programs inside a running container.

use davit_wire::{Attach, Event, FailureKind, Frame, Reply, Request};

use crate::client::streams;
use crate::container::{Container, numbers, runtime, until, wanted};

fn running() -> Container {
    wanted(&["sleep", "1000"]).run()
}

fn to(exec_id: &str) -> Attach {
    Attach { exec_id: Some(exec_id.into()), ..streams() }
}

fn exec_code(c: &mut Container, wanted: &str) -> i32 {
    loop {
        if let Event::ExecExited { exec_id, record } = c.control.event()
            && exec_id == wanted
        {
            return record.code;
        }
    }
}

#[test]
fn an_exec_s_code_is_told_and_kept() {
    let mut c = running();
    let reply = c.exec("a1", &["sh", "-c", "exit 9"], |_| {}).unwrap();
    assert!(matches!(reply, Reply::Started { pid } if pid > 1));
    assert_eq!(exec_code(&mut c, "a1"), 9);
    c.exec("a2", &["sh", "-c", "kill -15 $$"], |_| {}).unwrap();
    assert_eq!(exec_code(&mut c, "a2"), 143);
    let state = c.control.state();
    assert_eq!(state.execs, Vec::<String>::new());
    let kept: Vec<_> = state.exec_exits.iter().map(|e| (e.exec_id.as_str(), e.record.code)).collect();
    assert_eq!(kept, [("a1", 9), ("a2", 143)]);
    assert_eq!(c.attach(to("a1")).finish().code(), 9);
    c.shut_down();
}

#[test]
fn a_held_exec_has_streams_of_its_own_and_loses_nothing() {
    let mut c = running();
    let hold = |s: &mut davit_wire::ExecSpec| (s.hold_for_attach, s.stdin) = (true, true);
    assert_eq!(
        c.exec("b1", &["sh", "-c", "cat; seq 20000; echo e >&2; exit 3"], hold),
        Ok(Reply::Started { pid: 0 })
    );
    let mut client = c.attach(to("b1"));
    client.send(&Frame::Stdin(b"in\n".to_vec()));
    client.send(&Frame::StdinEof);
    let out = client.finish();
    let expected: String = numbers(20000);
    assert!(out.out() == format!("in\n{expected}"));
    assert_eq!((out.err().as_str(), out.code()), ("e\n", 3));
    c.shut_down();
}

/// A program may have written, and ended, before its runtime's call has.
#[test]
fn what_an_exec_writes_at_once_is_the_client_s() {
    let late = "\"$0\" \"$@\"; code=$?; for word; do [ \"$word\" != exec ] || sleep 0.3; done; exit $code";
    let mut w = wanted(&["sleep", "1000"]);
    w.config.runtime.args = vec!["-c".into(), late.into(), runtime().to_str().unwrap().into()];
    w.config.runtime.path = "/bin/sh".into();
    let mut c = w.run();
    c.exec("w1", &["sh", "-c", "echo e >&2; exit 3"], |s| s.hold_for_attach = true).unwrap();
    let out = c.attach(to("w1")).finish();
    assert_eq!((out.err().as_str(), out.code()), ("e\n", 3));
    c.shut_down();
}

#[test]
fn an_exec_s_terminal_has_the_client_s_size() {
    let mut c = running();
    let tty = |s: &mut davit_wire::ExecSpec| (s.hold_for_attach, s.stdin, s.tty) = (true, true, true);
    c.exec("c1", &["sh", "-c", "stty size; read x; stty size; exit 6"], tty).unwrap();
    let mut client = c.attach(Attach { size: Some((20, 30)), ..to("c1") });
    client.read_until("20 30\r\n");
    client.send(&Frame::Resize { rows: 21, cols: 31 });
    client.send(&Frame::Stdin(b"\n".to_vec()));
    let out = client.finish();
    assert!(out.out().contains("21 31\r\n"), "{out:?}");
    assert_eq!(out.code(), 6);
    c.shut_down();
}

#[test]
fn a_missing_command_is_told_to_whoever_waits() {
    let mut c = running();
    let failure = c.exec("d1", &["no-such-thing"], |_| {}).unwrap_err();
    assert_eq!(failure.kind, FailureKind::CommandNotFound, "{failure:?}");
    c.exec("d2", &["/etc/plain"], |s| s.hold_for_attach = true).unwrap();
    let out = c.attach(to("d2")).finish();
    assert_eq!(out.failure.as_ref().unwrap().kind, FailureKind::CommandNotRunnable, "{out:?}");
    assert_eq!(out.code(), 126);
    let mut other = crate::client::Client::raw(&c.socket());
    other.send(&Frame::Hello(davit_wire::Hello {
        version: davit_wire::PROTOCOL_VERSION,
        role: davit_wire::Role::Attach(to("nobody")),
    }));
    assert_eq!(other.finish().failure.unwrap().kind, FailureKind::NotFound);
    c.shut_down();
}

#[test]
fn what_an_exec_leaves_running_neither_delays_its_end_nor_breaks() {
    let mut c = running();
    c.exec("e1", &["sh", "-c", "(while :; do echo x; sleep 0.02; done) & exit 2"], |s| {
        s.hold_for_attach = true;
    })
    .unwrap();
    assert_eq!(c.attach(to("e1")).finish().code(), 2);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let reply =
        c.exec("e2", &["sh", "-c", "ps | grep -c '[s]leep 0.02\\|while'"], |s| s.hold_for_attach = true);
    assert_eq!(reply, Ok(Reply::Started { pid: 0 }));
    let out = c.attach(to("e2")).finish();
    assert_ne!(out.out().trim(), "0", "its background process was broken by a closed pipe: {out:?}");
    c.shut_down();
}

#[test]
fn execs_end_with_their_container() {
    let mut c = running();
    c.exec("f1", &["sleep", "1000"], |_| {}).unwrap();
    c.exec("f2", &["true"], |s| s.hold_for_attach = true).unwrap();
    assert_eq!(c.control.state().execs, ["f1", "f2"]);
    c.control.request(Request::Kill { signal: 9, all: false }).unwrap();
    c.control.exited();
    until("both sessions have ended", || c.control.state().execs.is_empty());
    let refused = c.exec("f3", &["true"], |_| {}).unwrap_err();
    assert_eq!(refused.kind, FailureKind::WrongState);
    c.shut_down();
}

#[test]
fn many_execs_at_once_and_after_one_another_leak_nothing() {
    let mut c = running();
    let fds = |c: &Container| std::fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap().count();
    let before = fds(&c);
    for round in 0..3 {
        for n in 0..8 {
            let hold = |s: &mut davit_wire::ExecSpec| s.hold_for_attach = true;
            c.exec(&format!("g{round}x{n}"), &["sh", "-c", &format!("echo {n}; exit {n}")], hold).unwrap();
        }
        let clients: Vec<_> = (0..8).map(|n| c.attach(to(&format!("g{round}x{n}")))).collect();
        for (n, mut client) in clients.into_iter().enumerate() {
            let out = client.finish();
            assert_eq!((out.out(), out.code()), (format!("{n}\n"), n as i32));
        }
    }
    until("the descriptors are back", || fds(&c) == before);
    assert_eq!(std::fs::read_dir(c.dir.join("run/exec")).unwrap().count(), 0);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", c.pid())).unwrap();
    assert_eq!(children.split_whitespace().count(), 1, "zombies: {children}");
    c.shut_down();
}
