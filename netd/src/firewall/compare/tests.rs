use super::*;
use crate::firewall::nftables::host;
use crate::firewall::{Forward, Rules, Segment, Transport};

fn rules(bridge: &str, port: u16) -> Rules {
    Rules {
        segments: vec![Segment {
            bridge: bridge.into(),
            subnets: vec!["10.0.0.0/24".parse().unwrap()],
            internal: false,
            icc: true,
            masquerade: true,
            gateway: Default::default(),
            snat: [None; 2],
        }],
        forwards: vec![Forward {
            transport: Transport::Tcp,
            host: Some(std::net::SocketAddr::new([0, 0, 0, 0].into(), port)),
            to: "10.0.0.2:80".parse().unwrap(),
        }],
    }
}

fn contents(rules: &Rules) -> Contents {
    let mut tables = wanted_by(&host::whole("davit", rules).finish());
    assert_eq!(tables.len(), 1);
    tables.remove(&(1, "davit".to_owned())).unwrap()
}

fn told(wanted: &Contents, found: &Contents) -> Vec<(Fault, String)> {
    compare("davit", wanted, found).into_iter().map(|d| (d.fault, d.object)).collect()
}

#[test]
fn a_table_agrees_with_itself_and_its_absence_is_one_difference() {
    let table = contents(&rules("dv-1", 8080));
    assert_eq!(told(&table, &table), []);
    let none = Contents::default();
    assert_eq!(told(&table, &none), [(Fault::Missing, "firewall table davit".to_owned())]);
}

#[test]
fn ports_and_networks_are_named() {
    let (wanted, found) = (contents(&rules("dv-1", 8080)), contents(&rules("dv-1", 8081)));
    assert_eq!(
        told(&wanted, &found),
        [
            (Fault::Missing, "firewall element 8080/tcp of ports4".to_owned()),
            (Fault::Stray, "firewall element 8081/tcp of ports4".to_owned()),
        ]
    );
    let other = told(&wanted, &contents(&rules("dv-2", 8080)));
    assert!(other.contains(&(Fault::Missing, "firewall element dv-1 of bridges".to_owned())), "{other:?}");
    assert!(other.contains(&(Fault::Differs, "firewall rule 'out' in chain postrouting".to_owned())));
}

#[test]
fn rules_that_are_gone_added_or_moved_are_told() {
    let wanted = contents(&rules("dv-1", 8080));
    let mut found = wanted.clone();
    let forward = found.rules.get_mut("forward").unwrap();
    forward.remove(0);
    forward.push(Rule { comment: String::new(), expressions: vec![] });
    assert_eq!(
        told(&wanted, &found),
        [
            (Fault::Missing, "firewall rule 'answers' in chain forward".to_owned()),
            (Fault::Stray, "firewall rule 'without a comment' in chain forward".to_owned()),
        ]
    );
    let mut found = wanted.clone();
    found.rules.get_mut("forward").unwrap().reverse();
    assert_eq!(told(&wanted, &found), [(Fault::Differs, "firewall chain forward".to_owned())]);
}

#[test]
fn what_the_kernel_adds_and_renumbers_is_no_difference() {
    let write = |kernel: bool| {
        let mut batch = Batch::new();
        batch.push("x", 0, Flags::REQUEST, &[], |a| {
            a.be32(1, if kernel { 1 } else { 8 });
            a.nested(3, |a| a.bytes(1, &[6]));
            if kernel {
                a.be32(9, 5);
            }
        });
        batch.bytes()[16..].to_vec()
    };
    assert!(includes(&write(false), &write(true)));
    assert!(!includes(&write(true), &write(false)), "something is missing");
}
