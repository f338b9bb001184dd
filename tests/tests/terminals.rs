//! `-it`: a real terminal, its size, its keys.

use davit_tests::{Host, eventually};

#[test]
fn a_terminal_has_the_size_of_the_persons_and_follows_it() {
    let host = Host::with_busybox();
    let mut terminal = host.terminal(33, 101, ["run", "--rm", "-it", "--net", "none", "busybox:1", "sh"]);
    terminal.shows("# ");
    terminal.types("tty; stty size\n");
    terminal.shows("/dev/");
    terminal.shows("33 101");
    terminal.resize(44, 122);
    eventually("the container sees the new size", || {
        terminal.types("stty size\n");
        let screen = terminal.screen();
        if screen.contains("44 122") { Ok(()) } else { Err(screen) }
    });
    terminal.types("exit 6\n");
    assert_eq!(terminal.exit_code(), 6);
}

#[test]
fn the_persons_terminal_is_raw_meanwhile_and_restored_after() {
    let host = Host::with_busybox();
    let mut terminal = host.terminal(24, 80, ["run", "--rm", "-it", "--net", "none", "busybox:1", "sh"]);
    terminal.shows("# ");
    assert!(terminal.is_raw());
    terminal.types("exit\n");
    eventually(
        "the terminal is as it was",
        || if terminal.is_raw() { Err("raw".to_owned()) } else { Ok(()) },
    );
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn control_c_is_the_programs_business() {
    let host = Host::with_busybox();
    let mut terminal = host.terminal(24, 80, ["run", "--rm", "-it", "--net", "none", "busybox:1", "sh"]);
    terminal.shows("# ");
    terminal.types("trap 'echo interrupted' INT; echo trap is set''!\n");
    terminal.shows("trap is set!");
    terminal.types("\u{3}");
    terminal.types("\n");
    terminal.shows("interrupted");
    terminal.types("exit 0\n");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn detach_keys_leave_it_running_and_attach_comes_back() {
    let host = Host::with_busybox();
    let mut terminal =
        host.terminal(24, 80, ["run", "-it", "--name", "c", "--net", "none", "busybox:1", "sh"]);
    terminal.shows("# ");
    terminal.types("\u{10}\u{11}");
    assert_eq!(terminal.exit_code(), 0);
    host.davit(["inspect", "--format", "{{.State.Status}}", "c"]).ok().prints("running");
    let mut again = host.terminal(25, 81, ["attach", "c"]);
    again.types("echo back; stty size\n");
    again.shows("25 81");
    again.types("exit 3\n");
    assert_eq!(again.exit_code(), 3);
}

#[test]
fn an_exec_gets_a_terminal_of_its_own() {
    let host = Host::with_busybox();
    host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    let mut terminal = host.terminal(30, 90, ["exec", "-it", "c", "sh"]);
    terminal.types("stty size; tty\n");
    terminal.shows("30 90");
    terminal.types("exit 2\n");
    assert_eq!(terminal.exit_code(), 2);
}

#[test]
fn t_without_a_terminal_is_a_clear_error_or_works_without_input() {
    let host = Host::with_busybox();
    let words =
        ["run", "--rm", "-t", "--net", "none", "busybox:1", "sh", "-c", "test -t 1 && echo a terminal"];
    host.davit(words).ok().says("a terminal");
    let words = ["run", "--rm", "-it", "--net", "none", "busybox:1", "true"];
    let ran = host.davit(words);
    assert!(ran.code == 0 || ran.stderr.contains("terminal") || ran.stderr.contains("TTY"), "{ran}");
}
