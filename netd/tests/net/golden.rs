//! The rules that each feature makes, as people read them: what `nft list table` and `iptables-save` print on a private
//! host, kept in tests/golden. `DAVIT_GOLDEN=write` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use davit_contracts::network as proto;

use crate::host::{BACKEND, Backend, Guest, Host};

/// A feature: its name, the network's options, whether it is internal and has IPv6, its policy, its host, published ports.
struct Feature {
    name: &'static str,
    options: &'static [(&'static str, &'static str)],
    internal: bool,
    ipv6: bool,
    policy: Option<(&'static str, proto::PolicyRule)>,
    /// The host did not forward before, and has a bridge of somebody else, for IPv4.
    guarded: bool,
    ports: &'static [&'static str],
}

const PLAIN: Feature = Feature {
    name: "nat",
    options: &[],
    internal: false,
    ipv6: false,
    policy: None,
    guarded: false,
    ports: &[],
};
const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";

fn features() -> Vec<Feature> {
    let labels = |role: &str| [("role".to_owned(), role.to_owned())].into();
    let rule = proto::PolicyRule {
        allow: true,
        from: labels("web"),
        to: labels("db"),
        protocol: "tcp".into(),
        port: 5432,
        port_end: 5433,
    };
    vec![
        PLAIN,
        Feature { name: "guard", ipv6: true, guarded: true, ..PLAIN },
        Feature { name: "dual-stack", ipv6: true, ports: &["8080:80"], ..PLAIN },
        Feature {
            name: "ports",
            ports: &["8080:80", "127.0.0.1:8081:81", "5353:53/udp", "9000:90/sctp"],
            ..PLAIN
        },
        Feature { name: "internal", internal: true, ..PLAIN },
        Feature { name: "no-icc", options: &[("com.docker.network.bridge.enable_icc", "false")], ..PLAIN },
        Feature {
            name: "no-masquerade",
            options: &[("com.docker.network.bridge.enable_ip_masquerade", "false")],
            ..PLAIN
        },
        Feature { name: "host-address", options: &[("com.docker.network.host_ipv4", "10.99.0.2")], ..PLAIN },
        Feature { name: "routed", options: &[(MODE4, "routed")], ports: &["8080:80"], ..PLAIN },
        Feature { name: "nat-unprotected", options: &[(MODE4, "nat-unprotected")], ..PLAIN },
        Feature { name: "policy", ipv6: true, policy: Some(("deny", rule)), ..PLAIN },
    ]
}

async fn rules_of(feature: &Feature) -> String {
    let forwards = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
    let host = Host::with(if feature.guarded {
        "ip link add br0 type bridge; ip addr add 10.96.0.1/24 dev br0"
    } else {
        forwards
    })
    .await;
    let options = feature.options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let subnets = [("10.10.0.0/24", true), ("fd10::/64", feature.ipv6)];
    let subnets = subnets
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .map(|(subnet, _)| proto::Subnet { subnet: subnet.into(), ..Default::default() });
    let request = proto::CreateNetworkRequest {
        name: "n".into(),
        options,
        internal: feature.internal,
        ipv6: feature.ipv6,
        subnets: subnets.collect(),
        ..Default::default()
    };
    let network = host.create(request).await.unwrap();
    if let Some((default, rule)) = &feature.policy {
        let request = proto::SetPolicyRequest {
            network: "n".into(),
            rules: vec![rule.clone()],
            default_action: (*default).to_owned(),
        };
        host.networks().set_policy(request).await.unwrap();
    }
    let mut names = BTreeMap::from([(network.interface, "dv-n".to_owned())]);
    let mut guests = Vec::new();
    for role in ["web", "db"] {
        let guest = Guest::new(role);
        let spec = proto::EndpointSpec { network: "n".into(), ..Default::default() };
        let mut request = Host::request(&guest, vec![spec], if role == "web" { feature.ports } else { &[] });
        request.labels = [("role".to_owned(), role.to_owned())].into();
        let at = host.attach_request(request).await.unwrap();
        names.insert(at.endpoints[0].host_interface.clone(), format!("dvh-{role}"));
        guests.push(guest);
    }
    normalise(&raw(&host), &names)
}

fn raw(host: &Host) -> String {
    match host.backend {
        Backend::Nftables => host.space.run("nft -s list ruleset"),
        _ => host.space.run(
            "for t in iptables-nft-save ip6tables-nft-save; do echo \"# $t\"; $t | grep -v '^#'; done; nft -s list tables | grep policy | while read -r _ t; do nft -s list table $t; done",
        ),
    }
}

/// Names that differ from run to run are replaced, counters and the order of elements too.
fn normalise(text: &str, names: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, stands_for) in names {
        text = text.replace(name, stands_for);
    }
    let instance = |text: &str, start: &str| {
        let at = text.find(start)? + start.len();
        let hex: String = text[at..].chars().take_while(char::is_ascii_hexdigit).collect();
        (hex.len() == 6).then_some(hex)
    };
    for start in ["table inet davit-", "DAVIT-"] {
        if let Some(hash) = instance(&text, start) {
            text = text.replace(&format!("davit-{}", hash.to_lowercase()), "davit");
            text = text.replace(&format!("DAVIT-{}", hash.to_uppercase()), "DAVIT");
        }
    }
    let line = |line: &str| {
        let mut line = line.trim_end().to_owned();
        if let Some(at) = line.find("-group 0x") {
            let end = line[at + 9..].find(' ').map_or(line.len(), |n| at + 9 + n);
            line.replace_range(at + 7..end, "GROUP");
        }
        for group in ["iifgroup ", "oifgroup "] {
            if let Some(at) = line.find(group).map(|at| at + group.len()) {
                let digits = line[at..].chars().take_while(char::is_ascii_digit).count();
                line.replace_range(at..at + digits, "GROUP");
            }
        }
        match line.find(" [") {
            Some(at) if line.starts_with(':') => line.truncate(at),
            _ => {}
        }
        line
    };
    sorted(&text.lines().map(line).collect::<Vec<_>>())
}

/// Elements of a set in order: `nft` prints them as the kernel's hash has them.
fn sorted(lines: &[String]) -> String {
    let mut out = String::new();
    let mut elements: Option<String> = None;
    for line in lines {
        let text = elements.take().map_or_else(|| line.clone(), |so_far| format!("{so_far} {}", line.trim()));
        if text.contains("elements = {") && !text.ends_with('}') {
            elements = Some(text);
            continue;
        }
        match text.split_once("elements = {") {
            Some((before, list)) => {
                let mut all: Vec<_> =
                    list.trim_end_matches('}').split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
                all.sort_unstable();
                let _ = writeln!(out, "{before}elements = {{ {} }}", all.join(", "));
            }
            None => {
                let _ = writeln!(out, "{text}");
            }
        }
    }
    out
}

async fn compare(extension: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut different = Vec::new();
    for feature in features() {
        let path = folder.join(format!("{}.{extension}", feature.name));
        let now = rules_of(&feature).await;
        if std::env::var("DAVIT_GOLDEN").is_ok_and(|v| v == "write") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        if kept != now {
            different.push(format!("{}:\n{now}", path.display()));
        }
    }
    assert!(
        different.is_empty(),
        "run with DAVIT_GOLDEN=write and look at the difference\n{}",
        different.join("\n")
    );
}

#[tokio::test]
async fn the_rules_of_nftables_are_as_they_were() {
    compare("nft").await;
}

#[tokio::test]
async fn the_rules_of_iptables_are_as_they_were() {
    BACKEND.set(Backend::IptablesNft);
    compare("iptables").await;
}
