//! dnsperf in a container, against netd's resolver inside of it, and against dnsmasq and aardvark-dns on the bridge that the
//! container hangs on: the same names, in turn.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::engines::{Engine, Netd, host};
use super::space::{Space, text};

const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";
/// Names that are asked for.
const NAMES: usize = 50;
const TURNS: usize = 9;
/// Clients, how many of their questions are under way, and how many they ask a second at most. With one client dnsperf waits for
/// itself (it misses answers that come while it falls asleep), so that only its latency tells something.
const LOADS: [(usize, usize, Option<u32>); 2] = [(1, 10, Some(1000)), (50, 100, None)];
/// Where the peers listen.
const BRIDGE: &str = "10.87.0.1";

/// A server under a load; the medians of all turns.
#[derive(Debug, Serialize)]
pub struct Line {
    server: &'static str,
    clients: usize,
    queries_a_second: f64,
    latency_microseconds: f64,
    /// Of the server.
    cpu_microseconds_a_query: f64,
    samples: Vec<f64>,
    /// The median of the turns' ratios to dnsmasq's queries a second.
    of_dnsmasq: Option<f64>,
}

/// A server, and the container from which it is asked.
struct Setting {
    name: &'static str,
    address: &'static str,
    client: Space,
    _others: Vec<Space>,
    server: Option<Server>,
    netd: Option<Netd>,
    _host: Option<Space>,
}

/// A peer's process, and the one that serves: the same, or what it left behind.
struct Server {
    child: Child,
    serving: u32,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.serving).ok().filter(|_| self.serving != self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Versions of the peers and of what asks.
pub fn versions() -> Vec<String> {
    let said = |program: &str, args: &[&str], word: &str| {
        let output = Command::new(program).args(args).output().ok()?;
        let all = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&all).into_owned();
        text.lines().find(|l| l.contains(word)).map(|l| l.trim().to_owned())
    };
    let version = |program: &str| {
        let output = Command::new("dpkg-query").args(["-W", "-f", "${Package} ${Version}", program]).output();
        output.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    [version("dnsmasq-base"), said(AARDVARK, &["--version"], "aardvark"), version("dnsperf")]
        .into_iter()
        .flatten()
        .collect()
}

fn davit(binaries: &Path) -> anyhow::Result<Setting> {
    let world = Space::new(false, "")?;
    let mut netd = Netd::start(binaries, host(&world)?, None)?;
    let mut spaces = Vec::new();
    for n in 1..=NAMES {
        let space = Space::new(false, "")?;
        netd.attach(n, &space, &[])?;
        spaces.push(space);
    }
    let client = spaces.remove(0);
    spaces.push(world);
    Ok(Setting {
        name: "davit-netd",
        address: "127.0.0.11",
        client,
        _others: spaces,
        server: None,
        netd: Some(netd),
        _host: None,
    })
}

/// A host with a bridge and a container on it, and a name server on the bridge.
fn peer(name: &'static str, serve: impl FnOnce(&Space) -> anyhow::Result<Child>) -> anyhow::Result<Setting> {
    let world = Space::new(false, "")?;
    let host = host(&world)?;
    let client = Space::new(false, "")?;
    host.run(&format!(
        "ip link add br0 type bridge; ip addr add {BRIDGE}/16 dev br0; ip link set br0 up
         ip link add va type veth peer name eth0 netns {}; ip link set va master br0 up",
        client.pid()
    ))?;
    client.run("ip link set lo up; ip addr add 10.87.1.1/16 dev eth0; ip link set eth0 up")?;
    let child = serve(&host)?;
    let mut server = Server { serving: child.id(), child };
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.run(&format!("dig +short +time=1 +tries=1 @{BRIDGE} c1 | grep -q 10.87.1.1")).is_err() {
        ensure!(Instant::now() < deadline, "{name} does not answer");
    }
    // aardvark-dns goes on in the background, and says where.
    if let Ok(pid) = host.run("cat /run/aardvark/aardvark.pid") {
        server.serving = pid.trim().parse()?;
    }
    Ok(Setting {
        name,
        address: BRIDGE,
        client,
        _others: vec![world],
        server: Some(server),
        netd: None,
        _host: Some(host),
    })
}

fn dnsmasq() -> anyhow::Result<Setting> {
    peer("dnsmasq", |host| {
        let lines: String = (1..=NAMES).fold(String::new(), |mut text, n| {
            let _ = writeln!(text, "10.87.1.{n} c{n}");
            text
        });
        host.run(&format!("cat > /run/names <<'END'\n{lines}END"))?;
        let mut command = host.command("dnsmasq");
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--addn-hosts=/run/names",
        ]);
        command.args([
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
            &format!("--listen-address={BRIDGE}"),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start dnsmasq")
    })
}

fn aardvark() -> anyhow::Result<Setting> {
    peer("aardvark-dns", |host| {
        let lines: String = (1..=NAMES).fold(format!("{BRIDGE}\n"), |mut text, n| {
            let _ = writeln!(text, "{n:064x} 10.87.1.{n}  c{n}");
            text
        });
        host.run(&format!("mkdir -p /run/aardvark; cat > /run/aardvark/bench <<'END'\n{lines}END"))?;
        let mut command = host.command(AARDVARK);
        command.args(["--config", "/run/aardvark", "--port", "53", "run"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start aardvark-dns")
    })
}

/// What one run told.
#[derive(Debug, Clone, Copy)]
struct Sample {
    queries_a_second: f64,
    latency: f64,
    cpu: f64,
}

/// Hundredths of a second of processor time that a process has had: fields 14 and 15 of /proc/PID/stat.
fn ticks(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("no command in stat")?.1;
    after.split_whitespace().skip(11).take(2).map(|w| Ok(w.parse::<f64>()?)).sum()
}

impl Setting {
    fn pid(&self) -> Option<u32> {
        self.netd.as_ref().map(Netd::pid).or(self.server.as_ref().map(|s| s.serving))
    }
}

fn load(setting: &Setting, load: (usize, usize, Option<u32>), seconds: u32) -> anyhow::Result<Sample> {
    let (clients, under_way, rate) = load;
    let pid = setting.pid().context("no server")?;
    let before = ticks(pid)?;
    let mut names = tempfile::NamedTempFile::new()?;
    for n in 1..=NAMES {
        writeln!(names, "c{n} A")?;
    }
    let output = setting
        .client
        .command("dnsperf")
        .args(["-s", setting.address, "-c", &clients.to_string(), "-q", &under_way.to_string()])
        .args(rate.iter().flat_map(|rate| ["-Q".to_owned(), rate.to_string()]))
        .args(["-l", &seconds.to_string(), "-d"])
        .arg(names.path())
        .output()?;
    let told = text(&output).context("dnsperf")?;
    let number = |label: &str| {
        let line = told.lines().find(|l| l.trim_start().starts_with(label));
        let word = line.and_then(|l| l.split(':').nth(1)?.split_whitespace().next()?.parse::<f64>().ok());
        word.with_context(|| format!("dnsperf does not say '{label}': {told}"))
    };
    ensure!(number("Queries lost")? < 0.5, "{}: queries were lost: {told}", setting.name);
    ensure!(
        told.contains("NOERROR") && told.contains("(100.00%)"),
        "{}: not all answered: {told}",
        setting.name
    );
    Ok(Sample {
        queries_a_second: number("Queries per second")?,
        latency: number("Average Latency (s)")? * 1e6,
        cpu: (ticks(pid)? - before) * 1e4 / number("Queries completed")?,
    })
}

/// Measures all servers that are there, in turn; each load for some seconds.
pub fn measure(binaries: &Path, seconds: u32) -> anyhow::Result<Vec<Line>> {
    let mut settings = vec![davit(binaries)?];
    for (name, peer) in [("dnsmasq", dnsmasq()), ("aardvark-dns", aardvark())] {
        match peer {
            Ok(setting) => settings.push(setting),
            Err(error) => println!("{name}: cannot be set up: {error:#}"),
        }
    }
    let mut lines = Vec::new();
    for wanted in LOADS {
        let mut samples: Vec<Vec<Sample>> = settings.iter().map(|_| Vec::new()).collect();
        for turn in 0..TURNS {
            for n in 0..settings.len() {
                let at = (n + turn) % settings.len();
                samples[at].push(load(&settings[at], wanted, seconds)?);
            }
        }
        let rates: Vec<Vec<f64>> =
            samples.iter().map(|s| s.iter().map(|s| s.queries_a_second).collect()).collect();
        let dnsmasq = settings.iter().position(|s| s.name == "dnsmasq").map(|at| rates[at].clone());
        for ((setting, samples), rates) in settings.iter().zip(samples).zip(rates) {
            let of_dnsmasq =
                dnsmasq.as_ref().map(|theirs| median(rates.iter().zip(theirs).map(|(a, b)| a / b)));
            let line = Line {
                server: setting.name,
                clients: wanted.0,
                queries_a_second: median(samples.iter().map(|s| s.queries_a_second)),
                latency_microseconds: median(samples.iter().map(|s| s.latency)),
                cpu_microseconds_a_query: median(samples.iter().map(|s| s.cpu)),
                samples: rates,
                of_dnsmasq,
            };
            println!(
                "names, {} clients, {}: {:.0} a second, {:.0} us, {:.1} us of the server's CPU",
                line.clients,
                line.server,
                line.queries_a_second,
                line.latency_microseconds,
                line.cpu_microseconds_a_query
            );
            lines.push(line);
        }
    }
    Ok(lines)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The lines of the report.
pub fn table(lines: &[Line]) -> String {
    let mut text = "\n## Names\n\ndnsperf inside a container; davit's resolver is at 127.0.0.11 in the container, the others are on its \
                    bridge. One client asks a thousand times a second, fifty as often as they are answered, with a hundred questions under way. Medians of nine turns, the ratio of each turn's own.\n\n\
                    | clients | server | queries a second | mean latency, us | CPU of the server, us a query | times dnsmasq's |\n|---:|---|---:|---:|---:|---:|\n"
        .to_owned();
    for line in lines {
        let ratio = line.of_dnsmasq.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.1} | {ratio} |",
            line.clients,
            line.server,
            line.queries_a_second,
            line.latency_microseconds,
            line.cpu_microseconds_a_query
        );
    }
    text
}
