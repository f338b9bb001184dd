use super::*;

fn parsed(line: &str) -> Result<Invocation> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    invocation(&words)
}

#[test]
fn the_monitors_command_lines_are_understood() {
    let i = parsed(
        "--root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s abc",
    )
    .unwrap();
    assert_eq!((i.global.root.to_str(), i.global.log_json), (Some("/r"), true));
    let Command::Create(c) = i.command else { panic!() };
    assert_eq!((c.id.as_str(), c.bundle.to_str(), c.console_socket), ("abc", Some("/b"), Some("/s".into())));
    let Command::Exec(e) = parsed("exec --process /f --pid-file /p --detach abc").unwrap().command else {
        panic!()
    };
    assert!(e.detach && e.args.is_empty());
    let Command::Exec(e) = parsed("exec -e A=1 -env B=2 --tty=true --user=1:2 abc ls -l").unwrap().command
    else {
        panic!()
    };
    assert_eq!(
        (e.env, e.tty, e.args),
        (vec!["A=1".to_owned(), "B=2".into()], true, vec!["ls".to_owned(), "-l".into()])
    );
}

#[test]
fn kill_and_delete_take_runcs_forms() {
    let want = Command::Kill { id: "a".into(), signal: "KILL".into(), all: true };
    assert_eq!(parsed("kill --all a KILL").unwrap().command, want);
    let want = Command::Kill { id: "a".into(), signal: "SIGTERM".into(), all: false };
    assert_eq!(parsed("kill a").unwrap().command, want);
    assert_eq!(
        parsed("delete -f a").unwrap().command,
        Command::Delete { ids: vec!["a".into()], force: true }
    );
}

#[test]
fn mistakes_are_named() {
    for (line, part) in [
        ("frob", "unknown command \"frob\""),
        ("create --frob x", "unknown option \"--frob\""),
        ("create --bundle", "needs a value"),
        ("state", "exactly one container id"),
        ("state ../x", "invalid container ID"),
        ("state ..", "invalid container ID"),
        ("--log-format xml state a", "text or json"),
        ("exec a", "name a command"),
    ] {
        let message = parsed(line).unwrap_err().to_string();
        assert!(message.contains(part), "{line}: {message}");
    }
}
