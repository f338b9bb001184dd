//! Who has a host port: read from /proc/net and /proc/PID/fd, only to tell a person (proc(5)).

use std::fs;
use std::net::SocketAddr;

use crate::firewall::Transport;

/// One phrase: `nginx (pid 812)`, or `a program of the host`.
pub fn describe(transport: Transport, host: SocketAddr) -> String {
    let tables = match transport {
        Transport::Tcp => ["tcp", "tcp6"],
        Transport::Udp => ["udp", "udp6"],
        // Its table (net/sctp/eps) is another kind of text; who has the port is not said.
        Transport::Sctp => return "another program of the host".to_owned(),
    };
    tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .find_map(|text| inode(&text, transport, host.port()))
        .and_then(process_with)
        .unwrap_or_else(|| "another program of the host".to_owned())
}

/// The inode of the socket that is bound to the port: listening, for TCP.
fn inode(table: &str, transport: Transport, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let listening = transport == Transport::Udp || *fields.get(3)? == "0A";
        (listening && u16::from_str_radix(local_port, 16) == Ok(port)).then(|| fields.get(9)?.parse().ok())?
    })
}

fn process_with(inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        let has =
            |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str());
        if fds.flatten().any(has) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim_end()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_socket_is_found_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 01 0:0 0:0 0 0 0 111 1\n   \
            1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 x";
        assert_eq!(inode(table, Transport::Tcp, 8080), Some(4242));
        assert_eq!(inode(table, Transport::Tcp, 8081), None);
    }
}
