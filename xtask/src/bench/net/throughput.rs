//! iperf3 through what netd makes and through what a person would make by hand: a bridge, veth pairs, two NAT rules.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::engines::{Engine, Netd, host};
use super::space::Space;

/// One way.
#[derive(Debug, Serialize)]
pub struct Line {
    way: &'static str,
    /// Gigabits a second.
    davit: f64,
    by_hand: f64,
    ratio: Ratio,
    /// Of two that are made by hand.
    by_hand_twice: Ratio,
    /// How often each had a turn.
    turns: usize,
}

/// How long a stream flows before the other one has its turn: the machine is not the same from one second to the next.
const TURN: Duration = Duration::from_millis(100);
/// Until what was under way has arrived.
const REST: Duration = Duration::from_millis(5);
/// How often before the streams are begun anew.
const TURNS: usize = 30;
/// How often that, for each second asked for.
const CONNECTIONS: usize = 2;
const PUBLISHED: u16 = 8201;
const IPERF: u16 = 5201;

/// Two containers on a bridge of a host, and the world beyond it.
struct Setting {
    world: Space,
    a: Space,
    b: Space,
    b_address: String,
    _engine: Option<Netd>,
    _host: Option<Space>,
}

fn ours(binaries: &Path) -> anyhow::Result<Setting> {
    let world = Space::new(false, "")?;
    let mut netd = Netd::start(binaries, host(&world)?, None)?;
    let (a, b) = (Space::new(false, "")?, Space::new(false, "")?);
    netd.attach(1, &a, &[])?;
    let b_address = netd.attach(2, &b, &[(PUBLISHED, IPERF)])?;
    Ok(Setting { world, a, b, b_address, _engine: Some(netd), _host: None })
}

fn by_hand() -> anyhow::Result<Setting> {
    let world = Space::new(false, "")?;
    let host = host(&world)?;
    let (a, b) = (Space::new(false, "")?, Space::new(false, "")?);
    host.run("ip link add br0 type bridge; ip addr add 10.87.0.1/16 dev br0; ip link set br0 up; sysctl -qw net.ipv4.ip_forward=1")?;
    for (name, space, address) in [("va", &a, "10.87.0.2"), ("vb", &b, "10.87.0.3")] {
        host.run(&format!(
            "ip link add {name} type veth peer name eth0 netns {}; ip link set {name} master br0 up",
            space.pid()
        ))?;
        space.run(&format!(
            "ip link set lo up; ip addr add {address}/16 dev eth0; ip link set eth0 up; ip route add default via 10.87.0.1"
        ))?;
    }
    host.run(&format!(
        "nft -f - <<END
table ip hand {{
  chain pre {{ type nat hook prerouting priority -100; tcp dport {PUBLISHED} fib daddr type local dnat to 10.87.0.3:{IPERF}; }}
  chain post {{ type nat hook postrouting priority 100; ip saddr 10.87.0.0/16 oifname != \"br0\" masquerade; }}
}}
END"
    ))?;
    Ok(Setting { world, a, b, b_address: "10.87.0.3".into(), _engine: None, _host: Some(host) })
}

/// iperf3 between two namespaces; it flows only while it has its turn.
struct Stream<'a> {
    client: Child,
    server: Child,
    receiver: &'a Space,
}

impl<'a> Stream<'a> {
    fn start(from: &Space, receiver: &'a Space, to: &str, port: u16) -> anyhow::Result<Self> {
        let begin = |space: &Space, args: &[&str]| {
            let mut command = space.command("iperf3");
            command
                .args(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start iperf3")
        };
        let server = begin(receiver, &["-s", "-p", &IPERF.to_string()])?;
        let port = port.to_string();
        let mut args = vec!["-c", to, "-p", &port, "-t", "86400"];
        // Where the scheduler puts the two ends decides more than the rules do: each gets a CPU of its own.
        if thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
            args.extend(["-A", "0,1"]);
        }
        let mut stream = Self { client: begin(from, &args)?, server, receiver };
        let deadline = Instant::now() + Duration::from_secs(20);
        let before = stream.received()?;
        while stream.received()? < before + 100_000_000 {
            ensure!(Instant::now() < deadline, "nothing flows to {to}");
            // It ends at once when the server does not listen yet.
            if stream.client.try_wait()?.is_some() {
                stream.client = begin(from, &args)?;
            }
            thread::sleep(Duration::from_millis(20));
        }
        stream.signal(Signal::SIGSTOP)?;
        Ok(stream)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.client.id())?), signal)?)
    }

    /// Bytes that have come to the receiver by `eth0`.
    fn received(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/net/dev", self.receiver.pid());
        let text = fs::read_to_string(path)?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix("eth0:")).context("no eth0")?;
        Ok(line.split_whitespace().next().context("no number")?.parse()?)
    }

    /// Lets it flow for a turn; gigabits a second.
    fn turn(&self) -> anyhow::Result<f64> {
        let before = self.received()?;
        let begun = Instant::now();
        self.signal(Signal::SIGCONT)?;
        thread::sleep(TURN);
        self.signal(Signal::SIGSTOP)?;
        let took = begun.elapsed();
        thread::sleep(REST);
        let bytes = u32::try_from(self.received()? - before)?;
        Ok(f64::from(bytes) * 8e-9 / took.as_secs_f64())
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn stream<'a>(setting: &'a Setting, way: &str) -> anyhow::Result<Stream<'a>> {
    let Setting { world, a, b, b_address, .. } = setting;
    match way {
        "container to container" => Stream::start(a, b, b_address, IPERF),
        "world to published port" => Stream::start(world, b, "10.99.0.2", PUBLISHED),
        _ => Stream::start(a, world, "203.0.113.9", IPERF),
    }
}

/// Measures every way, ours and two that are made by hand, in turn.
pub fn measure(binaries: &Path, seconds: u32) -> anyhow::Result<Vec<Line>> {
    let settings = [ours(binaries)?, by_hand()?, by_hand()?];
    let mut lines = Vec::new();
    for way in ["container to container", "world to published port", "container out through NAT"] {
        let mut samples = Vec::new();
        for n in 0..CONNECTIONS * seconds as usize {
            // A connection may be lucky with its place in memory and in hash tables, and stays so.
            let mut streams = Vec::new();
            for setting in &settings {
                streams.push(stream(setting, way)?);
            }
            for turn in 0..TURNS {
                let mut all = [0.0; 3];
                for at in 0..streams.len() {
                    let at = (at + turn + n) % streams.len();
                    all[at] = streams[at].turn()?;
                }
                samples.push(all);
            }
        }
        let line = line(way, &samples)?;
        println!("{way}: {}", line.ratio);
        lines.push(line);
    }
    Ok(lines)
}

fn line(way: &'static str, samples: &[[f64; 3]]) -> anyhow::Result<Line> {
    let n = f64::from(u32::try_from(samples.len())?);
    let gigabits = [0, 1, 2].map(|at| samples.iter().map(|s| s[at]).sum::<f64>() / n);
    let [davit, by_hand, _] = gigabits;
    let (ratio, by_hand_twice) = (Ratio::of(samples, 0)?, Ratio::of(samples, 2)?);
    Ok(Line { way, davit, by_hand, ratio, by_hand_twice, turns: samples.len() })
}

/// Of two sums, with its standard error by linearization (a ratio estimator of paired samples).
#[derive(Debug, Serialize)]
struct Ratio {
    value: f64,
    standard_error: f64,
}

impl Ratio {
    /// That of the setting at `at` to the first by hand.
    fn of(samples: &[[f64; 3]], at: usize) -> anyhow::Result<Self> {
        let n = f64::from(u32::try_from(samples.len())?);
        let sum = |at: usize| samples.iter().map(|s| s[at]).sum::<f64>();
        let value = sum(at) / sum(1);
        let squares: f64 = samples.iter().map(|s| (s[at] - value * s[1]).powi(2)).sum();
        let standard_error = (squares * n / (n - 1.0)).sqrt() / sum(1);
        Ok(Self { value, standard_error })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ± {:.3}", self.value, self.standard_error)
    }
}

/// For people.
pub fn table(lines: &[Line]) -> String {
    let mut text = "\n## Throughput\n\niperf3, one TCP stream, each end on a CPU of its own. A stream of davit's and one of each of two bridges made by hand flow in turn, a tenth of a second each, and all are begun anew after thirty turns. Means, and ratios with their standard errors; what two bridges made by hand differ by is what cannot be told apart.\n\n| way | turns | davit, Gbit/s | by hand | davit / by hand | by hand / by hand |\n|---|---:|---:|---:|---:|---:|\n".to_owned();
    for Line { way, davit, by_hand, ratio, by_hand_twice, turns } in lines {
        let _ = writeln!(text, "| {way} | {turns} | {davit:.1} | {by_hand:.1} | {ratio} | {by_hand_twice} |");
    }
    text
}
