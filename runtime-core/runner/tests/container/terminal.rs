//! Terminals over a console socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::bundle::Bundle;

fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let channel = davit_sys::fork::channel::Channel::from_fd(OwnedFd::from(stream));
    channel.receive().unwrap().fds.into_iter().next().expect("a descriptor").into()
}

/// Everything until the other side is closed (EIO on a terminal's master).
fn read_all(mut master: &File) -> String {
    let (mut out, mut buffer) = (Vec::new(), [0u8; 1024]);
    while let Ok(n) = master.read(&mut buffer) {
        if n == 0 {
            break;
        }
        out.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn the_program_has_a_controlling_terminal_of_its_own_devpts() {
    let script = "tty; stty size; echo hello > /dev/tty; stat -c %F /dev/console; read line; echo got $line; ls -l /proc/self/fd/0";
    let b = Bundle::new(script).with(|c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    });
    b.write();
    let socket = b.dir.join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let create =
        ["create", "--bundle", b.dir.to_str().unwrap(), "--console-socket", socket.to_str().unwrap(), &b.id];
    b.ok(&create);
    let mut master = receive(&listener);
    b.start();
    master.write_all(b"input\n").unwrap();
    let out = read_all(&master);
    for want in ["/dev/pts/0\r\n", "33 99\r\n", "hello\r\n", "character special file\r\n", "got input\r\n"] {
        assert!(out.contains(want), "{want:?} in {out:?}");
    }
    b.await_status("stopped");
    b.delete();
}

#[test]
fn an_exec_gets_a_second_terminal() {
    let b = Bundle::new("exec sleep 1000");
    b.create();
    b.start();
    let socket = b.dir.join("exec.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let args = [
        "exec",
        "--detach",
        "--tty",
        "--console-socket",
        socket.to_str().unwrap(),
        &b.id,
        "sh",
        "-c",
        "tty; exit",
    ];
    let status = b.command(&args).stdout(std::process::Stdio::null()).status().unwrap();
    assert!(status.success());
    assert!(read_all(&receive(&listener)).contains("/dev/pts/0"));
    b.delete();
}

#[test]
fn a_terminal_without_a_socket_is_refused_at_create() {
    let b = Bundle::new("true").with(|c| c["process"]["terminal"] = json!(true));
    b.write();
    assert!(b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]).contains("--console-socket"));
    b.assert_nothing_left();
}
