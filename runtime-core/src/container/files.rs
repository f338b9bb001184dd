//! The files that a container finds in /etc: hosts, hostname, resolv.conf, as docker writes them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use davit_contracts::network::{Endpoint, ResolvConf};
use davit_contracts::runtime::{Container, IdMap};

use crate::error::{RuntimeError, io_error};

/// More than this in a file that a container may write to is not ours to edit.
const EDITABLE: u64 = 1 << 20;

/// How a container calls itself.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Its hostname.
    pub hostname: &'a str,
    /// May be empty.
    pub domainname: &'a str,
}

impl Own<'_> {
    /// Its lines of /etc/hosts for a connection, one an address.
    fn lines(self, endpoint: &Endpoint) -> Vec<String> {
        let names = match (self.domainname, self.hostname.split_once('.')) {
            ("", None) => self.hostname.to_owned(),
            // The full name first, then the short one: hostname(1) -f and -s look here.
            ("", Some((short, _))) => format!("{} {short}", self.hostname),
            (domain, _) => format!("{0}.{domain} {0}", self.hostname),
        };
        let addresses = [&endpoint.ip, &endpoint.ip6].into_iter().filter(|a| !a.is_empty());
        addresses.map(|a| format!("{}\t{names}", a.split('/').next().unwrap_or(a))).collect()
    }
}

/// What /etc/hosts is made of.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// The container's names for itself.
    pub own: Own<'a>,
    /// Its connections.
    pub endpoints: &'a [Endpoint],
    /// `--add-host`: "name:ip".
    pub extra: &'a [String],
    /// What "host-gateway" means there.
    pub host_gateway: &'a [String],
}

/// The text of /etc/hosts.
pub fn hosts(h: &Hosts<'_>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    add(&mut text, h.extra, h.host_gateway);
    for line in h.endpoints.iter().flat_map(|e| h.own.lines(e)) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Adds `--add-host` entries to the text of a hosts file of a container that shares the host's network.
pub fn append_extra(text: &mut String, extra: &[String]) {
    add(text, extra, &["127.0.0.1".to_owned()]);
}

fn add(text: &mut String, extra: &[String], host_gateway: &[String]) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in extra {
        let Some((name, ip)) = entry.split_once([':', '=']) else { continue };
        let ip = ip.trim_start_matches('[').trim_end_matches(']').to_owned();
        let ips = if ip == "host-gateway" { host_gateway } else { &[ip] };
        for ip in ips.iter().filter(|ip| !ip.is_empty()) {
            let _ = writeln!(text, "{ip}\t{name}");
        }
    }
}

/// Makes a living container's hosts file name it at the addresses of a new connection. What else is in the file, also by the
/// container's own hand, stays.
pub fn add_own(dir: &Path, own: Own<'_>, endpoint: &Endpoint) -> Result<(), RuntimeError> {
    edit(&dir.join("hosts"), |text| {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for line in own.lines(endpoint) {
            if !text.lines().any(|l| l == line) {
                text.push_str(&line);
                text.push('\n');
            }
        }
    })
}

/// Takes the lines of a connection out again.
pub fn remove_own(dir: &Path, own: Own<'_>, endpoint: &Endpoint) -> Result<(), RuntimeError> {
    let gone = own.lines(endpoint);
    edit(&dir.join("hosts"), |text| {
        let kept =
            text.split_inclusive('\n').filter(|line| !gone.iter().any(|g| g == line.trim_end_matches('\n')));
        *text = kept.collect();
    })
}

/// Changes a file in place: the container has it mounted.
fn edit(path: &Path, change: impl FnOnce(&mut String)) -> Result<(), RuntimeError> {
    let failed = || io_error("edit", path);
    let mut file = File::options().read(true).write(true).open(path).map_err(failed())?;
    if file.metadata().map_err(failed())?.len() > EDITABLE {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed())?;
    // What is no text any more is the container's own business.
    let Ok(mut text) = String::from_utf8(bytes) else { return Ok(()) };
    let before = text.clone();
    change(&mut text);
    if text != before {
        file.write_all_at(text.as_bytes(), 0).map_err(failed())?;
        file.set_len(text.len() as u64).map_err(failed())?;
    }
    Ok(())
}

/// The host's resolv.conf for a container that is not served names, with the container's own words in place of the host's.
pub fn resolv_conf_like(host: &str, own: &ResolvConf) -> String {
    let word = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let replaced = |line: &&str| match word(line).as_str() {
        "nameserver" => own.nameservers.is_empty(),
        "search" | "domain" => own.search.is_empty(),
        "options" => own.options.is_empty(),
        _ => true,
    };
    let mut text: String = host.split_inclusive('\n').filter(replaced).collect();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let search: Vec<String> = own.search.iter().filter(|domain| *domain != ".").cloned().collect();
    text.push_str(&resolv_conf(&ResolvConf { search, ..own.clone() }));
    text
}

/// The text of /etc/resolv.conf.
pub fn resolv_conf(conf: &ResolvConf) -> String {
    let mut text = String::new();
    for server in &conf.nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !conf.search.is_empty() {
        let _ = writeln!(text, "search {}", conf.search.join(" "));
    }
    if !conf.options.is_empty() {
        let _ = writeln!(text, "options {}", conf.options.join(" "));
    }
    text
}

/// Writes the three files. Existing ones are replaced in place: a container may have them mounted.
pub fn write(dir: &Path, hostname: &str, hosts: &str, resolv_conf: &str) -> Result<(), RuntimeError> {
    for (name, text) in
        [("hostname", format!("{hostname}\n").as_str()), ("hosts", hosts), ("resolv.conf", resolv_conf)]
    {
        let path = dir.join(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
    }
    Ok(())
}

/// A file of the host, for containers that share its network.
pub fn of_host(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Gives the files to root of the container's user namespace, which may write to them as root does elsewhere.
pub fn give(dir: &Path, container: &Container) -> Result<(), RuntimeError> {
    let root = |map: &[IdMap]| map.iter().find(|m| m.inside == 0).map(|m| m.outside);
    let (Some(uid), Some(gid)) = (root(&container.uid_map), root(&container.gid_map)) else { return Ok(()) };
    for name in ["hosts", "hostname", "resolv.conf"] {
        let path = dir.join(name);
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).map_err(io_error("give away", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Own<'_> = Own { hostname: "web", domainname: "" };

    fn endpoint(ip: &str, ip6: &str) -> Endpoint {
        Endpoint { ip: ip.into(), ip6: ip6.into(), ..Endpoint::default() }
    }

    #[test]
    fn hosts_names_the_container_and_what_was_added() {
        let endpoints = [endpoint("10.89.0.2/24", "fd00::2/64")];
        let extra = ["db:10.0.0.9", "v6=[fd00::1]", "host.docker.internal:host-gateway"].map(str::to_owned);
        let host_gateway = ["10.89.0.1", "fd00::1"].map(str::to_owned);
        let of = |own, extra, host_gateway| hosts(&Hosts { own, endpoints: &endpoints, extra, host_gateway });
        let text = of(WEB, &extra, &host_gateway);
        for line in [
            "127.0.0.1\tlocalhost",
            "10.0.0.9\tdb",
            "fd00::1\tv6",
            "10.89.0.1\thost.docker.internal",
            "fd00::1\thost.docker.internal",
            "10.89.0.2\tweb",
            "fd00::2\tweb",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(!of(WEB, &extra, &[]).contains("internal"), "a host that cannot be reached has no line");
        let text = of(Own { domainname: "lan", ..WEB }, &[], &[]);
        assert!(text.ends_with("10.89.0.2\tweb.lan web\nfd00::2\tweb.lan web\n"));
        let text = of(Own { hostname: "db.lan", domainname: "" }, &[], &[]);
        assert!(text.contains("\n10.89.0.2\tdb.lan db\n"), "{text}");
    }

    #[test]
    fn connections_come_and_go_and_what_others_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let text = || fs::read_to_string(&path).unwrap();
        fs::write(&path, "127.0.0.1\tlocalhost\n10.1.0.2\tweb\n10.1.0.2\tmine\nno end").unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let second = endpoint("10.2.0.2/24", "fd00:2::2/64");
        for _ in 0..2 {
            add_own(dir.path(), WEB, &second).unwrap();
            assert!(
                text().ends_with("10.1.0.2\tmine\nno end\n10.2.0.2\tweb\nfd00:2::2\tweb\n"),
                "{}",
                text()
            );
        }
        remove_own(dir.path(), WEB, &endpoint("10.1.0.2/24", "")).unwrap();
        remove_own(dir.path(), WEB, &second).unwrap();
        assert_eq!(text(), "127.0.0.1\tlocalhost\n10.1.0.2\tmine\nno end\n");
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()), inode, "in place");
        fs::write(&path, b"\xff\n").unwrap();
        add_own(dir.path(), WEB, &second).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\xff\n", "no text of ours any more");
    }

    #[test]
    fn the_hosts_resolver_is_taken_but_for_what_is_given() {
        let host = "# by hand\nnameserver 127.0.0.53\nsearch lan\noptions edns0\n";
        let like = |nameservers: &[&str], search: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
            let own = ResolvConf { nameservers: owned(nameservers), search: owned(search), options: vec![] };
            resolv_conf_like(host, &own)
        };
        assert_eq!(like(&[], &[]), host);
        assert_eq!(like(&["10.0.0.1"], &[]), "# by hand\nsearch lan\noptions edns0\nnameserver 10.0.0.1\n");
        assert_eq!(like(&[], &["."]), "# by hand\nnameserver 127.0.0.53\noptions edns0\n");
        assert_eq!(like(&[], &["a", "b"]), "# by hand\nnameserver 127.0.0.53\noptions edns0\nsearch a b\n");
    }

    #[test]
    fn resolv_conf_has_only_what_there_is() {
        let conf = ResolvConf {
            nameservers: vec!["127.0.0.11".into()],
            search: vec!["a".into(), "b".into()],
            options: vec![],
        };
        assert_eq!(resolv_conf(&conf), "nameserver 127.0.0.11\nsearch a b\n");
        assert_eq!(resolv_conf(&ResolvConf::default()), "");
    }
}
