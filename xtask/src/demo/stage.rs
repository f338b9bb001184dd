//! Where the demo plays: a private host (root), the machine itself (root), or a plain user's own namespaces.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use davit_tests::command::typed;
use davit_tests::{Host, Inventory, Ran};

const DB: &str = include_str!("db.pl");
const WEB: &str = include_str!("web.pl");

/// The place.
#[derive(Debug)]
pub enum Stage {
    /// Namespaces of its own.
    Private(Box<Host>),
    /// The machine, with state below a directory of the demo's.
    Machine {
        /// Removed at the end.
        dir: tempfile::TempDir,
        /// Where davit is.
        binaries: PathBuf,
        /// A plain user.
        rootless: bool,
    },
}

impl Stage {
    /// Chooses and makes the place.
    pub fn set(binaries: &Path, on_host: bool) -> anyhow::Result<Self> {
        let root = nix::unistd::geteuid().is_root();
        if root && !on_host {
            return Ok(Self::Private(Box::new(Host::builder().on_disk().unchecked().create()?)));
        }
        let dir = tempfile::Builder::new().prefix("dv").tempdir_in("/tmp")?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self::Machine { dir, binaries: binaries.to_owned(), rootless: !root })
    }

    /// One paragraph that says where this happens and what is not there.
    pub fn describe(&self) -> String {
        match self {
            Self::Private(host) => format!(
                "Running on a private host: network, mounts, processes and cgroups of its own, state in {}.\n\
                 (`cargo xtask demo --on-host` uses this machine's own.)",
                host.path().join("state").display()
            ),
            Self::Machine { dir, rootless: false, .. } => {
                format!("Running on this machine itself, state in {}.", dir.path().display())
            }
            Self::Machine { dir, .. } => format!(
                "Running rootless as uid {}, state in {}.\n\
                 Not there yet without root: containers have no way out to other machines, and a published port answers\n\
                 inside the user's own network namespace only, so the demo asks it from there.",
                nix::unistd::geteuid(),
                dir.path().display()
            ),
        }
    }

    fn dir(&self) -> &Path {
        match self {
            Self::Private(host) => host.path(),
            Self::Machine { dir, .. } => dir.path(),
        }
    }

    /// The directories that hold davit's state and what it has at run time.
    pub fn davit_directories(&self) -> [PathBuf; 2] {
        [self.dir().join("state"), self.dir().join("run")]
    }

    /// Whether everything on the stage belongs to the demo.
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Private(_))
    }

    /// Writes the two programs that the containers run; answers their directory.
    pub fn write_programs(&self) -> anyhow::Result<PathBuf> {
        let srv = self.dir().join("srv");
        fs::create_dir(&srv)?;
        for (name, text) in [("db.pl", DB), ("web.pl", WEB)] {
            fs::write(srv.join(name), text)?;
        }
        Ok(srv)
    }

    /// Prints `$ davit ...`, runs it, prints what it says; anything but success is an error.
    pub fn davit(&self, args: &[&str]) -> anyhow::Result<Ran> {
        println!("$ davit {}", typed(args));
        let ran = self.quietly(args)?;
        print!("{}", ran.stdout);
        eprint!("{}", ran.stderr);
        println!();
        ensure!(ran.code == 0, "`{}` failed with exit code {}: {}", ran.line, ran.code, ran.stderr.trim());
        Ok(ran)
    }

    fn quietly(&self, args: &[&str]) -> anyhow::Result<Ran> {
        let (dir, binaries) = match self {
            Self::Private(host) => return Ok(host.davit(args)),
            Self::Machine { dir, binaries, .. } => (dir, binaries),
        };
        let mut command = Command::new(binaries.join("davit"));
        for (key, name) in [("STATE", "state"), ("RUN", "run"), ("CONFIG", "config")] {
            command.env(format!("DAVIT_{key}_DIR"), dir.path().join(name));
        }
        let output = command.args(args).stdin(Stdio::null()).output().context("cannot run davit")?;
        Ok(Ran {
            line: format!("davit {}", typed(args)),
            code: output.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Waits until a container has logged `part`.
    pub fn logs_until(&self, container: &str, part: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let ran = self.quietly(&["logs", container])?;
            if ran.stdout.contains(part) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{container} never said {part:?}: {}{}",
                ran.stdout,
                ran.stderr
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks a port of the host for a page, shown as curl would be typed.
    pub fn fetch(&self, port: u16) -> anyhow::Result<String> {
        let page = match self {
            Self::Private(host) => {
                println!("$ curl http://127.0.0.1:{port}/");
                host.inside(|| get(port))?
            }
            Self::Machine { rootless: false, .. } => {
                println!("$ curl http://127.0.0.1:{port}/");
                get(port)?
            }
            Self::Machine { .. } => self.fetch_rootless(port)?,
        };
        println!("{page}");
        Ok(page)
    }

    /// Enters the user and network namespaces of netd, which is where a rootless davit publishes.
    fn fetch_rootless(&self, port: u16) -> anyhow::Result<String> {
        let status = self.quietly(&["status", "--format", "json"])?;
        let netd = pid_of(&serde_json::from_str(&status.stdout)?, "davit-netd")
            .context("status names no pid of netd")?;
        let pid = netd.to_string();
        let words = ["-t", &pid, "--user", "--preserve-credentials", "--net", "--"];
        println!("$ nsenter {} curl http://127.0.0.1:{port}/", words.join(" "));
        let mut enter = Command::new("nsenter");
        enter.args(words).arg(std::env::current_exe()?).args(["fetch", &port.to_string()]);
        let output = enter.output().context("cannot run nsenter (package util-linux)")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the stage has now.
    pub fn inventory(&self) -> anyhow::Result<Inventory> {
        match self {
            Self::Private(host) => Ok(host.inventory()),
            Self::Machine { .. } => Inventory::take().context("cannot look at the machine"),
        }
    }

    /// After a failed step: removes what the steps before it made, as far as that goes.
    pub fn clear(&self) {
        eprintln!("\nA step failed; clearing away.");
        for line in [&["rm", "-f", "web", "db"][..], &["net", "rm", "my-bridge"], &["down"]] {
            let _ = self.quietly(line);
        }
    }
}

/// The pid in the first object that carries this name, at any depth.
fn pid_of(value: &serde_json::Value, name: &str) -> Option<i64> {
    match value {
        serde_json::Value::Object(map) => {
            let named = map.values().any(|v| v.as_str() == Some(name));
            let pid = ["pid", "Pid", "PID"].iter().find_map(|k| map.get(*k)?.as_i64());
            pid.filter(|_| named).or_else(|| map.values().find_map(|v| pid_of(v, name)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|v| pid_of(v, name)),
        _ => None,
    }
}

/// The body that a server on a loopback port answers (HTTP/1.0).
pub fn get(port: u16) -> anyhow::Result<String> {
    let address = (Ipv4Addr::LOCALHOST, port);
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("nothing answers on port {port}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("port {port} accepts but does not answer"))?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("no page on port {port}: {text:?}"),
    }
}
