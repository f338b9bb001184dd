//! What is done with the bytes of each target.

use std::sync::OnceLock;

use parsers::dns::answer::{Outcome, Way, answer};
use parsers::dns::cache::{Answer, lifetime};
use parsers::dns::resolvconf::ResolvConf;
use parsers::dns::services::Service;
use parsers::dns::wire::{Query, Read, addresses, survey};
use parsers::dns::zone::{Presence, Publication, Tables};
use parsers::driver::cni::list::{List, directories};

/// All targets by name.
pub const ALL: &[(&str, fn(&[u8]))] = &[
    ("dns_query", dns_query),
    ("dns_reply", dns_reply),
    ("resolv_conf", resolv_conf),
    ("cni_list", cni_list),
];

fn world() -> &'static Tables {
    static WORLD: OnceLock<Tables> = OnceLock::new();
    WORLD.get_or_init(|| {
        let mut tables = Tables::default();
        for n in 1..60u8 {
            let presence = Presence {
                network: "n".into(),
                network_name: "net".into(),
                subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
                names: vec![format!("c{n}"), "web".into()],
                ipv4: Some([10, 0, 0, n].into()),
                ipv6: Some([0xfd00, 0, 0, 0, 0, 0, 0, n.into()].into()),
            };
            tables.publish(&Publication {
                sandbox: format!("s{n}"),
                endpoints: vec![presence],
                links: vec![("l".into(), "web".into())],
                services: vec![Service { protocol: 6, port: 80 }],
                outside: n % 2 == 0,
                ..Publication::default()
            });
        }
        tables
    })
}

fn dns_query(data: &[u8]) {
    let tables = world();
    let mut out = Vec::new();
    for (sandbox, way) in [("s1", Way::Udp), ("s1", Way::Tcp), ("s2", Way::Udp)] {
        let view = tables.view_of(sandbox).and_then(|at| tables.view(at)).expect("it was published");
        match answer(data, tables, view, way, data.len(), &mut out) {
            Outcome::Reply => {
                assert_eq!(out[..2], data[..2], "the id");
                assert!(out[2] & 0x80 != 0 && out.len() <= if way == Way::Udp { 1232 } else { 65535 });
                if let Read::Query(query) = Query::read(data) {
                    let found = survey(&out).expect("our own replies can be read");
                    assert_eq!(found.opt.is_some(), query.edns.is_some());
                    assert_eq!(out[12..found.question_end], query.head[12..]);
                }
            }
            Outcome::Forward(query) => assert_eq!(query.head, &data[..query.head.len()]),
            Outcome::Ignore => assert!(data.len() < 12 || data[2] & 0x80 != 0),
        }
    }
}

fn dns_reply(data: &[u8]) {
    let told = addresses(data);
    let Some(found) = survey(data) else { return };
    assert!(told.len() <= usize::from(found.answers));
    let answer = Answer::of(data, &found);
    assert!(lifetime(&found) <= 3_600_000);
    // The question of the reply, as a query with EDNS and without.
    let mut head = data[..found.question_end].to_vec();
    head[2] = 1;
    head[6..12].fill(0);
    for edns in [false, true] {
        let mut query = head.clone();
        if edns {
            query.extend([0, 0, 41, 4, 0, 0, 0, 0x80, 0, 0, 0]);
            query[11] = 1;
        }
        let Read::Query(query) = Query::read(&query) else { continue };
        for limit in [512, 1232, 65535] {
            let mut out = Vec::new();
            answer.write(&query, 12_345, limit, &mut out);
            assert!(out.len() <= limit && out[..2] == query.head[..2]);
            let again = survey(&out).expect("what we give can be read");
            assert_eq!(again.opt.is_some(), edns);
        }
    }
}

fn resolv_conf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let conf = ResolvConf::parse(text);
    let _ = (conf.number("timeout"), conf.number("attempts"), conf.has("rotate"));
    let made = conf.with(&[], &[], &[]).for_container_names();
    assert!(made.search.iter().all(|s| s != "."));
    for server in &conf.servers {
        assert_eq!(server.to_string().parse().as_ref(), Ok(server), "what it is written as is what it is");
    }
    assert!(conf.off_loopback(|| None).servers.iter().all(|server| !server.ip.is_loopback()));
}

fn cni_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = directories(text);
    match List::parse(text) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(list) => {
            let asked = serde_json::json!({"ips": ["10.0.0.2"], "portMappings": []});
            let asked = asked.as_object().expect("it is one");
            for plugin in &list.plugins {
                // It becomes a program's name, and what the program reads.
                assert!(!plugin.kind.contains('/') && plugin.kind != "..");
                let config = list.config(plugin, asked, Some(asked));
                assert_eq!(config["name"], list.name.as_str());
                assert_eq!(config["cniVersion"], list.version.as_str());
            }
        }
    }
}
