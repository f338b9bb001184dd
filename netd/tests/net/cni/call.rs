//! A caller of plugins, written from the specification: environment, stdin, stdout, exit code.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use davit_sys::netns;
use serde_json::{Value, json};

use crate::host::Host;

/// What a host needs besides: a place of its own for namespaces and for what plugins keep.
pub const PLACES: &str = "mount -t tmpfs tmpfs /run; mkdir -p /run/netns; mount -t tmpfs tmpfs /var/lib";

/// What a plugin answered.
#[derive(Debug)]
pub struct Answer {
    pub ok: bool,
    pub json: Value,
    pub text: String,
}

impl Answer {
    /// The result of a call that has to succeed.
    pub fn result(self) -> Value {
        assert!(self.ok, "{}", self.text);
        self.json
    }

    /// The error code of a call that has to fail, and its line.
    pub fn failure(self) -> (u64, String) {
        assert!(!self.ok, "it succeeded: {}", self.text);
        let code = self.json["code"].as_u64().unwrap_or_else(|| panic!("no code: {}", self.text));
        let message = self.json["msg"].as_str().unwrap_or_default().to_owned();
        assert!(!message.is_empty() && !message.contains('\n'), "{}", self.text);
        (code, message)
    }
}

/// The program beside the daemon under test.
pub fn davit_cni() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_davit-netd")).with_file_name("davit-cni");
    assert!(path.exists(), "no {}: run `cargo build -p davit-cni` first", path.display());
    path
}

/// A plugin on a host, with a configuration that does not change.
pub struct Plugin {
    /// Whose namespaces it runs in.
    host: i32,
    pub program: PathBuf,
    pub config: Value,
}

impl Plugin {
    #[allow(clippy::needless_pass_by_value, reason = "what json! makes is given away")]
    /// davit-cni with these fields besides the general ones.
    pub fn davit(host: &Host, version: &str, more: Value) -> Self {
        let mut config =
            json!({"cniVersion": version, "name": "cluster", "type": "davit-cni", "socket": host.socket()});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        Self { host: host.space.pid(), program: davit_cni(), config }
    }

    /// One of Debian's.
    pub fn debian(host: &Host, version: &str, kind: &str, more: Value) -> Self {
        let mut me = Self::davit(host, version, more);
        me.config["type"] = kind.into();
        me.config.as_object_mut().unwrap().remove("socket");
        me.program = Path::new("/usr/lib/cni").join(kind);
        me
    }

    /// Calls with any environment and any bytes.
    pub fn call(&self, environment: &[(&str, &str)], stdin: &[u8]) -> Answer {
        let mut child = Command::new("nsenter")
            .args(["-t", &self.host.to_string(), "-n", "-m"])
            .arg(&self.program)
            .env("CNI_PATH", "/usr/lib/cni")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // It may not read all of it.
        let _ = input.write_all(stdin);
        drop(input);
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned();
        let json = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
        Answer { ok: out.status.success(), json, text }
    }

    /// A verb for a container's interface in a namespace, with more fields in the configuration.
    pub fn verb(&self, verb: &str, at: (&str, &str), more: &Value) -> Answer {
        self.with_args(verb, at, more, "")
    }

    pub fn with_args(
        &self,
        verb: &str,
        (container, interface): (&str, &str),
        more: &Value,
        args: &str,
    ) -> Answer {
        let mut config = self.config.clone();
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let netns = format!("/run/netns/{container}");
        let environment = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", interface),
            ("CNI_ARGS", args),
        ];
        self.call(&environment, config.to_string().as_bytes())
    }

    pub fn add(&self, container: &str) -> Answer {
        self.verb("ADD", (container, "eth0"), &json!({}))
    }

    pub fn del(&self, container: &str) -> Answer {
        self.verb("DEL", (container, "eth0"), &json!({}))
    }

    pub fn check(&self, container: &str, result: &Value) -> Answer {
        self.verb("CHECK", (container, "eth0"), &json!({"prevResult": result}))
    }

    /// GC with what is to stay.
    pub fn gc(&self, valid: &[&str]) -> Answer {
        let valid: Vec<_> = valid.iter().map(|c| json!({"containerID": c, "ifname": "eth0"})).collect();
        let mut config = self.config.clone();
        config["cni.dev/valid-attachments"] = valid.into();
        self.call(&[("CNI_COMMAND", "GC")], config.to_string().as_bytes())
    }

    pub fn status(&self) -> Answer {
        self.call(&[("CNI_COMMAND", "STATUS")], self.config.to_string().as_bytes())
    }
}

/// The address of a result's nth `ips`, without its prefix length.
pub fn address(result: &Value, n: usize) -> String {
    let text = result["ips"][n]["address"].as_str().unwrap_or_else(|| panic!("no address {n}: {result}"));
    text.split('/').next().unwrap().to_owned()
}

/// Does something in a namespace that a host keeps at /run/netns.
pub fn inside<T: Send>(host: &Host, container: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/proc/{}/root/run/netns/{container}", host.space.pid());
    let fd = netns::open(Path::new(&path)).unwrap();
    netns::visit(fd.as_fd(), work).unwrap()
}

/// Serves TCP there: tells each client its own address as seen from there.
pub fn serve_tcp(host: &Host, container: &str, port: u16) {
    let listener = inside(host, container, || std::net::TcpListener::bind(("0.0.0.0", port))).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{peer}");
        }
    });
}

/// What a server says to a client there.
pub fn ask_tcp(host: &Host, container: &str, to: &str) -> Option<String> {
    let to: std::net::SocketAddr = to.parse().unwrap();
    let patience = std::time::Duration::from_millis(700);
    let mut stream = inside(host, container, || std::net::TcpStream::connect_timeout(&to, patience)).ok()?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).ok()?;
    Some(text)
}
