//! Networks seen, explained, checked and mended, as a person does it.

use davit_tests::{Host, Internet};

#[test]
fn a_network_is_explained_drawn_checked_and_mended() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "front"]).ok();
    host.davit(["net", "create", "back"]).ok();
    let server = ["busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];
    let run = |name: &str, net: &str, rest: &[&str]| {
        host.davit([&["run", "-d", "--name", name, "--net", net][..], rest].concat()).ok();
    };
    run("web", "front", &[&["-p", "8080:80"], &server[..]].concat());
    run("app", "front", &["busybox:1", "sleep", "1000"]);
    run("db", "back", &server);

    let reached = davit_tests::eventually("the server listens", || {
        let ran = host.davit(["net", "explain", "app", "web:80"]);
        if ran.code == 0 { Ok(ran.text().to_owned()) } else { Err(ran.to_string()) }
    });
    assert!(
        reached.contains("a container on network front") && reached.ends_with("app reaches web:80"),
        "{reached}"
    );
    host.davit(["net", "explain", "host", "127.0.0.1:8080"]).ok().says("is published: web");
    let stopped = host.davit(["net", "explain", "app", "db:80"]);
    assert_eq!(stopped.code, 1, "{stopped}");
    assert!(stopped.text().contains("they have none in common"), "{stopped}");
    let json = host.davit(["net", "explain", "--format", "json", "app", "db:80"]);
    assert!(json.text().contains("\"Reaches\":false"), "{json}");
    host.davit(["net", "explain", "app", "web:0"]).refused(&["not a port"]);
    host.davit(["net", "explain", "apq", "web"]).refused(&["did you mean 'app'"]);

    host.davit(["net", "graph"]).ok().says("<svg ").says("8080 → 80/tcp");
    host.davit(["net", "graph", "--format", "dot", "front"]).ok().says("graph davit {").says("\"web\"");
    host.davit(["net", "graph", "--format", "json"]).ok().says("\"Name\":\"back\"");

    host.davit(["net", "check"]).ok().prints("Everything is as it should be.");
    host.sh("ip link del $(ip -o link show type bridge | grep -o 'dv-[0-9a-f]*' | head -1)").ok();
    let found = host.davit(["net", "check"]);
    assert_eq!(found.code, 1, "{found}");
    assert!(found.text().contains("missing"), "{found}");
    host.davit(["net", "check", "--repair"]).ok().says("repaired");
    host.davit(["net", "check", "--format", "json"]).ok().prints("");
    host.davit(["net", "explain", "app", "web:80"]).ok();
}

#[test]
fn names_of_the_world_and_of_a_hosts_file_are_explained_as_the_container_has_them() {
    let host = Host::builder().etc("resolv.conf", "nameserver 198.51.100.1\n").create().unwrap();
    host.load_busybox();
    let far = Internet::of(&host);
    far.serve_dns("far.example");
    host.davit(["net", "create", "--internal", "in"]).ok();
    let added = "--add-host=outer:203.0.113.5";
    for (name, network) in [("c", "bridge"), ("i", "in")] {
        host.run_detached(name, &["--net", network, added, "busybox:1", "sleep", "1000"]);
    }
    let explain = |from: &str, to: &str| host.davit(["net", "explain", from, to]);
    explain("c", "far.example:443").ok().says("'far.example' is 198.51.100.1").says("out of the network");
    explain("c", "other.example:443").exits(1).says("the servers outside (198.51.100.1) do not know it");
    explain("host", "far.example:443").ok().says("the host's resolver says so");
    explain("i", "far.example:443").exits(1).says("its networks are internal");
    explain("c", "outer:443").ok().says("'outer' is 203.0.113.5: its /etc/hosts says so");
    explain("i", "outer:443").exits(1).says("'outer' is 203.0.113.5").says("no way out");
    explain("host", "outer:443").exits(1);
}
