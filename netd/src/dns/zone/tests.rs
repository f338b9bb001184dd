use proptest::prelude::*;

use super::*;

fn publication(sandbox: u8, networks: &[u8], names: &[u8]) -> Publication {
    let presence = |network: &u8| Presence {
        network: format!("id{network}"),
        network_name: format!("net{network}"),
        subnets: vec![format!("10.{network}.0.0/16").parse().unwrap()],
        names: [format!("c{sandbox}")].into_iter().chain(names.iter().map(|n| format!("alias{n}"))).collect(),
        ipv4: Some([10, *network, 0, sandbox].into()),
        ipv6: None,
    };
    Publication {
        sandbox: format!("s{sandbox}"),
        endpoints: networks.iter().map(presence).collect(),
        ..Publication::default()
    }
}

fn resolved(tables: &Tables, sandbox: u8, name: &str) -> Vec<Ipv4Addr> {
    let Some(view) = tables.view_of(&format!("s{sandbox}")).and_then(|at| tables.view(at)) else {
        return Vec::new();
    };
    let mut found: Vec<_> = tables.resolve(view, &key(name).unwrap()).iter().filter_map(|m| m.ipv4).collect();
    found.sort();
    found
}

#[test]
fn a_change_replaces_what_was_and_leaves_no_trace() {
    let mut tables = Tables::default();
    tables.publish(&publication(1, &[1, 2], &[7]));
    tables.publish(&publication(2, &[1], &[7]));
    assert_eq!(
        resolved(&tables, 2, "alias7"),
        ["10.1.0.1", "10.1.0.2"].map(|ip| ip.parse::<Ipv4Addr>().unwrap())
    );
    tables.publish(&publication(1, &[2], &[]));
    assert_eq!(resolved(&tables, 2, "alias7").len(), 1);
    assert_eq!(resolved(&tables, 2, "c1"), Vec::<Ipv4Addr>::new());
    assert_eq!(resolved(&tables, 1, "c1.net2").len(), 1);
    tables.withdraw("s1");
    tables.withdraw("s1");
    tables.withdraw("s2");
    assert!(tables.zones.is_empty() && tables.by_network.is_empty());
    assert!(tables.views.is_empty() && tables.by_sandbox.is_empty());
}

#[test]
fn names_that_no_question_can_have_are_passed_over() {
    let mut tables = Tables::default();
    let mut odd = publication(1, &[1], &[]);
    odd.endpoints[0].names = vec!["x".repeat(64), "a..b".into(), "ok".into(), "OK".into()];
    tables.publish(&odd);
    assert_eq!(resolved(&tables, 1, "ok").len(), 1);
    let zone = tables.zones.iter().next().unwrap().1;
    assert_eq!(zone.name_of([10, 1, 0, 1].into()), Some(&b"\x02ok\x04net1"[..]));
}

proptest! {
    /// Whatever happened before, everybody sees what the last publication of each says, and nothing else.
    #[test]
    fn tables_are_what_was_published_last(
        steps in prop::collection::vec((0u8..5, prop::option::of((prop::collection::btree_set(0u8..3, 0..3), prop::collection::btree_set(0u8..3, 0..3)))), 1..40)
    ) {
        let mut tables = Tables::default();
        let mut last: std::collections::BTreeMap<u8, Publication> = std::collections::BTreeMap::new();
        for (sandbox, step) in steps {
            if let Some((networks, names)) = step {
                let networks: Vec<_> = networks.into_iter().collect();
                let names: Vec<_> = names.into_iter().collect();
                let publication = publication(sandbox, &networks, &names);
                tables.publish(&publication);
                last.insert(sandbox, publication);
            } else {
                tables.withdraw(&format!("s{sandbox}"));
                last.remove(&sandbox);
            }
        }
        let mut fresh = Tables::default();
        for publication in last.values() {
            fresh.publish(publication);
        }
        prop_assert_eq!(tables.zones.len(), fresh.zones.len());
        for sandbox in 0..5 {
            for name in (0..5).map(|n| format!("c{n}")).chain((0..3).map(|n| format!("alias{n}"))) {
                for name in [name.clone(), format!("{name}.net1")] {
                    prop_assert_eq!(resolved(&tables, sandbox, &name), resolved(&fresh, sandbox, &name), "{} of {}", name, sandbox);
                }
            }
        }
    }
}
