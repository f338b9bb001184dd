//! What a user of networks and of full disks expects, through the whole suite.

use davit_tests::{Host, eventually};

#[test]
fn a_running_container_that_is_renamed_resolves_by_its_new_name_only() {
    let host = Host::with_busybox();
    host.net_create("n");
    let options = ["--net", "n", "--network-alias", "store", "busybox:1", "sleep", "1000"];
    let db = host.run_detached("db", &options);
    let web = host.run_detached("web", &["--net", "n", "busybox:1", "sleep", "1000"]);
    let address = db.address("n");
    host.davit(["rename", "db", "front"]).ok();
    assert_eq!(web.resolves("front"), address);
    assert_eq!(web.resolves("store"), address);
    web.does_not_resolve("db");
    host.davit(["rename", "front", "web"]).exits(1).refused(&["already in use"]);
    assert_eq!(web.resolves("front"), address);
    host.davit(["rm", "-f", "front"]).ok();
    web.does_not_resolve("front");
}

#[test]
fn flushed_firewall_rules_come_back_by_themselves() {
    let host = Host::with_busybox();
    let server = ["-p", "127.0.0.1:8080:80", "busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];
    host.run_detached("web", &server);
    let rules = || host.sh("nft list ruleset").ok().text().to_owned();
    let before = rules();
    host.sh("nft flush ruleset").ok();
    eventually("the rules are back", || if rules() == before { Ok(()) } else { Err(rules()) });
}

#[test]
fn none_cannot_be_added_and_a_bind_of_the_wrong_kind_is_explained() {
    let host = Host::with_busybox();
    host.run_detached("web", &["busybox:1", "sleep", "1000"]);
    host.davit(["net", "connect", "none", "web"]).exits(1).refused(&["cannot be connected to network none"]);
    let run = host.davit(["run", "--rm", "-v", "/etc/passwd:/etc", "busybox:1", "true"]);
    run.exits(125).refused(&["/etc is a directory in the container"]);
}
