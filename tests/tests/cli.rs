//! The command line itself: help, completions, formats, a daemon that is down.

use davit_tests::Host;

#[test]
fn every_list_and_inspection_has_a_json_format() {
    let host = Host::with_busybox();
    host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    let lists =
        [&["ps"][..], &["image", "ls"], &["net", "ls"], &["image", "history", "busybox:1"], &["status"]];
    for list in lists {
        let ran = host.davit(list.iter().chain(&["--format", "json"])).ok();
        assert!(!davit_tests::host::objects(&ran).is_empty(), "{ran}");
    }
    for inspect in [&["inspect", "c"][..], &["image", "inspect", "busybox:1"], &["net", "inspect", "bridge"]]
    {
        let ran = host.davit(inspect.iter().chain(&["--format", "json"])).ok();
        assert_eq!(ran.json().as_array().map(Vec::len), Some(1), "{ran}");
    }
}

#[test]
fn shells_get_completions() {
    let host = Host::builder().unchecked().create().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        host.davit(["completion", shell]).ok().says("davit");
    }
    host.sh("davit completion bash | bash -n").ok();
}

#[test]
fn help_and_version_need_no_daemon() {
    let host = Host::new();
    host.davit(["--help"]).ok().says("run").says("image").says("network");
    host.davit(["run", "--help"]).ok().says("--publish");
    host.davit(["--version"]).ok().says("davit ");
    assert!(host.inventory().matching("davit-netd").is_empty());
}

#[test]
fn net_is_network() {
    let host = Host::new();
    host.davit(["network", "create", "n"]).ok();
    host.davit(["net", "rm", "n"]).ok();
}

#[test]
fn daemons_that_cannot_start_are_explained() {
    let host = Host::new();
    std::fs::create_dir_all(host.path().join("config")).unwrap();
    std::fs::write(host.path().join("config/storaged.toml"), "no_such_key = 1\n").unwrap();
    let ran = host.davit(["image", "ls"]).refused(&["storaged"]);
    assert!(ran.code != 0);
    host.davit(["down"]);
    std::fs::remove_file(host.path().join("config/storaged.toml")).unwrap();
    host.davit(["image", "ls"]).ok();
}
