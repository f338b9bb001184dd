//! Upstream servers: which, in which order, and what is known of each.

use std::collections::HashMap;
use std::sync::Arc;

use super::inside::{Origin, Upstream};
use crate::dns::nameserver::NameServer;
use crate::dns::resolvconf::{HostConf, ResolvConf};

/// Servers of a set that are asked (MAXNS of resolv.conf(5)).
const MOST: usize = 3;
/// Milliseconds that a server may take, and how often each is asked, when the configuration does not say.
const PATIENCE: u64 = 2000;
const ATTEMPTS: u32 = 2;
/// What resolv.conf(5) allows at most: RES_MAXRETRANS, RES_MAXRETRY.
const LONGEST: u32 = 30;
const OFTENEST: u32 = 5;
/// Milliseconds for which a server that failed is asked last: doubled with each failure.
const REST: u64 = 2000;
const LONGEST_REST: u64 = 64_000;
/// Milliseconds for which a server that does not know EDNS is spared it.
const PLAIN: u64 = 3_600_000;
/// Milliseconds for which the host's configuration is not looked at again.
const FRESH: u64 = 1000;

#[derive(Debug, Clone, Copy, Default)]
struct Health {
    failures: u32,
    resting_until: u64,
    plain_until: u64,
}

/// The way of an ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Servers to be asked, the first one last.
    pub tries: Vec<Upstream>,
    /// Milliseconds for each.
    pub patience: u64,
}

fn upstreams(from: Origin, servers: &[NameServer], port: u16) -> Vec<Upstream> {
    servers.iter().take(MOST).map(|server| Upstream { from, server: *server, port }).collect()
}

/// All servers.
#[derive(Debug, Default)]
pub struct Servers {
    conf: Arc<ResolvConf>,
    looked: Option<u64>,
    /// The number of the host's set, as it is now.
    host: u32,
    /// The number that was given last.
    last: u32,
    health: HashMap<Upstream, Health>,
    turn: usize,
}

impl Servers {
    /// The host's are these, whatever its configuration says.
    #[cfg(test)]
    pub fn of_host(servers: Vec<NameServer>) -> Self {
        let conf = Arc::new(ResolvConf { servers, ..ResolvConf::default() });
        Self { conf, looked: Some(u64::MAX - FRESH), host: 1, last: 1, ..Self::default() }
    }

    /// A number for a set of servers, which no other ever had: answers of one set are not those of another.
    pub fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// The number of the host's set of servers; another when the set is.
    pub fn host(&mut self, host: &HostConf, now: u64) -> u32 {
        if self.looked.is_none_or(|at| at + FRESH <= now) {
            let first = self.looked.is_none();
            self.looked = Some(now);
            let conf = host.get();
            if first || !Arc::ptr_eq(&conf, &self.conf) {
                let same = !first && conf.servers == self.conf.servers;
                self.conf = conf;
                if !same {
                    self.host = self.number();
                    let listed = &self.conf.servers;
                    self.health.retain(|u, _| u.is_inside() || listed.contains(&u.server));
                }
            }
        }
        self.host
    }

    /// Whom of the host's to ask: those that work first, in the order of the configuration, or from another one on each time.
    pub fn plan(&mut self, port: u16, now: u64) -> Plan {
        let conf = self.conf.clone();
        let patience = conf.number("timeout").map_or(PATIENCE, |s| u64::from(s.clamp(1, LONGEST)) * 1000);
        let attempts = conf.number("attempts").unwrap_or(ATTEMPTS).clamp(1, OFTENEST);
        let mut servers = upstreams(Origin::Host, &conf.servers, port);
        if conf.has("rotate") && !servers.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % servers.len();
            servers.rotate_left(first);
        }
        Plan { tries: self.tries(servers, attempts, now), patience }
    }

    /// Whom of a sandbox's own: the host's options are not about them.
    pub fn plan_inside(&self, inside: usize, servers: &[NameServer], port: u16, now: u64) -> Plan {
        let servers = upstreams(Origin::Inside(inside), servers, port);
        Plan { tries: self.tries(servers, ATTEMPTS, now), patience: PATIENCE }
    }

    fn tries(&self, mut servers: Vec<Upstream>, attempts: u32, now: u64) -> Vec<Upstream> {
        servers.sort_by_key(|s| self.health.get(s).is_some_and(|h| now < h.resting_until));
        let mut tries: Vec<_> = (0..attempts).flat_map(|_| servers.iter().copied()).collect();
        tries.reverse();
        tries
    }

    /// Nothing is known any more of servers that are asked from there.
    pub fn forget(&mut self, from: Origin) {
        self.health.retain(|u, _| u.from != from);
    }

    /// A server did not answer.
    pub fn failed(&mut self, server: Upstream, now: u64) {
        let health = self.health.entry(server).or_default();
        // Questions that were sent together fail together: that is one failure.
        if now < health.resting_until {
            return;
        }
        // Of a container's own the container may know, and it may have as many as it wants.
        if health.failures == 0 && !server.is_inside() {
            tracing::info!(%server, "an upstream name server does not answer: others are asked first");
        }
        let rest = (REST << health.failures.min(5)).min(LONGEST_REST);
        health.failures += 1;
        health.resting_until = now + rest;
    }

    /// A server answered.
    pub fn answered(&mut self, server: Upstream) {
        if let Some(health) = self.health.get_mut(&server) {
            (health.failures, health.resting_until) = (0, 0);
        }
    }

    /// A server does not know EDNS.
    pub fn learn_plain(&mut self, server: Upstream, now: u64) {
        self.health.entry(server).or_default().plain_until = now + PLAIN;
    }

    /// Whether a server is known not to know EDNS.
    pub fn is_plain(&self, server: Upstream, now: u64) -> bool {
        self.health.get(&server).is_some_and(|h| now < h.plain_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(tries: &[Upstream]) -> Vec<String> {
        tries.iter().rev().map(ToString::to_string).collect()
    }

    fn of_host(text: &str) -> Servers {
        let mut servers = Servers::default();
        servers.host(&HostConf::new(false), 0);
        servers.conf = Arc::new(ResolvConf::parse(text));
        servers
    }

    #[test]
    fn a_server_that_failed_is_asked_last_until_it_has_rested_and_only_from_where_it_did() {
        let mut servers = Servers::default();
        let own: Vec<NameServer> =
            (1..=4u8).map(|n| NameServer::from(std::net::IpAddr::from([10, 0, 0, n]))).collect();
        let plan = |servers: &Servers, inside, now| servers.plan_inside(inside, &own, 53, now);
        let once = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        assert_eq!(hosts(&plan(&servers, 7, 0).tries), [once, once].concat());
        assert_eq!(plan(&servers, 7, 0).patience, PATIENCE);
        let first = Upstream { from: Origin::Inside(7), server: own[0], port: 53 };
        servers.failed(first, 1000);
        servers.failed(first, 1001);
        assert_eq!(hosts(&plan(&servers, 7, 1000).tries)[..3], ["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(hosts(&plan(&servers, 8, 1000).tries)[..3], once, "in another sandbox it did not");
        assert_eq!(hosts(&plan(&servers, 7, 3000).tries)[..3], once, "after two seconds");
        servers.failed(first, 3000);
        assert_eq!(hosts(&plan(&servers, 7, 6999).tries)[0], "10.0.0.2", "then after four");
        servers.answered(first);
        assert_eq!(hosts(&plan(&servers, 7, 6999).tries)[..3], once);
        servers.failed(first, 7000);
        servers.forget(Origin::Inside(7));
        assert!(servers.health.is_empty());
    }

    #[test]
    fn the_hosts_options_count_for_its_own_servers() {
        let mut servers =
            of_host("nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions timeout:1 attempts:1 rotate\n");
        let plans: Vec<_> = (0..2).map(|_| servers.plan(53, 0)).collect();
        assert!(plans.iter().all(|p| p.patience == 1000 && p.tries.len() == 2));
        assert_ne!(plans[0].tries, plans[1].tries, "each is the first in its turn");
        let plan = servers.plan_inside(0, &["10.0.0.9".parse().unwrap()], 53, 0);
        assert_eq!((plan.patience, plan.tries.len()), (PATIENCE, 2));
    }

    #[test]
    fn no_set_has_the_number_of_another() {
        let mut servers = of_host("nameserver 10.0.0.1\n");
        let host = HostConf::new(false);
        let numbers = [servers.host(&host, 1), servers.number(), servers.number(), servers.host(&host, 2)];
        assert!(numbers[0] == numbers[3] && numbers[0] > 0, "{numbers:?}");
        assert!(numbers[1] != numbers[0] && numbers[2] != numbers[0] && numbers[1] != numbers[2]);
        // Another file with other servers.
        servers.looked = Some(0);
        servers.failed(Upstream { from: Origin::Host, server: "192.0.2.77".parse().unwrap(), port: 53 }, 0);
        let later = servers.host(&host, FRESH);
        assert!(!numbers.contains(&later) && servers.health.is_empty(), "{later}");
    }
}
