//! Drift between what should be and what the kernel has: listed, mended, and working again.

mod claims;
mod cuts;
mod foreign;
mod parents;
mod renamed;
mod renamed_inside;

use std::fs;

use davit_contracts::network as proto;

use crate::host::{BACKEND, BEYOND, Backend, Guest, HOST, Host, WORLD};

/// What a check answers.
pub async fn check(host: &Host, repair: bool) -> Vec<proto::Drift> {
    let answer = host.networks().check(proto::CheckRequest { repair, ..Default::default() }).await;
    answer.unwrap_or_else(|e| panic!("{e}\n{}", host.log())).into_inner().drifts
}

pub fn words(drifts: &[proto::Drift]) -> Vec<String> {
    drifts.iter().map(|d| format!("{} {}", d.kind, d.object)).collect()
}

/// A network with two containers, one of them published, whose traffic is known to work.
struct Scene {
    host: Host,
    web: Guest,
    db: Guest,
    bridge: String,
    end: String,
    table: String,
    group: String,
}

impl Scene {
    async fn new() -> Self {
        let host = Host::new().await;
        let made = host.net_create("n").await;
        let db = Guest::new("db");
        let db_at = host.attach(&db, &["n"], &["8080:5432"]).await.unwrap();
        let web = host.guest("web", &["n"], &[]).await;
        db.space.serve_tcp("0.0.0.0:5432");
        host.world.serve_tcp(&format!("{BEYOND}:80"));
        let table = host.space.run("nft list tables | grep -v guard | grep -o 'davit.*'").trim().to_owned();
        let link = host.space.run("ip -d -o link show type bridge");
        let group = link.split("group ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let end = db_at.endpoints[0].host_interface.clone();
        let me = Self { host, web, db, bridge: made.interface, end, table, group };
        me.works("at first");
        me
    }

    fn works(&self, when: &str) {
        let at = self.web.space.dig("db");
        assert!(self.web.space.ask_tcp(&format!("{at}:5432")).is_some(), "{when}: to {at}");
        assert!(self.web.space.ask_tcp(&format!("{BEYOND}:80")).is_some(), "{when}: web to the world");
        assert!(self.db.space.ask_tcp(&format!("{BEYOND}:80")).is_some(), "{when}: db to the world");
        assert!(self.host.world.ask_tcp(&format!("{HOST}:8080")).is_some(), "{when}: published");
    }

    /// Breaks something, sees it listed and still there, has it mended, and sees all work.
    async fn trial(&self, damage: &Damage) {
        let command = damage
            .command
            .replace("BRIDGE", &self.bridge)
            .replace("END", &self.end)
            .replace("TABLE", &self.table)
            .replace("GROUP", &self.group);
        let space = if damage.inside { &self.db.space } else { &self.host.space };
        space.run(&command);
        let listed = words(&check(&self.host, false).await);
        for wanted in damage.listed {
            let wanted = wanted.replace("BRIDGE", &self.bridge).replace("END", &self.end);
            assert!(listed.iter().any(|l| l.contains(&wanted)), "{command}: {listed:?} lack {wanted}");
        }
        assert_eq!(words(&check(&self.host, false).await), listed, "{command}: a check changes nothing");
        let mended = check(&self.host, true).await;
        assert_eq!(words(&mended)[..listed.len().min(mended.len())], listed[..], "{command}");
        assert!(mended.iter().all(|d| d.repaired && d.error.is_empty()), "{command}: {mended:#?}");
        assert_eq!(words(&check(&self.host, false).await), Vec::<String>::new(), "{command}");
        self.works(&command);
    }
}

struct Damage {
    inside: bool,
    command: &'static str,
    listed: &'static [&'static str],
}

const fn host(command: &'static str, listed: &'static [&'static str]) -> Damage {
    Damage { inside: false, command, listed }
}

const fn inside(command: &'static str, listed: &'static [&'static str]) -> Damage {
    Damage { inside: true, command, listed }
}

async fn trials(all: &[Damage]) {
    let scene = Scene::new().await;
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    for damage in all {
        scene.trial(damage).await;
    }
}

#[tokio::test]
pub async fn a_sound_host_has_no_drift() {
    let host = Host::new().await;
    assert_eq!(words(&check(&host, true).await), Vec::<String>::new());
    let option = |key: &str| [(format!("com.docker.network.bridge.{key}"), "false".to_owned())].into();
    for request in [
        proto::CreateNetworkRequest { name: "six".into(), ipv6: true, ..Default::default() },
        proto::CreateNetworkRequest { name: "in".into(), internal: true, ..Default::default() },
        proto::CreateNetworkRequest {
            name: "apart".into(),
            options: option("enable_icc"),
            ..Default::default()
        },
        proto::CreateNetworkRequest {
            name: "plain".into(),
            options: option("enable_ip_masquerade"),
            ..Default::default()
        },
    ] {
        host.create(request).await.unwrap();
    }
    let ports = ["8080:80", "127.0.0.1:5353:53/udp", "9000:90/udp"];
    let mut guests = vec![host.guest("a", &["six", "in", "bridge"], &ports).await];
    guests.push(host.guest("b", &["apart"], &["81:80"]).await);
    guests.push(host.guest("c", &["plain", "six"], &[]).await);
    guests.push(host.guest("d", &[], &[]).await);
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    assert_eq!(words(&check(&host, true).await), Vec::<String>::new());
    for guest in &guests {
        host.detach(guest).await;
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    }
}

#[tokio::test]
async fn bridges_and_the_hosts_ends_are_mended() {
    trials(&[
        host("ip link del BRIDGE", &["missing bridge BRIDGE", "differs interface END"]),
        host("ip link set BRIDGE down", &["differs bridge BRIDGE"]),
        host("ip addr flush dev BRIDGE", &["missing address "]),
        host("ip link set BRIDGE mtu 1300", &["differs MTU of bridge BRIDGE"]),
        host("ip link set BRIDGE address 02:00:00:00:00:77", &["differs mac of bridge BRIDGE"]),
        host("ip addr add 10.1.2.3/24 dev BRIDGE", &["stray address 10.1.2.3/24 on BRIDGE"]),
        host(
            "sysctl -qw net.ipv4.conf.BRIDGE.route_localnet=0",
            &["setting net/ipv4/conf/BRIDGE/route_localnet"],
        ),
        host("sysctl -qw net.ipv4.ip_forward=0", &["differs setting net/ipv4/ip_forward"]),
        host("ip link del END", &["missing interface END", "missing interface eth0 inside"]),
        host("ip link set END nomaster", &["differs interface END"]),
        host("ip link set END down", &["differs interface END"]),
        host("ip link set END group 0", &["differs interface END"]),
        host("ip link set END mtu 1300", &["differs interface END"]),
        host("ip link set END type bridge_slave isolated on", &["differs interface END"]),
        host("ip link add dvhffffffffffff group GROUP type bridge", &["stray interface dvhffffffffffff"]),
    ])
    .await;
}

#[tokio::test]
async fn what_is_inside_is_mended() {
    trials(&[
        inside("ip addr flush dev eth0", &["missing address ", "missing default route"]),
        inside("ip link set eth0 down", &["differs interface eth0 inside"]),
        inside("ip route del default", &["missing default route"]),
        inside("ip link set eth0 address 02:00:00:00:00:78", &["differs mac of eth0 inside"]),
        inside("ip link set eth0 mtu 1450", &["differs MTU of eth0 inside"]),
        inside("ip link set lo down", &["differs interface lo inside"]),
        inside("ip link del eth0", &["missing interface END", "missing interface eth0 inside"]),
        inside("nft flush ruleset", &["missing firewall table davit inside"]),
        inside("nft flush chain ip davit output", &["missing firewall rule 'names' in chain output inside"]),
        inside("nft insert rule ip davit output drop", &["stray firewall rule 'without a comment'"]),
    ])
    .await;
}

#[tokio::test]
async fn what_somebody_adds_to_our_table_is_mended() {
    trials(&[
        host(
            "nft insert rule inet TABLE forward drop",
            &["stray firewall rule 'without a comment' in chain forward"],
        ),
        host(
            "nft add element inet TABLE internal { BRIDGE }",
            &["stray firewall element BRIDGE of internal"],
        ),
        host(
            "nft add element inet TABLE ports4 { tcp . 99 : 10.0.0.1 . 9 }",
            &["stray firewall element 99/tcp of ports4"],
        ),
        host("nft add chain inet TABLE more", &["stray firewall chain more"]),
        host("nft add set inet TABLE more '{ type ipv4_addr; }'", &["stray firewall set more"]),
        host("nft add chain inet TABLE forward '{ policy drop; }'", &["differs firewall chain forward"]),
    ])
    .await;
}

#[tokio::test]
async fn records_are_mended_and_the_dead_are_detached() {
    let scene = Scene::new().await;
    let records = scene.host.socket().with_file_name("network").join("sandboxes");
    let record = records.join(format!("{}.json", scene.db.id));
    let text = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    fs::write(records.join("odd.json"), "{").unwrap();
    let listed = words(&check(&scene.host, false).await);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed[0].starts_with("differs record /") && listed[1].starts_with("missing record of "));
    assert!(check(&scene.host, true).await.iter().all(|d| d.repaired));
    assert_eq!(fs::read(&record).unwrap(), text);
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());

    let Scene { host, web, db, .. } = scene;
    drop(web);
    let listed = check(&host, false).await;
    assert!(listed.iter().any(|d| d.kind == "stray" && d.sandbox == "web"), "{listed:?}");
    assert!(check(&host, true).await.iter().all(|d| d.repaired));
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    assert_eq!(db.space.dig("web"), "");
    host.detach(&db).await;
    host.net_remove("n").await.unwrap();
    host.becomes_clean().await;
}

#[tokio::test]
async fn a_port_that_a_program_took_is_told_and_reserved_again_when_it_is_free() {
    let mut host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    host.kill();
    let thief = host.space.inside(|| std::net::TcpListener::bind("0.0.0.0:8080")).unwrap();
    host.start().await;
    let listed = words(&check(&host, false).await);
    assert_eq!(listed, ["missing reservation of port 0.0.0.0:8080/tcp"]);
    let refused = check(&host, true).await;
    assert!(!refused[0].repaired && refused[0].error.contains("in use by"), "{refused:?}");
    drop(thief);
    assert!(check(&host, true).await[0].repaired);
    assert!(host.space.inside(|| std::net::TcpListener::bind("0.0.0.0:8080")).is_err());
    host.detach(&web).await;
}

#[tokio::test]
async fn limits_are_mended_and_collisions_told() {
    let host = Host::new().await;
    let made = host.net_create("n").await;
    let guest = Guest::new("g");
    let bandwidth =
        proto::Bandwidth { ingress_rate: 80_000_000, egress_rate: 40_000_000, ..Default::default() };
    let spec = proto::EndpointSpec { network: "n".into(), bandwidth: Some(bandwidth), ..Default::default() };
    let at = host.attach_request(Host::request(&guest, vec![spec], &[])).await.unwrap();
    let end = at.endpoints[0].host_interface.as_str();
    assert_eq!(words(&check(&host, false).await), Vec::<String>::new());
    let rates = || {
        let of = |space: &crate::host::Space, name: &str| {
            let text = space.run(&format!("tc qdisc show dev {name}"));
            text.split(" rate ").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned())
        };
        (of(&host.space, end), of(&guest.space, "eth0"))
    };
    let whole = rates();
    assert_eq!(whole, (Some("80Mbit".to_owned()), Some("40Mbit".to_owned())));
    for (inside, command) in [
        (false, format!("tc qdisc del dev {end} root")),
        (false, format!("tc qdisc replace dev {end} root tbf rate 1mbit burst 16k latency 50ms")),
        (false, format!("tc qdisc replace dev {end} root tbf rate 80mbit burst 2k limit 3k")),
        (true, "tc qdisc replace dev eth0 root tbf rate 40mbit burst 1600 latency 1ms".to_owned()),
        (true, "tc qdisc del dev eth0 root".to_owned()),
        (true, "tc qdisc replace dev eth0 root tbf rate 1mbit burst 16k latency 50ms".to_owned()),
    ] {
        if inside {
            guest.space.run(&command)
        } else {
            host.space.run(&command)
        };
        let listed = check(&host, false).await;
        assert!(listed.len() == 1 && listed[0].detail.contains("limit"), "{command}: {listed:?}");
        assert!(check(&host, true).await[0].repaired, "{command}");
        assert_eq!(rates(), whole, "{command}");
    }
    // One that nobody asked for.
    let free = host.guest("free", &["n"], &[]).await;
    let listed = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    let other = &listed.iter().find(|s| s.name == "free").unwrap().endpoints[0].host_interface;
    host.space.run(&format!("tc qdisc add dev {other} root tbf rate 1mbit burst 16k latency 50ms"));
    assert!(check(&host, true).await[0].repaired);
    assert!(!host.space.run(&format!("tc qdisc show dev {other}")).contains("tbf"));
    assert!(free.space.ask_tcp(&format!("{HOST}:1")).is_none());

    host.space.run(&format!("ip route add {} via {WORLD} metric 9", made.subnets[0].subnet));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let told = loop {
        let told = check(&host, true).await;
        if !told.is_empty() || std::time::Instant::now() > until {
            break told;
        }
    };
    assert_eq!(words(&told), ["differs subnets of network n"]);
    assert!(!told[0].repaired && told[0].error.contains("must go"), "{told:?}");
}

#[tokio::test]
async fn rules_of_iptables_are_mended() {
    for (backend, tool) in
        [(Backend::IptablesNft, "iptables-nft"), (Backend::IptablesLegacy, "iptables-legacy")]
    {
        BACKEND.set(backend);
        let host = Host::new().await;
        let web = host.guest("web", &["bridge"], &["8080:80"]).await;
        web.space.serve_tcp("0.0.0.0:80");
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{tool}");
        let chains = host.space.run(&format!("{tool} -t nat -S"));
        let chain = chains.split_whitespace().find(|w| w.ends_with("-PORTS")).unwrap().to_owned();
        host.space.run(&format!("{tool} -t nat -A {chain} -p tcp -m tcp --dport 9 -j RETURN"));
        let listed = check(&host, false).await;
        assert!(listed.len() == 1 && listed[0].kind == "stray", "{tool}: {listed:?}");
        assert!(listed[0].object.contains("--dport 9"), "{listed:?}");
        assert!(check(&host, true).await[0].repaired, "{tool}");
        assert_eq!(words(&check(&host, false).await), Vec::<String>::new(), "{tool}");
        assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some(), "{tool}");
        host.detach(&web).await;
    }
}

#[tokio::test]
async fn policies_are_mended() {
    let scene = Scene::new().await;
    let rule = proto::PolicyRule { allow: true, protocol: "tcp".into(), ..Default::default() };
    let request =
        proto::SetPolicyRequest { network: "n".into(), rules: vec![rule], default_action: "deny".into() };
    scene.host.networks().set_policy(request).await.unwrap();
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    for damage in [
        host(
            "nft insert rule bridge TABLE-policy forward drop",
            &["stray firewall rule 'without a comment' in chain forward of policies"],
        ),
        host("ip link set BRIDGE type bridge nf_call_iptables 0", &["differs filter of bridge BRIDGE"]),
    ] {
        scene.trial(&damage).await;
    }
}

#[tokio::test]
async fn a_chain_of_somebody_else_that_came_to_drop_is_passed_again() {
    let scene = Scene::new().await;
    let drop = "nft add table inet theirs; nft add chain inet theirs onward '{ type filter hook forward priority 0; policy drop; }'";
    scene.host.space.run(drop);
    assert!(check(&scene.host, true).await.iter().all(|d| d.repaired));
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    scene.works("after the chain came");
}
