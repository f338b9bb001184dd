//! iperf3 through what netd makes and through what a person would make by hand: a bridge, veth pairs, two NAT rules.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::engines::{Engine, Netd, host};
use super::space::{Space, text};

/// One way; gigabits a second, the median of all turns.
#[derive(Debug, Serialize)]
pub struct Line {
    way: &'static str,
    davit: f64,
    by_hand: f64,
    /// The median of the turns' ratios: a turn measures both one after the other, and the machine is not the same for long.
    ratio: f64,
    davit_samples: Vec<f64>,
    by_hand_samples: Vec<f64>,
}

const TURNS: usize = 9;
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

/// Gigabits a second from one namespace to a server in another.
fn stream(from: &Space, server: &Space, to: &str, port: u16, seconds: u32) -> anyhow::Result<f64> {
    let mut serving = server
        .command("iperf3")
        .args(["-s", "-1", "-p", &IPERF.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start iperf3")?;
    // Where the scheduler puts the two ends decides more than the rules do: each gets a CPU of its own.
    let places = match std::thread::available_parallelism() {
        Ok(cpus) if cpus.get() > 1 => &["-A", "0,1"][..],
        _ => &[],
    };
    let mut last = None;
    for _ in 0..100 {
        let output = from
            .command("iperf3")
            .args(["-c", to, "-p", &port.to_string(), "-t", &seconds.to_string(), "-J"])
            .args(places)
            .output()?;
        // Its code is 0 also when the server does not listen yet.
        let report: Value = serde_json::from_str(&text(&output)?)?;
        if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
            serving.wait()?;
            return Ok(bits / 1e9);
        }
        last = Some(report["error"].to_string());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let _ = serving.kill();
    let _ = serving.wait();
    anyhow::bail!("iperf3: {}", last.unwrap_or_default())
}

fn way(setting: &Setting, way: &str, seconds: u32) -> anyhow::Result<f64> {
    match way {
        "container to container" => stream(&setting.a, &setting.b, &setting.b_address, IPERF, seconds),
        "world to published port" => stream(&setting.world, &setting.b, "10.99.0.2", PUBLISHED, seconds),
        _ => stream(&setting.a, &setting.world, "203.0.113.9", IPERF, seconds),
    }
}

/// Measures every way, ours and by hand in turn.
pub fn measure(binaries: &Path, seconds: u32) -> anyhow::Result<Vec<Line>> {
    let (ours, hand) = (ours(binaries)?, by_hand()?);
    let mut lines = Vec::new();
    for name in ["container to container", "world to published port", "container out through NAT"] {
        println!("{name}");
        let (mut davit_samples, mut by_hand_samples) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let mut both = [(&ours, &mut davit_samples), (&hand, &mut by_hand_samples)];
            if turn % 2 == 1 {
                both.reverse();
            }
            for (setting, samples) in both {
                samples.push(way(setting, name, seconds)?);
            }
        }
        let (davit, by_hand) = (median(&davit_samples), median(&by_hand_samples));
        let ratios: Vec<_> =
            davit_samples.iter().zip(&by_hand_samples).map(|(ours, theirs)| ours / theirs).collect();
        let ratio = median(&ratios);
        lines.push(Line { way: name, davit, by_hand, ratio, davit_samples, by_hand_samples });
    }
    Ok(lines)
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// For people.
pub fn table(lines: &[Line]) -> String {
    let mut text = "\n## Throughput\n\niperf3, one TCP stream, each end on a CPU of its own; gigabits a second, medians of nine turns. The ratio is the median of the turns' own ratios.\n\n| way | davit | by hand | davit / by hand |\n|---|---:|---:|---:|\n".to_owned();
    for line in lines {
        let _ =
            writeln!(text, "| {} | {:.1} | {:.1} | {:.2} |", line.way, line.davit, line.by_hand, line.ratio);
    }
    text
}
