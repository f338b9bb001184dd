//! Exit codes are docker's: the program's own, 125 for the engine's, 126 and 127 for a program that cannot be run, 128+n.

use davit_tests::Host;
use nix::sys::signal::Signal;

#[test]
fn the_programs_own_code_is_handed_on() {
    let host = Host::with_busybox();
    for code in [0, 1, 42, 255] {
        let script = format!("exit {code}");
        host.davit(["run", "--rm", "--net", "none", "busybox:1", "sh", "-c", &script]).exits(code);
    }
}

#[test]
fn a_signal_is_128_and_its_number() {
    let host = Host::with_busybox();
    // Process 1 of a namespace ignores signals of its own making, so it starts the one that dies.
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"])
        .exits(137);
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    host.davit(["kill", "-s", "KILL", &c.name]).ok();
    host.davit(["wait", "c"]).ok().prints("137");
}

#[test]
fn the_engines_own_failure_is_125() {
    let host = Host::with_busybox();
    let run = |words: &[&str]| host.davit(["run", "--rm"].iter().chain(words));
    run(&["--pull", "never", "no-such-image", "true"]).exits(125);
    run(&["--net", "no-such-network", "busybox:1", "true"]).exits(125);
    run(&["--no-such-flag", "busybox:1", "true"]).exits(125);
    run(&["-v", "relative:path:ro:rw:what", "busybox:1", "true"]).exits(125);
}

#[test]
fn a_program_that_is_not_there_is_127_and_one_that_is_none_126() {
    let host = Host::with_busybox();
    let run = |program: &str| {
        host.leaves_nothing(|| host.davit(["run", "--rm", "--net", "none", "busybox:1", program]))
    };
    run("no-such-program").exits(127).refused(&["no-such-program"]);
    run("/bin/no-such-program").exits(127).refused(&["/bin/no-such-program"]);
    run("/etc/plain").exits(126).refused(&["/etc/plain"]);
    run("/etc").exits(126).refused(&["/etc"]);
}

#[test]
fn a_container_whose_program_is_not_there_stays_for_inspection() {
    let host = Host::with_busybox();
    host.davit(["run", "--name", "c", "--net", "none", "busybox:1", "no-such-program"]).exits(127);
    host.davit(["inspect", "--format", "{{.State.ExitCode}}", "c"]).ok().prints("127");
    host.davit(["run", "-d", "--name", "d", "--net", "none", "busybox:1", "no-such-program"]).exits(127);
}

#[test]
fn signals_reach_the_program() {
    let host = Host::with_busybox();
    let script = "trap 'echo term; exit 11' TERM; trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done";
    let running = host.start_davit(["run", "--rm", "--net", "none", "busybox:1", "sh", "-c", script]);
    running.until("up");
    running.signal(Signal::SIGHUP);
    running.until("hup");
    running.signal(Signal::SIGTERM);
    running.wait().exits(11).says("term");
}

#[test]
fn an_interrupted_client_ends_with_its_container() {
    let host = Host::with_busybox();
    let script = "trap 'exit 130' INT; echo up; while :; do sleep 0.05; done";
    let running = host.start_davit(["run", "--rm", "--net", "none", "busybox:1", "sh", "-c", script]);
    running.until("up");
    running.signal(Signal::SIGINT);
    running.wait().exits(130);
    host.davit(["ps", "-aq"]).ok().prints("");
}

#[test]
fn a_killed_client_leaves_its_container_running() {
    let host = Host::with_busybox();
    let running = host.start_davit([
        "run",
        "--name",
        "c",
        "--net",
        "none",
        "busybox:1",
        "sh",
        "-c",
        "echo up; sleep 1000",
    ]);
    running.until("up");
    running.signal(Signal::SIGKILL);
    running.wait().exits(137);
    host.davit(["exec", "c", "true"]).ok();
}
