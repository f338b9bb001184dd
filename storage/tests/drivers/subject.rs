//! What the contracts are held against.

use davit_contracts::containerd::client::Snapshotter;
use davit_contracts::containerd::snapshots::Info;

use super::containerd::Containerd;
use super::host::Host;

/// A storaged with one of its drivers.
pub struct Driver {
    pub host: Host,
    pub name: &'static str,
    /// Where a proxy's snapshots really are.
    pub behind: Option<Snapshotter>,
    pub containerd: Option<Containerd>,
    _other: Option<Host>,
}

impl Driver {
    pub async fn local(name: &'static str) -> Self {
        let host = Host::with_config(&format!("driver = \"{name}\"")).await;
        Self { host, name, behind: None, containerd: None, _other: None }
    }

    /// The proxy driver over one of containerd's own snapshotters.
    pub async fn of_containerd(snapshotter: &str) -> Self {
        let containerd = Containerd::start(None).await;
        let host = Host::with_config(&proxy(&containerd.socket(), snapshotter)).await;
        let behind = Some(containerd.snapshotter(snapshotter, "davit"));
        Self { host, name: "proxy", behind, containerd: Some(containerd), _other: None }
    }

    /// The proxy driver over what another storaged serves.
    pub async fn of_davit(form: &str) -> Self {
        let other = Host::with_config(&format!("driver = \"{form}\"")).await;
        let socket = other.tmp.path().join("run/snapshots.sock");
        let host = Host::with_config(&proxy(&socket, "")).await;
        let behind = Some(Snapshotter::lazy(&socket, "", "davit").unwrap());
        Self { host, name: "proxy", behind, containerd: None, _other: Some(other) }
    }

    /// What a proxy keeps on the other side.
    pub async fn behind(&self) -> Vec<Info> {
        match &self.behind {
            Some(snapshotter) => snapshotter.list(&[]).await.unwrap(),
            None => Vec::new(),
        }
    }
}

pub fn proxy(socket: &std::path::Path, snapshotter: &str) -> String {
    format!(
        "driver = \"proxy\"\n[proxy]\naddress = \"{}\"\nsnapshotter = \"{snapshotter}\"\n",
        socket.display()
    )
}

/// A socket that speaks containerd's snapshots service.
pub struct Snapshots {
    pub client: Snapshotter,
    server: Server,
}

enum Server {
    Containerd(Containerd),
    Davit(Host),
}

impl Snapshots {
    pub async fn of_containerd(name: &str) -> Self {
        let containerd = Containerd::start(None).await;
        Self { client: containerd.snapshotter(name, "tests"), server: Server::Containerd(containerd) }
    }

    pub async fn of_davit(form: &str) -> Self {
        let host = Host::with_config(&format!("driver = \"{form}\"")).await;
        let socket = host.tmp.path().join("run/snapshots.sock");
        Self { client: Snapshotter::lazy(&socket, "davit", "tests").unwrap(), server: Server::Davit(host) }
    }

    /// kill -9, and again.
    pub async fn restart(&mut self) {
        match &mut self.server {
            Server::Containerd(c) => c.restart().await,
            Server::Davit(h) => {
                h.kill();
                h.start().await;
            }
        }
    }
}
