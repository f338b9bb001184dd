//! IPv6 turned off by settings that are known before anything is made: no address of it, reserved, shown or told by names.

use davit_contracts::Kind;
use davit_contracts::network as proto;

use super::{SYSCTLS, driver_opt, spec, with};
use crate::check::{check, words};
use crate::host::{Guest, Host};

#[tokio::test]
async fn an_endpoint_that_turns_ipv6_off_has_no_address_of_it() {
    let host = Host::new().await;
    let subnet = |subnet: &str| vec![proto::Subnet { subnet: subnet.into(), ..proto::Subnet::default() }];
    let six = proto::CreateNetworkRequest { ipv6: true, subnets: subnet("fd77::/64"), ..with("six", &[]) };
    host.create(six).await.unwrap();
    host.create(proto::CreateNetworkRequest { ipv6: true, disable_ipv4: true, ..with("only", &[]) })
        .await
        .unwrap();
    let before = host.traces();
    let off = |network: &str| driver_opt(network, SYSCTLS, "net.ipv6.conf.IFNAME.disable_ipv6=1");
    let asked = proto::EndpointSpec { ip6: "fd77::9".into(), ..off("six") };
    for (endpoint, text) in [(asked, "the address fd77::9 was asked for"), (off("only"), "nothing else")] {
        let refused = host.attach_request(Host::request(&Guest::new("g"), vec![endpoint], &[])).await;
        let e = refused.unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(text), "{e}");
        assert_eq!(host.traces(), before);
    }
    let guest = Guest::new("four");
    let at = host.attach_request(Host::request(&guest, vec![off("six")], &["8080:80"])).await.unwrap();
    assert_eq!((at.endpoints[0].ip6.as_str(), at.endpoints[0].gateway6.as_str()), ("", ""));
    let inspected = host.inspect("six").await;
    assert!(!inspected.endpoints[0].ip.is_empty() && inspected.endpoints[0].ip6.is_empty(), "{inspected:?}");
    let both = Guest::new("both");
    let at = host.attach(&both, &["six"], &[]).await.unwrap();
    assert_eq!(at.endpoints[0].ip6, "fd77::2/64", "the first is free");
    let (four, six) = (both.space.dig("four A"), both.space.dig("four AAAA"));
    assert_eq!((four, six), (inspected.endpoints[0].ip.split('/').next().unwrap().to_owned(), String::new()));
    guest.space.serve_tcp("0.0.0.0:80");
    assert!(both.space.ask_tcp(&format!("{}:80", both.space.dig("four A"))).is_some());
    assert_eq!(guest.space.run("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6").trim(), "1");
    assert_eq!(guest.space.run("ip -6 -o addr show dev eth0"), "");
    assert_eq!(words(&check(&host, true).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_that_turns_ipv6_off_has_no_address_of_it_on_any_network() {
    let mut host = Host::new().await;
    for name in ["six", "more"] {
        host.create(proto::CreateNetworkRequest { ipv6: true, ..with(name, &[]) }).await.unwrap();
    }
    let guest = Guest::new("g");
    let request = |specs| proto::AttachRequest { without_ipv6: true, ..Host::request(&guest, specs, &[]) };
    let asked = proto::EndpointSpec { ip6: "fd77::9".into(), ..spec("six") };
    let e = host.attach_request(request(vec![asked])).await.unwrap_err();
    assert!(e.to_string().contains("'net.ipv6.conf.all.disable_ipv6=1'"), "{e}");
    let at = host.attach_request(request(vec![spec("six")])).await.unwrap();
    assert_eq!((at.endpoints[0].ip6.as_str(), at.endpoints[0].gateway6.as_str()), ("", ""));
    // As its runtime does, and later.
    guest.space.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    host.kill();
    host.start().await;
    let connect = proto::ConnectRequest { sandbox_id: guest.id.clone(), endpoint: Some(spec("more")) };
    let joined = host.endpoints().connect(connect).await.unwrap().into_inner();
    assert!(!joined.ip.is_empty() && joined.ip6.is_empty(), "{joined:?}");
    let other = host.guest("other", &["six", "more"], &[]).await;
    assert_eq!(other.space.dig("g AAAA"), "");
    assert_ne!(other.space.dig("g A"), "");
    assert_eq!(words(&check(&host, true).await), Vec::<String>::new());
}
