//! docker's words for networks: what they choose, what they show, and what a person reads who types something else.

use std::collections::BTreeMap;

use davit_tests::Host;

#[test]
fn prune_asks_and_takes_what_age_and_labels_say() {
    let host = Host::with_busybox();
    let create = |name: &str, labels: &[&str]| {
        let labels = labels.iter().flat_map(|l| ["--label", l]);
        host.davit(["net", "create"].into_iter().chain(labels).chain([name])).ok();
    };
    create("plain", &[]);
    create("kept", &["keep", "tier=web,db"]);
    create("used", &[]);
    host.run_detached("c", &["--net", "used", "busybox:1", "sleep", "1000"]);
    let prune = |args: &[&str]| host.davit(["net", "prune"].iter().chain(args).copied());
    // Nobody answers: that is no.
    prune(&[]).ok().says("WARNING! This will remove all custom networks not used by at least one container.");
    prune(&["-f", "--filter", "until=24h"]).ok().prints("");
    prune(&["-f", "--filter", "until=2020-01-01T00:00:00Z"]).ok().prints("");
    prune(&["-f", "--filter", "until=1600000000"]).ok().prints("");
    prune(&["-f", "--filter", "label=other"]).ok().prints("");
    // A value may have a comma.
    prune(&["-f", "--filter", "label!=tier=web,db", "--filter", "until=0s"])
        .ok()
        .prints("Deleted Networks:\nplain\n");
    prune(&["-f", "--filter", "label=keep", "--filter", "label=tier=web,db"])
        .ok()
        .prints("Deleted Networks:\nkept\n");
    prune(&["-f"]).ok().prints("");
    prune(&["-f", "--filter", "until=soon"]).refused(&["'soon'", "10m"]);
    prune(&["-f", "--filter", "untill=1h"]).refused(&["'untill'", "'until'"]);
    host.davit(["net", "ls", "--filter", "until=1h"]).refused(&["'until'"]);
    host.davit(["net", "ls", "-f", "type=custom", "--format", "{{.Name}}"]).ok().prints("used\n");
}

#[test]
fn templates_as_they_are_typed_for_docker() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "--subnet", "10.50.0.0/24", "--ipv6", "--subnet", "fd00:50::/64", "n"]).ok();
    host.run_detached("web", &["--net", "n", "-p", "8090:80", "-l", "a=b", "busybox:1", "sleep", "1000"]);
    let net = |template: &str| host.davit(["net", "inspect", "-f", template, "n"]).ok();
    net("{{(index .IPAM.Config 0).Gateway}}").prints("10.50.0.1\n");
    net("{{range .IPAM.Config}}{{.Subnet}} {{end}}").prints("10.50.0.0/24 fd00:50::/64 \n");
    net("{{len .Containers}} {{range $id, $c := .Containers}}{{$c.Name}}={{$c.IPv4Address}}{{end}}")
        .prints("1 web=10.50.0.2/24\n");
    net("{{.Containers}}").says("Name:web");
    net("{{json .IPAM.Options}} {{with .Labels}}labels{{else}}none{{end}}").prints("{} none\n");
    assert_eq!(net("{{json .}}").json()["Driver"], "bridge");
    let web = |template: &str| host.davit(["inspect", "-f", template, "web"]).ok();
    web("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}").prints("10.50.0.2\n");
    web("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}").prints("8090\n");
    web("{{range $p, $conf := .NetworkSettings.Ports}}{{$p}} -> {{(index $conf 0).HostPort}}{{end}}")
        .prints("80/tcp -> 8090\n");
    web("{{index .Config.Labels \"a\"}}{{index .Config.Labels \"none\"}}").prints("b\n");
    web("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}}").prints("no check\n");
    host.davit(["net", "inspect", "-f", "{{.Subnet}}", "n"]).refused(&[".Subnet", ".IPAM"]);
    host.davit([
        "net",
        "ls",
        "-f",
        "driver=bridge",
        "-f",
        "name=n",
        "--format",
        "table {{.ID}}\\t{{upper .Name}}",
    ])
    .ok()
    .says("NETWORK ID");
}

#[test]
fn networks_that_cannot_be_made_say_why() {
    let host = Host::new();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--subnet", "10.51.0.7/24"], &["invalid subnet 10.51.0.7/24: it should be 10.51.0.0/24"]),
        (
            &["--subnet", "10.51.0.0/24", "--ip-range", "10.51.0.129/25"],
            &["invalid ip-range 10.51.0.129/25: it should be 10.51.0.128/25"],
        ),
        (&["--gateway", "10.51.0.1"], &["10.51.0.1", "--subnet has to be given"]),
        (&["--ipam-driver", "dhcp"], &["'dhcp'", "'default'"]),
        (&["--ipam-opt", "subnet=10.51.0.0/24"], &["'subnet'", "--subnet"]),
        (&["--scope", "swarm"], &["'swarm'", "'local'"]),
        (&["--config-only"], &["--config-only", "swarm"]),
        (&["--config-from", "x"], &["--config-from", "swarm"]),
        (&["-d", "overlay"], &["'overlay'", "bridge, macvlan, ipvlan and cni"]),
    ];
    for (args, words) in cases {
        host.leaves_nothing(|| {
            host.davit(["net", "create"].iter().chain(*args).chain(&["n"])).exits(1).refused(words)
        });
    }
    for name in ["bridge", "host", "none", "default"] {
        host.leaves_nothing(|| host.davit(["net", "create", name]).refused(&[name, "predefined"]));
    }
    let wrong: [(&[&str], &str); 3] = [
        (&["--subnet", "10.51.0.0"], "a subnet such as 10.51.0.0/24"),
        (&["--subnet", "10.51.0.0/24", "--gateway", "10.51.0.1/24"], "only 10.51.0.1 is expected"),
        (&["--subnet", "10.51.0.0/33"], "not a subnet"),
    ];
    for (args, part) in wrong {
        let ran = host.davit(["net", "create"].iter().chain(args).chain(&["n"])).exits(125);
        assert!(ran.stderr.contains(part), "{ran}");
    }
    // In the one form that there is here they are taken.
    let words =
        ["--ipam-driver", "default", "--scope", "local", "--config-only=false", "--internal=true", "n"];
    host.davit(["net", "create"].iter().chain(&words)).ok();
    host.davit(["net", "inspect", "-f", "{{.IPAM.Driver}} {{.Scope}} {{.Internal}}", "n"])
        .ok()
        .prints("default local true\n");
}

#[test]
fn flags_of_run_that_cannot_be_meant_say_why() {
    let host = Host::with_busybox();
    let cases: &[(&[&str], &[&str])] = &[
        (&["-p", "8080:80", "-p", "8080:81"], &["-p 8080:80", "-p 8080:81"]),
        (
            &["-p", "8080-8082:80-82", "-p", "127.0.0.1:8081:90"],
            &["-p 8080-8082:80-82", "-p 127.0.0.1:8081:90"],
        ),
        (&["-p", "224.0.0.1:8080:80"], &["224.0.0.1", "multicast"]),
        (&["-p", "255.255.255.255:8080:80"], &["255.255.255.255", "broadcast"]),
        (&["-p", "127.255.255.255:8080:80"], &["127.255.255.255", "broadcast"]),
        (&["-p", "[ff02::1]:8080:80"], &["ff02::1", "multicast"]),
        (&["-p", "[fe80::1]:8080:80"], &["fe80::1", "link-local"]),
        (&["-p", "127.0.0.1:80"], &["127.0.0.1::80"]),
        (&["--expose", "80/icmp"], &["80/icmp", "to expose"]),
        (&["--ip", "10.0.0.5"], &["10.0.0.5", "'bridge'", "--network"]),
        (&["--net", "bridge", "--net", "default"], &["--network bridge", "twice"]),
    ];
    for (args, words) in cases {
        host.leaves_nothing(|| {
            let ran = host.davit(["run", "--rm"].iter().chain(*args).chain(&["busybox:1", "true"]));
            ran.exits(125).refused(words)
        });
    }
    for (args, part) in [
        (["--link", "db:a:b"], "CONTAINER[:NAME]"),
        (["--ip", "fd00::1"], "--ip6"),
        (["--mac-address", "03:00:00:00:00:01"], "a group's"),
        (["--dns", "name"], "'name' is not an IP address"),
    ] {
        let ran = host.davit(["run", "--rm"].iter().chain(&args).chain(&["busybox:1", "true"])).exits(125);
        assert!(ran.stderr.contains(part), "{ran}");
    }
}

#[test]
fn exposed_ports_are_shown_and_published() {
    let host = Host::with_busybox();
    let expose = ["--expose", "80", "--expose", "53/udp"];
    let run = |name: &str, more: &[&str]| {
        let args = expose.iter().chain(more).chain(&["busybox:1", "sleep", "1000"]);
        host.run_detached(name, &args.copied().collect::<Vec<_>>())
    };
    let see = |name: &str, template: &str| host.davit(["inspect", "-f", template, name]).ok();
    run("shown", &["-p", "8090:90"]);
    see("shown", "{{json .Config.ExposedPorts}}").prints("{\"53/udp\":{},\"80/tcp\":{},\"90/tcp\":{}}\n");
    host.davit(["ps", "--format", "{{.Ports}}"]).ok().says("80/tcp").says("53/udp").says_not("->80/tcp");
    run("published", &["-P", "-p", "8053:53/udp"]);
    see(
        "published",
        "{{len .NetworkSettings.Ports}} {{(index (index .NetworkSettings.Ports \"53/udp\") 0).HostPort}}",
    )
    .prints("2 8053\n");
    let port = see("published", "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}");
    assert!(port.text().trim().parse::<u16>().is_ok_and(|p| p > 0), "{port}");
    host.davit(["stop", "-t", "0", "shown", "published"]).ok();
    see("shown", "{{len .Config.ExposedPorts}} {{len .NetworkSettings.Ports}}").says(" 0");
    host.davit(["run", "--net", "container:shown", "--expose", "1", "busybox:1", "true"]).exits(125);
}

#[test]
fn a_network_given_by_the_beginning_of_its_id_is_that_network() {
    let host = Host::with_busybox();
    let id = host.davit(["net", "create", "--subnet", "10.52.0.0/24", "v6"]).ok().text().trim().to_owned();
    let short = &id[..6];
    host.davit(["create", "--net", short, "--name", "made", "busybox:1", "sleep", "1000"]).ok();
    host.run_detached("runs", &["--net", short, "--network-alias", "a", "busybox:1", "sleep", "1000"]);
    for name in ["made", "runs"] {
        host.davit(["inspect", "-f", "{{.HostConfig.NetworkMode}}", name]).ok().prints("v6\n");
        host.davit(["net", "connect", "v6", name]).refused(&[name, "v6", "already"]);
    }
    let see = |template: &str| host.davit(["inspect", "-f", template, "runs"]).ok();
    see("{{with .NetworkSettings.Networks.v6}}{{.Aliases}} {{.IPAMConfig}} {{.Links}} {{.DriverOpts}} {{.GwPriority}}{{end}}")
        .says("[a]");
    let hosts = see("{{.HostsPath}}").text().trim().to_owned();
    host.sh(&format!("cat {hosts}")).ok().says("10.52.0.2");
    host.davit(["net", "disconnect", short, "runs"]).ok();
    host.davit(["rm", "-f", "runs"]).ok();
    // Nothing but the stopped container's own record knows of it any more.
    host.davit(["net", "rm", "v6"]).ok();
    host.davit(["net", "disconnect", "v6", "made"]).ok();
    host.davit(["net", "disconnect", "v6", "made"]).code_is_not_zero();
}

#[test]
fn what_does_not_run_shows_the_networks_that_it_will_have() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "n"]).ok();
    host.davit(["net", "create", "m"]).ok();
    let see = |name: &str| {
        let shown = host.davit(["inspect", "-f", "{{json .NetworkSettings.Networks}}", name]).ok().json();
        let networks = shown.as_object().unwrap().clone();
        networks.into_iter().map(|(name, e)| (name, e["IPAddress"].as_str().unwrap().to_owned())).collect()
    };
    let none = |names: &[&str]| -> BTreeMap<String, String> {
        names.iter().map(|n| ((*n).to_owned(), String::new())).collect()
    };
    host.davit(["create", "--name", "made", "busybox:1", "true"]).ok();
    host.davit(["create", "--name", "alone", "--net", "none", "busybox:1", "true"]).ok();
    assert_eq!((see("made"), see("alone")), (none(&["bridge"]), none(&["none"])));
    host.run_detached("c", &["--net", "n", "busybox:1", "sleep", "1000"]);
    host.davit(["net", "connect", "m", "c"]).ok();
    let running: BTreeMap<String, String> = see("c");
    assert!(running.len() == 2 && running.values().all(|ip| !ip.is_empty()), "{running:?}");
    host.davit(["stop", "-t", "0", "c"]).ok();
    assert_eq!(see("c"), none(&["m", "n"]));
    host.davit(["ps", "-a", "--filter", "name=c", "--format", "{{.Networks}}"]).ok().prints("n,m\n");
    host.davit(["net", "disconnect", "n", "c"]).ok();
    assert_eq!(see("c"), none(&["m"]));
    // docker's word for the driver.
    host.davit(["net", "ls", "-f", "driver=null", "--format", "{{.Name}} {{.Driver}}"])
        .ok()
        .prints("none null\n");
    host.davit(["net", "inspect", "-f", "{{.Driver}}", "none"]).ok().prints("null\n");
}

#[test]
fn ports_and_switches_are_asked_for_in_dockers_words() {
    let host = Host::with_busybox();
    let run = [
        "run",
        "-d=true",
        "-i=false",
        "-t=false",
        "--rm=0",
        "-P=true",
        "--expose",
        "90",
        "--read-only=t",
        "--init=false",
    ];
    host.davit(run.iter().chain(&[
        "--privileged=false",
        "--name",
        "c",
        "-p8080:80",
        "busybox:1",
        "sleep",
        "1000",
    ]))
    .ok();
    let switches = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{.HostConfig.AutoRemove}} {{.Config.Tty}}";
    host.davit(["inspect", "-f", switches, "c"]).ok().prints("true false false false\n");
    host.davit(["port", "c", "80"]).ok().says("0.0.0.0:8080");
    host.davit(["port", "c", "90/TCP"]).ok().says("0.0.0.0:");
    for port in ["foo", "0", "8080:80", "80/icmp"] {
        let line = format!("no public port '{port}' published for c");
        host.davit(["port", "c", port]).exits(1).refused(&[&line, "80/tcp", "53/udp"]);
    }
    host.davit(["port", "c", "81"])
        .exits(1)
        .refused(&["no public port '81' published for c", "'davit port c'"]);
    let ran = host.davit(["run", "--rm=maybe", "busybox:1", "true"]).exits(125);
    assert!(ran.stderr.contains("true or false"), "{ran}");
}
