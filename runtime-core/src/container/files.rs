//! The files that a container finds in /etc: hosts, hostname, resolv.conf, as docker writes them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use davit_contracts::network::{Endpoint, ResolvConf};

use crate::error::{RuntimeError, io_error};

/// What /etc/hosts is made of.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// The container's name for itself.
    pub hostname: &'a str,
    /// May be empty.
    pub domainname: &'a str,
    /// Its connections.
    pub endpoints: &'a [Endpoint],
    /// `--add-host`: "name:ip".
    pub extra: &'a [String],
}

/// The text of /etc/hosts.
pub fn hosts(h: &Hosts<'_>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let gateway = h.endpoints.iter().map(|e| e.gateway.as_str()).find(|g| !g.is_empty()).unwrap_or("");
    add(&mut text, h.extra, gateway);
    for address in h.endpoints.iter().flat_map(|e| [&e.ip, &e.ip6]).filter(|a| !a.is_empty()) {
        let ip = address.split('/').next().unwrap_or(address);
        // The full name first, then the short one: hostname(1) -f and -s look here.
        let _ = match (h.domainname, h.hostname.split_once('.')) {
            ("", None) => writeln!(text, "{ip}\t{}", h.hostname),
            ("", Some((short, _))) => writeln!(text, "{ip}\t{} {short}", h.hostname),
            (domain, _) => writeln!(text, "{ip}\t{0}.{domain} {0}", h.hostname),
        };
    }
    text
}

/// Adds `--add-host` entries to the text of a hosts file of a container that shares the host's network.
pub fn append_extra(text: &mut String, extra: &[String]) {
    add(text, extra, "127.0.0.1");
}

fn add(text: &mut String, extra: &[String], gateway: &str) {
    for entry in extra {
        let Some((name, ip)) = entry.split_once([':', '=']) else { continue };
        let ip = match ip.trim_start_matches('[').trim_end_matches(']') {
            "host-gateway" => gateway,
            ip => ip,
        };
        if !ip.is_empty() {
            let _ = writeln!(text, "{ip}\t{name}");
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_the_container_and_what_was_added() {
        let endpoints =
            [Endpoint { ip: "10.89.0.2/24".into(), gateway: "10.89.0.1".into(), ..Endpoint::default() }];
        let extra = [
            "db:10.0.0.9".to_owned(),
            "v6:[fd00::1]".to_owned(),
            "host.docker.internal:host-gateway".to_owned(),
        ];
        let text = hosts(&Hosts { hostname: "web", domainname: "", endpoints: &endpoints, extra: &extra });
        for line in [
            "127.0.0.1\tlocalhost",
            "10.0.0.9\tdb",
            "fd00::1\tv6",
            "10.89.0.1\thost.docker.internal",
            "10.89.0.2\tweb",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        let text = hosts(&Hosts { hostname: "web", domainname: "lan", endpoints: &endpoints, extra: &[] });
        assert!(text.ends_with("10.89.0.2\tweb.lan web\n"));
        let text = hosts(&Hosts { hostname: "db.lan", domainname: "", endpoints: &endpoints, extra: &[] });
        assert!(text.ends_with("10.89.0.2\tdb.lan db\n"), "{text}");
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
