//! Upstream servers: which, in which order, and what is known of each.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::dns::resolvconf::{HostConf, ResolvConf};

/// Servers of a set that are asked (MAXNS of resolv.conf(5)).
const MOST: usize = 3;
/// Sets that are known before all are forgotten.
const SETS: usize = 1024;
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
    pub tries: Vec<SocketAddr>,
    /// Milliseconds for each.
    pub patience: u64,
}

/// All servers.
#[derive(Debug, Default)]
pub struct Servers {
    conf: Arc<ResolvConf>,
    looked: Option<u64>,
    sets: Vec<Arc<[IpAddr]>>,
    numbers: HashMap<Arc<[IpAddr]>, u32>,
    /// The host's set.
    host: u32,
    health: HashMap<SocketAddr, Health>,
    turn: usize,
    renewed: bool,
}

impl Servers {
    /// The number of a set of servers; of the host's when `own` is empty.
    pub fn set(&mut self, own: &Arc<[IpAddr]>, host: &HostConf, now: u64) -> u32 {
        if self.looked.is_none_or(|at| at + FRESH <= now) {
            let first = self.looked.is_none();
            self.looked = Some(now);
            let conf = host.get();
            if first || !Arc::ptr_eq(&conf, &self.conf) {
                let servers: Arc<[IpAddr]> = conf.servers.as_slice().into();
                self.conf = conf;
                self.host = self.number(&servers);
            }
        }
        if own.is_empty() { self.host } else { self.number(own) }
    }

    fn number(&mut self, set: &Arc<[IpAddr]>) -> u32 {
        if let Some(number) = self.numbers.get(set) {
            return *number;
        }
        if self.sets.len() >= SETS {
            self.renewed = true;
            self.sets.clear();
            self.numbers.clear();
            self.health.clear();
            let host: Arc<[IpAddr]> = self.conf.servers.as_slice().into();
            self.host = self.number(&host);
        }
        let number = self.sets.len() as u32;
        self.sets.push(set.clone());
        self.numbers.insert(set.clone(), number);
        number
    }

    /// Whether numbers have another meaning since this was asked last.
    pub fn renewed(&mut self) -> bool {
        std::mem::take(&mut self.renewed)
    }

    /// Whom to ask: those that work first, in the order of the configuration, or from another one on each time.
    pub fn plan(&mut self, set: u32, port: u16, now: u64) -> Plan {
        let is_host = set == self.host;
        let number = |option| if is_host { self.conf.number(option) } else { None };
        let patience = number("timeout").map_or(PATIENCE, |s| u64::from(s.clamp(1, LONGEST)) * 1000);
        let attempts = number("attempts").unwrap_or(ATTEMPTS).clamp(1, OFTENEST);
        let set = self.sets.get(set as usize).map_or(&[][..], |s| s);
        let mut servers: Vec<_> = set.iter().take(MOST).map(|ip| SocketAddr::new(*ip, port)).collect();
        if is_host && self.conf.has("rotate") && !servers.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % servers.len();
            servers.rotate_left(first);
        }
        servers.sort_by_key(|s| self.health.get(s).is_some_and(|h| now < h.resting_until));
        let mut tries: Vec<_> = (0..attempts).flat_map(|_| servers.iter().copied()).collect();
        tries.reverse();
        Plan { tries, patience }
    }

    /// A server did not answer.
    pub fn failed(&mut self, server: SocketAddr, now: u64) {
        let health = self.health.entry(server).or_default();
        // Questions that were sent together fail together: that is one failure.
        if now < health.resting_until {
            return;
        }
        if health.failures == 0 {
            tracing::info!(%server, "an upstream name server does not answer: others are asked first");
        }
        let rest = (REST << health.failures.min(5)).min(LONGEST_REST);
        health.failures += 1;
        health.resting_until = now + rest;
    }

    /// A server answered.
    pub fn answered(&mut self, server: SocketAddr) {
        if let Some(health) = self.health.get_mut(&server) {
            (health.failures, health.resting_until) = (0, 0);
        }
    }

    /// A server does not know EDNS.
    pub fn learn_plain(&mut self, server: SocketAddr, now: u64) {
        self.health.entry(server).or_default().plain_until = now + PLAIN;
    }

    /// Whether a server is known not to know EDNS.
    pub fn is_plain(&self, server: SocketAddr, now: u64) -> bool {
        self.health.get(&server).is_some_and(|h| now < h.plain_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(servers: &[&str]) -> Arc<[IpAddr]> {
        servers.iter().map(|s| s.parse().unwrap()).collect()
    }

    fn hosts(tries: &[SocketAddr]) -> Vec<String> {
        tries.iter().rev().map(|s| s.ip().to_string()).collect()
    }

    #[test]
    fn a_server_that_failed_is_asked_last_until_it_has_rested() {
        let mut servers = Servers::default();
        let (set, host) = (of(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]), HostConf::new(false));
        let number = servers.set(&set, &host, 0);
        assert_eq!(servers.set(&of(&["10.0.0.9"]), &host, 0), number + 1);
        assert_eq!(servers.set(&set, &host, 0), number);
        let plan = servers.plan(number, 53, 0);
        let once = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        assert_eq!(hosts(&plan.tries), [once, once].concat());
        assert_eq!(plan.patience, PATIENCE);
        let first = SocketAddr::new("10.0.0.1".parse().unwrap(), 53);
        servers.failed(first, 1000);
        servers.failed(first, 1001);
        assert_eq!(hosts(&servers.plan(number, 53, 1000).tries)[..3], ["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(hosts(&servers.plan(number, 53, 3000).tries)[..3], once, "after two seconds");
        servers.failed(first, 3000);
        assert_eq!(hosts(&servers.plan(number, 53, 6999).tries)[0], "10.0.0.2", "then after four");
        servers.answered(first);
        assert_eq!(hosts(&servers.plan(number, 53, 6999).tries)[..3], once);
    }

    #[test]
    fn the_hosts_options_count_for_its_own_servers() {
        let mut servers = Servers::default();
        let host = HostConf::new(false);
        let own = servers.set(&of(&["10.0.0.9"]), &host, 0);
        servers.conf = Arc::new(ResolvConf::parse(
            "nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions timeout:1 attempts:1 rotate\n",
        ));
        let set = servers.conf.servers.as_slice().into();
        servers.host = servers.number(&set);
        let number = servers.host;
        let plans: Vec<_> = (0..2).map(|_| servers.plan(number, 53, 0)).collect();
        assert!(plans.iter().all(|p| p.patience == 1000 && p.tries.len() == 2));
        assert_ne!(plans[0].tries, plans[1].tries, "each is the first in its turn");
        let plan = servers.plan(own, 53, 0);
        assert_eq!((plan.patience, plan.tries.len()), (PATIENCE, 2));
    }

    #[test]
    fn sets_without_end_take_a_bounded_room() {
        let mut servers = Servers::default();
        let host = HostConf::new(false);
        for n in 0..3000u32 {
            let set: Arc<[IpAddr]> = [IpAddr::from((n + 1).to_be_bytes())].into();
            let number = servers.set(&set, &host, 0);
            assert_eq!(servers.plan(number, 53, 0).tries[0].ip(), set[0]);
        }
        assert!(servers.sets.len() <= SETS + 1 && servers.renewed() && !servers.renewed());
    }
}
