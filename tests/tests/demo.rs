//! `cargo xtask demo` itself, as root and as a plain user.

use davit_tests::Host;
use davit_tests::host::binaries;

fn assert_shows(said: &str) {
    for part in [
        "$ davit net create my-bridge",
        "web found db at ",
        "7 ships in the harbour",
        "$ davit ps",
        "$ davit logs web",
        "$ davit exec web",
        "$ davit down",
        "The demo is complete.",
    ] {
        assert!(said.contains(part), "no {part:?} in the demo:\n{said}");
    }
}

#[test]
fn the_demo_runs_as_root_and_leaves_nothing() {
    let xtask = binaries().join("xtask");
    let mut demo = std::process::Command::new(xtask);
    demo.args(["demo", "--bin-dir"]).arg(binaries());
    let output = demo.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_shows(&said);
}

#[test]
fn the_demo_runs_on_the_host_itself() {
    let host = Host::new();
    let bin = host.path().join("bin").to_string_lossy().into_owned();
    let ran = host.command("xtask").args(["demo", "--on-host", "--bin-dir", &bin]).start().wait().ok();
    assert_shows(&ran.stdout);
}

#[test]
fn the_demo_runs_as_a_plain_user() {
    let host = Host::builder().unchecked().create().unwrap();
    host.log_sailor_in();
    let bin = host.path().join("bin").to_string_lossy().into_owned();
    let ran = host.command("xtask").args(["demo", "--bin-dir", &bin]).as_sailor().start().wait().ok();
    assert_shows(&ran.stdout);
    assert!(ran.stdout.contains("Not there yet without root"), "{ran}");
}
