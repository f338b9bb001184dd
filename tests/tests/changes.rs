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

#[test]
fn a_reader_that_leaves_ends_the_command_but_not_a_program_that_does_not_mind() {
    let host = Host::with_busybox();
    let script = "davit run --name y --net none busybox:1 sh -c 'trap \"\" PIPE; yes' | head -n 1";
    host.sh(script).ok().prints("y");
    eventually("the program goes on", || {
        let ran = host.davit(["ps", "--format", "{{.Names}}"]).ok();
        if ran.text() == "y" { Ok(()) } else { Err(ran.to_string()) }
    });
    host.davit(["rm", "-f", "y"]).ok();
}

#[test]
fn events_tell_of_the_creation_before_the_start() {
    let host = Host::with_busybox();
    host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    host.davit(["run", "--rm", "--name", "d", "--net", "none", "busybox:1", "true"]).ok();
    let told = host.davit(["events", "--since", "10m", "--until", "0s", "--format", "json"]).ok();
    let actions_of = |name: &str| -> Vec<String> {
        davit_tests::host::objects(&told)
            .iter()
            .filter(|e| e["Actor"]["Attributes"]["name"] == name)
            .map(|e| e["Action"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(actions_of("c"), ["create", "start"], "{told}");
    assert_eq!(actions_of("d")[..3], ["create", "start", "die"], "{told}");
}

#[test]
fn events_are_filtered_and_go_on_over_the_death_of_the_daemon() {
    let host = Host::with_busybox();
    host.net_create("n");
    let following =
        host.start_davit(["events", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]);
    // It is connected once it has told of something.
    host.run_detached("first", &["--net", "none", "busybox:1", "sleep", "1000"]);
    eventually("it follows", || {
        host.davit(["kill", "-s", "USR1", "first"]).ok();
        let now = following.so_far();
        if now.stdout.contains("container kill first") { Ok(()) } else { Err(now.to_string()) }
    });
    host.run_detached("c", &["--net", "n", "--label", "tier=front", "busybox:1", "sleep", "1000"]);
    host.davit(["exec", "c", "sh", "-c", "exit 3"]).exits(3);
    host.sh("pkill -9 -x davit-runtimed").ok();
    host.davit(["pause", "c"]).ok();
    host.davit(["unpause", "c"]).ok();
    host.davit(["top", "c"]).ok();
    host.davit(["rm", "-f", "c"]).ok();
    following.until("container destroy c");
    let told = following.so_far().stdout;
    let of_c: Vec<&str> =
        told.lines().filter_map(|l| l.strip_prefix("container ")?.strip_suffix(" c")).collect();
    let wanted = [
        "create",
        "start",
        "exec_create: sh -c exit 3",
        "exec_start: sh -c exit 3",
        "exec_die",
        "pause",
        "unpause",
        "top",
        "kill",
        "die",
        "destroy",
    ];
    assert_eq!(of_c, wanted, "{told}");
    assert!(told.contains("network connect n\ncontainer start c"), "{told}");
    assert!(told.contains("container die c\nnetwork disconnect n"), "{told}");

    let past = |filters: &[&str]| {
        let mut words = vec!["events", "--since", "10m", "--until", "0s", "--format", "{{.Action}}"];
        words.extend(filters.iter().flat_map(|f| ["--filter", f]));
        host.davit(words).ok().text().to_owned()
    };
    assert_eq!(past(&["container=c", "event=die", "event=start", "type=container"]), "start\ndie");
    assert_eq!(past(&["label=tier=front", "event=exec_start"]), "exec_start: sh -c exit 3");
    assert_eq!(past(&["image=busybox", "event=create"]), "create\ncreate");
    assert_eq!(past(&["network=n"]), "connect\ndisconnect");
    assert_eq!(past(&["type=network", "event=start"]), "");
    host.davit(["events", "--filter", "contaner=c"]).refused(&["contaner", "container"]);
}
