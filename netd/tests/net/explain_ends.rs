//! What `explain` says of the two ends: who listens, and what a name means.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use davit_contracts::network as proto;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::host::{BEYOND, Guest, Host, Space, WORLD, ip};
use crate::upstream::Upstream;

async fn explain(host: &Host, from: &str, to: &str, end: (u32, &str)) -> proto::ExplainResponse {
    let request =
        proto::ExplainRequest { from: from.into(), to: to.into(), port: end.0, protocol: end.1.into() };
    host.networks().explain(request).await.unwrap().into_inner()
}

/// A socket on `[::]` that says whether it takes IPv4 too.
fn on_any(space: &Space, kind: SockType, port: u16, only_v6: bool) -> OwnedFd {
    space.inside(|| {
        let fd = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&fd, sockopt::Ipv6V6Only, &only_v6).unwrap();
        let at: SocketAddr = format!("[::]:{port}").parse().unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(at)).unwrap();
        if kind == SockType::Stream {
            listen(&fd, Backlog::new(8).unwrap()).unwrap();
        }
        fd
    })
}

#[tokio::test]
async fn listeners_of_ipv6_only_are_told_from_those_of_both() {
    let host = Host::new().await;
    let request = proto::CreateNetworkRequest { name: "n".into(), ipv6: true, ..Default::default() };
    host.create(request).await.unwrap();
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    host.attach(&a, &["n"], &[]).await.unwrap();
    let at = host.attach(&b, &["n"], &[]).await.unwrap();
    let (v4, v6) = (ip(&at, 0), at.endpoints[0].ip6.split('/').next().unwrap().to_owned());
    for (kind, word) in [(SockType::Stream, "tcp"), (SockType::Datagram, "udp")] {
        let _only = on_any(&b.space, kind, 80, true);
        let _both = on_any(&b.space, kind, 81, false);
        for (to, port, reaches) in [(&v6, 80, true), (&v4, 80, false), (&v6, 81, true), (&v4, 81, true)] {
            let answer = explain(&host, "a", to, (port, word)).await;
            let last = answer.hops.last().unwrap();
            assert_eq!(answer.reaches, reaches, "{to} {port}/{word}: {last:?}");
            if word == "tcp" {
                let to = SocketAddr::new(to.parse().unwrap(), port as u16).to_string();
                let real = a.space.inside(|| std::net::TcpStream::connect(&to).is_ok());
                assert_eq!(real, reaches, "{to}");
            }
        }
        let last = explain(&host, "a", &v4, (80, word)).await.hops.pop().unwrap();
        let wanted = format!("its program listens on [::]:80/{word} (IPv6 only) only, not on {v4}");
        assert_eq!(last.what, wanted);
        assert!(last.hint.contains("IPV6_V6ONLY"), "{}", last.hint);
    }
    // One that speaks with somebody is nobody else's to reach.
    let connected = b.space.inside(|| UdpSocket::bind("0.0.0.0:90")).unwrap();
    assert!(explain(&host, "a", &v4, (90, "udp")).await.reaches);
    b.space.inside(|| connected.connect("127.0.0.1:9")).unwrap();
    assert!(!explain(&host, "a", &v4, (90, "udp")).await.reaches);
}

/// Its hops as `verdict stage what`, the first one's and all.
fn told(answer: &proto::ExplainResponse) -> (String, Vec<String>) {
    let all: Vec<String> =
        answer.hops.iter().map(|h| format!("{:?} {} {}", h.verdict(), h.stage, h.what)).collect();
    (all.first().cloned().unwrap_or_default(), all)
}

#[tokio::test]
async fn a_name_of_the_world_is_asked_for_and_explained_as_what_lies_outside() {
    let host = Host::new().await;
    let upstream = Upstream::serve(&host.world, WORLD, BEYOND);
    host.net_create("n").await;
    let internal = proto::CreateNetworkRequest { name: "in".into(), internal: true, ..Default::default() };
    host.create(internal).await.unwrap();
    for (name, network) in [("a", "n"), ("b", "in")] {
        host.guest(name, &[network], &[]).await;
    }
    let (a, b) = (Guest::new("ann"), Guest::new("bob"));
    host.attach(&a, &["n"], &[]).await.unwrap();
    host.attach(&b, &["in"], &[]).await.unwrap();

    let answer = explain(&host, "ann", "example.org", (443, "tcp")).await;
    let (first, all) = told(&answer);
    assert!(answer.reaches && upstream.asked() > 0, "{all:?}");
    assert_eq!(first, format!("Pass name 'example.org' is {BEYOND}: servers outside say so"));
    for wanted in ["out of the network", "its source becomes 10.99.0.2", "it leaves the host by uplink"] {
        assert!(all.iter().any(|l| l.contains(wanted)), "{wanted}: {all:?}");
    }
    let from_host = explain(&host, "host", "example.org", (443, "tcp")).await;
    assert!(from_host.reaches, "{from_host:?}");
    assert_eq!(
        told(&from_host).0,
        format!("Pass name 'example.org' is {BEYOND}: the host's resolver says so")
    );

    let asked = upstream.asked();
    let inside = explain(&host, "bob", "example.org", (443, "tcp")).await;
    assert!(!inside.reaches && told(&inside).0.starts_with("Stop name "), "{inside:?}");
    assert!(
        told(&inside).0.contains("its networks are internal: servers outside are not asked"),
        "{inside:?}"
    );
    // A container's name is nobody else's business.
    let other = explain(&host, "ann", "bob", (443, "tcp")).await;
    assert!(told(&other).0.contains("they have none in common"), "{other:?}");
    assert_eq!(upstream.asked(), asked);
}

#[tokio::test]
async fn a_name_that_the_world_does_not_know_or_does_not_tell_stops_there() {
    let host =
        Host::with(&format!("printf 'nameserver {WORLD}\\noptions timeout:5\\n' > /etc/resolv.conf")).await;
    let _nobody = Upstream::serve(&host.world, BEYOND, "");
    let silent = host.world.inside(|| UdpSocket::bind((WORLD, 53))).unwrap();
    // A question that never comes fails the test, and does not keep it.
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let a = Guest::new("ann");
    host.attach(&a, &["bridge"], &[]).await.unwrap();

    let asking = explain(&host, "ann", "example.org", (443, "tcp"));
    let waiting = async {
        // The question is under way; what else netd is asked for does not wait for its answer.
        let question = silent.try_clone().unwrap();
        tokio::task::spawn_blocking(move || question.recv(&mut [0; 512])).await.unwrap().unwrap();
        host.inspect("bridge").await;
        "others first"
    };
    tokio::pin!(asking);
    tokio::select! {
        biased;
        early = &mut asking => panic!("{early:?}"),
        first = waiting => assert_eq!(first, "others first"),
    }
    let answer = asking.await;
    let (first, _) = told(&answer);
    assert!(!answer.reaches && first.starts_with("Stop name "), "{first}");
    assert!(first.contains(&format!("the servers outside ({WORLD}) do not tell: SERVFAIL")), "{first}");

    host.space.run(&format!("printf 'nameserver {BEYOND}\\n' > /etc/resolv.conf"));
    // The host's file is looked at once a second.
    let wanted = format!("the servers outside ({BEYOND}) do not know it");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (first, _) = told(&explain(&host, "ann", "example.net", (443, "tcp")).await);
        if first.contains(&wanted) {
            return;
        }
        assert!(Instant::now() < until, "{first}");
    }
}

#[tokio::test]
async fn what_a_containers_hosts_file_says_comes_first() {
    let host = Host::new().await;
    let upstream = Upstream::serve(&host.world, WORLD, "198.51.100.7");
    host.net_create("n").await;
    let hosts = host.file("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost\n{BEYOND} outer Example.org\n10.99.0.77 peer\n"))
        .unwrap();
    // The container's program: a child of the holder that has mounts of its own.
    let script = format!(
        "unshare --mount sh -c 'mount --bind {} /etc/hosts; exec setpriv --pdeathsig KILL sleep 1000' &
         until [ -e /proc/$!/ns/mnt ] && grep -q outer /proc/$!/root/etc/hosts; do sleep 0.01; done",
        hosts.display()
    );
    let a = Guest { space: Space::new(&script), ..Guest::new("ann") };
    let (peer, other) = (Guest::new("peer"), Guest::new("other"));
    for guest in [&a, &peer, &other] {
        host.attach(guest, &["n"], &[]).await.unwrap();
    }
    for name in ["outer", "example.ORG"] {
        let answer = explain(&host, "ann", name, (443, "tcp")).await;
        assert_eq!(told(&answer).0, format!("Pass name '{name}' is {BEYOND}: its /etc/hosts says so"));
        assert!(answer.reaches, "{answer:?}");
    }
    let answer = explain(&host, "ann", "peer", (80, "tcp")).await;
    assert_eq!(told(&answer).0, "Pass name 'peer' is 10.99.0.77: its /etc/hosts says so");
    assert_eq!(upstream.asked(), 0);
    assert!(told(&explain(&host, "other", "peer", (80, "tcp")).await).0.contains("a container on network n"));
    assert!(
        told(&explain(&host, "other", "outer", (80, "tcp")).await).0.contains("198.51.100.7"),
        "of another"
    );
}
