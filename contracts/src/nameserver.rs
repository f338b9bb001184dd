//! Name servers as people write them: an address, and for a link-local one the interface that it is reached by
//! (`fe80::1%eth0`, RFC 4007, 11).

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

/// Where a container's own resolver is.
const RESOLVER: [u8; 4] = [127, 0, 0, 11];
/// `IFNAMSIZ` (linux/if.h), which counts a zero at the end.
const IFNAMSIZ: usize = 16;

/// The interface by which a link-local address is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Its number.
    Index(u32),
    /// Its name; zeros behind it.
    Name([u8; IFNAMSIZ]),
}

impl Zone {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(index) = text.parse::<u32>() {
            return (index > 0).then_some(Self::Index(index));
        }
        // What Linux takes for an interface's name.
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
        if matches!(text, "" | "." | "..") || text.len() >= IFNAMSIZ || text.contains(bad) {
            return None;
        }
        let mut name = [0; IFNAMSIZ];
        name[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self::Name(name))
    }

    /// Its name, when it is not known by its number.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Index(_) => None,
            Self::Name(name) => {
                let end = name.iter().position(|b| *b == 0).unwrap_or(IFNAMSIZ);
                std::str::from_utf8(&name[..end]).ok()
            }
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(_) => f.write_str(self.name().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameServer {
    /// Its address.
    pub ip: IpAddr,
    /// Only with a link-local address of IPv6.
    pub zone: Option<Zone>,
}

/// Why a text is no name server, or none that a container can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameServerError {
    /// Not an address.
    #[error("'{0}' is not an IP address")]
    Address(String),
    /// No interface can be called so.
    #[error("'{0}': what is behind the % is neither an interface's name nor its number")]
    Zone(String),
    /// Other addresses are reached by routes.
    #[error("'{0}': an interface goes with a link-local address (fe80::/10) only")]
    Zoned(String),
    /// Nobody can tell by which interface it is reached.
    #[error("'{0}' is link-local: say by which interface of the container, as in '{0}%eth0'")]
    Unzoned(String),
    /// It would be asked by itself for ever.
    #[error(
        "'{0}' is the container's own resolver, which would ask itself: leave it out, or name the server that it is to ask"
    )]
    Resolver(String),
    /// No server is there.
    #[error("'{0}' is not the address of one server: it means any address, or a group")]
    Nobody(String),
}

impl NameServer {
    /// Reads what a person gave as a server for a container.
    ///
    /// # Errors
    /// It cannot be read, nobody can be asked there, or it is the resolver in the container itself.
    pub fn given(text: &str) -> Result<Self, NameServerError> {
        let me: Self = text.parse()?;
        let own = || text.to_owned();
        let broadcast = matches!(me.ip, IpAddr::V4(ip) if ip.is_broadcast());
        if me.ip.is_unspecified() || me.ip.is_multicast() || broadcast {
            return Err(NameServerError::Nobody(own()));
        }
        if me.is_own_resolver() {
            return Err(NameServerError::Resolver(own()));
        }
        if me.zone.is_none() && is_link_local(me.ip) {
            return Err(NameServerError::Unzoned(own()));
        }
        Ok(me)
    }

    /// Whether in a container it is the resolver that asks.
    pub fn is_own_resolver(&self) -> bool {
        self.ip == IpAddr::from(RESOLVER)
    }

    /// Where it is asked. An interface's name is not in it.
    pub fn at(&self, port: u16) -> SocketAddr {
        match (self.ip, self.zone) {
            (IpAddr::V6(ip), Some(Zone::Index(index))) => SocketAddrV6::new(ip, port, 0, index).into(),
            (ip, _) => SocketAddr::new(ip, port),
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

impl From<IpAddr> for NameServer {
    fn from(ip: IpAddr) -> Self {
        Self { ip: ip.to_canonical(), zone: None }
    }
}

impl FromStr for NameServer {
    type Err = NameServerError;

    fn from_str(text: &str) -> Result<Self, NameServerError> {
        let (address, zone) = text.split_once('%').map_or((text, None), |(a, z)| (a, Some(z)));
        let ip: IpAddr = address.parse().map_err(|_| NameServerError::Address(text.to_owned()))?;
        let Some(zone) = zone else { return Ok(ip.into()) };
        let zone = Zone::parse(zone).ok_or_else(|| NameServerError::Zone(text.to_owned()))?;
        if !is_link_local(ip) {
            return Err(NameServerError::Zoned(text.to_owned()));
        }
        Ok(Self { ip, zone: Some(zone) })
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip)?;
        self.zone.map_or(Ok(()), |zone| write!(f, "%{zone}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_written_as_they_were() {
        for text in ["10.0.0.53", "fd00::53", "127.0.0.53", "::1", "fe80::1%eth0", "fe80::1%7", "fe80::1%a.5"]
        {
            assert_eq!(NameServer::given(text).map(|s| s.to_string()).as_deref(), Ok(text));
        }
        let at = |text: &str| NameServer::given(text).map(|s| s.at(53).to_string());
        assert_eq!(at("fe80::1%7").as_deref(), Ok("[fe80::1%7]:53"));
        assert_eq!(at("fe80::1%eth0").as_deref(), Ok("[fe80::1]:53"));
        assert_eq!(at("::ffff:10.0.0.1").as_deref(), Ok("10.0.0.1:53"));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_and_told_why() {
        let why = |text: &str| NameServer::given(text).map_err(|e| e.to_string()).unwrap_err();
        for text in ["", "x", "10.0.0", "10.0.0.1:53", "10.0.0.1 x", "[::1]"] {
            assert!(why(text).contains("not an IP address"), "{text}");
        }
        for text in [
            "fe80::1%",
            "fe80::1%0",
            "fe80::1%a b",
            "fe80::1%a/b",
            "fe80::1%sixteen-and-more-",
            "fe80::1%..",
            "fe80::1%a%b",
        ] {
            assert!(why(text).contains("behind the %"), "{text}");
        }
        for text in ["10.0.0.1%eth0", "fd00::1%eth0", "::1%1"] {
            assert!(why(text).contains("link-local"), "{text}");
        }
        assert!(why("fe80::1").contains("fe80::1%eth0"));
        for text in ["127.0.0.11", "::ffff:127.0.0.11"] {
            assert!(why(text).contains("own resolver"), "{text}");
        }
        for text in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"] {
            assert!(why(text).contains("not the address of one server"), "{text}");
        }
    }
}
