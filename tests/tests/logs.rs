//! What containers write is kept as asked for, read back as it was, and never in the program's way.

use davit_tests::host::Running;
use davit_tests::scale::scaled;
use davit_tests::{Host, Ran, eventually};

/// Ends when somebody makes /go on.
const WAIT: &str = "while ! [ -e /go ]; do sleep 0.05; done";

fn run(host: &Host, name: &str, options: &[&str], script: &str) -> Ran {
    let args = [&["run", "-d", "--name", name, "--net", "none"], options, &["busybox:1", "sh", "-c", script]];
    host.davit(args.concat())
}

fn field(host: &Host, name: &str, path: &str) -> String {
    host.davit(["inspect", "-f", path, name]).ok().text().to_owned()
}

fn numbers(from: usize, to: usize) -> String {
    (from..=to).fold(String::new(), |text, n| text + &n.to_string() + "\n")
}

#[test]
fn each_driver_keeps_what_it_is_asked_to_and_reads_it_back() {
    let host = Host::with_busybox();
    let attrs = [
        "--label",
        "a=1",
        "-e",
        "B=2",
        "--log-opt",
        "labels=a,none",
        "--log-opt",
        "env=B",
        "--log-opt",
        "tag={{.Name}}",
    ];
    run(&host, "json", &attrs, "echo out; echo err >&2").ok();
    host.davit(["wait", "json"]).ok().prints("0");
    let ran = host.davit(["logs", "--details", "json"]).ok();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("B=2,a=1,tag=json out\n", "B=2,a=1,tag=json err\n")
    );

    let local = ["--log-driver", "local", "--log-opt", "max-size=40k", "--log-opt", "max-file=5"];
    let script = format!("seq 1000; {WAIT}; seq 1001 3000; echo end >&2");
    run(&host, "local", &local, &script).ok();
    let follower: Running = host.start_davit(["logs", "-f", "local"]);
    follower.until("\n1000\n");
    host.davit(["exec", "local", "touch", "/go"]).ok();
    // Over two rotations, and a runtimed that is killed meanwhile.
    host.sh("pkill -9 -x davit-runtimed").ok();
    let followed = follower.wait().ok();
    assert!(followed.stdout == numbers(1, 3000), "{followed}");
    assert_eq!(followed.stderr, "end\n");
    let path = field(&host, "local", "{{.LogPath}}");
    host.sh(&format!("cd $(dirname {path}); ls")).ok().says("container.log.1.gz").says("container.log.2.gz");
    let kept = host.davit(["logs", "local"]).ok();
    assert!(kept.stdout == numbers(1, 3000), "{kept}");
    // A tail that begins in a compressed file.
    for n in [0, 1, 5, 1500] {
        let tail = host.davit(["logs", "--tail", &(n + 1).to_string(), "local"]).ok();
        assert_eq!(tail.stdout, numbers(3001 - n, 3000), "{n}");
        assert_eq!(tail.stderr, "end\n");
    }
    let times = host.davit(["logs", "-t", "--tail", "2", "local"]).ok();
    let last = times.stdout.split(' ').next().unwrap_or_default();
    let until = host.davit(["logs", "--until", last, "local"]).ok();
    assert!(until.stdout.ends_with("3000\n") && until.stderr.is_empty(), "{until}");

    run(&host, "none", &["--log-driver", "none"], "echo x").ok();
    host.davit(["logs", "none"]).exits(1).refused(&["does not support reading"]);
    host.leaves_nothing(|| {
        for (options, part) in [
            (&["--log-opt", "max-sise=1m"][..], "unknown log opt 'max-sise' for json-file log driver"),
            (&["--log-driver", "syslog"], "no log driver named 'syslog'"),
            (&["--log-driver", "journald"], "there is no socket /run/systemd/journal/socket"),
            (&["--log-opt", "max-buffer-size=1m"], "only supported with 'mode=non-blocking'"),
        ] {
            run(&host, "bad", options, "true").exits(125).refused(&[part]);
        }
    });
}

#[test]
fn the_journal_is_a_log_where_there_is_one() {
    let host = Host::with_busybox();
    let journald = "mkdir -p /run/log/journal; exec /lib/systemd/systemd-journald";
    let daemon = host.command("/bin/sh").args(["-c", journald]).start();
    eventually("journald listens", || {
        if host.sh("[ -S /run/systemd/journal/socket ]").code == 0 { Ok(()) } else { Err(String::new()) }
    });
    let options = [
        "--log-driver",
        "journald",
        "--label",
        "a.b=c",
        "--log-opt",
        "labels=a.b",
        "--log-opt",
        "tag=t-{{.Name}}",
    ];
    run(&host, "j", &options, &format!("echo out; echo err >&2; {WAIT}; echo late")).ok();
    let follower = host.start_davit(["logs", "-f", "j"]);
    follower.until("out\n");
    host.davit(["exec", "j", "touch", "/go"]).ok();
    let ran = follower.wait().ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\nlate\n", "err\n"));
    host.davit(["logs", "--tail", "1", "j"]).ok().prints("late");
    let export = host.sh("journalctl -o export CONTAINER_NAME=j PRIORITY=3").ok();
    let id = field(&host, "j", "{{.Id}}");
    for line in [
        "MESSAGE=err",
        "A_B=c",
        "CONTAINER_TAG=t-j",
        "SYSLOG_IDENTIFIER=t-j",
        "IMAGE_NAME=busybox:1",
        &format!("CONTAINER_ID_FULL={id}"),
        &format!("CONTAINER_ID={}", &id[..12]),
    ] {
        assert!(export.stdout.lines().any(|l| l == line), "{line} is missing: {export}");
    }
    // A journald that is gone costs its lines only.
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    drop(daemon);
    host.sh("rm -f /run/systemd/journal/*; rm -rf /run/systemd /run/log").ok();
}

#[test]
fn no_byte_of_a_stream_is_lost_while_the_disk_keeps_up() {
    let host = Host::with_busybox();
    let bytes = scaled(48) << 20;
    let stream = format!("yes \"$(seq -s, 300)\" | head -c {bytes}");
    let wanted = host.sh(&format!("({stream}) | sha256sum")).ok();
    run(&host, "flood", &["--log-driver", "local", "--log-opt", "max-size=100g"], &stream).ok();
    host.davit(["wait", "flood"]).ok().prints("0");
    host.sh("davit logs flood | sha256sum").ok().prints(wanted.text());
    assert_eq!(field(&host, "flood", "{{.State.LogDroppedBytes}}"), "0");
}

#[test]
fn a_full_or_stuck_disk_stops_neither_program_nor_clients_and_is_told() {
    let host = Host::builder().disk_of("24m").create().expect("a host");
    host.load_busybox();
    let flood = "yes 0123456789 | head -c 30000000";
    run(&host, "full", &[], &format!("{flood}; echo done > /done; {WAIT}")).ok();
    eventually("the program has written all", || {
        let ran = host.davit(["exec", "full", "cat", "/done"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["logs", "--tail", "1", "full"]).ok().complains("bytes were not logged: the disk was full");
    let dropped: u64 = field(&host, "full", "{{.State.LogDroppedBytes}}").parse().expect("a number");
    assert!(dropped > 1_000_000, "{dropped}");
    host.davit(["rm", "-f", "full"]).ok();

    // Nobody reads this fifo: opening it for writing waits for ever, as writing to a disk that hangs.
    let ticks = "while :; do echo tick; sleep 0.1; done";
    let script = format!("{flood}; echo done > /done; {ticks}");
    host.davit(["create", "--name", "stuck", "--net", "none", "busybox:1", "sh", "-c", &script]).ok();
    let path = field(&host, "stuck", "{{.LogPath}}");
    host.sh(&format!("mkfifo {path}")).ok();
    host.davit(["start", "stuck"]).ok();
    eventually("the program goes on", || {
        let ran = host.davit(["exec", "stuck", "cat", "/done"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    let attached = host.start_davit(["attach", "--no-stdin", "--sig-proxy=false", "stuck"]);
    attached.until("tick\ntick\n");
    let dropped = eventually("the loss is told", || {
        let told = field(&host, "stuck", "{{.State.LogDroppedBytes}}");
        told.parse::<u64>().ok().filter(|bytes| *bytes > 10_000_000).ok_or(told)
    });
    assert_eq!(field(&host, "stuck", "{{.State.LogError}}"), "its disk was too slow");
    host.davit(["stop", "-t", "0", "stuck"]).ok();
    attached.wait();
    assert!(field(&host, "stuck", "{{.State.LogDroppedBytes}}").parse::<u64>().expect("a number") >= dropped);
    host.davit(["rm", "stuck"]).ok();
}
