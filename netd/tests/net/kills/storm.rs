//! Random operations on several sandboxes at once, and a netd that dies at random points, hundreds of times.

use davit_contracts::network as proto;
use davit_tests::scale::{scaled, seed};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Doomed, PORTS, endpoint};
use crate::host::{Guest, Host};

/// Kills of one storm, of which there are [`STORMS`].
const KILLS: usize = 130;
const STORMS: u64 = 4;
/// The farthest point of a life; an attach has some twenty.
const FARTHEST: u64 = 60;
const GUESTS: usize = 4;

/// What a sandbox's owner knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Attached,
    Detached,
    /// The last call was not answered.
    Unknown,
}

struct Storm {
    doomed: Doomed,
    random: SmallRng,
    guests: Vec<(Guest, Known)>,
    extra: Known,
    born: usize,
}

impl Storm {
    async fn new(seed: u64) -> Self {
        let mut doomed = Doomed::new().await;
        assert!(doomed.start(u64::MAX).await);
        doomed.host.net_create("n").await;
        doomed.host.net_create("m").await;
        let guests = (0..GUESTS).map(|n| (Guest::new(&format!("g{n}")), Known::Detached)).collect();
        let random = SmallRng::seed_from_u64(seed);
        Self { doomed, random, guests, extra: Known::Detached, born: GUESTS }
    }

    /// One life of netd: operations until it dies.
    async fn life(&mut self) {
        self.doomed.arm();
        for _ in 0..200 {
            let a = self.random.random_range(0..GUESTS);
            let b = (a + self.random.random_range(1..GUESTS)) % GUESTS;
            let (what_a, what_b, both) = (self.random.random(), self.random.random(), self.random.random());
            let first = step(&self.doomed.host, a, &self.guests[a].0, self.guests[a].1, what_a);
            let second = async {
                if both {
                    return step(&self.doomed.host, b, &self.guests[b].0, self.guests[b].1, what_b).await;
                }
                self.guests[b].1
            };
            let (now_a, now_b) = tokio::join!(first, second);
            (self.guests[a].1, self.guests[b].1) = (now_a, now_b);
            if self.random.random_range(0..6) == 0 {
                self.extra = network_step(&self.doomed.host, self.extra).await;
            }
            if self.doomed.host.has_ended() {
                break;
            }
        }
        self.doomed.disarm();
        if !self.doomed.host.has_ended() {
            self.doomed.host.kill();
        }
        if self.random.random_range(0..8) == 0 {
            self.born += 1;
            let which = self.random.random_range(0..GUESTS);
            self.guests[which] = (Guest::new(&format!("g{}", self.born)), Known::Detached);
        }
    }

    /// Starts netd again, which may die on the way a few times.
    async fn rise(&mut self) -> usize {
        let mut deaths = 0;
        if self.random.random_range(0..4) == 0 {
            for _ in 0..2 {
                self.doomed.arm();
                let n = self.random.random_range(1..12);
                if self.doomed.start(n).await {
                    self.doomed.host.kill();
                } else {
                    deaths += 1;
                }
            }
            self.doomed.disarm();
        }
        let n = self.random.random_range(1..FARTHEST);
        assert!(self.doomed.start(n).await, "it does not start: {}", self.doomed.host.log());
        deaths
    }

    /// Asserts what was acknowledged, and learns what was not.
    async fn reckon(&mut self, when: &str) {
        let sandboxes = self.doomed.sandboxes().await;
        for (guest, known) in &mut self.guests {
            let there = sandboxes.iter().any(|s| s.id == guest.id);
            match known {
                Known::Attached => assert!(there, "{when}: {} was acknowledged and is lost", guest.name),
                Known::Detached => assert!(!there, "{when}: {} was detached and is there", guest.name),
                Known::Unknown => *known = if there { Known::Attached } else { Known::Detached },
            }
        }
        let extra = self.doomed.networks().await.iter().any(|n| n.name == "extra");
        match self.extra {
            Known::Attached => assert!(extra, "{when}: a network that was acknowledged is lost"),
            Known::Detached => assert!(!extra, "{when}: a removed network is there"),
            Known::Unknown => self.extra = if extra { Known::Attached } else { Known::Detached },
        }
        let guests: Vec<&Guest> = self.guests.iter().map(|(g, _)| g).collect();
        self.doomed.agrees(&guests, when).await;
    }
}

async fn network_step(host: &Host, extra: Known) -> Known {
    let (done, after) = match extra {
        Known::Detached => {
            let request = proto::CreateNetworkRequest { name: "extra".into(), ..Default::default() };
            (host.create(request).await.is_ok(), Known::Attached)
        }
        _ => (host.net_remove("extra").await.is_ok(), Known::Detached),
    };
    if done { after } else { Known::Unknown }
}

/// One operation on one sandbox; what its owner knows afterwards.
async fn step(host: &Host, index: usize, guest: &Guest, known: Known, what: u8) -> Known {
    let id = guest.id.clone();
    if known != Known::Attached {
        let network = if what.is_multiple_of(2) { "n" } else { "m" };
        let port = format!("{}:80", PORTS[index]);
        let ports = if what.is_multiple_of(3) { vec![] } else { vec![port.as_str()] };
        let done = host.attach(guest, &[network], &ports).await;
        return if done.is_ok() { Known::Attached } else { Known::Unknown };
    }
    let answered = match what % 4 {
        0 => {
            let done = host.endpoints().detach(proto::DetachRequest { sandbox_id: id }).await;
            return if done.is_ok() { Known::Detached } else { Known::Unknown };
        }
        // Refusals (it is there already, it is not) are answers too.
        1 => {
            let request = proto::ConnectRequest { sandbox_id: id, endpoint: Some(endpoint("m")) };
            host.endpoints().connect(request).await.map(drop)
        }
        2 => {
            let network = if what > 127 { "m" } else { "n" };
            let request =
                proto::DisconnectRequest { sandbox_id: id, network: network.into(), ..Default::default() };
            host.endpoints().disconnect(request).await.map(drop)
        }
        _ => {
            let request = proto::RenameSandboxRequest { sandbox_id: id, name: format!("r{what}") };
            host.endpoints().rename(request).await.map(drop)
        }
    };
    // Connected or not, renamed or not: it stays attached.
    drop(answered);
    Known::Attached
}

async fn storm(number: u64) {
    let kills = scaled(KILLS);
    let seed = seed() ^ number << 32;
    let mut storm = Storm::new(seed).await;
    storm.doomed.host.kill();
    let mut deaths: usize = 0;
    while deaths < kills {
        deaths += storm.rise().await;
        storm.reckon(&format!("seed {seed}, after {deaths} kills")).await;
        storm.life().await;
        deaths += 1;
    }
    assert!(storm.doomed.start(u64::MAX).await);
    storm.reckon("at the end").await;
    storm.doomed.ends_clean().await;
}

#[tokio::test]
async fn the_first() {
    storm(0).await;
}

#[tokio::test]
async fn the_second() {
    storm(1).await;
}

#[tokio::test]
async fn the_third() {
    storm(2).await;
}

#[tokio::test]
async fn the_fourth() {
    storm(STORMS - 1).await;
}
