//! Services by name (RFC 6335): what `_http._tcp.web` means. A number in place of the name always works: `_8080._tcp.web`.

use super::wire::Key;

/// A port that a container offers: its number and the protocol's number in an IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// 6, 17 or 132.
    pub protocol: u8,
    /// In the container.
    pub port: u16,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// What containers commonly serve, with IANA's names and numbers; others have their number. The host's /etc/services is not
/// asked: a name must mean the same on every host.
const KNOWN: [(&str, u16); 44] = [
    ("amqp", 5672),
    ("amqps", 5671),
    ("cassandra", 9042),
    ("couchdb", 5984),
    ("dns", 53),
    ("docker", 2375),
    ("domain", 53),
    ("elasticsearch", 9200),
    ("etcd-client", 2379),
    ("etcd-server", 2380),
    ("ftp", 21),
    ("git", 9418),
    ("grafana", 3000),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("https-alt", 8443),
    ("imap", 143),
    ("imaps", 993),
    ("kafka", 9092),
    ("kerberos", 88),
    ("ldap", 389),
    ("ldaps", 636),
    ("memcached", 11211),
    ("mongodb", 27017),
    ("mqtt", 1883),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("nats", 4222),
    ("nfs", 2049),
    ("ntp", 123),
    ("postgresql", 5432),
    ("prometheus", 9090),
    ("redis", 6379),
    ("rsync", 873),
    ("secure-mqtt", 8883),
    ("sip", 5060),
    ("smtp", 25),
    ("ssh", 22),
    ("submission", 587),
    ("syslog", 514),
    ("telnet", 23),
    ("tftp", 69),
    ("zookeeper", 2181),
];

/// A question for a service: which port, of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `None` when no service is called so.
    pub service: Option<Service>,
    /// Of which name.
    pub host: &'a [u8],
}

/// Reads `_service._protocol.host`; `None` of a name of another form.
pub fn asked(key: &[u8]) -> Option<Asked<'_>> {
    let (service, rest) = underscored(key)?;
    let (protocol, host) = underscored(rest)?;
    let protocol = match protocol {
        b"tcp" => TCP,
        b"udp" => UDP,
        b"sctp" => SCTP,
        _ => return None,
    };
    let service = port(service).map(|port| Service { protocol, port });
    Some(Asked { service, host })
}

/// The first label without its underscore, and what follows it.
fn underscored(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = key.split_first()?;
    let (label, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((label.strip_prefix(b"_")?, rest))
}

fn port(service: &[u8]) -> Option<u16> {
    let service = std::str::from_utf8(service).ok()?;
    if service.bytes().all(|b| b.is_ascii_digit()) {
        return service.parse().ok().filter(|port| *port != 0);
    }
    KNOWN.iter().find(|(name, _)| *name == service).map(|(_, port)| *port)
}

/// What one sandbox says of itself on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The one name that means it alone.
    pub name: Key,
    /// What it offers.
    pub services: Box<[Service]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire::key;

    #[test]
    fn a_service_is_asked_for_by_name_or_number() {
        let of = |text: &str| {
            let key = key(text).unwrap();
            asked(&key).map(|a| (a.service.map(|s| (s.protocol, s.port)), crate::dns::wire::text(a.host)))
        };
        assert_eq!(of("_http._tcp.web"), Some((Some((6, 80)), "web".to_owned())));
        assert_eq!(of("_8080._UDP.web.front"), Some((Some((17, 8080)), "web.front".to_owned())));
        assert_eq!(of("_9._sctp.web"), Some((Some((132, 9)), "web".to_owned())));
        assert_eq!(of("_nosuch._tcp.web"), Some((None, "web".to_owned())));
        for port in ["_0._tcp.web", "_65536._tcp.web", "_._tcp.web"] {
            assert_eq!(of(port), Some((None, "web".to_owned())), "{port}");
        }
        assert_eq!(of("_http._tcp"), Some((Some((6, 80)), String::new())));
        for other in ["web", "_http.web", "_http._quic.web", "http._tcp.web"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_its_names_are_names_of_services() {
        assert!(KNOWN.windows(2).all(|w| w[0].0 < w[1].0));
        for (name, port) in KNOWN {
            assert!(name.len() <= 15 && port > 0, "{name}: RFC 6335, 5.1");
        }
    }
}
