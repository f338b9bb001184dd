//! The host's /etc/resolv.conf (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};

/// What it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers, in order. An embedded resolver's own address is left out: asking it would ask ourselves.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads a configuration; what makes no sense is passed over, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut me = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone index (fe80::1%eth0) needs the interface's number; such servers are rare and left out.
                    let server: Option<IpAddr> = words.next().and_then(|w| w.parse().ok());
                    me.servers.extend(server.filter(|ip| *ip != IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11))));
                }
                Some("search" | "domain") => me.search = words.map(str::to_owned).collect(),
                Some("options") => me.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        me
    }

    /// Reads the host's.
    pub fn host() -> Self {
        std::fs::read_to_string("/etc/resolv.conf").map(|text| Self::parse(&text)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_search_and_options_are_read_and_nonsense_is_passed_over() {
        let conf = ResolvConf::parse(
            "# made by hand\nnameserver 127.0.0.11\nnameserver 10.0.0.53 # near\nnameserver x\n\
             nameserver fd00::53\nsearch a.example b.example\noptions ndots:2\noptions rotate\nnonsense\n",
        );
        assert_eq!(conf.servers, ["10.0.0.53".parse::<IpAddr>().unwrap(), "fd00::53".parse().unwrap()]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!(conf.options, ["ndots:2", "rotate"]);
    }
}
