//! The log file.

use std::fs;

use crate::client::streams;
use crate::container::{numbers, wanted};

#[test]
fn the_log_holds_what_the_client_got() {
    let script = "echo one; echo two >&2; printf 'no newline'; printf '\\ttab \"q\" <é>\\n'; head -c 40000 /dev/zero | tail -c 40000; printf end";
    let mut c = wanted(&["sh", "-c", script]).log(0, 1).create();
    let mut client = c.attach(streams());
    c.start();
    let out = client.finish();
    let log = c.log();
    let of =
        |stream: &str| log.iter().filter(|(s, _)| s == stream).map(|(_, l)| l.as_str()).collect::<String>();
    assert!(of("stdout") == out.out(), "{log:?}");
    assert_eq!(of("stderr"), "two\n");
    // Two pipes have no order between them: only the stream's own last line is known.
    let last = log.iter().rfind(|(stream, _)| stream == "stdout").unwrap();
    assert_eq!(last.1.trim_start_matches('\0'), "end");
    c.shut_down();
}

#[test]
fn the_log_is_complete_when_the_exit_is_told_with_nobody_attached() {
    let mut c = wanted(&["sh", "-c", "seq 50000"]).log(0, 1).run();
    c.control.exited();
    let all: String = c.log().into_iter().map(|(_, l)| l).collect();
    assert!(all == numbers(50000));
    c.shut_down();
}

#[test]
fn rotated_files_hold_the_newest_output() {
    let mut c = wanted(&["sh", "-c", "seq 20000"]).log(100_000, 3).run();
    c.control.exited();
    let all: String = c.log().into_iter().map(|(_, l)| l).collect();
    let whole: String = numbers(20000);
    assert!(whole.ends_with(&all) && all.len() > 10_000 && all.len() < whole.len());
    let base = c.dir.join("state/container.log");
    for name in ["log", "log.1", "log.2"] {
        let size = fs::metadata(base.with_extension(name)).unwrap().len();
        assert!(size <= 100_200, "{name}: {size}");
    }
    assert!(!base.with_extension("log.3").exists());
    c.shut_down();
}

#[test]
fn a_full_disk_does_not_stop_the_program() {
    let mut c = wanted(&["sh", "-c", "seq 50000; echo end >&2"])
        .log(0, 1)
        .prepared(
            "mkdir -p \"$1/../state\"; mount -t tmpfs -o size=64k log \"$1/../state\";",
            "/usr/sbin/runc",
        )
        .create();
    let mut client = c.attach(streams());
    c.start();
    let out = client.finish();
    assert_eq!((out.err().as_str(), out.code()), ("end\n", 0));
    let dropped = c.control.state().log_dropped_bytes;
    assert!(dropped > 100_000, "{dropped}");
    c.shut_down();
}
