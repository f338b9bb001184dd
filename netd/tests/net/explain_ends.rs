//! What `explain` says of the two ends: who listens, and what a name means.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use davit_contracts::network as proto;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::host::{Guest, Host, Space, ip};

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
