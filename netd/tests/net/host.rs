//! A private host and what lives on it; all of it is gone when the value is dropped.
//!
//! ```text
//! world (10.99.0.1, 203.0.113.9) ---- uplink (10.99.0.2) host: davit-netd ---- bridges ---- sandboxes
//! ```

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use davit_contracts::network as proto;
use davit_contracts::network::endpoints_client::EndpointsClient;
use davit_contracts::network::networks_client::NetworksClient;
use davit_contracts::{Error, client};
use davit_sys::netns;
use davit_sys::process::ProcessRef;
use tonic::transport::Channel;

/// An address of the world that is reached through NAT only.
pub const BEYOND: &str = "203.0.113.9";
/// The host's address on the uplink, and the world's.
pub const HOST: &str = "10.99.0.2";
pub const WORLD: &str = "10.99.0.1";

/// What netd writes rules with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

thread_local! {
    /// Of hosts that the calling thread makes: a test's body is run for each, see the module matrix.
    pub static BACKEND: std::cell::Cell<Backend> = const { std::cell::Cell::new(Backend::Nftables) };
}

/// How long a connection may take: longer than a SYN that is lost and sent again, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A process that holds a network namespace.
pub struct Space {
    child: Child,
}

impl Space {
    /// Runs `script` in new namespaces, then sleeps.
    pub fn new(script: &str) -> Self {
        Self::spawn(&["unshare", "--net", "--mount"], &format!("ip link set lo up; {script}"))
    }

    /// The same in a user namespace.
    pub fn rootless(script: &str) -> Self {
        let unshare = ["unshare", "--user", "--map-root-user", "--net", "--mount"];
        Self::spawn(&unshare, &format!("ip link set lo up; {script}"))
    }

    /// A namespace in which nothing was done: what a monitor makes.
    pub fn bare() -> Self {
        Self::spawn(&["unshare", "--net"], "")
    }

    /// The same, in the user namespace of another.
    pub fn beneath(host: &Space) -> Self {
        let pid = host.pid().to_string();
        Self::spawn(&["nsenter", "-t", &pid, "-U", "unshare", "--net"], "")
    }

    fn spawn(prefix: &[&str], script: &str) -> Self {
        let script = format!("set -e; {script}\necho ready; exec sleep 1000");
        let mut child = Command::new(prefix[0])
            .args(&prefix[1..])
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        Self { child }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Runs a command there and returns what it printed; panics when it fails.
    pub fn run(&self, command: &str) -> String {
        let (ok, text) = self.attempt(command);
        assert!(ok, "{command}: {text}");
        text
    }

    /// Runs a command there: whether it succeeded, and what it printed.
    pub fn attempt(&self, command: &str) -> (bool, String) {
        let pid = self.pid().to_string();
        let out =
            Command::new("nsenter").args(["-t", &pid, "-n", "-m", "sh", "-c", command]).output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The index of an interface here.
    pub fn index(&self, name: &str) -> u32 {
        self.run(&format!("ip -o link show dev {name}")).split(':').next().unwrap().parse().unwrap()
    }

    /// Does something on a thread in this namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let fd = ProcessRef::of(self.pid()).unwrap().namespace("net").unwrap();
        netns::visit(fd.as_fd(), work).unwrap()
    }

    /// Serves TCP here: tells each client its own address as seen from here.
    pub fn serve_tcp(&self, at: &str) {
        let listener = self.inside(|| TcpListener::bind(at)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().unwrap().ip();
                let _ = write!(stream, "{peer}");
            }
        });
    }

    /// Serves UDP here: tells each client its own address as seen from here.
    pub fn serve_udp(&self, at: &str) {
        let socket = self.inside(|| UdpSocket::bind(at)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
    }

    /// What a TCP server says to a client here; `None` when it cannot be reached.
    pub fn ask_tcp(&self, to: &str) -> Option<String> {
        let to: SocketAddr = to.parse().unwrap();
        let mut stream = self.inside(|| TcpStream::connect_timeout(&to, PATIENCE)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// What a UDP server says to a client here; `None` when it cannot be reached.
    pub fn ask_udp(&self, to: &str) -> Option<String> {
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = self.inside(|| UdpSocket::bind(any)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        socket.send_to(b"?", to).ok()?;
        let mut buffer = [0; 64];
        let n = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    /// What `dig` prints for a name asked of the embedded resolver.
    pub fn dig(&self, question: &str) -> String {
        self.run(&format!("dig +short +time=3 +tries=1 @127.0.0.11 {question}")).trim().to_owned()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sandbox that is attached or about to be.
pub struct Guest {
    pub id: String,
    pub name: String,
    pub space: Space,
}

impl Guest {
    pub fn new(name: &str) -> Self {
        let id = format!("{:0>64}", format!("{:x}", fnv(name)));
        Self { id: id.chars().rev().collect(), name: name.to_owned(), space: Space::bare() }
    }

    fn holder(&self) -> proto::Holder {
        let process = ProcessRef::of(self.space.pid()).unwrap();
        proto::Holder { pid: process.pid, start_time: process.start_time, ..Default::default() }
    }
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

pub struct Host {
    pub space: Space,
    pub world: Space,
    daemon: Option<Child>,
    dir: tempfile::TempDir,
    guests: std::cell::Cell<u32>,
    /// Whether it is a user namespace's.
    user: bool,
    pub backend: Backend,
}

impl Host {
    /// A host with an uplink, and a running netd.
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// Runs `script` on the host before netd starts.
    pub async fn with(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let resolv = dir.path().join("resolv.conf");
        fs::write(&resolv, format!("nameserver {WORLD}\nsearch example.test\n")).unwrap();
        let world = Space::new("sysctl -qw net.ipv4.ip_forward=0");
        let setup = format!(
            "sysctl -qw net.ipv4.ip_forward=0
             mount --bind {resolv} /etc/resolv.conf
             ip link add uplink type veth peer name eth0 netns {pid}
             ip addr add {HOST}/24 dev uplink; ip link set uplink mtu 1400 up
             ip route add default via {WORLD}; {script}",
            resolv = resolv.display(),
            pid = world.pid()
        );
        let space = Space::new(&setup);
        world.run(&format!(
            "ip addr add {WORLD}/24 dev eth0; ip link set eth0 up; ip addr add {BEYOND}/32 dev lo"
        ));
        let mut host = Self {
            space,
            world,
            daemon: None,
            dir,
            guests: std::cell::Cell::new(0),
            user: false,
            backend: BACKEND.get(),
        };
        host.start().await;
        host
    }

    /// A host in a user namespace, without a world beyond.
    pub async fn rootless() -> Self {
        Self::rootless_with("").await
    }

    /// Runs `script` on it before netd starts.
    pub async fn rootless_with(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (space, world) = (Space::rootless(script), Space::bare());
        let mut host = Self {
            space,
            world,
            daemon: None,
            dir,
            guests: std::cell::Cell::new(0),
            user: true,
            backend: BACKEND.get(),
        };
        host.start().await;
        host
    }

    pub fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("run/netd.sock")
    }

    /// Where the daemons keep what ends with the machine.
    pub fn run_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("run")
    }

    /// Where netd looks for its configuration.
    pub fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("config")
    }

    /// netd on this host, not started yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.space.pid().to_string()]);
        if self.user {
            command.arg("-U").env("DAVIT_ROOTLESS", "1");
        }
        command
            .args(["-n", "-m", env!("CARGO_BIN_EXE_davit-netd")])
            .env("DAVIT_STATE_DIR", self.dir.path().join("state"))
            .env("DAVIT_RUN_DIR", self.dir.path().join("run"))
            .env("DAVIT_CONFIG_DIR", self.config())
            .stdin(Stdio::null());
        self.choose_backend(&mut command);
        command
    }

    /// Writes netd's configuration; the variant of iptables is the one that stands first in the path.
    fn choose_backend(&self, command: &mut Command) {
        let variant = match self.backend {
            Backend::Nftables => return,
            Backend::IptablesNft => "nft",
            Backend::IptablesLegacy => "legacy",
        };
        let (config, bin) = (self.dir.path().join("config"), self.dir.path().join("bin"));
        fs::create_dir_all(&config).unwrap();
        fs::create_dir_all(&bin).unwrap();
        fs::write(config.join("netd.toml"), "firewall = \"iptables\"\n").unwrap();
        for name in ["iptables", "ip6tables"] {
            for end in ["", "-restore"] {
                let to = format!("/usr/sbin/{name}-{variant}{end}");
                let _ = std::os::unix::fs::symlink(to, bin.join(format!("{name}{end}")));
            }
        }
        command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    }

    /// Takes away all rules, as a firewall service does before it loads its own.
    pub fn flush_rules(&self) {
        self.space.run(match self.backend {
            Backend::IptablesLegacy => {
                "for t in filter nat raw; do iptables-legacy -t $t -F; iptables-legacy -t $t -X; done; nft flush ruleset"
            }
            _ => "nft flush ruleset",
        });
    }

    /// Starts netd and waits until it answers.
    pub async fn start(&mut self) {
        assert!(self.try_start(&[]).await, "netd ended: {}", self.log());
    }

    /// Starts netd with more in its environment and waits until it answers, or ends: false.
    pub async fn try_start(&mut self, env: &[(&str, &str)]) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = self.command();
        command.env("DAVIT_LOG", "debug").envs(env.iter().copied()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while client::connect(&self.socket()).await.is_err() {
            if self.has_ended() {
                return false;
            }
            assert!(Instant::now() < until, "netd does not answer: {}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }

    /// Whether netd is no more.
    pub fn has_ended(&mut self) -> bool {
        self.daemon.as_mut().is_none_or(|d| d.try_wait().unwrap().is_some())
    }

    /// What netd's descriptors are: sockets, namespaces, the rest; sorted, without numbers.
    pub fn descriptors(&self) -> Vec<String> {
        let folder = format!("/proc/{}/fd", self.daemon.as_ref().unwrap().id());
        let links = fs::read_dir(folder).unwrap().filter_map(|e| fs::read_link(e.unwrap().path()).ok());
        let mut kinds: Vec<String> =
            links.map(|l| l.to_string_lossy().split(":[").next().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    }

    /// Has netd open at most this many more descriptors than it has now.
    pub fn leave_descriptors(&self, more: usize) {
        let limit = format!("--nofile={}:4096", self.descriptors().len() + more);
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    }

    /// A file of this host's own folder.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// kill -9.
    /// Stops it where it is: it serves nobody any more.
    pub fn pause(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
    }

    /// Ends it at once, for who cannot have it to himself; [`Host::kill`] is still to come.
    pub fn end(&self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.as_ref().unwrap().id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// SIGTERM; waits for a clean end.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(daemon.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(daemon.wait().unwrap().success(), "{}", self.log());
    }

    pub fn networks(&self) -> NetworksClient<Channel> {
        NetworksClient::new(client::lazy(&self.socket()))
    }

    pub fn endpoints(&self) -> EndpointsClient<Channel> {
        EndpointsClient::new(client::lazy(&self.socket()))
    }

    /// `davit net create NAME`.
    pub async fn net_create(&self, name: &str) -> proto::Network {
        let request = proto::CreateNetworkRequest { name: name.into(), ..Default::default() };
        self.create(request).await.unwrap()
    }

    pub async fn create(&self, request: proto::CreateNetworkRequest) -> Result<proto::Network, Error> {
        self.networks().create(request).await.map(tonic::Response::into_inner).map_err(Error::from)
    }

    pub async fn inspect(&self, name: &str) -> proto::Network {
        let request = proto::InspectNetworkRequest { name: name.into() };
        self.networks().inspect(request).await.unwrap().into_inner()
    }

    /// Waits until something holds.
    pub async fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(5);
        while !holds() {
            assert!(Instant::now() < until, "not so: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn net_remove(&self, name: &str) -> Result<(), Error> {
        let request = proto::RemoveNetworkRequest { name: name.into(), force: false };
        self.networks().remove(request).await.map(drop).map_err(Error::from)
    }

    /// A guest attached to networks, with ports as "8080:80/tcp", "127.0.0.1:8080:80/udp" or "[::1]:8080:80".
    pub async fn guest(&self, name: &str, networks: &[&str], ports: &[&str]) -> Guest {
        let guest = Guest::new(&format!("{name}-{}", self.guests.replace(self.guests.get() + 1)));
        let guest = Guest { name: name.to_owned(), ..guest };
        self.attach(&guest, networks, ports).await.unwrap();
        guest
    }

    pub async fn attach(
        &self,
        guest: &Guest,
        networks: &[&str],
        ports: &[&str],
    ) -> Result<proto::AttachResponse, Error> {
        let endpoint = |n: &&str| proto::EndpointSpec { network: (*n).into(), ..Default::default() };
        let request = Self::request(guest, networks.iter().map(endpoint).collect(), ports);
        self.attach_request(request).await
    }

    pub fn request(
        guest: &Guest,
        endpoints: Vec<proto::EndpointSpec>,
        ports: &[&str],
    ) -> proto::AttachRequest {
        proto::AttachRequest {
            sandbox_id: guest.id.clone(),
            holder: Some(guest.holder()),
            name: guest.name.clone(),
            hostname: format!("{}-host", guest.name),
            endpoints,
            ports: ports.iter().map(|p| port(p)).collect(),
            ..Default::default()
        }
    }

    pub async fn attach_request(
        &self,
        request: proto::AttachRequest,
    ) -> Result<proto::AttachResponse, Error> {
        self.endpoints().attach(request).await.map(tonic::Response::into_inner).map_err(Error::from)
    }

    pub async fn detach(&self, guest: &Guest) {
        let request = proto::DetachRequest { sandbox_id: guest.id.clone() };
        self.endpoints().detach(request).await.unwrap();
    }

    /// Interfaces of the host that netd makes, and its tables; but for what keeps strangers out, which stays for as long as
    /// the host forwards.
    pub fn traces(&self) -> Vec<String> {
        let links = self.space.run("ip -o link");
        let mut found: Vec<String> = links
            .lines()
            .filter_map(|l| l.split(": ").nth(1))
            .filter(|name| name.starts_with("dv"))
            .map(|name| name.split('@').next().unwrap().to_owned())
            .collect();
        found.extend(
            self.space
                .run("nft list tables")
                .lines()
                .filter(|l| l.contains("davit") && !l.contains("-guard"))
                .map(str::to_owned),
        );
        if self.backend != Backend::Nftables {
            let saved = "iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; ip6tables-legacy-save";
            let (_, text) = self.space.attempt(saved);
            found.extend(
                text.lines().filter(|l| l.contains("DAVIT-") && !l.contains("-GUARD")).map(str::to_owned),
            );
        }
        found
    }

    /// Waits until nothing of netd is left on the host.
    pub async fn becomes_clean(&self) {
        let until = Instant::now() + Duration::from_secs(5);
        while !self.traces().is_empty() {
            assert!(Instant::now() < until, "left: {:?}\n{}", self.traces(), self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing of netd is left on the host, and all packet rules are as they were.
    pub async fn becomes_clean_of(&self, before: &str) {
        let rules = || self.space.run("nft list ruleset; iptables-legacy-save 2>/dev/null || true");
        let counted = |text: &str| {
            crate::strangers::unguarded(text)
                .lines()
                .filter(|l| !l.contains("counter") && !l.contains('[') && !l.starts_with('#'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let until = Instant::now() + Duration::from_secs(5);
        while counted(&rules()) != counted(before) {
            assert!(Instant::now() < until, "left: {}\n{}", rules(), self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("netd's log:\n{}", self.log());
        }
    }
}

fn port(text: &str) -> proto::PortMapping {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let parts: Vec<&str> = rest.rsplitn(3, ':').collect();
    proto::PortMapping {
        container_port: parts[0].parse().unwrap(),
        host_port: parts.get(1).map_or(0, |p| p.parse().unwrap()),
        host_ip: parts.get(2).map_or_else(String::new, |ip| ip.trim_matches(['[', ']']).to_owned()),
        protocol: protocol.into(),
        host_port_end: 0,
    }
}

/// The address of an endpoint without its prefix length.
pub fn ip(response: &proto::AttachResponse, index: usize) -> String {
    response.endpoints[index].ip.split('/').next().unwrap().to_owned()
}
