//! Rules as input for iptables-restore(8), one text for each IP version. `--noflush` leaves everybody else's rules alone,
//! and naming a chain of ours empties it: each table changes in one step.
//!
//! ```text
//! raw     PREROUTING              -> X-RAW      containers may not reach the host's 127/8
//! nat     PREROUTING, OUTPUT      -> X-PORTS    published ports of this host
//!         POSTROUTING             -> X-POST     127/8 and hairpin sources, and what leaves a network with NAT
//! filter  FORWARD (ours only)     -> X-FORWARD  -> X-OPEN   published ports of routed networks
//! ```
//! An accept is final for the host's FORWARD here, so only packets from or to our interfaces are sent to X-FORWARD: its
//! policy of DROP stops others' packets and not ours. The interfaces' group says which are ours.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::firewall::Mark;
use crate::firewall::rules::{Forward, Rules, Segment, Source};

/// The beginning of our chains' names: `DAVIT`, or with the instance's number.
pub fn prefix(mark: &Mark) -> String {
    mark.table.to_uppercase()
}

/// A rule in a chain of everybody's that leads to one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// Which table.
    pub table: &'static str,
    /// The kernel's chain.
    pub chain: &'static str,
    /// The rest of the rule.
    pub rule: String,
}

/// Where our chains are entered.
pub fn jumps(mark: &Mark, ipv6: bool) -> Vec<Jump> {
    let x = prefix(mark);
    let group = format!("{:#x}", mark.group);
    let jump = |table, chain, rule: String| Jump { table, chain, rule };
    let mut all = vec![
        jump("nat", "PREROUTING", format!("{}-m addrtype --dst-type LOCAL -j {x}-PORTS", shield(ipv6))),
        jump("nat", "OUTPUT", format!("-m addrtype --dst-type LOCAL -j {x}-PORTS")),
        jump("nat", "POSTROUTING", format!("-j {x}-POST")),
        jump("filter", "FORWARD", format!("-m devgroup --src-group {group} -j {x}-FORWARD")),
        jump("filter", "FORWARD", format!("-m devgroup --dst-group {group} -j {x}-FORWARD")),
    ];
    if !ipv6 {
        all.push(jump("raw", "PREROUTING", format!("-m devgroup --src-group {group} -j {x}-RAW")));
    }
    all
}

/// Neighbours do not reach ports of the loopback.
fn shield(ipv6: bool) -> &'static str {
    if ipv6 { "" } else { "! -d 127.0.0.0/8 " }
}

/// Our chains of a table.
pub fn chains(ipv6: bool) -> Vec<(&'static str, &'static [&'static str])> {
    let mut all: Vec<(&str, &[&str])> = vec![("nat", &["PORTS", "POST"]), ("filter", &["FORWARD", "OPEN"])];
    if !ipv6 {
        all.push(("raw", &["RAW"]));
    }
    all
}

/// All chains of ours with all their rules, in place of what they held.
pub fn whole(mark: &Mark, rules: &Rules, ipv6: bool) -> String {
    let x = prefix(mark);
    let group = format!("{:#x}", mark.group);
    let mut text = String::new();
    for (table, names) in chains(ipv6) {
        let _ = writeln!(text, "*{table}");
        for name in names {
            let _ = writeln!(text, ":{x}-{name} - [0:0]");
        }
        match table {
            "raw" => {
                let _ = writeln!(text, "-A {x}-RAW -d 127.0.0.0/8 -j DROP");
            }
            "nat" => {
                if ipv6 {
                    // netd answers there: the kernel does not redirect it.
                    let _ = writeln!(text, "-A {x}-PORTS -d ::1/128 -j RETURN");
                }
                ports(&mut text, &x, "-A", rules.forwards.iter(), ipv6, true);
                sources(&mut text, &x, &group, rules, ipv6);
            }
            _ => {
                forward(&mut text, &x, &group, &rules.segments, ipv6);
                ports(&mut text, &x, "-A", rules.forwards.iter(), ipv6, false);
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Ports added (`-A`) or removed (`-D`); empty when none is of this IP version.
pub fn change(mark: &Mark, action: &str, forwards: &[Forward], ipv6: bool) -> String {
    let mut text = String::new();
    for (table, nat) in [("nat", true), ("filter", false)] {
        let mut lines = String::new();
        ports(&mut lines, &prefix(mark), action, forwards.iter(), ipv6, nat);
        if !lines.is_empty() {
            let _ = write!(text, "*{table}\n{lines}COMMIT\n");
        }
    }
    text
}

/// Removes our chains, which nothing leads to any more.
pub fn removal(mark: &Mark, ipv6: bool) -> String {
    let x = prefix(mark);
    let mut text = String::new();
    for (table, names) in chains(ipv6) {
        let _ = writeln!(text, "*{table}");
        for name in names {
            let _ = writeln!(text, ":{x}-{name} - [0:0]");
        }
        for name in names {
            let _ = writeln!(text, "-X {x}-{name}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

fn ports<'a>(
    text: &mut String,
    x: &str,
    action: &str,
    forwards: impl Iterator<Item = &'a Forward>,
    ipv6: bool,
    nat: bool,
) {
    for f in forwards.filter(|f| f.to.is_ipv6() == ipv6 && f.host.is_some() == nat) {
        let transport = f.transport.name();
        let _ = match f.host {
            Some(host) => {
                let to =
                    if host.ip().is_unspecified() { String::new() } else { format!("-d {} ", host.ip()) };
                writeln!(
                    text,
                    "{action} {x}-PORTS {to}-p {transport} -m {transport} --dport {} -j DNAT --to-destination {}",
                    host.port(),
                    f.to
                )
            }
            None => writeln!(
                text,
                "{action} {x}-OPEN -d {} -p {transport} -m {transport} --dport {} -j ACCEPT",
                f.to.ip(),
                f.to.port()
            ),
        };
    }
}

fn sources(text: &mut String, x: &str, group: &str, rules: &Rules, ipv6: bool) {
    if !ipv6 {
        let _ = writeln!(text, "-A {x}-POST -s 127.0.0.0/8 -m devgroup --dst-group {group} -j MASQUERADE");
    }
    for segment in &rules.segments {
        let bridge = &segment.bridge;
        for subnet in segment.subnets.iter().filter(|n| matches!(n.addr(), IpAddr::V6(_)) == ipv6) {
            let _ = writeln!(
                text,
                "-A {x}-POST -s {subnet} -o {bridge} -m conntrack --ctstate DNAT -j MASQUERADE"
            );
            let _ = match segment.source(subnet) {
                Source::Kept => Ok(()),
                Source::WayOut => writeln!(text, "-A {x}-POST -s {subnet} ! -o {bridge} -j MASQUERADE"),
                Source::Fixed(ip) => {
                    writeln!(text, "-A {x}-POST -s {subnet} ! -o {bridge} -j SNAT --to-source {ip}")
                }
            };
        }
    }
}

fn forward(text: &mut String, x: &str, group: &str, segments: &[Segment], ipv6: bool) {
    let mut rule = |rest: String| {
        let _ = writeln!(text, "-A {x}-FORWARD {rest}");
    };
    rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".into());
    for segment in segments.iter().filter(|s| s.icc) {
        rule(format!("-i {0} -o {0} -j ACCEPT", segment.bridge));
    }
    for segment in segments.iter().filter(|s| s.internal) {
        rule(format!("-i {} -j DROP", segment.bridge));
        rule(format!("-o {} -j DROP", segment.bridge));
    }
    rule(format!("-m devgroup --dst-group {group} -m conntrack --ctstate DNAT -j ACCEPT"));
    rule(format!("-m devgroup --dst-group {group} -j {x}-OPEN"));
    for segment in segments.iter().filter(|s| s.unprotected(ipv6)) {
        rule(format!("-o {} -m devgroup ! --src-group {group} -j ACCEPT", segment.bridge));
    }
    rule(format!("-m devgroup --dst-group {group} -j DROP"));
    rule("-j ACCEPT".into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::rules::Transport;

    #[test]
    fn a_port_is_one_line_of_its_ip_version() {
        let mark = Mark { table: "davit".into(), group: 0x0a00_0001 };
        let forward = |host: &str, to: &str| Forward {
            transport: Transport::Tcp,
            host: host.parse().ok(),
            to: to.parse().unwrap(),
        };
        let forwards = [
            forward("127.0.0.1:8080", "10.0.0.2:80"),
            forward("[::]:8080", "[fd00::2]:80"),
            forward("", "10.0.0.3:81"),
        ];
        assert_eq!(
            change(&mark, "-D", &forwards, false),
            "*nat\n-D DAVIT-PORTS -d 127.0.0.1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80\nCOMMIT\n\
             *filter\n-D DAVIT-OPEN -d 10.0.0.3 -p tcp -m tcp --dport 81 -j ACCEPT\nCOMMIT\n"
        );
        assert_eq!(
            change(&mark, "-A", &forwards, true),
            "*nat\n-A DAVIT-PORTS -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80\nCOMMIT\n"
        );
        assert_eq!(change(&mark, "-A", &forwards[..1], true), "");
    }
}
