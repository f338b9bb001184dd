//! A host between two networks: whom it forwards for.
//!
//! ```text
//! world (10.99.0.1, fd99::1) ---- host ---- neighbour (10.98.0.1, fd98::1)
//! ```

use std::time::{Duration, Instant};

use davit_contracts::network as proto;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sockopt};

use crate::check::{check, words};
use crate::host::{BACKEND, Backend, Guest, HOST, Host, Space};

const NEIGHBOUR: &str = "10.98.0.1:80";
const NEIGHBOUR6: &str = "[fd98::1]:80";

/// What `nft list ruleset` tells, without the table that stays.
pub fn unguarded(text: &str) -> String {
    let (mut kept, mut within) = (Vec::new(), false);
    for line in text.lines() {
        within |= line.starts_with("table inet davit") && line.contains("-guard");
        kept.extend((!within).then_some(line));
        within &= line != "}";
    }
    kept.join("\n")
}

struct Scene {
    host: Host,
    neighbour: Space,
}

impl Scene {
    /// Runs `script` on the host before netd starts.
    async fn new(script: &str) -> Self {
        let neighbour = Space::new("");
        let host = Host::with(&format!(
            "sysctl -qw net.ipv6.conf.all.forwarding=0
             ip addr add fd99::2/64 dev uplink nodad
             ip link add second type veth peer name eth0 netns {}
             ip addr add 10.98.0.2/24 dev second; ip addr add fd98::2/64 dev second nodad
             ip link set second up; {script}",
            neighbour.pid()
        ))
        .await;
        neighbour.run(
            "ip addr add 10.98.0.1/24 dev eth0; ip addr add fd98::1/64 dev eth0 nodad; ip link set eth0 up
             ip route add default via 10.98.0.2; ip -6 route add default via fd98::2",
        );
        host.world.run(
            "ip addr add fd99::1/64 dev eth0 nodad
             ip route add 10.98.0.0/24 via 10.99.0.2; ip -6 route add fd98::/64 via fd99::2",
        );
        neighbour.serve_tcp("[::]:80");
        Self { host, neighbour }
    }

    /// Whether the world reaches the neighbour through the host, by IPv4 and by IPv6.
    fn meet(&self) -> [bool; 2] {
        let world = &self.host.world;
        let ask = |to: &'static str| move || world.ask_tcp(to).is_some();
        std::thread::scope(|scope| {
            let asks = [scope.spawn(ask(NEIGHBOUR)), scope.spawn(ask(NEIGHBOUR6))];
            asks.map(|a| a.join().unwrap())
        })
    }

    async fn web(&self) -> Guest {
        if self.host.networks().inspect(proto::InspectNetworkRequest { name: "n".into() }).await.is_err() {
            let request = proto::CreateNetworkRequest { name: "n".into(), ipv6: true, ..Default::default() };
            self.host.create(request).await.unwrap();
        }
        let web = self.host.guest("web", &["n"], &["8080:80"]).await;
        web.space.serve_tcp("[::]:80");
        web
    }

    /// What a container and its clients expect.
    fn serves(&self, web: &Guest) {
        for to in [NEIGHBOUR, NEIGHBOUR6] {
            assert!(web.space.ask_tcp(to).is_some(), "out to {to}: {}", self.host.log());
        }
        for space in [&self.host.world, &self.neighbour] {
            for to in [format!("{HOST}:8080"), "[fd99::2]:8080".to_owned()] {
                assert!(space.ask_tcp(&to).is_some(), "in by {to}");
            }
        }
    }

    /// Waits until what keeps strangers out is written, in as many IP versions.
    async fn is_guarded(&self, versions: usize) {
        let list = match self.host.backend {
            Backend::Nftables => "nft list ruleset | grep -c 'comment \"strangers\"'",
            Backend::IptablesNft => {
                "(iptables-nft-save; ip6tables-nft-save) | grep -c 'KNOWN -o uplink -j DROP'"
            }
            Backend::IptablesLegacy => {
                "(iptables-legacy-save; ip6tables-legacy-save) | grep -c 'KNOWN -o uplink -j DROP'"
            }
        };
        let until = Instant::now() + Duration::from_secs(20);
        while self.host.space.attempt(list).1.trim() != versions.to_string() {
            assert!(Instant::now() < until, "{}", self.host.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
pub async fn a_host_that_forwards_for_containers_does_not_for_strangers() {
    let mut scene = Scene::new("").await;
    assert_eq!(scene.meet(), [false; 2], "it does not forward yet");
    let web = scene.web().await;
    scene.serves(&web);
    assert_eq!(scene.meet(), [false; 2]);
    scene.host.flush_rules();
    scene.is_guarded(2).await;
    scene.host.kill();
    scene.host.start().await;
    scene.serves(&web);
    assert_eq!(scene.meet(), [false; 2], "after a kill");
    scene.host.detach(&web).await;
    scene.host.net_remove("n").await.unwrap();
    scene.host.becomes_clean().await;
    assert_eq!(scene.host.space.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    assert_eq!(scene.meet(), [false; 2], "without containers");
    scene.host.flush_rules();
    scene.is_guarded(2).await;
    // One that starts while nobody is attached knows it, too.
    scene.host.kill();
    scene.host.flush_rules();
    scene.host.start().await;
    scene.is_guarded(2).await;
    // Somebody turned it off: it is nobody's, and the rules go.
    scene.host.kill();
    scene.host.space.run("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    scene.host.start().await;
    scene.is_guarded(0).await;
    scene.host.space.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    assert_eq!(scene.meet(), [true; 2]);
    let web = scene.web().await;
    assert_eq!(scene.meet(), [true; 2], "whoever turned it on wants it");
    scene.serves(&web);
}

#[tokio::test]
pub async fn a_host_that_forwarded_before_goes_on_for_that_ip_version() {
    let scene = Scene::new("sysctl -qw net.ipv4.ip_forward=1").await;
    assert_eq!(scene.meet(), [true, false]);
    let web = scene.web().await;
    scene.serves(&web);
    assert_eq!(scene.meet(), [true, false]);
    scene.is_guarded(1).await;
}

#[tokio::test]
async fn a_host_that_forwarded_by_single_interfaces_goes_on() {
    let scene = Scene::new("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.uplink.forwarding=1 net.ipv4.conf.second.forwarding=1")
        .await;
    assert_eq!(scene.meet(), [true, false]);
    let web = scene.web().await;
    scene.serves(&web);
    assert_eq!(scene.meet(), [true, false]);
    scene.is_guarded(1).await;
}

#[tokio::test]
async fn any_number_but_zero_is_on() {
    let scene = Scene::new("sysctl -qw net.ipv4.ip_forward=2").await;
    let _web = scene.web().await;
    assert_eq!(scene.meet(), [true, false]);
    assert_eq!(scene.host.space.run("sysctl -n net.ipv4.ip_forward").trim(), "2");
}

#[tokio::test]
async fn a_damaged_note_leaves_the_host_guarded_and_one_of_another_boot_is_none() {
    let mut scene = Scene::new("").await;
    let web = scene.web().await;
    let path = scene.host.run_dir().join("network/forwarding.json");
    let note = std::fs::read_to_string(&path).unwrap();
    for damaged in ["", "{}", &note[..note.len() / 2]] {
        scene.host.kill();
        std::fs::write(&path, damaged).unwrap();
        scene.host.start().await;
        assert_eq!(scene.meet(), [false; 2], "{damaged}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("uplink"), "{damaged}");
    }
    scene.serves(&web);
    scene.host.kill();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(note.contains(boot.trim()));
    std::fs::write(&path, note.replace(boot.trim(), "another")).unwrap();
    scene.host.start().await;
    // What is on since the machine started is somebody else's.
    let until = Instant::now() + Duration::from_secs(20);
    while scene.meet() != [true; 2] {
        assert!(Instant::now() < until, "{}", scene.host.log());
    }
    assert!(!path.exists());
}

#[tokio::test]
pub async fn a_note_that_is_lost_is_written_again_and_leaves_the_host_guarded() {
    let mut scene = Scene::new("").await;
    let web = scene.web().await;
    let path = scene.host.run_dir().join("network/forwarding.json");
    std::fs::remove_file(&path).unwrap();
    let listed = words(&check(&scene.host, false).await);
    assert_eq!(listed, [format!("missing record of forwarding {}", path.display())]);
    assert!(check(&scene.host, true).await[0].repaired);
    assert!(std::fs::read_to_string(&path).unwrap().contains("uplink"));
    std::fs::remove_file(&path).unwrap();
    scene.host.kill();
    scene.host.start().await;
    assert_eq!(scene.meet(), [false; 2], "{}", scene.host.log());
    assert!(std::fs::read_to_string(&path).unwrap().contains("uplink"));
    scene.serves(&web);
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
}

#[tokio::test]
async fn the_configuration_may_open_it() {
    let mut scene = Scene::new("").await;
    let web = scene.web().await;
    assert_eq!(scene.meet(), [false; 2]);
    let file = scene.host.config().join("netd.toml");
    std::fs::create_dir_all(scene.host.config()).unwrap();
    std::fs::write(&file, "forwarding = \"open\"\n").unwrap();
    scene.host.kill();
    scene.host.start().await;
    assert_eq!(scene.meet(), [true; 2]);
    scene.serves(&web);
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    // It is still known whose it is.
    std::fs::write(&file, "forwarding = \"guarded\"\n").unwrap();
    scene.host.kill();
    scene.host.start().await;
    assert_eq!(scene.meet(), [false; 2]);
}

#[tokio::test]
pub async fn bridges_and_pairs_that_others_make_later_are_theirs_to_guard() {
    let early = Space::new("");
    let late = Space::new("");
    let bridge = |name: &str, net: u8, space: &Space| {
        format!(
            "ip link add {name} type bridge; ip addr add 10.{net}.0.2/24 dev {name}; ip link set {name} up
             ip link add port-{name} type veth peer name eth0 netns {}; ip link set port-{name} master {name} up",
            space.pid()
        )
    };
    let scene = Scene::new(&bridge("early0", 96, &early)).await;
    let web = scene.web().await;
    scene.host.space.run(&bridge("late0", 97, &late));
    for (net, space) in [(96, &early), (97, &late)] {
        space.run(&format!(
            "ip addr add 10.{net}.0.1/24 dev eth0; ip link set eth0 up; ip route add default via 10.{net}.0.2"
        ));
        space.serve_tcp("0.0.0.0:80");
        scene.neighbour.run(&format!("ip route add 10.{net}.0.0/24 via 10.98.0.2"));
        assert!(scene.host.space.ask_tcp(&format!("10.{net}.0.1:80")).is_some(), "the bridge works");
        assert!(web.space.ask_tcp(&format!("10.{net}.0.1:80")).is_some(), "a container reaches it");
    }
    assert_eq!(scene.neighbour.ask_tcp("10.96.0.1:80"), None);
    assert!(scene.neighbour.ask_tcp("10.97.0.1:80").is_some());
    assert!(late.ask_tcp(NEIGHBOUR).is_some());
    assert_eq!(early.ask_tcp(NEIGHBOUR), None);
    // As CNI's plugin ptp makes them, without a bridge. The uplinks of these hosts are such, too, but were there before.
    let pod = Space::new("");
    scene.host.space.run(&format!(
        "ip link add veth7 type veth peer name eth0 netns {}; ip addr add 10.95.0.2/24 dev veth7
         ip link set veth7 up",
        pod.pid()
    ));
    pod.run("ip addr add 10.95.0.1/24 dev eth0; ip link set eth0 up; ip route add default via 10.95.0.2");
    assert!(pod.ask_tcp(NEIGHBOUR).is_some());
    assert!(!scene.meet()[0]);
}

#[tokio::test]
pub async fn frames_that_only_cross_a_bridge_are_not_forwarded_for_strangers() {
    let bridge = |name: &str, spaces: &[Space; 2]| {
        let port = |(n, space): (usize, &Space)| {
            format!(
                "ip link add {name}-{n} type veth peer name eth0 netns {}; ip link set {name}-{n} master {name} up\n",
                space.pid()
            )
        };
        let ports: String = spaces.iter().enumerate().map(port).collect();
        format!("ip link add {name} type bridge; ip link set {name} up; {ports}")
    };
    let pair = || [Space::new(""), Space::new("")];
    let (early, late, bare) = (pair(), pair(), pair());
    let before =
        [bridge("early0", &early), bridge("bare0", &bare)].join("ip addr add 10.96.0.9/24 dev early0\n");
    let scene = Scene::new(&before).await;
    let _web = scene.web().await;
    scene.host.space.run(&bridge("late0", &late));
    // Where the kernel has br_netfilter, it shows frames to all these rules.
    scene
        .host
        .space
        .attempt("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1");
    for spaces in [&early, &late, &bare] {
        for (n, space) in (1..).zip(spaces) {
            space.run(&format!("ip addr add 10.96.0.{n}/24 dev eth0; ip link set eth0 up"));
        }
        spaces[0].serve_tcp("0.0.0.0:80");
        assert!(spaces[1].ask_tcp("10.96.0.1:80").is_some(), "{}", scene.host.log());
    }
}

#[tokio::test]
async fn a_rule_that_lets_through_counts_also_when_it_is_added_behind_the_guard() {
    BACKEND.set(Backend::IptablesNft);
    let scene = Scene::new("").await;
    let _web = scene.web().await;
    assert_eq!(scene.meet(), [false; 2]);
    scene.host.space.run("iptables-nft -A FORWARD -s 10.99.0.0/24 -j ACCEPT; iptables-nft -A FORWARD -d 10.99.0.0/24 -j ACCEPT");
    let until = Instant::now() + Duration::from_secs(20);
    while scene.meet() != [true, false] {
        assert!(Instant::now() < until, "{}", scene.host.log());
    }
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    let jumps = scene.host.space.run("iptables-nft -S FORWARD | grep -c -e '-GUARD'");
    assert_eq!(jumps.trim(), "1");
}

#[tokio::test]
pub async fn what_somebody_adds_against_the_guard_is_drift() {
    let scene = Scene::new("").await;
    let web = scene.web().await;
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    scene.host.space.run(match scene.host.backend {
        Backend::Nftables => {
            "t=$(nft list tables | grep -o 'davit.*-guard'); nft insert rule inet $t strangers4 accept"
        }
        Backend::IptablesNft => {
            "c=$(iptables-nft-save | grep -o 'DAVIT[^ ]*-GUARD' | head -1); iptables-nft -I $c -j ACCEPT"
        }
        Backend::IptablesLegacy => {
            "c=$(iptables-legacy-save | grep -o 'DAVIT[^ ]*-GUARD' | head -1); iptables-legacy -I $c -j ACCEPT"
        }
    });
    assert_eq!(scene.meet(), [true, false]);
    let told = words(&check(&scene.host, false).await);
    assert!(told.len() == 1 && told[0].starts_with("stray firewall rule"), "{told:?}");
    assert!(told[0].contains("of the guard against strangers"), "{told:?}");
    check(&scene.host, true).await;
    assert_eq!(words(&check(&scene.host, false).await), Vec::<String>::new());
    assert_eq!(scene.meet(), [false; 2]);
    scene.serves(&web);
}

/// Sends a router advertisement from the world to the host.
fn advertise(scene: &Scene, to: &str) {
    let index = scene.host.world.index("eth0");
    scene.host.world.inside(|| {
        let icmp = Some(ipproto::ICMPV6);
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::RAW, icmp).unwrap();
        // RFC 4861, 4.2: hop limit 255; a default router for half an hour. The kernel fills in the checksum.
        sockopt::set_ipv6_unicast_hops(&socket, Some(255)).unwrap();
        let message = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let to = std::net::SocketAddrV6::new(to.parse().unwrap(), 0, 0, index);
        // There is no way as long as it looks for duplicates of its own address.
        let _ = rustix::net::sendto(&socket, &message, SendFlags::empty(), &to);
    });
}

#[tokio::test]
async fn the_hosts_own_way_out_by_router_advertisements_stays() {
    let scene =
        Scene::new("ip link add third type bridge; ip link add fourth type bridge
            sysctl -qw net.ipv6.conf.uplink.accept_ra=1 net.ipv6.conf.second.accept_ra=1 net.ipv6.conf.third.accept_ra=0
            sysctl -qw net.ipv6.conf.fourth.accept_ra=1 net.ipv6.conf.fourth.forwarding=1").await;
    let advertised = || scene.host.space.run("ip -6 route show default proto ra").contains("dev uplink");
    let until = Instant::now() + Duration::from_secs(30);
    while !advertised() {
        assert!(Instant::now() < until, "no router advertisement was taken");
        let own = scene.host.space.run("ip -6 -o addr show dev uplink scope link");
        if let Some(own) = own.split_whitespace().find(|w| w.starts_with("fe80")) {
            advertise(&scene, own.split('/').next().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _web = scene.web().await;
    assert!(advertised(), "{}", scene.host.log());
    let setting = |name: &str| scene.host.space.run(&format!("sysctl -n net.ipv6.conf.{name}.accept_ra"));
    // One may come on the second link as well; on the others none counted before.
    assert_eq!(
        ["uplink", "second", "third", "fourth"].map(|i| setting(i).trim().to_owned()),
        ["2", "2", "0", "1"]
    );
    assert!(scene.host.log().contains("router advertisements"), "{}", scene.host.log());
}
