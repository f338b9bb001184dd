//! The engines that wire a namespace, each on a host of its own, as whoever starts containers calls them: netd over its
//! socket, netavark and the plugins as programs with JSON on their standard input.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use davit_contracts::client;
use davit_contracts::network as proto;
use davit_contracts::network::endpoints_client::EndpointsClient;
use davit_contracts::network::networks_client::NetworksClient;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::space::{Space, text};

const NETAVARK: &str = "/usr/lib/podman/netavark";
const PLUGINS: &str = "/usr/lib/cni";

/// What wires namespaces.
pub trait Engine {
    /// Its name in reports.
    fn name(&self) -> &'static str;
    /// Wires a namespace and publishes ports (host port, container port); answers its address.
    fn attach(&mut self, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<String>;
    /// Undoes it.
    fn detach(&mut self, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<()>;
    /// Microseconds that each stage of the last attach took, where the engine tells.
    fn stages(&self) -> BTreeMap<String, u32> {
        BTreeMap::new()
    }
}

/// The host of an engine: an uplink to a world beyond.
pub fn host(world: &Space) -> anyhow::Result<Space> {
    let host = Space::new(
        true,
        &format!(
            "ip link set lo up; ip link add uplink type veth peer name eth0 netns {}
             ip addr add 10.99.0.2/24 dev uplink; ip link set uplink up; ip route add default via 10.99.0.1
             mount -t tmpfs none /run; mount -t tmpfs none /var/lib; mkdir -p /run/lock",
            world.pid()
        ),
    )?;
    world.run("ip link set lo up; ip addr add 10.99.0.1/24 dev eth0; ip link set eth0 up; ip addr add 203.0.113.9/32 dev lo")?;
    Ok(host)
}

/// Versions of all that takes part.
pub fn versions(binaries: &Path) -> Vec<String> {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let all = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&all).lines().next()?.trim().to_owned())
    };
    let davit = binaries.join("davit");
    [
        said(&davit.to_string_lossy(), &["--version"]),
        said(NETAVARK, &["--version"]),
        said(&format!("{PLUGINS}/bridge"), &[]),
        said("iperf3", &["--version"]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// davit-netd with one bridge network.
pub struct Netd {
    daemon: Child,
    runtime: Runtime,
    networks: NetworksClient<tonic::transport::Channel>,
    endpoints: EndpointsClient<tonic::transport::Channel>,
    stages: BTreeMap<String, u32>,
    _host: Space,
    _dirs: [tempfile::TempDir; 2],
}

impl Netd {
    /// Starts it.
    pub fn start(binaries: &Path, host: Space, mtu: Option<u32>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // In memory, as /run is, where the others have theirs too.
        let run = tempfile::tempdir_in("/dev/shm")?;
        let mut command = host.command(&binaries.join("davit-netd").to_string_lossy());
        for (key, path) in [
            ("DAVIT_STATE_DIR", dir.path().join("state")),
            ("DAVIT_RUN_DIR", run.path().join("run")),
            ("DAVIT_CONFIG_DIR", dir.path().join("config")),
        ] {
            command.env(key, path);
        }
        command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
        let log = fs::File::create(dir.path().join("log"))?;
        let daemon = command.stderr(log).spawn().context("cannot start davit-netd")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = run.path().join("run/netd.sock");
        let deadline = Instant::now() + Duration::from_secs(20);
        let channel = loop {
            match runtime.block_on(client::connect(&socket)) {
                Ok(channel) => break channel,
                Err(e) => ensure!(Instant::now() < deadline, "netd does not answer: {e}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let options = mtu.map(|m| ("com.docker.network.driver.mtu".to_owned(), m.to_string()));
        let subnets = vec![proto::Subnet { subnet: "10.88.0.0/16".into(), ..Default::default() }];
        let request = proto::CreateNetworkRequest {
            name: "bench".into(),
            subnets,
            options: options.into_iter().collect(),
            ..Default::default()
        };
        let mut networks = NetworksClient::new(channel.clone());
        runtime.block_on(networks.create(request))?;
        let (endpoints, stages) = (EndpointsClient::new(channel), BTreeMap::new());
        Ok(Self { daemon, runtime, networks, endpoints, stages, _host: host, _dirs: [dir, run] })
    }

    /// The daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// How long a check takes that finds nothing, in milliseconds.
    pub fn check(&mut self) -> anyhow::Result<f64> {
        let since = Instant::now();
        let found = self.runtime.block_on(self.networks.check(proto::CheckRequest::default()))?.into_inner();
        let took = since.elapsed().as_secs_f64() * 1e3;
        ensure!(found.drifts.is_empty(), "a check tells {:?}", found.drifts);
        Ok(took)
    }

    /// Kilobytes that are resident.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }
}

impl Engine for Netd {
    fn name(&self) -> &'static str {
        "davit"
    }

    fn attach(&mut self, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<String> {
        let port = |(host, container): &(u16, u16)| proto::PortMapping {
            host_port: u32::from(*host),
            container_port: u32::from(*container),
            protocol: "tcp".into(),
            ..Default::default()
        };
        let request = proto::AttachRequest {
            sandbox_id: format!("{id:064x}"),
            holder: Some(proto::Holder {
                pid: i32::try_from(space.pid())?,
                start_time: space.start_time()?,
                ..Default::default()
            }),
            name: format!("c{id}"),
            endpoints: vec![proto::EndpointSpec { network: "bench".into(), ..Default::default() }],
            ports: ports.iter().map(port).collect(),
            ..Default::default()
        };
        let answer = self.runtime.block_on(self.endpoints.attach(request))?.into_inner();
        self.stages = answer.stage_us.into_iter().collect();
        Ok(answer.endpoints[0].ip.split('/').next().unwrap_or_default().to_owned())
    }

    fn detach(&mut self, id: usize, _: &Space, _: &[(u16, u16)]) -> anyhow::Result<()> {
        let request = proto::DetachRequest { sandbox_id: format!("{id:064x}") };
        self.runtime.block_on(self.endpoints.detach(request))?;
        Ok(())
    }

    fn stages(&self) -> BTreeMap<String, u32> {
        self.stages.clone()
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Runs a program in a host with JSON on its standard input.
fn feed(
    host: &Space,
    program: &str,
    args: &[&str],
    env: &[(&str, String)],
    input: &Value,
) -> anyhow::Result<String> {
    let mut child = host
        .command(program)
        .args(args)
        .envs(env.iter().map(|(k, v)| (*k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("its input is a pipe")?.write_all(input.to_string().as_bytes())?;
    text(&child.wait_with_output()?).with_context(|| format!("{program} {}", args.join(" ")))
}

/// netavark, without aardvark-dns; its caller chooses addresses.
pub struct Netavark {
    host: Space,
}

impl Netavark {
    /// Is it installed?
    pub fn start(host: Space) -> anyhow::Result<Self> {
        ensure!(Path::new(NETAVARK).exists(), "{NETAVARK} is not installed");
        host.run("mkdir -p /run/netavark")?;
        Ok(Self { host })
    }

    fn call(&self, what: &str, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<String> {
        let address = format!("10.89.{}.{}", (id + 2) / 256, (id + 2) % 256);
        let ports: Vec<Value> = ports
            .iter()
            .map(|(host, container)| {
                json!({"container_port": container, "host_ip": "", "host_port": host, "protocol": "tcp", "range": 1})
            })
            .collect();
        let input = json!({
            "container_id": format!("{id:064x}"), "container_name": format!("c{id}"), "port_mappings": ports,
            "networks": {"bench": {"interface_name": "eth0", "static_ips": [address], "aliases": []}},
            "network_info": {"bench": {
                "name": "bench", "id": "b".repeat(64), "driver": "bridge", "network_interface": "podman9",
                "subnets": [{"subnet": "10.89.0.0/16", "gateway": "10.89.0.1"}], "ipv6_enabled": false,
                "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"}
            }}
        });
        let path = space.path();
        feed(
            &self.host,
            NETAVARK,
            &["--config", "/run/netavark", what, &path.to_string_lossy()],
            &[],
            &input,
        )?;
        Ok(address)
    }
}

impl Engine for Netavark {
    fn name(&self) -> &'static str {
        "netavark"
    }

    fn attach(&mut self, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<String> {
        self.call("setup", id, space, ports)
    }

    fn detach(&mut self, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<()> {
        self.call("teardown", id, space, ports).map(drop)
    }
}

/// The plugins bridge (with host-local) and, where ports are published, portmap.
pub struct Plugins {
    host: Space,
    results: std::collections::HashMap<usize, Value>,
}

impl Plugins {
    /// Are they installed?
    pub fn start(host: Space) -> anyhow::Result<Self> {
        ensure!(Path::new(PLUGINS).join("portmap").exists(), "{PLUGINS}/portmap is not installed");
        Ok(Self { host, results: std::collections::HashMap::new() })
    }

    fn call(
        &self,
        plugin: &str,
        verb: &str,
        id: usize,
        space: &Space,
        config: &Value,
    ) -> anyhow::Result<String> {
        let env = [
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", format!("c{id}")),
            ("CNI_NETNS", space.path().to_string_lossy().into_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", PLUGINS.to_owned()),
        ];
        let program: PathBuf = Path::new(PLUGINS).join(plugin);
        feed(&self.host, &program.to_string_lossy(), &[], &env, config)
    }
}

fn bridge_config() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni9", "isGateway": true, "ipMasq": true,
        "hairpinMode": true, "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.90.0.0/16"}]]}
    })
}

fn portmap_config(ports: &[(u16, u16)], result: &Value) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(host, container)| json!({"hostPort": host, "containerPort": container, "protocol": "tcp"}))
        .collect();
    json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "portmap", "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": ports}, "prevResult": result
    })
}

impl Engine for Plugins {
    fn name(&self) -> &'static str {
        "CNI bridge + portmap"
    }

    fn attach(&mut self, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<String> {
        let result: Value =
            serde_json::from_str(&self.call("bridge", "ADD", id, space, &bridge_config())?)?;
        let address = result["ips"][0]["address"].as_str().context("no address")?;
        let address = address.split('/').next().unwrap_or_default().to_owned();
        if !ports.is_empty() {
            self.call("portmap", "ADD", id, space, &portmap_config(ports, &result))?;
        }
        self.results.insert(id, result);
        Ok(address)
    }

    fn detach(&mut self, id: usize, space: &Space, ports: &[(u16, u16)]) -> anyhow::Result<()> {
        if !ports.is_empty() {
            let result = self.results.remove(&id).unwrap_or(Value::Null);
            self.call("portmap", "DEL", id, space, &portmap_config(ports, &result))?;
        }
        self.call("bridge", "DEL", id, space, &bridge_config()).map(drop)
    }
}
