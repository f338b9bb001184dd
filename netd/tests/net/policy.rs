//! Who reaches whom on one network, by labels.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use davit_contracts::network as proto;
use davit_contracts::{Error, Kind};

use crate::host::{BEYOND, Guest, Host, ip};

/// Bridged packets are not filtered but where netd asks for it, as on a host without other container engines.
const HOST: &str = "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0";

async fn network(host: &Host) -> proto::Network {
    let request = proto::CreateNetworkRequest { name: "n".into(), ipv6: true, ..Default::default() };
    host.create(request).await.unwrap()
}

/// A guest with a role, and its addresses.
async fn guest(host: &Host, role: &str) -> (Guest, String, String) {
    let guest = Guest::new(role);
    let spec = proto::EndpointSpec { network: "n".into(), ..Default::default() };
    let mut request = Host::request(&guest, vec![spec], &[]);
    request.labels = [("role".to_owned(), role.to_owned())].into();
    let at = host.attach_request(request).await.unwrap();
    let six = at.endpoints[0].ip6.split('/').next().unwrap().to_owned();
    for at in ["0.0.0.0", "[::]"] {
        if at == "[::]" {
            guest.space.run("sysctl -qw net.ipv6.bindv6only=1");
        }
        guest.space.serve_tcp(&format!("{at}:5432"));
        guest.space.serve_tcp(&format!("{at}:22"));
        guest.space.serve_udp(&format!("{at}:53"));
    }
    let four = ip(&at, 0);
    (guest, four, six)
}

fn rule(allow: bool, from: &str, to: &str, protocol: &str, port: u32) -> proto::PolicyRule {
    let role = |r: &str| (!r.is_empty()).then(|| ("role".to_owned(), r.to_owned())).into_iter().collect();
    proto::PolicyRule { allow, from: role(from), to: role(to), protocol: protocol.into(), port, port_end: 0 }
}

async fn set(host: &Host, default: &str, rules: &[proto::PolicyRule]) -> Result<proto::Network, Error> {
    let request = proto::SetPolicyRequest {
        network: "n".into(),
        rules: rules.to_vec(),
        default_action: default.into(),
    };
    host.networks().set_policy(request).await.map(tonic::Response::into_inner).map_err(Error::from)
}

#[tokio::test]
pub async fn only_what_is_allowed_passes_in_both_ip_versions() {
    let host = Host::with(HOST).await;
    network(&host).await;
    let (web, web4, web6) = guest(&host, "web").await;
    let told = set(&host, "deny", &[rule(true, "web", "db", "tcp", 5432)]).await.unwrap();
    assert_eq!((told.policy_default.as_str(), told.policy.len()), ("deny", 1));
    // One is there when the policy is set, one comes after it.
    let (db, db4, db6) = guest(&host, "db").await;
    let (other, other4, _) = guest(&host, "other").await;
    for at in [db4.clone(), format!("[{db6}]")] {
        assert!(web.space.ask_tcp(&format!("{at}:5432")).is_some(), "{at}: {}", rules(&host));
        assert_eq!(web.space.ask_tcp(&format!("{at}:22")), None, "{at}, another port");
        assert_eq!(web.space.ask_udp(&format!("{at}:53")), None, "{at}, another protocol");
        assert_eq!(other.space.ask_tcp(&format!("{at}:5432")), None, "{at}, another source");
    }
    for at in [web4, format!("[{web6}]"), other4] {
        assert_eq!(db.space.ask_tcp(&format!("{at}:5432")), None, "{at}, the other way");
    }
    // Names, the way out and the host are none of its business.
    assert_eq!(other.space.dig("db"), db4);
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert!(other.space.ask_tcp(&format!("{BEYOND}:80")).is_some());
    assert!(host.space.ask_tcp(&format!("{db4}:22")).is_some());
    set(&host, "", &[]).await.unwrap();
    assert!(other.space.ask_tcp(&format!("[{db6}]:22")).is_some());
    for guest in [&web, &db, &other] {
        host.detach(guest).await;
    }
    host.net_remove("n").await.unwrap();
    host.becomes_clean().await;
}

fn rules(host: &Host) -> String {
    host.space.run("nft -s list ruleset")
}

#[tokio::test]
pub async fn a_container_with_another_address_or_mac_is_mute() {
    let host = Host::with(HOST).await;
    network(&host).await;
    set(&host, "deny", &[rule(true, "web", "db", "", 0)]).await.unwrap();
    let (web, web4, web6) = guest(&host, "web").await;
    let (db, db4, db6) = guest(&host, "db").await;
    let (spy, spy4, _) = guest(&host, "spy").await;
    assert!(web.space.ask_tcp(&format!("{db4}:22")).is_some());
    // As one that may: while that one is there, and in its place when it is gone.
    let mac = |space: &crate::host::Space| {
        space.run("cat /sys/class/net/eth0/address 2>/dev/null || ip -o link show eth0 | grep -o 'ether [^ ]*' | cut -d' ' -f2").trim().to_owned()
    };
    spy.space.run(&format!("ip addr add {web4}/16 dev eth0; ip addr add {web6}/64 dev eth0 nodad"));
    let spoof = |to: &str, from: &str| {
        let command = format!("timeout 1 ping -c1 -W1 -I {from} {to}");
        spy.space.attempt(&command).0
    };
    assert!(!spoof(&db4, &web4) && !spoof(&db6, &web6));
    let link = db
        .space
        .run("ip -6 -o addr show dev eth0 scope link")
        .split_whitespace()
        .nth(3)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(spy.space.ask_tcp(&format!("[{link}%2]:22")), None, "addresses of the link");
    // Frames with an allowed destination, but for another's port.
    spy.space.run(&format!("ip neigh replace {spy4} lladdr {} dev eth0 2>/dev/null || true", mac(&db.space)));
    spy.space.run("ip link set eth0 address 02:00:00:00:00:99");
    let gateway = spy.space.run("ip route show default").split_whitespace().nth(2).unwrap().to_owned();
    assert!(!spy.space.attempt(&format!("ping -c1 -W1 {gateway}")).0, "another mac");
    assert!(web.space.ask_tcp(&format!("{db4}:22")).is_some(), "{}", rules(&host));
}

/// A connection that stays.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn begin(from: &Guest, to: &Guest, at: &str) -> Self {
        let listener = to.space.inside(|| TcpListener::bind("0.0.0.0:7777")).unwrap();
        let at = format!("{at}:7777").parse().unwrap();
        let client = from.space.inside(|| TcpStream::connect_timeout(&at, Duration::from_secs(5))).unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        }
        Self { client, server }
    }

    /// Whether a byte comes through each way.
    fn goes_on(&mut self) -> bool {
        let mut byte = [0];
        let mut way = |from: &mut TcpStream, to: &mut TcpStream| {
            from.write_all(b"x").is_ok() && to.read_exact(&mut byte).is_ok()
        };
        way(&mut self.client, &mut self.server) && way(&mut self.server, &mut self.client)
    }
}

#[tokio::test]
pub async fn a_policy_holds_for_connections_that_are_there() {
    let host = Host::with(HOST).await;
    network(&host).await;
    let (web, _, _) = guest(&host, "web").await;
    let (db, db4, _) = guest(&host, "db").await;
    set(&host, "allow", &[rule(false, "other", "db", "", 0)]).await.unwrap();
    let mut talk = Talk::begin(&web, &db, &db4);
    assert!(talk.goes_on());
    // A policy that still allows it does not touch it.
    set(&host, "deny", &[rule(true, "web", "db", "tcp", 7777)]).await.unwrap();
    assert!(talk.goes_on());
    set(&host, "allow", &[rule(false, "web", "db", "tcp", 7777)]).await.unwrap();
    let mut byte = [0];
    assert!(talk.server.write_all(b"x").is_err() || talk.client.read_exact(&mut byte).is_err(), "answers");
    assert!(!talk.goes_on());
}

#[tokio::test]
pub async fn a_policy_survives_a_kill_and_a_flush() {
    let mut host = Host::with(HOST).await;
    network(&host).await;
    set(&host, "deny", &[rule(true, "web", "", "", 0)]).await.unwrap();
    let (web, ..) = guest(&host, "web").await;
    let (db, db4, _) = guest(&host, "db").await;
    let (other, ..) = guest(&host, "other").await;
    let holds = |host: &Host| {
        assert!(web.space.ask_tcp(&format!("{db4}:22")).is_some(), "{}", rules(host));
        assert_eq!(other.space.ask_tcp(&format!("{db4}:22")), None, "{}", rules(host));
    };
    holds(&host);
    // Of the tables of iptables only what is ours comes back.
    let ours = |host: &Host| {
        let text = rules(host).to_lowercase();
        text.lines().filter(|l| l.contains("davit") && !l.contains("elements")).count()
    };
    let whole = ours(&host);
    host.kill();
    holds(&host);
    host.start().await;
    holds(&host);
    host.flush_rules();
    host.eventually("rules come back", || ours(&host) >= whole).await;
    holds(&host);
    for guest in [&web, &db, &other] {
        host.detach(guest).await;
    }
    host.net_remove("n").await.unwrap();
    host.becomes_clean().await;
}

#[tokio::test]
async fn what_cannot_be_is_said_and_changes_nothing() {
    let host = Host::new().await;
    network(&host).await;
    let e = set(&host, "reject", &[]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.to_string().contains("'reject'"), "{e}");
    let e = set(&host, "", &[rule(true, "", "", "", 80)]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    let request = proto::SetPolicyRequest { network: "host".into(), ..Default::default() };
    let e = Error::from(host.networks().set_policy(request).await.unwrap_err());
    assert!(e.to_string().contains("policies are for bridges"), "{e}");
    assert!(host.inspect("n").await.policy.is_empty());
}
