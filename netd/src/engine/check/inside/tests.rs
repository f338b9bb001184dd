//! What is told of a namespace, without one.

use super::*;
use crate::netlink::view::Fate;

fn way(gateway: &str, interface: &str) -> Way {
    Way { ipv4: true, gateway: Some(gateway.parse().unwrap()), interface: interface.into() }
}

fn wanted() -> WantedInside {
    WantedInside {
        interfaces: vec![WantedInterface {
            network: NetworkId::from_random([7; 32]),
            network_name: "n".into(),
            setup: Interface {
                name: "eth0".into(),
                addresses: vec!["10.0.0.2/24".parse().unwrap()],
                sysctls: Vec::new(),
                limit: None,
                inward: None,
                announced: false,
            },
            sight: Sight::Index(2),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: Some(1500),
            follows: false,
            settings: Vec::new(),
            asks: true,
            macvlan_mode: None,
        }],
        routes: vec![way("10.0.0.1", "eth0")],
        ways: vec![way("10.0.0.1", "eth0"), way("10.1.0.1", "eth1")],
        yields: false,
        others: Vec::new(),
        resolver: None,
    }
}

fn route(net: &str, gateway: Option<&str>) -> Route {
    let gateway = gateway.map(|g| g.parse().unwrap());
    Route { net: net.parse().unwrap(), fate: Fate::Unicast, gateway, index: 2, source: None }
}

fn present() -> Present {
    let link = |index, name: &str| Link { index, name: name.into(), up: true, ..Link::default() };
    Present {
        links: vec![link(1, "lo"), Link { mac: Some(Mac([2, 0, 0, 0, 0, 1])), mtu: 1500, ..link(2, "eth0") }],
        addresses: vec![
            Address { index: 2, net: "10.0.0.2/24".parse().unwrap(), global: true },
            Address { index: 1, net: "127.0.0.1/8".parse().unwrap(), global: false },
        ],
        routes: vec![route("0.0.0.0/0", Some("10.0.0.1")), route("10.0.0.0/24", None)],
        settings: BTreeMap::new(),
        limits: Vec::new(),
        inward: BTreeMap::new(),
    }
}

fn told(change: impl FnOnce(&mut Present)) -> Vec<String> {
    let mut present = present();
    change(&mut present);
    differences(&present, &wanted()).into_iter().map(|s| s.object).collect()
}

#[test]
fn each_thing_that_is_not_as_given_is_told() {
    assert_eq!(told(|_| {}), Vec::<String>::new());
    assert_eq!(told(|p| p.links[0].up = false), ["interface lo inside"]);
    assert_eq!(told(|p| p.links[1].up = false), ["interface eth0 inside"]);
    assert_eq!(told(|p| p.links[1].mtu = 9000), ["MTU of eth0 inside"]);
    assert_eq!(told(|p| p.links[1].mtu = 1300), Vec::<String>::new());
    assert_eq!(told(|p| p.links[1].mac = Some(Mac([2; 6]))), ["mac of eth0 inside"]);
    assert_eq!(
        told(|p| {
            p.addresses.remove(0);
        }),
        ["address 10.0.0.2/24 on eth0 inside"]
    );
    assert_eq!(
        told(|p| {
            p.addresses.remove(1);
        }),
        ["address 127.0.0.1/8 on lo inside"]
    );
    assert_eq!(
        told(|p| {
            p.routes.remove(0);
        }),
        ["default route via 10.0.0.1 inside"]
    );
    assert_eq!(
        told(|p| {
            p.routes.remove(1);
        }),
        ["route to 10.0.0.0/24 by eth0 inside"]
    );
    assert_eq!(told(|p| p.routes[1].index = 9), Vec::<String>::new());
    assert_eq!(told(|p| p.links[1].mute = true), ["interface eth0 inside"]);
    assert_eq!(
        told(|p| {
            p.links.truncate(1);
            p.routes.clear();
        }),
        ["interface eth0 inside"],
        "its route went with it, and comes back with it"
    );
    assert_eq!(
        told(|p| {
            p.links[1].up = false;
            p.routes.clear();
        }),
        ["interface eth0 inside"]
    );
    // What a container adds is its own affair.
    assert_eq!(
        told(|p| p.addresses.push(Address { index: 2, net: "10.9.0.2/24".parse().unwrap(), global: true })),
        Vec::<String>::new()
    );
}

#[test]
fn an_interface_is_known_by_what_it_is() {
    let details = |change: fn(&mut Present), sight| {
        let (mut present, mut wanted) = (present(), wanted());
        change(&mut present);
        wanted.interfaces[0].sight = sight;
        let told = differences(&present, &wanted).into_iter();
        told.map(|s| (s.object, s.detail, s.in_the_way)).collect::<Vec<_>>()
    };
    let of =
        |detail: &str, in_the_way| vec![("interface eth0 inside".to_owned(), detail.to_owned(), in_the_way)];
    let renamed = |p: &mut Present| {
        p.links[1].name = "wan0".into();
        p.routes.clear();
    };
    let replaced = |p: &mut Present| {
        p.links[1].name = "wan0".into();
        p.links.push(Link { index: 3, name: "eth0".into(), ..Link::default() });
    };
    assert_eq!(details(renamed, Sight::Index(2)), of("it is called wan0", false));
    let taken = "it is called wan0, and something that is not ours has its name";
    assert_eq!(details(replaced, Sight::Index(2)), of(taken, true));
    let not_ours = "an interface of this name is there that is not ours";
    assert_eq!(details(replaced, Sight::Gone), of(not_ours, true));
    assert_eq!(details(|_| {}, Sight::Gone), of(not_ours, true));
    assert_eq!(details(renamed, Sight::Gone), of("the container is not wired", false));
    assert_eq!(details(renamed, Sight::Name(None)), of("the container is not wired", false));
    assert_eq!(details(|_| {}, Sight::Name(None)), []);
    let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    assert_eq!(details(renamed, Sight::Name(mac)), of("it is called wan0", false));
    assert_eq!(details(replaced, Sight::Name(mac)), of(taken, true), "the mac comes before the name");
}

#[test]
fn what_is_known_as_anothers_is_not_taken_by_its_name() {
    let details = |other, others: &[u32]| {
        let mut all = wanted();
        all.interfaces[0].sight = Sight::Name(all.interfaces[0].mac);
        let mut second = all.interfaces[0].clone();
        (second.setup.name, second.sight) = ("eth1".into(), other);
        all.interfaces.push(second);
        all.others = others.to_vec();
        let (_, seen) = place::place(&present().links, &all);
        seen.into_iter().map(|s| (s.object, s.detail)).collect::<Vec<_>>()
    };
    let told = |interface: &str, detail: &str| (format!("interface {interface} inside"), detail.to_owned());
    let missing = told("eth0", "the container is not wired");
    let theirs = told("eth1", "it is called eth0");
    assert_eq!(details(Sight::Index(2), &[]), [missing.clone(), theirs]);
    assert_eq!(details(Sight::Gone, &[2]), [missing, told("eth1", "the container is not wired")]);
}

#[test]
fn a_way_out_of_its_own_is_left() {
    let replaced = |gateway: Option<&str>, index, fate| {
        told(|p| {
            p.routes[0].gateway = gateway.map(|g| g.parse().unwrap());
            p.routes[0].index = index;
            p.routes[0].fate = fate;
        })
    };
    let none = Vec::<String>::new();
    assert_eq!(replaced(Some("10.8.0.2"), 9, Fate::Unicast), none, "by an interface of its own");
    assert_eq!(replaced(Some("10.0.0.77"), 2, Fate::Unicast), none, "by another router");
    assert_eq!(replaced(None, 9, Fate::Refused), none, "to nowhere");
    let missing = ["default route via 10.0.0.1 inside"];
    let parts = |parts: &[&str]| {
        told(|p| {
            p.routes.remove(0);
            p.routes.extend(parts.iter().map(|net| Route { index: 9, ..route(net, None) }));
        })
    };
    assert_eq!(parts(&["0.0.0.0/1", "128.0.0.0/1"]), none, "in two halves");
    assert_eq!(parts(&["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/2"]), none, "in parts");
    assert_eq!(parts(&["0.0.0.0/1", "128.0.0.0/2"]), missing);
    assert_eq!(parts(&["::/1", "8000::/1"]), missing, "of the other family");
    assert_eq!(replaced(Some("10.1.0.1"), 2, Fate::Unicast), missing, "of the other network of ours");
}
