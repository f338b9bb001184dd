//! An attached `davit run`: streams, signals, exit codes. The real binary with stand-ins for runtimed and a monitor.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use crate::bench::{Bench, told, until};
use crate::monitor::{Client, monitor};
use davit_contracts::runtime as rt;
use davit_wire::{FailureKind, Frame};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn output_and_exit_code_are_the_programs() {
    let bench = Bench::new();
    let played = monitor(&bench.run_dir(), |client| {
        let mut client = client.welcome();
        client.send(&Frame::Stdout(b"out\n".to_vec()));
        client.send(&Frame::Stderr(b"err\n".to_vec()));
        client.exit(7);
        client.attach
    });
    let output = bench.davit(&["run", "tools", "sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(told(&output), (7, "out\n".into(), "err\n".into()));
    let attach = played.join().unwrap();
    assert!(!attach.stdin && attach.stdout && attach.stderr);
    let run = bench.book().run.clone().unwrap();
    assert!(run.hold_for_attach);
    assert_eq!(run.spec.unwrap().command, ["sh", "-c", "exit 7"]);
}

fn echo(client: Client) -> usize {
    let mut client = client.welcome();
    let mut total = 0;
    loop {
        match client.next() {
            Some(Frame::Stdin(data)) => {
                total += data.len();
                client.send(&Frame::Stdout(data));
            }
            Some(Frame::StdinEof) => {
                client.send(&Frame::Stdout(b"end\n".to_vec()));
                client.exit(0);
                return total;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn input_is_passed_on_and_its_end_too() {
    let bench = Bench::new();
    let played = monitor(&bench.run_dir(), echo);
    let mut child = bench.davit(&["run", "-i", "tools", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(told(&output), (0, "hello\nend\n".into(), String::new()));
    assert_eq!(played.join().unwrap(), 6);
    assert!(bench.book().run.clone().unwrap().spec.unwrap().stdin_once);
}

#[test]
fn input_from_a_file_is_passed_on() {
    let bench = Bench::new();
    let played = monitor(&bench.run_dir(), echo);
    let path = bench.run_dir().join("input");
    std::fs::write(&path, vec![b'x'; 300_000]).unwrap();
    let output = bench
        .davit(&["run", "-i", "tools", "cat"])
        .stdin(std::fs::File::open(path).unwrap())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 300_004));
    assert_eq!(played.join().unwrap(), 300_000);
}

#[test]
fn a_program_that_reads_nothing_while_it_writes_a_lot_is_no_deadlock() {
    const MUCH: usize = 8 << 20;
    let bench = Bench::new();
    let played = monitor(&bench.run_dir(), |client| {
        let mut client = client.welcome();
        // As a program whose input pipe is full: nothing is read until all is written.
        let mut sender = client.sender();
        let mut bytes = Vec::new();
        davit_wire::encode(&Frame::Stdout(vec![b'o'; 1 << 16]), &mut bytes);
        for _ in 0..MUCH >> 16 {
            sender.write_all(&bytes).unwrap();
        }
        let mut got = 0;
        loop {
            match client.next() {
                Some(Frame::Stdin(data)) => got += data.len(),
                Some(Frame::StdinEof) => break,
                other => panic!("{other:?}"),
            }
        }
        client.exit(0);
        got
    });
    let mut child = bench.davit(&["run", "-i", "tools", "x"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(&vec![b'i'; MUCH]).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), MUCH));
    assert_eq!(played.join().unwrap(), MUCH);
}

#[test]
fn signals_go_to_the_program() {
    let bench = Bench::new();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let played = monitor(&bench.run_dir(), move |client| {
        let mut client = client.welcome();
        ready.send(()).unwrap();
        let frame = client.next();
        client.exit(143);
        frame
    });
    let child = bench.davit(&["run", "tools", "sleep"]).spawn().unwrap();
    is_ready.recv().unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(played.join().unwrap(), Some(Frame::Signal(15)));
    assert_eq!(output.status.code(), Some(143));
}

#[test]
fn without_forwarding_a_signal_ends_the_client_alone() {
    let bench = Bench::new();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let played = monitor(&bench.run_dir(), move |client| {
        let mut client = client.welcome();
        ready.send(()).unwrap();
        client.next()
    });
    let child = bench.davit(&["run", "--sig-proxy=false", "tools", "sleep"]).spawn().unwrap();
    is_ready.recv().unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(played.join().unwrap(), None);
}

#[test]
fn a_reader_that_leaves_is_a_broken_pipe_for_the_program() {
    let bench = Bench::new();
    let played = monitor(&bench.run_dir(), |client| {
        let mut client = client.welcome();
        let mut sender = client.sender();
        let writer = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            davit_wire::encode(&Frame::Stdout(vec![b'y'; 4096]), &mut bytes);
            for _ in 0..64 {
                let _ = sender.write_all(&bytes);
            }
        });
        let frame = client.next();
        writer.join().unwrap();
        client.exit(141);
        frame
    });
    let mut child = bench.davit(&["run", "tools", "yes"]).spawn().unwrap();
    let mut first = [0u8; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(played.join().unwrap(), Some(Frame::Signal(13)));
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_126() {
    for (kind, code) in [(FailureKind::CommandNotFound, 127), (FailureKind::CommandNotRunnable, 126)] {
        let bench = Bench::new();
        let played = monitor(&bench.run_dir(), move |client| {
            client.welcome().refuse(kind, "exec nosuch: no");
        });
        let output = bench.davit(&["run", "tools", "nosuch"]).output().unwrap();
        assert_eq!(told(&output), (code, String::new(), "davit: exec nosuch: no\n".into()));
        played.join().unwrap();
    }
}

#[test]
fn an_attached_client_outlives_the_daemon() {
    let mut bench = Bench::new();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let played = monitor(&bench.run_dir(), move |client| {
        let mut client = client.welcome();
        ready.send(()).unwrap();
        may_go.recv().unwrap();
        client.send(&Frame::Stdout(b"still here\n".to_vec()));
        client.exit(3);
    });
    let child = bench.davit(&["run", "--rm", "tools", "x"]).spawn().unwrap();
    is_ready.recv().unwrap();
    bench.serving.kill();
    std::fs::remove_file(bench.run_dir().join("runtimed.sock")).unwrap();
    go.send(()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(told(&output), (3, "still here\n".into(), String::new()));
    played.join().unwrap();
}

#[test]
fn rm_waits_until_the_container_is_removed() {
    let bench = Bench::new();
    let played = monitor(&bench.run_dir(), |client| client.welcome().exit(0));
    let output = bench.davit(&["run", "--rm", "tools", "true"]).output().unwrap();
    assert_eq!(told(&output).0, 0);
    played.join().unwrap();
    assert_eq!(bench.book().calls, ["run tools", "wait Removed"]);
}

#[test]
fn a_monitor_that_vanishes_leaves_the_word_to_runtimed() {
    let bench = Bench::new();
    bench.book().container.state =
        Some(rt::State { status: "exited".into(), exit_code: 9, ..rt::State::default() });
    let played = monitor(&bench.run_dir(), |client| drop(client.welcome()));
    let output = bench.davit(&["run", "tools", "x"]).output().unwrap();
    assert_eq!(told(&output).0, 9);
    played.join().unwrap();

    let bench = Bench::new();
    let played = monitor(&bench.run_dir(), |client| drop(client.welcome()));
    let output = bench.davit(&["run", "tools", "x"]).output().unwrap();
    let (code, _, error) = told(&output);
    assert_eq!(code, 125);
    assert!(error.contains("monitor ended without saying"), "{error}");
    played.join().unwrap();
}

#[test]
fn detached_prints_the_id_and_leaves() {
    let bench = Bench::new();
    let output = bench.davit(&["run", "-d", "--cidfile", "/dev/null/x", "tools"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let cid = bench.run_dir().join("cid");
    let output = bench.davit(&["run", "-d", "--cidfile", cid.to_str().unwrap(), "tools"]).output().unwrap();
    assert_eq!(told(&output), (0, format!("{}\n", "a".repeat(64)), String::new()));
    assert_eq!(std::fs::read_to_string(cid).unwrap(), "a".repeat(64));
    assert!(!bench.book().run.clone().unwrap().hold_for_attach);
    until("no client of the monitor", || !bench.run_dir().join("monitor.sock").exists());
}
