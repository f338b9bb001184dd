//! What `explain` says is what happens: every pair is explained, and real traffic is sent.

use std::thread;

use davit_contracts::network as proto;
use davit_contracts::{Error, Kind};

use crate::host::{BEYOND, Guest, HOST, Host, Space, WORLD, ip};

async fn explain(host: &Host, from: &str, to: &str, port: u32) -> Result<proto::ExplainResponse, Error> {
    let request = proto::ExplainRequest { from: from.into(), to: to.into(), port, protocol: "tcp".into() };
    host.networks().explain(request).await.map(tonic::Response::into_inner).map_err(Error::from)
}

/// One line a hop: `stop rule host: networks are apart`.
fn told(answer: &proto::ExplainResponse) -> Vec<String> {
    let word = |h: &proto::Hop| match h.verdict() {
        proto::hop::Verdict::Note => "note",
        proto::hop::Verdict::Pass => "pass",
        proto::hop::Verdict::Stop => "stop",
    };
    answer.hops.iter().map(|h| format!("{} {} {}: {}", word(h), h.stage, h.r#where, h.what)).collect()
}

async fn lines(host: &Host, from: &str, to: &str, port: u32) -> Vec<String> {
    told(&explain(host, from, to, port).await.unwrap())
}

struct Party {
    guest: Guest,
    addresses: Vec<String>,
}

async fn party(host: &Host, name: &str, networks: &[&str], ports: &[&str]) -> Party {
    let guest = Guest::new(name);
    let at = host.attach(&guest, networks, ports).await.unwrap();
    guest.space.serve_tcp("0.0.0.0:80");
    guest.space.serve_tcp("127.0.0.1:81");
    Party { addresses: (0..at.endpoints.len()).map(|n| ip(&at, n)).collect(), guest }
}

/// The networks of the matrix, and who is on them.
async fn crowd(host: &Host) -> Vec<Party> {
    host.net_create("red").await;
    host.net_create("blue").await;
    let internal = proto::CreateNetworkRequest { name: "in".into(), internal: true, ..Default::default() };
    host.create(internal).await.unwrap();
    let options = [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into();
    let apart = proto::CreateNetworkRequest { name: "apart".into(), options, ..Default::default() };
    host.create(apart).await.unwrap();
    let options = [("parent".to_owned(), "uplink".to_owned())].into();
    let subnets = vec![proto::Subnet {
        subnet: "10.99.0.0/24".into(),
        gateway: WORLD.into(),
        ip_range: "10.99.0.128/25".into(),
        ..Default::default()
    }];
    let driver = "macvlan".to_owned();
    let wire =
        proto::CreateNetworkRequest { name: "wire".into(), driver, options, subnets, ..Default::default() };
    host.create(wire).await.unwrap();
    vec![
        party(host, "ann", &["red"], &["8080:80", "127.0.0.1:8081:80", "8082:81", "8083:99"]).await,
        party(host, "bob", &["red"], &[]).await,
        party(host, "cid", &["blue"], &["9090:80"]).await,
        party(host, "dan", &["in"], &[]).await,
        party(host, "eve", &["in"], &[]).await,
        party(host, "fay", &["apart"], &["7070:80"]).await,
        party(host, "gus", &["apart"], &[]).await,
        party(host, "hal", &["red", "blue"], &[]).await,
        party(host, "ida", &["in", "blue"], &[]).await,
        party(host, "joe", &[], &[]).await,
        party(host, "kim", &["wire"], &[]).await,
        party(host, "lea", &["wire"], &[]).await,
    ]
}

fn targets(all: &[Party]) -> Vec<(String, u16)> {
    let mut to: Vec<(String, u16)> = Vec::new();
    for address in all.iter().flat_map(|p| &p.addresses) {
        to.extend([(address.clone(), 80), (address.clone(), 81)]);
    }
    for port in [8080, 8081, 8082, 8083, 9090, 7070, 99] {
        to.push((HOST.into(), port));
        to.push(("127.0.0.1".into(), port));
        to.push(("::1".into(), port));
    }
    to.extend([(BEYOND.into(), 80), (WORLD.into(), 80), ("10.99.0.77".into(), 80)]);
    // An address of a subnet that nobody has.
    let (front, _) = all[0].addresses[0].rsplit_once('.').unwrap();
    to.push((format!("{front}.200"), 80));
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn explanations_agree_with_traffic_for_every_pair() {
    let host = Host::new().await;
    let all = crowd(&host).await;
    host.world.serve_tcp("0.0.0.0:80");
    let mut from: Vec<(&str, &Space)> = all.iter().map(|p| (p.guest.name.as_str(), &p.guest.space)).collect();
    from.push(("host", &host.space));
    let targets = targets(&all);
    let pairs: Vec<_> =
        from.iter().flat_map(|(name, space)| targets.iter().map(move |t| (*name, *space, t))).collect();
    let mut said = Vec::new();
    for (name, _, (to, port)) in &pairs {
        said.push(explain(&host, name, to, u32::from(*port)).await.unwrap());
    }
    let reality: Vec<bool> = thread::scope(|scope| {
        let ask = |space: &'_ Space, to: &str, port: u16| {
            let to = if to.contains(':') { format!("[{to}]:{port}") } else { format!("{to}:{port}") };
            space.ask_tcp(&to).is_some()
        };
        let asks: Vec<_> =
            pairs.iter().map(|(_, space, (to, port))| scope.spawn(move || ask(space, to, *port))).collect();
        asks.into_iter().map(|a| a.join().unwrap()).collect()
    });
    let mut wrong = Vec::new();
    for (n, (name, _, (to, port))) in pairs.iter().enumerate() {
        // Neighbours are known by now, or known to be silent.
        let again = explain(&host, name, to, u32::from(*port)).await.unwrap();
        for (when, answer) in [("before", &said[n]), ("after", &again)] {
            // Nobody can tell before who is there on the link beyond, nor where the world sends what is not its own.
            let of_wire = ["kim", "lea"].contains(name) && !to.starts_with("10.99.") && to != BEYOND;
            let unknown =
                (to == "10.99.0.77" && when == "before") || (of_wire && to != "127.0.0.1" && to != "::1");
            if answer.reaches != reality[n] && !unknown {
                wrong.push(format!("{name} -> {to}:{port}: {} {when}: {:#?}", reality[n], told(answer)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} pairs: {}", wrong.len(), pairs.len(), wrong.join("\n"));
    let through = reality.iter().filter(|r| **r).count();
    assert!(through > 60 && through < pairs.len() - 60, "{through} of {} get through", pairs.len());
}

#[tokio::test]
async fn names_are_explained() {
    let host = Host::new().await;
    let all = crowd(&host).await;
    let (ann, bob) = (&all[0], &all[1]);
    let answer = explain(&host, "bob", "ann", 80).await.unwrap();
    assert!(answer.reaches);
    let wanted = format!("pass name bob: 'ann' is {}: a container on network red", ann.addresses[0]);
    assert_eq!(told(&answer)[0], wanted);
    let stages: Vec<_> = answer.hops.iter().map(|h| h.stage.as_str()).collect();
    assert_eq!(stages, ["name", "route", "bridge", "route", "target"]);
    let short = &bob.guest.id[..12];
    assert!(lines(&host, "ann", short, 80).await[0].contains("the id of container bob"));

    let apart = explain(&host, "bob", "cid", 80).await.unwrap();
    assert_eq!(told(&apart), ["stop name bob: 'cid' is on blue, bob is on red: they have none in common"]);
    assert_eq!(apart.hops[0].hint, "'davit net connect blue bob' brings them together");
    let unknown = explain(&host, "bob", "annn", 80).await.unwrap();
    assert_eq!((unknown.hops[0].hint.as_str(), unknown.reaches), ("did you mean 'ann'?", false));
    let alone = explain(&host, "joe", "ann", 80).await.unwrap();
    assert!(told(&alone)[0].contains("joe is on no network"), "{alone:?}");
    assert!(explain(&host, "host", "ann", 80).await.unwrap().reaches);
    assert!(explain(&host, "bob", "host", 8080).await.unwrap().reaches);
    let itself = explain(&host, "host", "localhost", 8080).await.unwrap();
    assert_eq!(itself.reaches, explain(&host, "host", "127.0.0.1", 8080).await.unwrap().reaches);
    assert!(explain(&host, "ann", "localhost", 81).await.unwrap().reaches, "what listens at its loopback");

    let e = explain(&host, "anne", "bob", 80).await.unwrap_err();
    assert_eq!((e.kind(), e.hint()), (Kind::NotFound, "did you mean 'ann'?"));
}

#[tokio::test]
pub async fn stops_say_where_and_what_to_do() {
    let host = Host::new().await;
    let all = crowd(&host).await;
    let at = |n: usize| all[n].addresses[0].as_str();
    for (from, to, port, stage, words, hint) in [
        ("ann", at(2), 80, "rule", "networks are apart: red and blue", "davit net connect blue"),
        ("ann", at(1), 81, "target", "listens on 127.0.0.1:81/tcp only", "0.0.0.0"),
        ("ann", at(1), 99, "target", "nobody listens on 99/tcp", "it listens on 80/tcp"),
        ("fay", at(6), 80, "bridge", "do not reach one another", "publish"),
        ("dan", BEYOND, 80, "route", "internal", "not internal"),
        ("joe", BEYOND, 80, "route", "it is on no network", "net connect"),
        ("host", HOST, 99, "target", "nobody listens", ""),
    ] {
        let answer = explain(&host, from, to, port).await.unwrap();
        let last = answer.hops.last().unwrap();
        assert!(!answer.reaches && last.verdict() == proto::hop::Verdict::Stop, "{from} {to}: {answer:?}");
        assert_eq!(last.stage, stage, "{from} {to}: {:?}", told(&answer));
        assert!(last.what.contains(words) && last.hint.contains(hint), "{from} {to}: {last:?}");
    }
}

#[tokio::test]
async fn what_is_broken_is_where_it_stops() {
    let host = Host::new().await;
    let all = crowd(&host).await;
    let ann = &all[0].guest;
    let bridge = host.space.run("ip -o link show type bridge").lines().count();
    assert!(bridge >= 4);
    ann.space.run("ip link set eth0 down");
    let answer = explain(&host, "bob", "ann", 80).await.unwrap();
    assert!(told(&answer).last().unwrap().starts_with("stop bridge network red: dvh"), "{:?}", told(&answer));
    assert!(answer.hops.last().unwrap().hint.contains("check --repair"));
    ann.space.run("ip link set eth0 up; ip addr flush dev eth0");
    let said = lines(&host, "bob", "ann", 80).await;
    assert!(said.last().unwrap().contains("has lost the address"), "{said:?}");
    host.networks().check(proto::CheckRequest { repair: true, ..Default::default() }).await.unwrap();
    assert!(explain(&host, "bob", "ann", 80).await.unwrap().reaches);
    host.space.run("sysctl -qw net.ipv4.ip_forward=0");
    let said = lines(&host, "bob", BEYOND, 80).await;
    assert!(said.last().unwrap().contains("does not forward"), "{said:?}");
    // Rules of one's own inside are told, not guessed.
    ann.space.run("nft add table inet own; nft add chain inet own input '{ type filter hook input priority 0; policy drop; }'");
    let said = lines(&host, "bob", "ann", 80).await;
    assert!(said.iter().any(|l| l.contains("table own, chain input, which drops")), "{said:?}");
}

#[tokio::test]
async fn what_leads_a_neighbours_frames_elsewhere_is_where_it_stops() {
    let host = Host::new().await;
    let made = host.net_create("n").await;
    let (a, b) = (party(&host, "a", &["n"], &[]).await, party(&host, "b", &["n"], &[]).await);
    let (at, bridge) = (&b.addresses[0], &made.interface);
    let mac = b.guest.space.run("ip -o link show dev eth0");
    let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    let set = format!("ip neigh replace {at} lladdr 02:00:00:00:00:66 nud permanent");
    let odd = "ip link add odd0 type veth peer name odd1; ip link set odd1 up; ip link set odd0 up";
    let (inside, outside) = (&a.guest.space, &host.space);
    for (from, space, broken, mended, wanted) in [
        ("a", inside, format!("{set} dev eth0"), format!("ip neigh del {at} dev eth0"), "neighbour a"),
        (
            "host",
            outside,
            format!("{set} dev {bridge}"),
            format!("ip neigh del {at} dev {bridge}"),
            "neighbour host",
        ),
        (
            "a",
            outside,
            format!("{odd} master {bridge}; bridge fdb replace {mac} dev odd0 master static"),
            "ip link del odd0".to_owned(),
            "bridge network n",
        ),
    ] {
        let asking = if from == "a" { inside } else { outside };
        let works = || asking.ask_tcp(&format!("{at}:80")).is_some();
        let said = lines(&host, from, "b", 80).await;
        assert!(works() && said.last().unwrap().starts_with("pass target"), "{broken}: {said:#?}");
        space.run(&broken);
        let said = lines(&host, from, "b", 80).await;
        assert!(
            !works() && said.last().unwrap().starts_with(&format!("stop {wanted}")),
            "{broken}: {said:#?}"
        );
        space.run(&mended);
    }
    assert!(a.guest.space.ask_tcp(&format!("{at}:80")).is_some());
}

#[tokio::test]
async fn what_a_container_changed_of_its_own_is_seen_as_it_is() {
    let host = Host::new().await;
    let made = host.net_create("n").await;
    let (a, b) = (party(&host, "a", &["n"], &[]).await, party(&host, "b", &["n"], &[]).await);
    let to = format!("{}:80", b.addresses[0]);
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    let reaches = |said: &[String]| said.last().unwrap().starts_with("pass target");
    for change in ["ip link set eth0 address 02:00:00:00:00:", "ip link set eth0 name wan"] {
        for (party, n) in [(&a, "70"), (&b, "71")] {
            party.guest.space.run(&format!("{change}{n}"));
        }
        for space in [&a.guest.space, &b.guest.space, &host.space] {
            space.run("ip neigh flush all");
        }
        assert!(a.guest.space.ask_tcp(&to).is_some(), "{change}");
        let said = lines(&host, "a", "b", 80).await;
        assert!(reaches(&said), "{change}: {said:#?}");
        let said = lines(&host, "host", "b", 80).await;
        assert!(reaches(&said), "{change}: {said:#?}");
        let said = lines(&host, "a", BEYOND, 80).await;
        assert!(
            !said.iter().any(|l| l.starts_with("stop") || l.contains("davit's making")),
            "{change}: {said:#?}"
        );
    }
    // Not its own affair: the way to the host leads nowhere.
    let gateway = &made.subnets[0].gateway;
    a.guest
        .space
        .run(&format!("ip neigh replace {gateway} lladdr 02:00:00:00:00:55 nud permanent dev wan70"));
    assert!(a.guest.space.ask_tcp(&format!("{BEYOND}:80")).is_none());
    let said = lines(&host, "a", BEYOND, 80).await;
    assert!(said.last().unwrap().starts_with("stop neighbour a"), "{said:#?}");
}

#[tokio::test]
async fn policies_are_explained_as_they_are_enforced() {
    let host = Host::new().await;
    host.net_create("n").await;
    let mut parties = Vec::new();
    for role in ["web", "db", "other"] {
        let guest = Guest::new(role);
        let spec = proto::EndpointSpec { network: "n".into(), ..Default::default() };
        let mut request = Host::request(&guest, vec![spec], &[]);
        request.labels = [("role".to_owned(), role.to_owned())].into();
        let at = host.attach_request(request).await.unwrap();
        guest.space.serve_tcp("0.0.0.0:80");
        guest.space.serve_tcp("0.0.0.0:22");
        parties.push((guest, ip(&at, 0)));
    }
    let role = |r: &str| [("role".to_owned(), r.to_owned())].into();
    let allow = proto::PolicyRule {
        allow: true,
        from: role("web"),
        to: role("db"),
        protocol: "tcp".into(),
        port: 80,
        ..Default::default()
    };
    let request =
        proto::SetPolicyRequest { network: "n".into(), rules: vec![allow], default_action: "deny".into() };
    host.networks().set_policy(request).await.unwrap();
    for (from, _) in &parties {
        for (to, at) in parties.iter().filter(|(to, _)| to.id != from.id) {
            for port in [80, 22] {
                let answer = explain(&host, &from.name, &to.name, port).await.unwrap();
                let reality = from.space.ask_tcp(&format!("{at}:{port}")).is_some();
                assert_eq!(answer.reaches, reality, "{} {}:{port}: {:?}", from.name, to.name, told(&answer));
            }
        }
    }
    let said = lines(&host, "web", "db", 80).await;
    let wanted = "pass policy network n: rule 1: allow from role=web to role=db tcp/80";
    assert!(said.iter().any(|l| l == wanted), "{said:?}");
    let said = lines(&host, "db", "web", 80).await;
    assert_eq!(said.last().unwrap(), "stop policy network n: no rule matches: deny by default");
}

#[tokio::test]
async fn chains_of_others_are_named_whatever_they_are_called() {
    let host = Host::new().await;
    let (a, b) = (party(&host, "a", &["bridge"], &[]).await, party(&host, "b", &["bridge"], &[]).await);
    let told = |lines: Vec<String>| lines.into_iter().find(|l| l.contains("rules of others"));
    assert_eq!(told(lines(&host, "a", "b", 80).await), None);
    assert_eq!(told(lines(&host, "a", BEYOND, 80).await), None);
    let add = |table: &str, chain: &str| {
        host.space.run(&format!("nft add table {table}; nft add chain {table} onward '{chain}'"));
    };
    add("inet davit-foo", "{ type filter hook forward priority 5; policy accept; }");
    let line = told(lines(&host, "a", BEYOND, 80).await).unwrap();
    assert!(line.contains("table davit-foo, chain onward"), "{line}");
    add("bridge theirs", "{ type filter hook forward priority 5; policy drop; }");
    let line = told(lines(&host, "a", "b", 80).await).unwrap();
    assert!(line.contains("table bridge theirs, chain onward, which drops"), "{line}");
    // What is routed does not come by there.
    let line = told(lines(&host, "a", BEYOND, 80).await).unwrap();
    assert!(line.contains("table davit-foo"), "{line}");
    host.space.run("nft delete table bridge theirs");
    add("netdev theirs", "{ type filter hook ingress device uplink priority 0; policy drop; }");
    let line = told(lines(&host, "a", "b", 80).await).unwrap();
    assert!(line.contains("table netdev theirs"), "{line}");
    drop((a, b));
}
