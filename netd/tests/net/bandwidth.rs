//! Limits of endpoints, measured with iperf3.
//!
//! What is asserted is a ratio of what passed to what may pass, over as long as iperf3 counts: the bucket lets one burst more
//! through (2% of a second's worth here), and TCP needs a part of the time to find the rate. A limit that does not hold is off by
//! a factor of a hundred: unlimited, these links pass gigabits.

use std::net::UdpSocket;
use std::time::Duration;

use davit_contracts::Kind;
use davit_contracts::network as proto;

use crate::check::check;
use crate::host::{Guest, Host, Space, ip};

const RATE: u32 = 20_000_000;

/// Serves one client, and is there when this returns.
const SERVE: &str = "iperf3 --server --daemon --one-off
    for n in $(seq 500); do ss -Hltn sport = :5201 | grep -q . && exit 0; sleep 0.01; done; exit 1";

/// Bits a second that reached the receiver.
fn measure(server: &Space, client: &Space, at: &str, reverse: bool) -> f64 {
    server.run(SERVE);
    let reverse = if reverse { "--reverse" } else { "" };
    let report = client.run(&format!("iperf3 --client {at} --time 3 --json {reverse}"));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap()
}

fn assert_limited(measured: f64, what: &str) {
    let ratio = measured / f64::from(RATE);
    assert!((0.6..=1.3).contains(&ratio), "{what}: {measured} bits a second of {RATE}");
}

fn limited(network: &str, ingress_rate: u32, egress_rate: u32) -> proto::EndpointSpec {
    let (ingress_rate, egress_rate) = (ingress_rate.into(), egress_rate.into());
    let bandwidth = Some(proto::Bandwidth { ingress_rate, egress_rate, ..Default::default() });
    proto::EndpointSpec { network: network.into(), bandwidth, ..Default::default() }
}

#[tokio::test]
async fn both_directions_are_held_back_also_after_a_restart_and_can_be_changed() {
    let mut host = Host::new().await;
    host.net_create("n").await;
    let (slow, fast) = (Guest::new("slow"), Guest::new("fast"));
    let request = Host::request(&slow, vec![limited("n", RATE, RATE)], &[]);
    let at = host.attach_request(request).await.unwrap();
    assert_eq!(at.endpoints[0].bandwidth.unwrap().ingress_rate, u64::from(RATE));
    host.attach(&fast, &["n"], &[]).await.unwrap();
    let at = ip(&at, 0);
    assert_limited(measure(&slow.space, &fast.space, &at, false), "into the container");
    host.kill();
    host.start().await;
    assert_limited(measure(&slow.space, &fast.space, &at, true), "out of the container");
    // Connected again, without limits.
    let leave = proto::DisconnectRequest { sandbox_id: slow.id.clone(), network: "n".into(), force: false };
    host.endpoints().disconnect(leave).await.unwrap();
    let endpoint = proto::EndpointSpec { ip: at.clone(), ..limited("n", 0, 0) };
    let connect = proto::ConnectRequest { sandbox_id: slow.id.clone(), endpoint: Some(endpoint) };
    let endpoint = host.endpoints().connect(connect).await.unwrap().into_inner();
    assert_eq!(endpoint.bandwidth, None);
    assert!(measure(&slow.space, &fast.space, &at, false) > 5.0 * f64::from(RATE));
}

/// A network on the uplink.
fn wire(driver: &str, mode: &str) -> proto::CreateNetworkRequest {
    let options = [("parent", "uplink"), (&format!("{driver}_mode"), mode)];
    proto::CreateNetworkRequest {
        name: "wire".into(),
        driver: driver.into(),
        subnets: vec![proto::Subnet { subnet: "10.99.0.0/24".into(), ..Default::default() }],
        options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn both_directions_of_a_wire_are_held_back_and_can_be_changed() {
    let mut host = Host::new().await;
    host.create(wire("macvlan", "bridge")).await.unwrap();
    let guest = Guest::new("g");
    let request = Host::request(&guest, vec![limited("wire", RATE, RATE)], &[]);
    let at = ip(&host.attach_request(request).await.unwrap(), 0);
    assert_limited(measure(&guest.space, &host.world, &at, false), "into the container");
    host.kill();
    host.start().await;
    assert_limited(measure(&guest.space, &host.world, &at, true), "out of the container");
    let leave =
        proto::DisconnectRequest { sandbox_id: guest.id.clone(), network: "wire".into(), force: false };
    host.endpoints().disconnect(leave).await.unwrap();
    assert!(!guest.space.run("ip -br link").contains("ifb"), "a queue is left inside");
    let endpoint = proto::EndpointSpec { ip: at.clone(), ..limited("wire", 0, 0) };
    let connect = proto::ConnectRequest { sandbox_id: guest.id.clone(), endpoint: Some(endpoint) };
    host.endpoints().connect(connect).await.unwrap();
    assert!(measure(&guest.space, &host.world, &at, false) > 5.0 * f64::from(RATE));
}

#[tokio::test]
async fn limits_of_a_wire_are_mended_by_check_and_leave_the_name_of_a_queue_to_others() {
    let host = Host::new().await;
    host.create(wire("macvlan", "bridge")).await.unwrap();
    let guest = Guest::new("g");
    guest.space.run("ip link add ifb-eth0 type veth peer name x");
    let attach = || host.attach_request(Host::request(&guest, vec![limited("wire", RATE, 0)], &[]));
    let e = attach().await.unwrap_err();
    assert!(e.kind() == Kind::InUse && e.to_string().contains("ifb-eth0"), "{e}");
    assert!(!guest.space.run("ip -br link").contains("eth0@if"), "a failed attach leaves its interface");
    assert!(guest.space.run("ip -br link").contains("ifb-eth0@x"), "somebody else's interface is gone");
    guest.space.run("ip link del x");
    let at = ip(&attach().await.unwrap(), 0);
    let filters = || guest.space.run("tc filter show dev eth0 parent ffff: | grep -c mirred || true");
    for (command, told) in [
        ("tc filter del dev eth0 parent ffff:", "lacks its limit"),
        ("tc qdisc del dev eth0 ingress", "lacks its limit"),
        ("ip link del ifb-eth0", "lacks its limit"),
        ("ip link set ifb-eth0 down", "lacks its limit"),
        (
            "tc qdisc replace dev ifb-eth0 root tbf rate 1mbit burst 16k latency 50ms",
            "is limited to 1000000 bit/s",
        ),
    ] {
        guest.space.run(command);
        let listed = check(&host, false).await;
        let [one] = &*listed else { panic!("{command}: {listed:?}") };
        assert!(one.detail.contains(told) && one.object.contains("what enters eth0"), "{command}: {one:?}");
        assert!(check(&host, true).await[0].repaired, "{command}");
        assert!(check(&host, false).await.is_empty(), "{command}");
        assert_eq!(filters().trim(), "1", "{command}");
    }
    assert_limited(measure(&guest.space, &host.world, &at, false), "into the container");
}

#[tokio::test]
async fn limits_that_would_not_hold_are_refused() {
    let host = Host::new().await;
    host.create(wire("ipvlan", "l3s")).await.unwrap();
    let guest = Guest::new("g");
    for (spec, text) in [
        (limited("wire", RATE, 0), "l3s"),
        (limited("host", RATE, 0), "no interface of its own"),
        (limited("host", 0, RATE), "no interface of its own"),
    ] {
        let e = host.attach_request(Host::request(&guest, vec![spec], &[])).await.unwrap_err();
        assert!(e.kind() == Kind::Unsupported && e.to_string().contains(text), "{e}");
        assert!(e.hint().contains("bridge"), "{e:?}");
    }
}

#[tokio::test]
async fn senseless_limits_are_refused() {
    let host = Host::new().await;
    let guest = Guest::new("g");
    let mut bare = limited("bridge", 0, 0);
    bare.bandwidth.as_mut().unwrap().egress_burst = 1000;
    for (spec, text) in [(limited("bridge", 100, 0), "8000"), (bare, "needs a rate")] {
        let e = host.attach_request(Host::request(&guest, vec![spec], &[])).await.unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(text), "{e}");
    }
    assert_eq!(host.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_burst_that_no_packet_fits_in_is_refused() {
    let host = Host::new().await;
    host.net_create("n").await;
    let guest = Guest::new("g");
    let rate = u64::from(RATE);
    let of = |ingress_burst, egress_burst| {
        let limits = proto::Bandwidth { ingress_rate: rate, ingress_burst, egress_rate: rate, egress_burst };
        proto::EndpointSpec { network: "n".into(), bandwidth: Some(limits), ..Default::default() }
    };
    // The uplink's MTU is 1400, and so is the network's.
    for (wanted, what) in [(of(0, 1), "egress burst '1'"), (of(1417, 0), "ingress burst '1417'")] {
        let e = host.attach_request(Host::request(&guest, vec![wanted], &[])).await.unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
        assert!(e.to_string().contains(what) && e.to_string().contains("1418 bytes"), "{e}");
    }
    let at = host.attach_request(Host::request(&guest, vec![of(1418, 1418)], &[])).await.unwrap();
    // A full packet: 1372 bytes, and the headers of UDP and IPv4.
    let gateway = at.endpoints[0].gateway.clone();
    let server = host.space.inside(|| UdpSocket::bind(format!("{gateway}:9000"))).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let client = guest.space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.send_to(&[7; 1372], format!("{gateway}:9000")).unwrap();
    assert_eq!(server.recv(&mut [0; 2000]).unwrap(), 1372);
}
