//! The engines: each on a private host of its own, with its own daemons, storage and the same BusyBox image.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use davit_tests::command::typed;
use davit_tests::host::{Host, Running};
use davit_tests::{Ran, eventually, fixture};
use serde_json::Value;

use crate::packages::which;

/// An engine that is ready to run containers.
#[derive(Debug)]
pub struct Peer {
    /// davit, podman, ...
    pub name: &'static str,
    /// As it says itself.
    pub version: String,
    /// Runs `true` on the engine's bridge network; none when it has no network of its own.
    pub bridged: Option<Vec<String>>,
    /// Runs `true` without network.
    pub plain: Vec<String>,
    /// Starts a container that stays, up to its name; then name, image and command follow.
    pub detached: Option<Vec<String>>,
    /// Runs a command inside, up to the container's name.
    pub exec: Option<Vec<String>>,
    /// Its image's name.
    pub image: String,
    /// Lists all containers, running or not.
    pub list: Option<Vec<String>>,
    /// Shows what running containers use, once.
    pub stats: Option<Vec<String>>,
    /// Process names of its daemons, and of what it keeps for each container.
    pub daemons: &'static [&'static str],
    /// See `daemons`.
    pub monitor: Option<&'static str>,
    env: Vec<(&'static str, String)>,
    running: Vec<Running>,
    /// Last, so that daemons end before their host.
    pub host: Host,
}

impl Peer {
    fn new(name: &'static str, tmpfs: bool) -> anyhow::Result<Self> {
        let builder = Host::builder().unchecked();
        let host = if tmpfs { builder } else { builder.on_disk() }.create()?;
        Ok(Self {
            name,
            version: String::new(),
            bridged: None,
            plain: Vec::new(),
            detached: None,
            exec: None,
            image: "busybox:1".to_owned(),
            list: None,
            stats: None,
            daemons: &[],
            monitor: None,
            env: Vec::new(),
            running: Vec::new(),
            host,
        })
    }

    /// Runs one of its commands to the end; `{n}` in an argument becomes a number not used before.
    pub fn run(&self, argv: &[String], n: usize) -> Ran {
        let argv: Vec<String> = argv.iter().map(|a| a.replace("{n}", &n.to_string())).collect();
        let start = self.host.command(&argv[0]).args(&argv[1..]);
        self.env.iter().fold(start, |start, (key, value)| start.env(key, value)).start().wait()
    }

    fn must(&self, line: &str) -> anyhow::Result<Ran> {
        let ran = self.run(&words(line), 0);
        ensure!(ran.code == 0, "{}: {ran}", self.name);
        Ok(ran)
    }

    fn serve(&mut self, line: &str) {
        let argv = words(line);
        self.running.push(self.host.command(&argv[0]).args(&argv[1..]).start());
    }

    fn state(&self) -> String {
        self.host.path().join("state").to_string_lossy().into_owned()
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Sets up every engine that is installed and wanted; one that cannot be set up is reported and left out.
pub fn set_up(only: &[String], tmpfs: bool) -> anyhow::Result<Vec<Peer>> {
    type SetUp = fn(&mut Peer) -> anyhow::Result<()>;
    let known: [(&'static str, &str, SetUp); 6] = [
        ("davit", "davit", davit),
        ("podman", "podman", podman),
        ("docker", "dockerd", docker),
        ("ctr", "containerd", ctr),
        ("crun", "crun", crun),
        ("runc", "runc", runc),
    ];
    let mut peers = Vec::new();
    for (name, program, set_up) in known {
        if !only.is_empty() && !only.iter().any(|o| o == name) {
            continue;
        }
        if name != "davit" && !which(program) {
            println!("{name}: not installed");
            continue;
        }
        let mut peer = Peer::new(name, tmpfs)?;
        match set_up(&mut peer) {
            Ok(()) => {
                println!("{name}: {}", peer.version);
                peers.push(peer);
            }
            Err(error) if name == "davit" => return Err(error),
            Err(error) => println!("{name}: cannot be set up: {error:#}"),
        }
    }
    Ok(peers)
}

fn davit(peer: &mut Peer) -> anyhow::Result<()> {
    peer.must(&format!("davit image load -i {}", fixture::busybox().archive()))?;
    let version = peer.must("davit --version")?.text().to_owned();
    peer.version = version;
    peer.bridged = Some(words("davit run --rm busybox:1 true"));
    peer.plain = words("davit run --rm --net none busybox:1 true");
    peer.detached = Some(words("davit run -d --net none --name"));
    peer.exec = Some(words("davit exec"));
    peer.list = Some(words("davit ps -a"));
    peer.stats = Some(words("davit stats --no-stream"));
    peer.daemons = &["davit-supervisor", "davit-storaged", "davit-netd", "davit-runtimed"];
    peer.monitor = Some("davit-monitor");
    Ok(())
}

fn podman(peer: &mut Peer) -> anyhow::Result<()> {
    let state = peer.state();
    let conf = peer.host.work("containers.conf");
    // Without it podman asks for more files and processes than an unprivileged root may have.
    let limits = "default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
    fs::write(
        &conf,
        format!("[containers]\n{limits}[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n"),
    )?;
    let storage = peer.host.work("storage.conf");
    let roots = format!("graphroot = \"{state}/podman\"\nrunroot = \"/run/containers/storage\"\n");
    fs::write(&storage, format!("[storage]\ndriver = \"overlay\"\n{roots}"))?;
    peer.env.push(("CONTAINERS_CONF", conf.to_string_lossy().into_owned()));
    peer.env.push(("CONTAINERS_STORAGE_CONF", storage.to_string_lossy().into_owned()));
    peer.must(&format!("podman load -q -i {}", fixture::busybox().archive()))?;
    let version = peer.must("podman --version")?.text().to_owned();
    peer.version = version;
    let image = "localhost/busybox:1";
    let found = peer.must("podman images --format {{.Repository}}:{{.Tag}}")?;
    let image = found.stdout.lines().find(|l| l.ends_with("busybox:1")).unwrap_or(image).to_owned();
    peer.bridged = Some(words(&format!("podman run --rm {image} true")));
    peer.plain = words(&format!("podman run --rm --network none {image} true"));
    peer.detached = Some(words("podman run -d --network none --name"));
    peer.exec = Some(words("podman exec"));
    peer.list = Some(words("podman ps -a"));
    peer.stats = Some(words("podman stats --no-stream"));
    peer.image.clone_from(&image);
    peer.monitor = Some("conmon");
    Ok(())
}

fn docker(peer: &mut Peer) -> anyhow::Result<()> {
    let state = peer.state();
    peer.env.push(("DOCKER_HOST", "unix:///run/docker.sock".to_owned()));
    peer.serve(&format!(
        "dockerd --data-root {state}/docker --exec-root /run/docker --pidfile /run/docker.pid -H unix:///run/docker.sock"
    ));
    answers(peer, "docker version --format {{.Server.Version}}");
    let version = peer.must("docker version --format {{.Server.Version}}")?;
    peer.version = format!("docker {}", version.text());
    peer.must(&format!("docker load -q -i {}", fixture::busybox().archive()))?;
    peer.bridged = Some(words("docker run --rm busybox:1 true"));
    peer.plain = words("docker run --rm --network none busybox:1 true");
    peer.detached = Some(words("docker run -d --network none --name"));
    peer.exec = Some(words("docker exec"));
    peer.list = Some(words("docker ps -a"));
    peer.stats = Some(words("docker stats --no-stream"));
    peer.daemons = &["dockerd", "containerd"];
    peer.monitor = Some("containerd-shim");
    Ok(())
}

fn ctr(peer: &mut Peer) -> anyhow::Result<()> {
    let state = peer.state();
    let conf = peer.host.work("containerd.toml");
    let grpc = "[grpc]\naddress = \"/run/containerd/containerd.sock\"\n";
    let off = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
    fs::write(
        &conf,
        format!("version = 2\nroot = \"{state}/containerd\"\nstate = \"/run/containerd\"\n{off}{grpc}"),
    )?;
    peer.serve(&format!("containerd --config {} --log-level error", conf.display()));
    answers(peer, "ctr version");
    peer.must(&format!("ctr image import {}", fixture::busybox().archive()))?;
    let version = peer.must("ctr --version")?;
    let version = version.text().to_owned();
    peer.version = version;
    peer.plain = words("ctr run --rm docker.io/library/busybox:1 bench{n} true");
    peer.daemons = &["containerd"];
    Ok(())
}

fn crun(peer: &mut Peer) -> anyhow::Result<()> {
    // crun 1.8 refuses a hybrid hierarchy; without the v2 mount it sees plain v1.
    let hybrid = "/sys/fs/cgroup/unified";
    if peer.host.sh(&format!("mountpoint -q {hybrid}")).code == 0 {
        peer.must(&format!("umount {hybrid}"))?;
    }
    oci_runtime(peer, "crun")
}

fn runc(peer: &mut Peer) -> anyhow::Result<()> {
    oci_runtime(peer, "runc")
}

/// A bare OCI runtime: an unpacked bundle, and `run` of it.
fn oci_runtime(peer: &mut Peer, program: &str) -> anyhow::Result<()> {
    let bundle = Path::new(&peer.state()).join("bundle").to_string_lossy().into_owned();
    let tar = fixture::busybox().rootfs_tar();
    let script = format!(
        "mkdir -p {bundle}/rootfs && tar -xf {tar} -C {bundle}/rootfs && cd {bundle} && {program} spec"
    );
    let ran = peer.host.sh(&script);
    ensure!(ran.code == 0, "{ran}");
    let config = Path::new(&peer.state()).join("bundle/config.json");
    let text = peer.host.sh(&format!("cat {}", config.display())).stdout;
    let mut spec: Value = serde_json::from_str(&text).context("the runtime's own example config")?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = vec!["true"].into();
    spec["root"]["readonly"] = false.into();
    if let Some(limits) = spec["process"].get_mut("rlimits") {
        *limits = Value::Array(Vec::new());
    }
    let write =
        peer.host.command("tee").args([&config.to_string_lossy()]).stdin(spec.to_string()).start().wait();
    ensure!(write.code == 0, "{write}");
    let version =
        peer.must(&format!("{program} --version"))?.text().lines().next().unwrap_or_default().to_owned();
    peer.version = version;
    peer.plain = words(&format!("{program} run --bundle {bundle} bench{{n}}"));
    Ok(())
}

/// Waits until a daemon answers a client.
fn answers(peer: &Peer, line: &str) {
    eventually(&format!("`{}` works", typed(&words(line))), || {
        let ran = peer.run(&words(line), 0);
        if ran.code == 0 {
            return Ok(());
        }
        let daemon = peer.running.last().map(|r| r.so_far().stderr).unwrap_or_default();
        let last: Vec<&str> = daemon.lines().rev().take(10).collect();
        Err(format!("{ran}\n{}", last.join("\n")))
    });
}
