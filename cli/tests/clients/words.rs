//! What the CLI says: missing images, missing daemons, wrong command lines, formats.

use std::io::Write as _;
use std::process::Stdio;

use crate::bench::{Bench, told};
use davit_contracts::runtime as rt;

#[test]
fn a_missing_image_is_fetched() {
    let bench = Bench::new();
    let output = bench.davit(&["run", "-d", "other"]).output().unwrap();
    let (code, out, err) = told(&output);
    assert_eq!((code, out), (0, format!("{}\n", "a".repeat(64))));
    assert_eq!(err, "Unable to find image 'other' locally\n");
    assert_eq!(bench.book().calls, ["run other", "pull other", "run other"]);
}

#[test]
fn an_image_that_cannot_be_fetched_names_the_nearest() {
    let bench = Bench::new();
    let output = bench.davit(&["run", "-q", "gone"]).output().unwrap();
    let (code, _, err) = told(&output);
    assert_eq!(code, 125);
    assert_eq!(
        err,
        "davit: there is no image 'gone' here, and it cannot be fetched: the registry does not answer\n\
         hint: did you mean tools:latest?\n"
    );
    let output = bench.davit(&["run", "--pull", "never", "gone"]).output().unwrap();
    assert_eq!(told(&output).2, "davit: there is no image 'gone'\nhint: did you mean tools:latest?\n");
}

#[test]
fn a_daemon_that_is_down_says_how_to_start_it() {
    let mut bench = Bench::new();
    bench.serving.kill();
    let output = bench.davit(&["ps"]).output().unwrap();
    let (code, out, err) = told(&output);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("davit: davit-runtimed is not running"), "{err}");
    assert!(err.ends_with("hint: start the daemons with 'davit up'\n"), "{err}");
    let output = bench.davit(&["run", "tools"]).output().unwrap();
    assert_eq!(told(&output).0, 125);
}

#[test]
fn status_fails_when_a_daemon_is_down_and_starts_nothing() {
    let mut bench = Bench::new();
    bench.serving.kill();
    let output = bench.davit(&["status", "--format", "json"]).output().unwrap();
    let (code, out, _) = told(&output);
    assert_eq!(code, 1);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["Daemons"][2]["Name"], "davit-runtimed");
    assert_eq!(status["Daemons"][2]["Health"], "down");
    assert!(!bench.run_dir().join("supervisor.lock").exists());
}

#[test]
fn usage_mistakes_have_dockers_exit_codes() {
    let bench = Bench::new();
    for (args, code) in [
        (&["run", "--nosuch", "tools"][..], 125),
        (&["run"], 125),
        (&["run", "-p", "x", "tools"], 125),
        (&["ps", "--nosuch"], 125),
        (&["ps", "--last", "x"], 125),
        (&["ps", "nosuch"], 1),
        (&["rm"], 1),
        (&["image"], 0),
        (&[], 0),
        (&["nosuch"], 1),
        (&["net", "create", "a b"], 1),
        (&["--version"], 0),
        (&["run", "--help"], 0),
        (&["network", "create", "--help"], 0),
    ] {
        let output = bench.davit(args).output().unwrap();
        assert_eq!(told(&output).0, code, "{args:?}: {}", told(&output).2);
    }
    assert!(bench.book().calls.is_empty());
}

#[test]
fn lists_and_inspections_have_dockers_forms() {
    let bench = Bench::new();
    bench.book().container = rt::Container {
        id: "b".repeat(64),
        name: "web".into(),
        image: "tools".into(),
        state: Some(rt::State { status: "running".into(), pid: 7, ..rt::State::default() }),
        ..rt::Container::default()
    };
    let ask = |args: &[&str]| told(&bench.davit(args).output().unwrap()).1;
    assert_eq!(ask(&["ps", "-q"]), "bbbbbbbbbbbb\n");
    assert_eq!(ask(&["ps", "--format", "{{.Names}}\\t{{.Image}}"]), "web\ttools\n");
    let row: serde_json::Value =
        serde_json::from_str(&ask(&["container", "ls", "--format", "json"])).unwrap();
    assert_eq!(row["State"], "running");
    assert!(ask(&["ps"]).starts_with("CONTAINER ID   IMAGE   COMMAND"));
    assert_eq!(ask(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "web"]), "running 7\n");
    let list: serde_json::Value = serde_json::from_str(&ask(&["inspect", "web"])).unwrap();
    assert_eq!(list[0]["Name"], "/web");
}

#[test]
fn an_archive_is_sent_whole_and_the_daemons_complaint_is_told() {
    let bench = Bench::new();
    let mut child = bench.davit(&["load"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&vec![0; 3 << 20]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(told(&output), (1, String::new(), "davit: the archive is cut short\n".into()));
    assert_eq!(bench.book().calls, [format!("load {}", 3 << 20)]);
    let output = bench.davit(&["load", "-i", "/no/such.tar"]).output().unwrap();
    assert_eq!(told(&output).2, "davit: cannot open /no/such.tar: no such file or directory\n");
}

#[test]
fn completions_are_written_for_every_shell() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = told(&bench.davit(&["completion", shell]).output().unwrap());
        assert_eq!(code, 0);
        assert!(out.contains("from-host"), "{shell}");
    }
}
