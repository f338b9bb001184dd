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
    assert_eq!(found.code, 3, "{found}");
    assert!(found.text().contains("missing"), "{found}");
    host.davit(["net", "check", "--format", "{{.Nonsense}}"]).exits(125);
    host.davit(["net", "check", "--repair", "front"]).exits(125);
    host.davit(["net", "check", "no-such-network"]).exits(1);
    // The other network's containers and the host are not asked for.
    let all = ["front", "back"].map(|n| host.davit(["net", "check", n]).code);
    assert!(all.contains(&3), "{all:?}");
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

/// Has netd away while `script` runs: nobody starts it anew before.
fn without_netd(host: &Host, script: &str) {
    let stopped = "s=$(pgrep -x davit-superviso); n=$(pgrep -x davit-netd); kill -STOP $s; kill -9 $n
        until grep -q 'State:.Z' /proc/$n/status; do sleep 0.05; done; cd $DAVIT_RUN_DIR/network/sandboxes";
    host.sh(&format!("{stopped}; {script}; kill -CONT $s")).ok();
}

#[test]
fn a_container_whose_record_was_lost_is_told_and_attached_again() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "--subnet", "10.61.0.0/24", "front"]).ok();
    host.davit(["net", "create", "back"]).ok();
    let server = ["busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];
    let place = ["--net", "front", "--ip", "10.61.0.77", "-p", "8080:80", "--network-alias", "store"];
    let db = host.run_detached("db", &[&place[..], &server].concat());
    host.davit(["net", "connect", "back", "db"]).ok();
    let app = host.run_detached("app", &["--net", "front", "busybox:1", "sleep", "1000"]);
    let before =
        db.sh("ip -o addr | grep -v inet6 | grep -o 'eth.*inet [^ ]*'; cat /sys/class/net/eth0/address");
    let works = || {
        app.sh("nc -w 5 store 80 </dev/null").ok();
        host.sh("nc -w 5 127.0.0.1 8080 </dev/null").ok();
        assert!(!db.resolves("app").is_empty());
    };
    works();
    for damage in ["rm ID.json", "echo x > ID.json"] {
        without_netd(&host, &damage.replace("ID", &db.id));
        let told = host.davit(["net", "check"]).exits(3);
        for network in ["front", "back"] {
            let object = format!("endpoint of db on {network}");
            let told = told.stdout.lines().find(|l| l.contains(&object)).unwrap_or_else(|| panic!("{told}"));
            assert!(told.starts_with("missing") && told.ends_with("the container runs and has no network"));
        }
        host.davit(["net", "check", "--repair"]).ok().says("repaired");
        host.davit(["net", "check"]).ok().prints("Everything is as it should be.");
        let after =
            db.sh("ip -o addr | grep -v inet6 | grep -o 'eth.*inet [^ ]*'; cat /sys/class/net/eth0/address");
        assert_eq!(after.text(), before.text());
        works();
    }
    without_netd(&host, &format!("rm {}.json", db.id));
    host.davit(["net", "disconnect", "back", "db"]).ok();
    host.davit(["net", "connect", "back", "db"]).ok();
    works();
    host.davit(["net", "check"]).ok();
}

#[test]
fn a_check_does_not_wait_for_ever_for_a_netd_that_does_not_answer() {
    let host = Host::with_busybox();
    host.net_create("n");
    host.sh("pkill -STOP -x davit-netd").ok();
    let told = host.davit(["net", "check"]);
    host.sh("pkill -CONT -x davit-netd").ok();
    assert!(told.code == 1 && told.stderr.contains("davit-netd does not answer; waiting for it"), "{told}");
    host.davit(["net", "check"]).ok();
}

#[test]
fn containers_without_a_network_of_their_own_are_explained() {
    let host = Host::with_busybox();
    host.net_create("n");
    let run = |name: &str, net: &str, rest: &[&str]| {
        host.davit([&["run", "-d", "--name", name, "--net", net][..], rest].concat()).ok();
    };
    let server = |port: &'static str| ["busybox:1", "nc", "-ll", "-p", port, "-e", "hostname"];
    run("web", "n", &server("80"));
    run("side", "container:web", &server("81"));
    run("plain", "host", &[&["--add-host", "store:127.0.0.1"][..], &server("90")].concat());
    run("beside", "container:plain", &["busybox:1", "sleep", "1000"]);
    let in_host = "it is in the host's network, where names of containers are not known";
    for (from, to, words) in [
        ("plain", "web:80", &[in_host, "the host does not resolve 'web'", "of network n"][..]),
        ("beside", "web:80", &["it has the network of plain", in_host]),
        ("plain", "store:90", &["'store' is 127.0.0.1: its /etc/hosts says so"]),
        ("web", "plain:90", &["'plain' is in the host's network and has no name there", "the host is 172."]),
        ("side", "web:81", &["it has the network of web", "is its own address"]),
        ("host", "side:81", &["'side' has the network of web and no name there"]),
    ] {
        let said = davit_tests::eventually(&format!("{from} reaches {to}"), || {
            let ran = host.davit(["net", "explain", from, to]);
            if ran.code == 0 { Ok(ran.text().to_owned()) } else { Err(ran.to_string()) }
        });
        for words in words {
            assert!(said.contains(words), "{from} {to}: {words}: {said}");
        }
        assert!(said.ends_with(&format!("{from} reaches {to}")), "{said}");
    }
    run("nn", "none", &["busybox:1", "sleep", "1000"]);
    let stopped = host.davit(["net", "explain", "web", "nn"]).exits(1);
    assert!(stopped.text().contains("'nn' has no network: it runs with --network none"), "{stopped}");
    let stopped = host.davit(["net", "explain", "plain", "web:99"]).exits(1);
    assert!(stopped.text().contains("nobody listens on 99/tcp"), "{stopped}");
}

#[test]
fn a_name_that_the_source_resolves_is_explained_whoever_else_has_it() {
    let host = Host::with_busybox();
    host.net_create("n");
    let sleep = ["busybox:1", "sleep", "1000"];
    let run = |name: &str, net: &str, rest: &[&str]| {
        host.run_detached(name, &[&["--net", net][..], rest, &sleep].concat())
    };
    run("web", "n", &[]);
    run("plain", "host", &[]);
    run("side", "container:web", &[]);
    let a = run("a", "n", &[]);
    let added = run("added", "n", &["--add-host", "plain:203.0.113.5"]);
    run("other", "n", &["--network-alias", "plain", "--network-alias", "side"]);
    let explain = |from: &str, to: &str| host.davit(["net", "explain", from, to]);
    let address = a.resolves("other");
    for name in ["plain", "side"] {
        assert_eq!(a.resolves(name), address);
        explain("a", name).ok().says("another name of container other on network n");
    }
    added.sh("ping -c 1 -W 1 plain | head -1").says("203.0.113.5");
    explain("added", "plain").exits(1).says("'plain' is 203.0.113.5: its /etc/hosts says so");
    // The host resolves neither: who is called so is meant.
    explain("host", "side").says("'side' has the network of web");
}
