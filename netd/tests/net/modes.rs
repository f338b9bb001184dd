//! Gateway modes: what is reached from outside, and what the outside sees.

use davit_contracts::network as proto;

use crate::host::{BEYOND, Guest, HOST, Host, WORLD, ip};

const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";

async fn network(host: &Host, name: &str, options: &[(&str, &str)]) -> proto::Network {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    host.create(proto::CreateNetworkRequest { name: name.into(), options, ..Default::default() })
        .await
        .unwrap()
}

/// The world knows the way to container addresses, as behind a router that was told.
fn teach_route(host: &Host) {
    host.world.run(&format!("ip route add 172.16.0.0/12 via {HOST}; ip route add 192.168.0.0/16 via {HOST}"));
}

#[tokio::test]
pub async fn a_routed_network_opens_published_ports_at_the_containers_own_address() {
    let host = Host::new().await;
    network(&host, "routed", &[(MODE4, "routed")]).await;
    host.net_create("other").await;
    teach_route(&host);
    let web = Guest::new("web");
    let at = host.attach(&web, &["routed"], &["8080:80", "53:53/udp"]).await.unwrap();
    assert_eq!(at.ports[0].host_port, 0, "no port of the host's is taken");
    for port in ["80", "81"] {
        web.space.serve_tcp(&format!("0.0.0.0:{port}"));
    }
    web.space.serve_udp("0.0.0.0:53");
    let web_ip = ip(&at, 0);
    assert_eq!(host.world.ask_tcp(&format!("{web_ip}:80")).as_deref(), Some(WORLD));
    assert_eq!(host.world.ask_udp(&format!("{web_ip}:53")).as_deref(), Some(WORLD));
    assert_eq!(host.world.ask_tcp(&format!("{web_ip}:81")), None);
    assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")), None);
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert_eq!(web.space.ask_tcp(&format!("{BEYOND}:80")), Some(web_ip.clone()));
    // What is published is open to other networks too, as ports of the host's are.
    let stranger = host.guest("stranger", &["other"], &[]).await;
    assert!(stranger.space.ask_tcp(&format!("{web_ip}:80")).is_some());
    assert_eq!(stranger.space.ask_tcp(&format!("{web_ip}:81")), None);
    // Two containers may publish the same port of the same network.
    host.guest("twin", &["routed"], &["8080:80"]).await;
    host.detach(&web).await;
    assert_eq!(host.world.ask_tcp(&format!("{web_ip}:80")), None);
}

#[tokio::test]
pub async fn an_unprotected_network_is_open_to_the_outside_but_not_to_other_networks() {
    let host = Host::new().await;
    network(&host, "open", &[(MODE4, "nat-unprotected")]).await;
    host.net_create("other").await;
    teach_route(&host);
    let web = Guest::new("web");
    let at = host.attach(&web, &["open"], &["8080:80"]).await.unwrap();
    web.space.serve_tcp("0.0.0.0:80");
    web.space.serve_tcp("0.0.0.0:81");
    assert!(host.world.ask_tcp(&format!("{}:81", ip(&at, 0))).is_some());
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert_eq!(web.space.ask_tcp(&format!("{BEYOND}:80")).as_deref(), Some(HOST));
    let stranger = host.guest("stranger", &["other"], &[]).await;
    assert_eq!(stranger.space.ask_tcp(&format!("{}:81", ip(&at, 0))), None);
}

#[tokio::test]
pub async fn sources_are_hidden_behind_the_address_that_was_chosen() {
    let host = Host::with("ip addr add 10.99.0.77/24 dev uplink").await;
    network(&host, "chosen", &[("com.docker.network.host_ipv4", "10.99.0.77")]).await;
    let guest = host.guest("g", &["chosen"], &[]).await;
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert_eq!(guest.space.ask_tcp(&format!("{BEYOND}:80")).as_deref(), Some("10.99.0.77"));
}

#[tokio::test]
pub async fn without_icc_containers_do_not_meet_over_the_gateway_either() {
    let host = Host::new().await;
    network(&host, "n", &[("com.docker.network.bridge.enable_icc", "false")]).await;
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    let a_at = host.attach(&a, &["n"], &["8080:80"]).await.unwrap();
    let b_at = host.attach(&b, &["n"], &[]).await.unwrap();
    a.space.serve_tcp("0.0.0.0:80");
    // Both send by way of the gateway what is for the neighbour.
    for (guest, peer) in [(&a, ip(&b_at, 0)), (&b, ip(&a_at, 0))] {
        let gateway = a_at.endpoints[0].gateway.clone();
        guest.space.run(&format!("ip route add {peer}/32 via {gateway} dev eth0"));
    }
    assert_eq!(b.space.ask_tcp(&format!("{}:80", ip(&a_at, 0))), None);
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
}

#[tokio::test]
pub async fn an_isolated_bridge_has_no_address() {
    let host = Host::new().await;
    let options = [(MODE4.to_owned(), "isolated".to_owned())].into();
    let request =
        proto::CreateNetworkRequest { name: "alone".into(), internal: true, options, ..Default::default() };
    let made = host.create(request).await.unwrap();
    let (a, b) = (Guest::new("a"), Guest::new("b"));
    let a_at = host.attach(&a, &["alone"], &[]).await.unwrap();
    host.attach(&b, &["alone"], &[]).await.unwrap();
    a.space.serve_tcp("0.0.0.0:80");
    assert!(b.space.ask_tcp(&format!("{}:80", ip(&a_at, 0))).is_some());
    let addresses = host.space.run(&format!("ip -4 -o addr show dev {}", made.interface));
    assert_eq!(addresses, "");
    assert_eq!(a_at.endpoints[0].gateway, "");
}
