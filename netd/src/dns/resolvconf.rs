//! resolv.conf(5): the host's, as upstreams for names that are not ours, and what a container's says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::nameserver::NameServer;

/// The C library's files, and the one in which systemd-resolved lists the servers behind its own at 127.0.0.53.
const HOST: &str = "/etc/resolv.conf";
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// How long the host's configuration is believed without looking whether the file changed.
const FRESH: Duration = Duration::from_secs(1);

/// What a resolver configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers, in order.
    pub servers: Vec<NameServer>,
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
                    me.servers.extend(words.next().and_then(|w| w.parse::<NameServer>().ok()));
                }
                Some("search" | "domain") => {
                    me.search = words.filter(|w| *w != ".").map(str::to_owned).collect();
                }
                Some("options") => me.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        me
    }

    /// A number of an option such as `timeout:3`.
    pub fn number(&self, option: &str) -> Option<u32> {
        let values = self.options.iter().filter_map(|o| o.strip_prefix(option)?.strip_prefix(':'));
        values.filter_map(|v| v.parse().ok()).next_back()
    }

    /// What is asked for in turn for a name: itself and the name in each search domain. With as many dots as `ndots` says (1 by
    /// default) itself comes first.
    pub fn tries(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut all: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let dots = u32::try_from(name.matches('.').count()).unwrap_or(u32::MAX);
        let first = dots >= self.number("ndots").unwrap_or(1);
        all.insert(if first { 0 } else { all.len() }, name.to_owned());
        all
    }

    /// Whether an option without a value is there.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// Without servers on loopback, which in another network namespace nobody serves, and those that an interface leads to,
    /// which is another there; the servers of `behind`, the file in which a stub resolver lists them, when none is left.
    #[must_use]
    pub fn off_loopback(mut self, behind: impl FnOnce() -> Option<Self>) -> Self {
        let any = !self.servers.is_empty();
        self.servers.retain(is_reached_from_elsewhere);
        if self.servers.is_empty()
            && any
            && let Some(behind) = behind()
        {
            self.servers = behind.servers;
            self.servers.retain(is_reached_from_elsewhere);
        }
        self
    }

    /// What the resolv.conf of a container says: as this one, but for what the container has of its own. `.` as its only
    /// search domain means none.
    #[must_use]
    pub fn with(&self, servers: &[NameServer], search: &[String], options: &[String]) -> Self {
        let or = |own: &[String], host: &[String]| if own.is_empty() { host.to_vec() } else { own.to_vec() };
        let mut search = or(search, &self.search);
        search.retain(|domain| domain != ".");
        let servers = if servers.is_empty() { &self.servers } else { servers };
        Self { servers: servers.to_vec(), search, options: or(options, &self.options) }
    }

    /// Names of containers have no dots and must be tried as they are first, unless a person wants another order.
    #[must_use]
    pub fn for_container_names(mut self) -> Self {
        if !self.options.iter().any(|o| o.starts_with("ndots:")) {
            self.options.push("ndots:0".to_owned());
        }
        self
    }
}

fn is_reached_from_elsewhere(server: &NameServer) -> bool {
    !server.ip.is_loopback() && server.zone.is_none()
}

/// The host's configuration, read again when the file changes.
#[derive(Debug, Default)]
pub struct HostConf {
    /// Whether the host's loopback is another than ours: then servers there are out of reach.
    apart: bool,
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    looked: Instant,
    modified: Option<SystemTime>,
    conf: Arc<ResolvConf>,
}

impl HostConf {
    /// Of a host whose loopback is ours, or is not.
    pub fn new(apart: bool) -> Self {
        Self { apart, known: Mutex::default() }
    }

    /// The configuration by which we ask.
    pub fn get(&self) -> Arc<ResolvConf> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(k) = &*known
            && k.looked.elapsed() < FRESH
        {
            return k.conf.clone();
        }
        let modified = std::fs::metadata(HOST).and_then(|m| m.modified()).ok();
        let conf = match &*known {
            Some(k) if k.modified == modified => k.conf.clone(),
            _ => Arc::new(self.read()),
        };
        *known = Some(Known { looked: Instant::now(), modified, conf: conf.clone() });
        conf
    }

    fn read(&self) -> ResolvConf {
        let conf = of_file(HOST).unwrap_or_default();
        if self.apart { conf.off_loopback(|| of_file(BEHIND_STUB)) } else { conf }
    }

    /// The configuration for a container with a network namespace of its own that we do not serve.
    pub fn for_others(&self) -> ResolvConf {
        ResolvConf::clone(&self.get()).off_loopback(|| of_file(BEHIND_STUB))
    }
}

/// Bytes that are no text may be in a comment, and are nonsense elsewhere.
fn of_file(path: &str) -> Option<ResolvConf> {
    std::fs::read(path).ok().map(|bytes| ResolvConf::parse(&String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<NameServer> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn servers_search_and_options_are_read_and_nonsense_is_passed_over() {
        let conf = ResolvConf::parse(
            "# made by hand\nnameserver 10.0.0.53 # near\nnameserver x\n\
             nameserver fd00::53\nnameserver fe80::1%eth0\nnameserver fd00::1%eth0\nsearch a.example b.example\noptions ndots:2 timeout:1\noptions rotate timeout:x\nnonsense\n",
        );
        assert_eq!(conf.servers, ips(&["10.0.0.53", "fd00::53", "fe80::1%eth0"]));
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!(conf.options, ["ndots:2", "timeout:1", "rotate", "timeout:x"]);
        assert_eq!((conf.number("timeout"), conf.number("attempts")), (Some(1), None));
        assert!(conf.has("rotate") && !conf.has("ndots"));
        assert_eq!(ResolvConf::parse("search .\n").search, Vec::<String>::new());
    }

    #[test]
    fn bytes_that_are_no_text_cost_their_line_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"# caf\xe9\nnameserver 10.0.0.\xff\nnameserver 10.0.0.53\nsearch a\n")
            .unwrap();
        let conf = of_file(file.path().to_str().unwrap()).unwrap();
        assert_eq!((conf.servers, conf.search), (ips(&["10.0.0.53"]), vec!["a".to_owned()]));
    }

    #[test]
    fn a_container_gets_the_hosts_words_where_it_has_none_of_its_own() {
        let host = ResolvConf::parse("nameserver 10.0.0.53\nsearch lan\noptions timeout:1\n");
        let same = host.with(&[], &[], &[]);
        assert_eq!(same, host);
        let own = host.with(&ips(&["10.1.1.1"]), &["a".to_owned()], &["rotate".to_owned()]);
        assert_eq!(own, ResolvConf::parse("nameserver 10.1.1.1\nsearch a\noptions rotate\n"));
        assert!(host.with(&[], &[".".to_owned()], &[]).search.is_empty(), "a dot clears");
        assert_eq!(same.for_container_names().options, ["timeout:1", "ndots:0"]);
        assert_eq!(host.with(&[], &[], &["ndots:3".to_owned()]).for_container_names().options, ["ndots:3"]);
    }

    #[test]
    fn a_name_is_tried_as_it_is_before_or_after_the_search_domains() {
        let conf = ResolvConf::parse("search a b\n");
        assert_eq!(conf.tries("x"), ["x.a", "x.b", "x"]);
        assert_eq!(conf.tries("x.y"), ["x.y", "x.y.a", "x.y.b"]);
        assert_eq!(conf.tries("x."), ["x."]);
        assert_eq!(conf.clone().for_container_names().tries("x"), ["x", "x.a", "x.b"]);
        assert_eq!(ResolvConf::parse("search a\noptions ndots:2\n").tries("x.y"), ["x.y.a", "x.y"]);
    }

    #[test]
    fn servers_on_loopback_are_replaced_by_those_behind_them() {
        let stub = ResolvConf::parse("nameserver 127.0.0.53\noptions edns0\n");
        let behind = || Some(ResolvConf::parse("nameserver 10.0.0.53\nnameserver ::1\nsearch x\n"));
        let conf = stub.clone().off_loopback(behind);
        assert_eq!((conf.servers, conf.options), (ips(&["10.0.0.53"]), vec!["edns0".to_owned()]));
        assert!(stub.off_loopback(|| None).servers.is_empty());
        let mixed = ResolvConf::parse("nameserver ::1\nnameserver fe80::1%eth0\nnameserver 10.9.9.9\n")
            .off_loopback(behind);
        assert_eq!(mixed.servers, ips(&["10.9.9.9"]), "one that can be reached is enough");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*", lines in prop::collection::vec("(nameserver|search|domain|options) [ a-z0-9:.%]*", 0..8)) {
            for text in [text, lines.join("\n")] {
                let conf = ResolvConf::parse(&text);
                let again = conf.with(&[], &[], &[]).for_container_names();
                prop_assert!(again.options.iter().any(|o| o.starts_with("ndots:")));
                prop_assert!(conf.off_loopback(|| None).servers.iter().all(is_reached_from_elsewhere));
            }
        }
    }
}
