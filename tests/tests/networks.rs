//! Networks: names, ways out, published ports, connecting and disconnecting.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use davit_tests::internet::{self, HOST_ADDRESS};
use davit_tests::{Container, Host, Internet, eventually, fixture};

/// Answers every TCP connection on port 80 with its host name.
const SERVER: &[&str] = &["busybox:1", "nc", "-ll", "-p", "80", "-e", "hostname"];

fn server<'h>(host: &'h Host, name: &str, options: &[&str]) -> Container<'h> {
    host.run_detached(name, &[&["--hostname", name], options, SERVER].concat())
}

fn idle<'h>(host: &'h Host, name: &str, options: &[&str]) -> Container<'h> {
    host.run_detached(name, &[options, &["busybox:1", "sleep", "1000"]].concat())
}

/// What a server says to a container, once it listens.
fn ask(from: &Container<'_>, to: &str) -> String {
    eventually(&format!("{} asks {to}", from.name), || {
        let ran = from.sh(&format!("nc -w 5 {to} 80 </dev/null"));
        if ran.code == 0 && !ran.text().is_empty() { Ok(ran.text().to_owned()) } else { Err(ran.to_string()) }
    })
}

/// What a published port says on the host, once it answers.
fn ask_port(host: &Host, address: Ipv4Addr, port: u16) -> String {
    eventually(&format!("{address}:{port} answers"), || {
        host.inside(|| {
            let mut stream = TcpStream::connect((address, port)).map_err(|e| e.to_string())?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
            if text.is_empty() {
                Err("closed without an answer".to_owned())
            } else {
                Ok(text.trim().to_owned())
            }
        })
    })
}

#[test]
fn containers_of_a_network_find_each_other_by_name_and_alias() {
    let host = Host::with_busybox();
    host.net_create("my-bridge");
    let db = server(&host, "db", &["--net", "my-bridge", "--network-alias", "store"]);
    let web = idle(&host, "web", &["--net", "my-bridge"]);
    assert_eq!(web.resolves("db"), db.address("my-bridge"));
    assert_eq!(web.resolves("store"), db.address("my-bridge"));
    assert_eq!(web.resolves(&db.id[..12]), db.address("my-bridge"));
    assert_eq!(db.resolves("web"), web.address("my-bridge"));
    assert_eq!(ask(&web, "db"), "db");
    assert_eq!(ask(&web, &db.address("my-bridge")), "db");
    web.does_not_resolve("nobody");
    db.remove();
    web.does_not_resolve("db");
}

#[test]
fn names_of_another_network_are_not_told() {
    let host = Host::with_busybox();
    host.net_create("a");
    host.net_create("b");
    let db = server(&host, "db", &["--net", "a"]);
    let web = idle(&host, "web", &["--net", "b"]);
    web.does_not_resolve("db");
    let ran = web.sh(&format!("nc -w 2 {} 80 </dev/null", db.address("a")));
    assert!(ran.text().is_empty(), "networks are apart: {ran}");
    host.davit(["net", "connect", "--alias", "visitor", "a", "web"]).ok();
    assert_eq!(ask(&web, "db"), "db");
    assert_eq!(db.resolves("visitor"), web.address("a"));
    host.davit(["net", "disconnect", "a", "web"]).ok();
    web.does_not_resolve("db");
    web.sh("ip -o link | grep -c eth").prints("1");
}

#[test]
fn a_container_that_turns_ipv6_off_is_known_by_ipv4_alone() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "--ipv6", "six"]).ok();
    let off = idle(&host, "off", &["--net", "six", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1"]);
    let on = idle(&host, "on", &["--net", "six"]);
    let ipv6 = |c: &Container<'_>| c.inspect(&["NetworkSettings", "Networks", "six", "GlobalIPv6Address"]);
    assert_eq!(ipv6(&off), "");
    assert_ne!(ipv6(&on), "");
    assert_eq!(on.resolves("off"), off.address("six"));
    on.sh("nslookup -type=AAAA on | grep -c 'Address.*fd'").prints("1");
    on.sh("nslookup -type=AAAA off | grep -c 'Address.*fd'").prints("0");
    off.sh("ip -6 addr show dev eth0 | wc -l").prints("0");
    host.davit(["net", "check"]).ok();
}

#[test]
fn a_container_reaches_beyond_the_host_behind_the_hosts_address() {
    let host = Host::builder().etc("resolv.conf", "nameserver 198.51.100.1\n").create().unwrap();
    host.load_busybox();
    let far = Internet::of(&host);
    far.serve_tcp(80);
    far.serve_dns("far.example");
    host.net_create("my-bridge");
    let fetch = "wget -qO- http://198.51.100.1/";
    for network in ["bridge", "my-bridge"] {
        host.davit(["run", "--rm", "--net", network, "busybox:1", "sh", "-c", fetch])
            .ok()
            .prints(&format!("you are {HOST_ADDRESS}"));
    }
    let c = idle(&host, "c", &["--net", "my-bridge"]);
    assert_eq!(c.resolves("far.example"), internet::ADDRESS);
    c.does_not_resolve("other.example");
}

#[test]
fn the_default_network_gives_an_address_and_a_way_out() {
    let host = Host::with_busybox();
    let c = idle(&host, "c", &[]);
    c.sh("ip -4 -o addr show eth0").ok().says("inet ");
    c.sh("ip route").ok().says("default via");
    assert!(c.address("bridge").parse::<Ipv4Addr>().is_ok());
    host.davit(["net", "ls"]).ok().says("bridge").says("host").says("none");
}

#[test]
fn a_published_tcp_port_answers_on_the_host() {
    let host = Host::with_busybox();
    let web = server(&host, "web", &["-p", "8080:80"]);
    assert_eq!(ask_port(&host, Ipv4Addr::LOCALHOST, 8080), "web");
    host.davit(["ps"]).ok().says("8080->80/tcp");
    host.davit(["port", "web"]).ok().says("8080");
    web.remove();
    host.inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 8080))).unwrap_err();
}

#[test]
fn a_published_port_answers_others_too() {
    let host = Host::with_busybox();
    let far = Internet::of(&host);
    server(&host, "web", &["-p", "8080:80"]);
    server(&host, "private", &["-p", "127.0.0.1:8081:80"]);
    assert_eq!(ask_port(&host, Ipv4Addr::LOCALHOST, 8080), "web");
    assert_eq!(ask_port(&host, Ipv4Addr::LOCALHOST, 8081), "private");
    assert_eq!(ask_port(&host, HOST_ADDRESS.parse().unwrap(), 8080), "web");
    let from_far = |port: u16| {
        far.inside(move || {
            let address = (HOST_ADDRESS.parse::<Ipv4Addr>().unwrap(), port).into();
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text.trim().to_owned())
        })
    };
    assert_eq!(from_far(8080).unwrap(), "web");
    assert!(from_far(8081).is_err(), "a port published on 127.0.0.1 is for this host only");
}

#[test]
fn a_free_port_is_chosen_when_none_is_named() {
    let host = Host::with_busybox();
    server(&host, "web", &["-p", "80"]);
    let said = host.davit(["port", "web", "80"]).ok();
    let port = said.text().lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(ask_port(&host, Ipv4Addr::LOCALHOST, port), "web");
}

#[test]
fn a_published_udp_port_answers_on_the_host() {
    let host = Host::builder().on_disk().create().unwrap();
    host.davit(["image", "load", "-i", &fixture::debian().archive()]).ok();
    let echo = "use IO::Socket; my $s = IO::Socket::INET->new(LocalPort => 5353, Proto => 'udp') or die; \
                while (defined $s->recv(my $m, 1024)) { $s->send(\"echo $m\") }";
    host.run_detached("echo", &["-p", "5300:5353/udp", "debian:1", "perl", "-e", echo]);
    let answer = eventually("the echo answers", || {
        host.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|e| e.to_string())?;
            socket.set_read_timeout(Some(Duration::from_millis(500))).map_err(|e| e.to_string())?;
            socket.send_to(b"hello", (Ipv4Addr::LOCALHOST, 5300)).map_err(|e| e.to_string())?;
            let mut buffer = [0; 64];
            let (n, from) = socket.recv_from(&mut buffer).map_err(|e| e.to_string())?;
            Ok((String::from_utf8_lossy(&buffer[..n]).into_owned(), from.to_string()))
        })
    });
    assert_eq!(answer, ("echo hello".to_owned(), "127.0.0.1:5300".to_owned()));
}

#[test]
fn a_container_reaches_a_published_port_of_another() {
    let host = Host::with_busybox();
    let _far = Internet::of(&host);
    host.net_create("a");
    server(&host, "web", &["--net", "a", "-p", "8080:80"]);
    assert_eq!(ask_port(&host, Ipv4Addr::LOCALHOST, 8080), "web");
    let c = idle(&host, "c", &["--net", "a"]);
    c.sh(&format!("nc -w 5 {HOST_ADDRESS} 8080 </dev/null")).ok().prints("web");
}

#[test]
fn none_has_loopback_only_and_host_has_the_hosts_links() {
    let host = Host::with_busybox();
    let run =
        |net: &str, script: &str| host.davit(["run", "--rm", "--net", net, "busybox:1", "sh", "-c", script]);
    run("none", "ls /sys/class/net; ip -o addr show lo").ok().says("lo").says("127.0.0.1").says_not("eth0");
    host.sh("ip link add mark type bridge").ok();
    run("host", "ip -o link").ok().says("mark");
    host.sh("ip link del mark").ok();
    let own = host.sh("readlink /proc/self/ns/net").ok();
    run("host", "readlink /proc/self/ns/net").ok().prints(own.text());
}

#[test]
fn networks_are_listed_inspected_and_removed() {
    let host = Host::with_busybox();
    host.davit([
        "net",
        "create",
        "--subnet",
        "10.77.0.0/24",
        "--gateway",
        "10.77.0.9",
        "--label",
        "a=b",
        "own",
    ])
    .ok();
    let inspected = host.davit(["net", "inspect", "own"]).ok().json();
    assert_eq!(inspected[0]["IPAM"]["Config"][0]["Subnet"], "10.77.0.0/24");
    assert_eq!(inspected[0]["IPAM"]["Config"][0]["Gateway"], "10.77.0.9");
    assert_eq!(inspected[0]["Labels"]["a"], "b");
    let c = idle(&host, "c", &["--net", "own", "--ip", "10.77.0.40"]);
    c.sh("ip route; ip -o -4 addr").ok().says("default via 10.77.0.9").says("10.77.0.40/24");
    host.davit(["net", "rm", "own"]).refused(&["own", "c"]);
    // docker's -f is about networks that are missing: nobody loses an address by it.
    host.davit(["net", "rm", "-f", "own"]).exits(1).refused(&["own", "c", "disconnect or remove"]);
    host.davit(["net", "rm", "-f", "missing"]).exits(0);
    c.sh("ip -o -4 addr").ok().says("10.77.0.40/24");
    host.davit(["net", "ls", "--filter", "name=own", "--format", "{{.Name}} {{.Label \"a\"}}"])
        .ok()
        .prints("own b");
    c.remove();
    host.davit(["net", "rm", "own"]).ok().prints("own");
    host.davit(["net", "inspect", "own"]).refused(&["own"]);
    host.davit(["net", "rm", "bridge"]).refused(&["bridge"]);
}

#[test]
fn addresses_are_given_again_and_never_twice() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "--subnet", "10.78.0.0/29", "small"]).ok();
    let containers: Vec<_> = (0..5).map(|n| idle(&host, &format!("c{n}"), &["--net", "small"])).collect();
    let mut addresses: Vec<_> = containers.iter().map(|c| c.address("small")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 5, "{addresses:?}");
    let full = ["run", "--rm", "--net", "small", "busybox:1", "true"];
    host.leaves_nothing(|| host.davit(full).exits(125).refused(&["small", "address"]));
    host.davit(["rm", "-f", "c3"]).ok();
    host.davit(full).ok();
}

#[test]
fn a_container_on_two_networks_reaches_both() {
    let host = Host::with_busybox();
    host.net_create("a");
    host.net_create("b");
    server(&host, "on-a", &["--net", "a"]);
    server(&host, "on-b", &["--net", "b"]);
    let both = idle(&host, "both", &["--net", "a", "--net", "b"]);
    assert_eq!(ask(&both, "on-a"), "on-a");
    assert_eq!(ask(&both, "on-b"), "on-b");
}

#[test]
fn a_restarted_container_is_known_by_its_name_again() {
    let host = Host::with_busybox();
    host.net_create("n");
    let db = server(&host, "db", &["--net", "n", "-p", "8080:80"]);
    let web = idle(&host, "web", &["--net", "n"]);
    host.davit(["kill", "db"]).ok();
    host.davit(["wait", "db"]).ok();
    eventually("a stopped container has no name", || {
        let ran = web.sh("nslookup -type=a db");
        if ran.stdout.contains("Name:") { Err(ran.to_string()) } else { Ok(()) }
    });
    host.davit(["start", "db"]).ok();
    assert_eq!(web.resolves("db"), db.address("n"));
    assert_eq!(ask_port(&host, Ipv4Addr::LOCALHOST, 8080), "db");
}
