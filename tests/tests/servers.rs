//! Real servers in containers: nginx, PostgreSQL and iperf3 on networks, found by name and behind published ports.

use std::time::Duration;

use davit_tests::internet::HOST_ADDRESS;
use davit_tests::{Container, Host, Internet, Ran, eventually, fixture};

/// A host with the servers' image.
#[track_caller]
fn host() -> Host {
    let host = Host::builder().on_disk().create().expect("a private host");
    host.davit(["image", "load", "-i", &fixture::servers().archive()]).ok();
    host
}

fn client<'h>(host: &'h Host, name: &str, network: &str) -> Container<'h> {
    host.run_detached(name, &["--net", network, "servers:1", "sleep", "1000"])
}

const NGINX: &[&str] = &[
    "servers:1",
    "sh",
    "-c",
    "echo hello from nginx > /var/www/html/index.html; exec nginx -g 'daemon off;'",
];

fn says(ran: impl Fn() -> Ran, what: &str, expected: &str) {
    eventually(what, || {
        let ran = ran();
        if ran.code == 0 && ran.stdout.contains(expected) { Ok(()) } else { Err(ran.to_string()) }
    });
}

#[test]
fn nginx_is_found_by_name_by_port_and_from_beyond_over_both_ip_versions() {
    let host = host();
    let far = Internet::of(&host);
    host.davit(["net", "create", "--ipv6", "web"]).ok();
    host.net_create("other");
    host.run_detached("nginx", &[&["--net", "web", "-p", "8080:80"], NGINX].concat());
    let near = client(&host, "near", "web");
    let stranger = client(&host, "stranger", "other");
    let fetch = |from: &Container<'_>, url: &str| from.exec(&["curl", "-sSgm", "5", url]);
    says(|| fetch(&near, "http://nginx/"), "nginx by its name", "hello from nginx");
    says(|| near.exec(&["curl", "-sS6m", "5", "http://nginx/"]), "by its name over IPv6", "hello from nginx");
    says(|| host.sh("curl -sSm 5 http://127.0.0.1:8080/"), "on the host", "hello from nginx");
    says(
        || host.sh(&format!("curl -sSm 5 http://{HOST_ADDRESS}:8080/")),
        "at its address",
        "hello from nginx",
    );
    let published = format!("http://{HOST_ADDRESS}:8080/");
    says(|| fetch(&stranger, &published), "a published port from another network", "hello from nginx");
    says(|| fetch(&near, &published), "a published port from its own network", "hello from nginx");
    assert_ne!(fetch(&stranger, "http://nginx/").code, 0, "its name is not known on another network");
    let from_far = far.inside(|| {
        let address = format!("{HOST_ADDRESS}:8080").parse().unwrap();
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok()
    });
    assert!(from_far, "from beyond");
}

#[test]
fn postgresql_serves_on_while_netd_is_killed_and_replaced() {
    let host = host();
    let _far = Internet::of(&host);
    host.net_create("data");
    let start = "
        cluster=$(ls -d /usr/lib/postgresql/*/bin)
        mkdir -p /run/postgresql /srv/db && chown postgres /run/postgresql /srv/db
        su postgres -s /bin/sh -c \"$cluster/initdb -D /srv/db -A trust >/dev/null\"
        echo 'host all all all trust' >> /srv/db/pg_hba.conf
        exec su postgres -s /bin/sh -c \"exec $cluster/postgres -D /srv/db -c listen_addresses='*' -c jit=off\"";
    host.run_detached("db", &["--net", "data", "-p", "5432:5432", "servers:1", "bash", "-c", start]);
    let app = client(&host, "app", "data");
    let query = |sql: &str| app.exec(&["psql", "-h", "db", "-U", "postgres", "-Atc", sql]);
    says(|| query("select 6 * 7"), "PostgreSQL answers", "42");
    query("create table boats (name text); insert into boats values ('gig'), ('cutter')").ok();

    // A session that lasts longer than netd.
    let session = host
        .command("davit")
        .args(["exec", "app", "psql", "-h", "db", "-U", "postgres", "-Atc"])
        .args(["select pg_sleep(3); select string_agg(name, ' ' order by name) from boats"])
        .start();
    let netd = host.sh("cat /proc/[0-9]*/stat | awk '$2 == \"(davit-netd)\" { print $1 }'").ok();
    host.sh(&format!("kill -9 {}", netd.text().trim())).ok();
    session.wait().ok().says("cutter gig");
    says(|| query("select count(*) from boats"), "by its name, with the next netd", "2");
    let stranger = client(&host, "stranger", "bridge");
    says(
        || {
            stranger.exec(&[
                "psql",
                "-h",
                HOST_ADDRESS,
                "-U",
                "postgres",
                "-Atc",
                "select count(*) from boats",
            ])
        },
        "through the published port",
        "2",
    );
}

#[test]
fn iperf3_runs_through_names_and_published_ports_over_tcp_and_udp() {
    let host = host();
    host.net_create("lane");
    let ports = ["--net", "lane", "-p", "5201:5201", "-p", "5201:5201/udp"];
    host.run_detached("server", &[&ports[..], &["servers:1", "iperf3", "-s"]].concat());
    let runner = client(&host, "runner", "lane");
    let moved = |ran: Ran| {
        let report = ran.ok().json();
        // The last of what was sent may be on its way when the test ends.
        let sums =
            ["sum_sent", "sum_received", "sum"].iter().filter_map(|k| report["end"][*k]["bytes"].as_u64());
        sums.max().unwrap_or_else(|| panic!("no sum in {report:#}"))
    };
    says(|| runner.exec(&["iperf3", "-c", "server", "-n", "1M"]), "iperf3 by name", "receiver");
    assert!(moved(runner.exec(&["iperf3", "-c", "server", "-n", "64M", "-J"])) >= 60 << 20);
    assert!(moved(runner.exec(&["iperf3", "-c", "server", "-R", "-n", "64M", "-J"])) >= 60 << 20);
    assert!(moved(runner.exec(&["iperf3", "-u", "-c", "server", "-b", "20M", "-n", "4M", "-J"])) >= 3 << 20);
    let client = host.davit([
        "run",
        "--rm",
        "--net",
        "host",
        "servers:1",
        "iperf3",
        "-c",
        "127.0.0.1",
        "-n",
        "16M",
        "-J",
    ]);
    assert!(moved(client) >= 15 << 20, "through the published port");
}
