//! Where traffic is to go: `db`, `db:5432`, `db:53/udp`, `10.0.0.2:80`, `fd00::2`, `[fd00::2]:80`.

use std::net::Ipv6Addr;

/// A name or an address, a port (0: none), a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// As given, without brackets.
    pub host: String,
    /// 0: none was given.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// Reads one.
pub fn destination(text: &str) -> Result<Destination, String> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => (rest, Some(protocol.to_ascii_lowercase())),
        None => (text, None),
    };
    let (host, port) = split(rest)?;
    let expected = "a name or an address is expected, such as db, db:5432 or [fd00::2]:80/udp";
    if host.is_empty() {
        return Err(format!("'{text}' names nobody: {expected}"));
    }
    let port = match port {
        Some(digits) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(format!("'{digits}' is not a port: a number from 1 to 65535 is expected")),
        },
        None if protocol.is_some() => return Err(format!("'{text}' has a protocol but no port")),
        None => 0,
    };
    let protocol = protocol.unwrap_or_else(|| "tcp".to_owned());
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("unknown protocol '{protocol}': tcp, udp or sctp is expected"));
    }
    Ok(Destination { host: host.to_owned(), port, protocol })
}

fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(format!("'{text}' lacks a ']'"));
        };
        return match rest {
            "" => Ok((host, None)),
            _ => match rest.strip_prefix(':') {
                Some(port) => Ok((host, Some(port))),
                None => Err(format!("'{rest}' after ']' is not a port")),
            },
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => {
            Err(format!("'{text}' is ambiguous: write an IPv6 address with a port as [ADDRESS]:PORT"))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (String, u16, String) {
        let d = destination(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        (d.host, d.port, d.protocol)
    }

    #[test]
    fn every_form_is_read() {
        for (text, host, port, protocol) in [
            ("db", "db", 0, "tcp"),
            ("db:5432", "db", 5432, "tcp"),
            ("db:53/UDP", "db", 53, "udp"),
            ("10.0.0.2", "10.0.0.2", 0, "tcp"),
            ("10.0.0.2:80", "10.0.0.2", 80, "tcp"),
            ("fd00::2", "fd00::2", 0, "tcp"),
            ("[fd00::2]", "fd00::2", 0, "tcp"),
            ("[fd00::2]:80/sctp", "fd00::2", 80, "sctp"),
        ] {
            assert_eq!(read(text), (host.to_owned(), port, protocol.to_owned()), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("", "names nobody"),
            (":80", "names nobody"),
            ("db:0", "not a port"),
            ("db:x", "not a port"),
            ("db:65536", "not a port"),
            ("db/udp", "no port"),
            ("db:80/ip", "unknown protocol 'ip'"),
            ("fd00::2:80:x", "ambiguous"),
            ("[fd00::2", "lacks a ']'"),
            ("[fd00::2]80", "not a port"),
        ] {
            let error = destination(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = destination(&text);
        }

        #[test]
        fn what_is_written_is_read(host in "[a-z][a-z0-9.-]{0,20}", port in 1u16.., udp: bool) {
            let protocol = if udp { "udp" } else { "tcp" };
            prop_assert_eq!(read(&format!("{host}:{port}/{protocol}")), (host, port, protocol.to_owned()));
        }
    }
}
