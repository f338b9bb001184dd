//! Published ports.

use davit_contracts::{Kind, network as proto};

use crate::host::{Guest, HOST, Host, WORLD, ip};

#[tokio::test]
async fn ports_beyond_the_limit_of_descriptors_are_refused_by_its_name() {
    let host = Host::new().await;
    let many: Vec<String> = (0..300).map(|n| format!("{}:80", 20000 + n)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let web = Guest::new("web");
    host.leave_descriptors(200);
    let e = host.attach(&web, &["bridge"], &many).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NoSpace, "{e:?}");
    assert!(e.to_string().contains("RLIMIT_NOFILE"), "{e:?}");
    assert!(e.hint().contains("each published port takes one"), "{e:?}");
    // Nothing is held by what was refused. Each port takes two: IPv4 and IPv6.
    host.attach(&web, &["bridge"], &many[..60]).await.unwrap();
    host.detach(&web).await;
    host.becomes_clean().await;
}

#[tokio::test]
pub async fn a_port_answers_from_outside_from_localhost_and_from_containers() {
    let host = Host::new().await;
    host.net_create("front").await;
    host.net_create("other").await;
    let web = Guest::new("web");
    let web_at = host.attach(&web, &["front"], &["8080:80", "5353:53/udp"]).await.unwrap();
    assert_eq!((web_at.ports[0].host_port, web_at.ports[0].host_ip.as_str()), (8080, "0.0.0.0"));
    web.space.serve_tcp("0.0.0.0:80");
    web.space.serve_udp("0.0.0.0:53");
    let neighbour = host.guest("neighbour", &["front"], &[]).await;
    let stranger = host.guest("stranger", &["other"], &[]).await;

    // A container sees who really asks from outside.
    assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")).as_deref(), Some(WORLD));
    assert_eq!(host.world.ask_udp(&format!("{HOST}:5353")).as_deref(), Some(WORLD));
    for (who, space) in [
        ("host", &host.space),
        ("neighbour", &neighbour.space),
        ("stranger", &stranger.space),
        ("itself", &web.space),
    ] {
        assert!(space.ask_tcp(&format!("{HOST}:8080")).is_some(), "{who}");
        assert!(space.ask_udp(&format!("{HOST}:5353")).is_some(), "{who}, udp");
    }
    assert!(host.space.ask_tcp("127.0.0.1:8080").is_some());
    assert!(host.space.ask_udp("127.0.0.1:5353").is_some());

    host.detach(&web).await;
    assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")), None);
    assert_ne!(ip(&web_at, 0), "");
}

#[tokio::test]
async fn where_nobody_could_ask_nothing_is_published_and_nothing_changed() {
    let host = Host::new().await;
    let web = Guest::new("web");
    let created = host.net_create("n").await;
    let own = created.subnets[0].subnet.parse::<ipnet::IpNet>().unwrap().broadcast().to_string();
    let before = host.traces();
    for (ip, what) in [
        ("10.99.0.255", "a broadcast address"),
        (own.as_str(), "a broadcast address"),
        ("127.255.255.255", "a broadcast address"),
        ("255.255.255.255", "the broadcast address"),
        ("224.0.0.1", "a multicast address"),
        ("[ff02::1]", "a multicast address"),
    ] {
        for port in [format!("{ip}:8080:80"), format!("{ip}:0:80/udp")] {
            let e = host.attach(&web, &["n"], &[&port]).await.unwrap_err();
            assert_eq!(e.kind(), Kind::InvalidArgument, "{port}: {e:?}");
            let ip = ip.trim_matches(['[', ']']);
            assert_eq!(e.message(), format!("cannot publish a port on {ip}: it is {what}"));
            assert!(e.hint().contains("an address that the host has"), "{e:?}");
        }
    }
    assert!(!host.space.run("ss -Htuln").contains("8080"), "nothing is held");
    assert_eq!(host.traces(), before);
    // The subnet's other addresses are as before.
    host.attach(&web, &["n"], &[&format!("{HOST}:8080:80")]).await.unwrap();
}

#[tokio::test]
pub async fn a_port_of_the_loopback_is_not_open_to_neighbours() {
    let host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["127.0.0.1:8080:80"]).await;
    web.space.serve_tcp("0.0.0.0:80");
    assert!(host.space.ask_tcp("127.0.0.1:8080").is_some());
    assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")), None);
    // A neighbour that sends 127.0.0.1 over the wire.
    host.world.run(&format!(
        "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip route del local 127.0.0.0/8 table local;
         ip addr flush dev lo; ip route add 127.0.0.1/32 via {HOST} dev eth0"
    ));
    assert_eq!(host.world.ask_tcp("127.0.0.1:8080"), None);
}

#[tokio::test]
pub async fn a_port_in_use_names_its_holder_and_changes_nothing() {
    let host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    let late = Guest::new("late");
    let e = host.attach(&late, &["bridge"], &["9090:80", "8080:80"]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InUse);
    assert_eq!(e.to_string(), "port 0.0.0.0:8080/tcp is in use by container web");
    assert!(!late.space.run("ip -o link").contains("eth0"));
    // What it had reserved before it failed is free again, and so is its address.
    host.attach(&late, &["bridge"], &["9090:80"]).await.unwrap();

    host.space.serve_tcp("0.0.0.0:7000");
    let third = Guest::new("third");
    let e = host.attach(&third, &["bridge"], &["7000:80"]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InUse);
    assert!(e.to_string().contains("7000/tcp is in use by"), "{e}");
    // The other way round: a program of the host cannot take a published port.
    let taken = host.space.inside(|| std::net::TcpListener::bind("0.0.0.0:8080"));
    assert!(taken.is_err());
    host.detach(&web).await;
    let free = host.space.inside(|| std::net::TcpListener::bind("0.0.0.0:8080"));
    assert!(free.is_ok());
}

#[tokio::test]
pub async fn random_ports_and_ranges_are_chosen() {
    let host = Host::new().await;
    let web = Guest::new("web");
    let mut request =
        Host::request(&web, vec![proto::EndpointSpec::default()], &["80", "53/udp", "7000:81", "7000:82"]);
    request.endpoints[0].network = "bridge".into();
    for port in &mut request.ports[2..] {
        port.host_port_end = 7001;
    }
    let answer = host.attach_request(request).await.unwrap();
    let ports: Vec<_> = answer.ports.iter().map(|p| p.host_port).collect();
    assert!(ports[0] > 1024 && ports[1] > 1024, "{ports:?}");
    // Each is that of both IP versions.
    assert_eq!(ports[0], ports[1]);
    assert_eq!(ports[4..], [7000, 7000, 7001, 7001], "{ports:?}");
    web.space.serve_tcp("0.0.0.0:80");
    assert!(host.world.ask_tcp(&format!("{HOST}:{}", ports[0])).is_some());
}

/// A client that never stops sending from one port: the kernel remembers where its packets went, and must be told.
#[tokio::test]
pub async fn a_udp_client_that_goes_on_sending_follows_a_published_port() {
    let host = Host::new().await;
    let client = host.world.inside(|| std::net::UdpSocket::bind("0.0.0.0:4000")).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    client.connect(format!("{HOST}:5353")).unwrap();
    let answered = || {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let mut buffer = [0; 64];
        while std::time::Instant::now() < until {
            let _ = client.send(b"?");
            if client.recv(&mut buffer).is_ok() {
                return true;
            }
        }
        false
    };
    // Before the port is published, and by way of each container that has it, one after another.
    let _ = client.send(b"?");
    let keep = host.guest("keep", &["bridge"], &[]).await;
    for name in ["first", "second"] {
        let _ = client.send(b"?");
        let guest = host.guest(name, &["bridge"], &["5353:53/udp"]).await;
        guest.space.serve_udp("0.0.0.0:53");
        assert!(answered(), "{name}: {}", host.space.run("conntrack -L 2>&1"));
        host.detach(&guest).await;
    }
    host.detach(&keep).await;
}

#[tokio::test]
pub async fn sctp_ports_are_forwarded_and_kept_apart() {
    let host = Host::new().await;
    let web = Guest::new("web");
    let at = host.attach(&web, &["bridge"], &["9000:90/sctp", "91/sctp"]).await.unwrap();
    assert_eq!((at.ports[0].host_port, at.ports[0].protocol.as_str()), (9000, "sctp"));
    assert_ne!(at.ports[1].host_port, 0);
    let e = host.attach(&Guest::new("late"), &["bridge"], &["9000:90/sctp"]).await.unwrap_err();
    assert_eq!(e.to_string(), "port 0.0.0.0:9000/sctp is in use by container web");
    // The same number of another protocol is another port.
    host.guest("other", &["bridge"], &["9000:90"]).await;
}
