//! Output, input and terminals.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use davit_wire::{Attach, Frame};

use crate::client::streams;
use crate::container::{numbers, until, wanted};

#[test]
fn input_is_echoed_until_its_end_and_output_goes_on() {
    let mut c = wanted(&["sh", "-c", "cat; echo end; echo error >&2"]).stdin().create();
    let mut client = c.attach(streams());
    c.start();
    client.send(&Frame::Stdin(b"hello ".to_vec()));
    client.read_until("hello ");
    client.send(&Frame::Stdin(b"again\n".to_vec()));
    client.send(&Frame::StdinEof);
    let out = client.finish();
    assert_eq!((out.out().as_str(), out.err().as_str()), ("again\nend\n", "error\n"));
    assert_eq!(out.code(), 0);
    c.shut_down();
}

#[test]
fn a_client_may_close_its_half_of_the_socket() {
    let mut c = wanted(&["sh", "-c", "cat; sleep 0.2; echo end"]).stdin().create();
    let mut client = c.attach(streams());
    c.start();
    client.send(&Frame::Stdin(b"text\n".to_vec()));
    client.stream.shutdown(Shutdown::Write).unwrap();
    let out = client.finish();
    assert_eq!((out.out().as_str(), out.code()), ("text\nend\n", 0));
    c.shut_down();
}

#[test]
fn a_client_that_leaves_takes_its_input_along_unless_it_detaches() {
    let mut c = wanted(&["sh", "-c", "cat; echo end"]).stdin().create();
    let mut watcher = c.attach(Attach { stdin: false, ..streams() });
    let mut first = c.attach(streams());
    c.start();
    first.send(&Frame::Stdin(b"one\n".to_vec()));
    first.send(&Frame::Detach);
    watcher.read_until("one");
    let mut second = c.attach(streams());
    second.send(&Frame::Stdin(b"two\n".to_vec()));
    drop(second);
    let out = watcher.finish();
    assert_eq!((out.out().as_str(), out.code()), ("\ntwo\nend\n".trim_start_matches('\n'), 0));
    c.shut_down();
}

#[test]
fn input_without_open_stdin_is_dev_null() {
    let mut c = wanted(&["sh", "-c", "cat; echo end"]).create();
    let mut client = c.attach(streams());
    client.send(&Frame::Stdin(vec![b'x'; 300_000]));
    c.start();
    assert_eq!(client.finish().out(), "end\n");
    c.shut_down();
}

#[test]
fn much_input_arrives_whole_and_a_reader_that_is_slow_holds_the_client_back() {
    let mut c = wanted(&["sh", "-c", "sleep 0.3; wc -c"]).stdin().create();
    let mut client = c.attach(streams());
    c.start();
    for _ in 0..200 {
        client.send(&Frame::Stdin(vec![b'x'; 50_000]));
    }
    client.send(&Frame::StdinEof);
    assert_eq!(client.finish().out().trim(), "10000000");
    c.shut_down();
}

#[test]
fn signals_pass_input_that_is_stuck() {
    let mut c = wanted(&["sleep", "1000"]).stdin().create();
    let mut client = c.attach(streams());
    c.start();
    let mut writer = client.stream.try_clone().unwrap();
    let stuck = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        davit_wire::encode(&Frame::Stdin(vec![0; 60_000]), &mut bytes);
        // Until the monitor closes the connection.
        while writer.write_all(&bytes).is_ok() {}
    });
    std::thread::sleep(Duration::from_millis(100));
    // A client without streams: it is there to send signals.
    c.attach(Attach::default()).send(&Frame::Signal(9));
    assert_eq!(client.finish().code(), 137);
    drop(client);
    stuck.join().unwrap();
    c.shut_down();
}

#[test]
fn a_terminal_has_the_client_s_size_from_the_start_and_follows_it() {
    let script = "stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut c = wanted(&["sh", "-c", script]).tty().create();
    c.hold();
    let mut client = c.attach(Attach { size: Some((33, 101)), ..streams() });
    assert!(client.welcome.as_ref().unwrap().tty);
    let first = client.read_until("ready");
    assert!(first.starts_with("33 101\r\n"), "{first:?}");
    client.send(&Frame::Resize { rows: 44, cols: 55 });
    let out = client.finish();
    assert!(out.out().contains("44 55"), "{out:?}");
    assert_eq!(out.code(), 3);
    c.shut_down();
}

#[test]
fn a_terminal_passes_input_control_characters_and_the_last_output() {
    let mut c = wanted(&[
        "sh",
        "-c",
        "read x; echo got $x; trap 'seq 2000; exit 9' INT; echo ready; while :; do sleep 0.05; done",
    ])
    .tty()
    .create();
    let mut client = c.attach(streams());
    c.start();
    client.send(&Frame::Stdin(b"word\n".to_vec()));
    let text = client.read_until("ready");
    assert!(text.contains("got word\r\n"), "{text:?}");
    client.send(&Frame::Stdin(vec![3]));
    let out = client.finish();
    assert!(out.out().ends_with("1999\r\n2000\r\n"), "{:?}", out.out());
    assert_eq!(out.code(), 9);
    c.shut_down();
}

#[test]
fn a_terminal_is_there_also_after_nobody_had_it_open() {
    // An init closes it for good and opens it by its name when it has something to say.
    let script = "echo first; exec </dev/null >/dev/null 2>&1; sleep 0.5; echo second > /dev/console; sleep 0.5; \
                  read x < /dev/console; echo got $x > /dev/console; exit 4";
    let mut c = wanted(&["sh", "-c", script]).tty().create();
    let mut client = c.attach(streams());
    c.start();
    client.read_until("second");
    client.send(&Frame::Stdin(b"word\n".to_vec()));
    let out = client.finish();
    assert!(out.out().contains("got word"), "{out:?}");
    assert_eq!(out.code(), 4);
    c.shut_down();
}

#[test]
fn several_clients_get_the_same_and_a_late_one_gets_the_last() {
    let mut c = wanted(&["sh", "-c", "seq 1000; read x; echo bye"]).stdin().create();
    let mut clients = [c.attach(streams()), c.attach(streams()), c.attach(streams())];
    c.start();
    for client in &mut clients {
        client.read_until("1000\n");
    }
    let mut late = c.attach(Attach { replay: true, ..streams() });
    late.read_until("999\n1000\n");
    late.send(&Frame::Stdin(b"\n".to_vec()));
    for client in &mut clients {
        assert_eq!(client.finish().out(), "bye\n");
    }
    assert_eq!(late.finish().out(), "bye\n");
    let mut after = c.attach(Attach { replay: true, ..streams() });
    let out = after.finish();
    assert!(out.out().ends_with("1000\nbye\n") && out.out().starts_with("1\n2\n"));
    assert_eq!(out.code(), 0);
    c.shut_down();
}

#[test]
fn a_client_that_wants_one_stream_gets_one() {
    let mut c = wanted(&["sh", "-c", "echo out; echo err >&2"]).create();
    let mut client = c.attach(Attach { stderr: true, ..Attach::default() });
    c.start();
    let out = client.finish();
    assert_eq!((out.out().as_str(), out.err().as_str()), ("", "err\n"));
    c.shut_down();
}

#[test]
fn a_held_program_begins_with_its_client_and_loses_no_byte() {
    for _ in 0..5 {
        let mut c = wanted(&["seq", "20000"]).create();
        c.hold();
        assert_eq!(c.control.state().started_unix_ns, 0);
        let out = c.attach(streams()).finish();
        let expected: String = numbers(20000);
        assert!(out.out() == expected, "{} bytes of {}", out.stdout.len(), expected.len());
        assert!(out.started);
        c.shut_down();
    }
}

#[test]
fn a_held_start_that_fails_tells_client_and_control() {
    // Passes the look-up at creation, cannot be executed at the start.
    let mut c = wanted(&["/bin/odd"]).monitor();
    std::fs::write(c.dir.join("lower/bin/odd"), "not a program").unwrap();
    std::fs::set_permissions(
        c.dir.join("lower/bin/odd"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    c.create().unwrap();
    c.hold();
    let out = c.attach(streams()).finish();
    // davit-runner's start fails; runc's does not, and the program's process says on its own standard error that it cannot run.
    let said = out.failure.as_ref().map_or_else(|| out.err(), |f| f.message.clone());
    assert!(said.contains("exec format error"), "{out:?}");
    assert_eq!(out.code(), if out.failure.is_some() { 126 } else { 1 });
    c.shut_down();
}

#[test]
fn a_hundred_megabytes_arrive_whole_however_slow_the_reader() {
    let mut c = wanted(&["sh", "-c", "yes 0123456789abcde | head -c 104857600"]).create();
    c.hold();
    let mut client = c.attach(streams());
    // Nobody reads: the program must wait and not lose anything.
    std::thread::sleep(Duration::from_millis(500));
    let out = client.finish();
    assert_eq!(out.stdout.len(), 104_857_600);
    assert!(out.stdout.chunks(16).all(|l| l == b"0123456789abcde\n"));
    c.shut_down();
}

#[test]
fn a_stuck_second_client_stops_the_others_only_for_a_while() {
    let mut c = wanted(&["sh", "-c", "yes 0123456789abcde | head -c 8388608"]).create();
    let _stuck = c.attach(streams());
    let mut client = c.attach(streams());
    c.start();
    assert_eq!(client.finish().stdout.len(), 8_388_608);
    c.shut_down();
}

#[test]
fn output_of_the_last_moment_reaches_a_client_that_reads_after_shutdown() {
    let mut c = wanted(&["sh", "-c", "yes 0123456789abcde | head -c 300000"]).create();
    c.hold();
    let mut client = c.attach(streams());
    assert_eq!(c.control.exited().code, 0);
    let pid = c.pid();
    assert_eq!(c.control.request(davit_wire::Request::Shutdown), Ok(davit_wire::Reply::Done));
    let out = client.finish();
    assert_eq!((out.stdout.len(), out.code()), (300_000, 0));
    until("the monitor leaves", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "))
    });
}
