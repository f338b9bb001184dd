//! netd killed at each of its points in turn, and at random ones under load: what was acknowledged works, what was not is
//! gone, and nothing is left of it.

mod points;
mod storm;

use std::collections::BTreeSet;

use davit_contracts::network as proto;

use crate::host::{Guest, Host};

/// A host whose netd dies at the n-th point that it passes while it is armed.
struct Doomed {
    host: Host,
    /// How many descriptors a netd has that has done nothing but answer a client.
    fresh: usize,
}

impl Doomed {
    async fn new() -> Self {
        let mut host = Host::new().await;
        // With the connection of a client that has been answered.
        let mut client = host.endpoints();
        client.list(proto::ListSandboxesRequest {}).await.unwrap();
        let fresh = host.descriptors().len();
        host.kill();
        Self { host, fresh }
    }

    fn switch(&self) -> std::path::PathBuf {
        self.host.file("armed")
    }

    fn arm(&self) {
        std::fs::write(self.switch(), "").unwrap();
    }

    /// From here on it does not die of its own. One that has taken the switch is dying, and is waited for: work behind an
    /// answer passes points of its own.
    fn disarm(&mut self) {
        if std::fs::remove_file(self.switch()).is_ok() {
            return;
        }
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !self.host.has_ended() {
            assert!(std::time::Instant::now() < until, "it took the switch and lives");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Starts netd, which dies at its n-th point. False when it has done so.
    async fn start(&mut self, n: u64) -> bool {
        let point = format!("any:{n}@{}", self.switch().display());
        self.host.try_start(&[("DAVIT_FAILPOINT", &point), ("DAVIT_LOG", "info")]).await
    }

    async fn sandboxes(&self) -> Vec<proto::Sandbox> {
        self.host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes
    }

    async fn networks(&self) -> Vec<proto::Network> {
        let request = proto::ListNetworksRequest::default();
        self.host.networks().list(request).await.unwrap().into_inner().networks
    }

    /// Asserts that kernel and records agree about everything, and that guests have what the records say and no more.
    async fn agrees(&self, guests: &[&Guest], when: &str) {
        let sandboxes = self.sandboxes().await;
        let networks = self.networks().await;
        let wanted: BTreeSet<String> = sandboxes
            .iter()
            .flat_map(|s| &s.endpoints)
            .map(|e| e.host_interface.clone())
            .chain(networks.iter().filter(|n| !n.predefined).map(|n| n.interface.clone()))
            .filter(|name| !name.is_empty())
            .collect();
        let default: Vec<_> = networks.iter().filter(|n| n.predefined).map(|n| n.interface.clone()).collect();
        let there: BTreeSet<String> =
            self.host.traces().into_iter().filter(|t| t.starts_with("dv") && !default.contains(t)).collect();
        assert_eq!(there, wanted, "{when}: interfaces\n{}", self.host.log());
        for guest in guests {
            let record = sandboxes.iter().find(|s| s.id == guest.id);
            let mut expected: Vec<String> = record.iter().flat_map(|s| &s.endpoints).map(place).collect();
            expected.sort();
            let mut found: Vec<String> = guest
                .space
                .run("ip -o -4 addr show scope global")
                .lines()
                .map(|l| l.split_whitespace().collect::<Vec<_>>())
                .map(|words| format!("{} {}", words[1], words[3]))
                .collect();
            found.sort();
            assert_eq!(found, expected, "{when}: inside {}", guest.name);
            // What an interface without a host's end is held back with.
            let limited = |s: &proto::Sandbox| {
                s.endpoints.iter().filter(|e| e.host_interface.is_empty() && e.bandwidth.is_some()).count()
            };
            let queues = guest.space.run("ip -br link show type ifb").lines().count();
            assert_eq!(queues, record.map_or(0, limited), "{when}: queues inside {}", guest.name);
            let resolves = guest.space.run("ss -Hlun").contains("127.0.0.11");
            let wired = record.is_some_and(|s| !s.endpoints.is_empty());
            assert!(resolves || !wired, "{when}: no resolver in {}", guest.name);
            assert!(!resolves || record.is_some(), "{when}: a resolver is left in {}", guest.name);
            let tables = guest.space.run("nft list tables");
            assert!(record.is_some() || tables.is_empty(), "{when}: {tables} is left in {}", guest.name);
        }
        let rules = self.host.space.run("nft list ruleset");
        for port in PORTS {
            let holds = |s: &&proto::Sandbox| s.ports.iter().any(|p| p.host_port == u32::from(port));
            let holder = sandboxes.iter().find(holds);
            // It stays reserved, and leads nowhere, while its sandbox is on no network.
            let leads = holder.is_some_and(|s| !s.endpoints.is_empty());
            assert_eq!(rules.contains(&format!("tcp . {port} :")), leads, "{when}: port {port}\n{rules}");
            let free = self.host.space.inside(|| std::net::TcpListener::bind(("0.0.0.0", port))).is_ok();
            assert_eq!(free, holder.is_none(), "{when}: port {port}");
        }
    }

    /// Removes everything and asserts that nothing is left.
    async fn ends_clean(&self) {
        for sandbox in self.sandboxes().await {
            let request = proto::DetachRequest { sandbox_id: sandbox.id };
            self.host.endpoints().detach(request).await.unwrap();
        }
        for network in self.networks().await.iter().filter(|n| !n.predefined) {
            self.host.net_remove(&network.name).await.unwrap();
        }
        self.host.becomes_clean().await;
        assert_eq!(std::fs::read_dir(self.host.file("run/network/sandboxes")).unwrap().count(), 0);
        // Connections of clients that went away may not be gone yet.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while self.host.descriptors().len() > self.fresh && std::time::Instant::now() < until {}
        assert!(self.host.descriptors().len() <= self.fresh, "{:?}", self.host.descriptors());
    }
}

/// Host ports that the tests publish.
const PORTS: [u16; 6] = [9090, 9091, 9092, 9093, 9094, 9095];

fn place(endpoint: &proto::Endpoint) -> String {
    format!("{} {}", endpoint.interface, endpoint.ip)
}

fn endpoint(network: &str) -> proto::EndpointSpec {
    proto::EndpointSpec { network: network.into(), ..Default::default() }
}
