//! A network beyond the private host: another namespace, reached through a veth pair, that does not know the containers'
//! addresses. Servers in it are threads of the test.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use crate::host::Host;

/// The host's address on the link.
pub const HOST_ADDRESS: &str = "198.51.100.2";
/// The far end's address.
pub const ADDRESS: &str = "198.51.100.1";

/// The far end; it vanishes when dropped.
#[derive(Debug)]
pub struct Internet {
    holder: Child,
    netns: String,
}

impl Internet {
    /// Connects a host to a new network; the host's default route leads there.
    #[track_caller]
    pub fn of(host: &Host) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--kill-child", "--fork", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = command.spawn().expect("unshare (package util-linux)");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let pid: i32 = crate::eventually("the far end's namespace exists", || {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            text.trim().parse().map_err(|_| text)
        });
        let netns = format!("/proc/{pid}/ns/net");
        let host_netns = host.netns();
        let host_file = host_netns.to_string_lossy().into_owned();
        enter(
            &netns,
            &format!(
                "ip link set lo up; ip link add far type veth peer name uplink; \
             ip addr add {ADDRESS}/24 dev far; ip link set far up; ip link set uplink netns {host_file}"
            ),
        );
        enter(
            &host_file,
            &format!(
                "ip addr add {HOST_ADDRESS}/24 dev uplink; ip link set uplink up; ip route add default via {ADDRESS}"
            ),
        );
        Self { holder, netns }
    }

    /// Runs `work` on a thread in this network.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let netns = File::open(&self.netns).expect("the far end lives");
        let inside = std::thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("tests run as root");
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A TCP server on `port` that tells each client the address it comes from.
    pub fn serve_tcp(&self, port: u16) {
        let listener = self.inside(move || TcpListener::bind((ADDRESS, port)).expect("a free port"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let peer = stream.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default();
                let body = format!("you are {peer}\n");
                let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(5)));
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
    }

    /// A name server that knows `name` as [`ADDRESS`] and nothing else.
    pub fn serve_dns(&self, name: &'static str) {
        let socket = self.inside(|| UdpSocket::bind((ADDRESS, 53)).expect("a free port"));
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut query) {
                if let Some(reply) = dns_reply(&query[..n], name) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
    }
}

/// Runs a shell script in the network namespace of this path.
#[track_caller]
fn enter(netns: &str, script: &str) {
    let status = Command::new("nsenter").arg(format!("--net={netns}")).args(["sh", "-ec", script]).status();
    assert!(status.expect("nsenter (package util-linux)").success(), "cannot change the link: {script}");
}

/// The reply to one question (RFC 1035, section 4): an A record of [`ADDRESS`] for `name`, no data for its other types,
/// NXDOMAIN else.
fn dns_reply(query: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    while *query.get(at)? != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(query.get(at + 1..end)?).to_lowercase());
        at = end;
    }
    let question = query.get(12..at + 5)?;
    let known = labels.join(".") == name;
    let is_a = question[question.len() - 4..] == [0, 1, 0, 1];
    let answers = u8::from(known && is_a);
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend(question);
    if answers == 1 {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(ADDRESS.parse::<std::net::Ipv4Addr>().expect("a constant").octets());
    }
    Some(reply)
}

impl Drop for Internet {
    fn drop(&mut self) {
        // The link goes by name: a server's thread may keep its socket, and by it the namespace, open for ever.
        enter(&self.netns, "ip link del far");
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
