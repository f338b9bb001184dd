//! The call: verb and parameters, from the environment (specification, section 2, "Parameters").
//!
//! ```text
//!           CNI_CONTAINERID  CNI_NETNS  CNI_IFNAME  CNI_ARGS
//! ADD       needed           needed     needed      optional
//! DEL       needed           optional   needed      optional
//! CHECK     needed           needed     needed      optional
//! others    -                -          -           -
//! ```

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::failure::{Code, Failure};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Compare with what ADD answered.
    Check,
    /// Detach what is not in a list.
    Gc,
    /// Whether ADD would work.
    Status,
    /// Which versions are spoken.
    Version,
}

impl Verb {
    /// As the environment says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];
}

/// `CNI_ARGS`: what of it we know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// `K8S_POD_NAME`.
    pub pod: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `IP`: an address that is asked for.
    pub ip: String,
    /// `MAC`.
    pub mac: String,
}

/// A container's attachment: what the specification has everything keyed by, with the network's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_NETNS`.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: Args,
}

/// A call, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which verb.
    pub verb: Verb,
    /// For ADD, DEL and CHECK.
    pub attachment: Option<Attachment>,
}

impl Call {
    /// Reads a call; `var` reads a variable.
    pub fn parse(var: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let get = |name: &str| var(name).filter(|v| !v.is_empty());
        let verb = get("CNI_COMMAND").ok_or_else(|| {
            refused("CNI_COMMAND is not set")
                .with_details("davit-cni is run by who manages containers; see davit-cni --help")
        })?;
        let verb = Verb::ALL.into_iter().find(|v| v.name() == verb).ok_or_else(|| {
            let known = Verb::ALL.map(Verb::name).join(", ");
            refused(format!("CNI_COMMAND cannot be '{verb}': one of {known} is expected"))
        })?;
        let attachment = match verb {
            Verb::Add | Verb::Del | Verb::Check => Some(attachment(verb, get)?),
            Verb::Gc | Verb::Status | Verb::Version => None,
        };
        Ok(Self { verb, attachment })
    }
}

fn refused(message: impl Into<String>) -> Failure {
    Failure::new(Code::Environment, message)
}

fn attachment(verb: Verb, get: impl Fn(&str) -> Option<String>) -> Result<Attachment, Failure> {
    let needed = |name: &str| get(name).ok_or_else(|| refused(format!("{} needs {name}", verb.name())));
    let container = needed("CNI_CONTAINERID")?;
    if !is_identifier(&container) {
        return Err(refused(format!(
            "CNI_CONTAINERID cannot be '{container}': letters, digits, '_', '.' and '-' are expected, a letter or digit first"
        )));
    }
    let interface = needed("CNI_IFNAME")?;
    if !is_interface(&interface) {
        return Err(refused(format!(
            "CNI_IFNAME cannot be '{interface}': 1 to 15 bytes without '/', ':' and white space are expected"
        )));
    }
    if verb != Verb::Del && !is_choosable(&interface) {
        return Err(refused(format!(
            "CNI_IFNAME cannot be '{interface}': letters, digits, '_', '.' and '-' are expected, a letter or digit first, and \
             neither lo, all nor default"
        )));
    }
    let netns = match verb {
        Verb::Del => get("CNI_NETNS"),
        _ => Some(needed("CNI_NETNS")?),
    };
    if let Some(relative) = netns.as_ref().filter(|path| !path.starts_with('/')) {
        return Err(refused(format!("CNI_NETNS cannot be '{relative}': an absolute path is expected")));
    }
    // What cannot be understood must not keep a container from going.
    let args = match (args(&get("CNI_ARGS").unwrap_or_default()), verb) {
        (Err(_), Verb::Del) => Args::default(),
        (args, _) => args?,
    };
    Ok(Attachment { container, interface, netns: netns.map(PathBuf::from), args })
}

/// The specification's rule for names of containers and networks.
pub fn is_identifier(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && text.bytes().all(legal)
}

/// The kernel's rule, as the specification says it.
pub fn is_interface(text: &str) -> bool {
    let legal = |c: char| c != '/' && c != ':' && !c.is_whitespace() && !c.is_control();
    (1..16).contains(&text.len()) && text != "." && text != ".." && text.chars().all(legal)
}

/// What netd takes as a name for an interface that it makes: `%d` the kernel would fill in, and settings of `all`, `default`
/// and `lo` are others'.
fn is_choosable(text: &str) -> bool {
    is_interface(text) && is_identifier(text) && !["lo", "all", "default"].contains(&text)
}

/// An address, with or without its prefix length.
fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok()
}

/// Six bytes, not those of a group, whose first is odd.
fn is_mac(text: &str) -> bool {
    let byte = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| (1..=2).contains(&part.len()));
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
    bytes.is_some_and(|bytes| bytes.len() == 6 && bytes[0] & 1 == 0 && bytes != [0; 6])
}

/// `KEY=value;KEY=value`. Unknown keys are an error unless `IgnoreUnknown` is true.
fn args(text: &str) -> Result<Args, Failure> {
    let mut args = Args::default();
    let (mut ignore, mut unknown) = (false, None);
    for pair in text.split(';').filter(|p| !p.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| refused(format!("CNI_ARGS holds '{pair}': KEY=value is expected")))?;
        let place = match key {
            "IgnoreUnknown" => {
                ignore = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
                continue;
            }
            "K8S_POD_NAME" => &mut args.pod,
            "K8S_POD_NAMESPACE" => &mut args.namespace,
            "IP" => &mut args.ip,
            "MAC" => &mut args.mac,
            "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => continue,
            _ => {
                unknown.get_or_insert(key);
                continue;
            }
        };
        value.clone_into(place);
    }
    for (key, value, fits) in [("IP", &args.ip, is_address as fn(&str) -> bool), ("MAC", &args.mac, is_mac)] {
        if !value.is_empty() && !fits(value) {
            let what = if key == "IP" { "an IP address" } else { "an Ethernet address" };
            return Err(refused(format!("CNI_ARGS holds {key}={value}: {what} is expected")));
        }
    }
    args.ip.truncate(args.ip.find('/').unwrap_or(args.ip.len()));
    match unknown {
        Some(key) if !ignore => Err(refused(format!("CNI_ARGS holds the unknown key '{key}'"))
            .with_details("IgnoreUnknown=1 in CNI_ARGS lets it pass")),
        _ => Ok(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(pairs: &[(&str, &str)]) -> Result<Call, Failure> {
        Call::parse(|key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()))
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
    ];

    #[test]
    fn an_add_has_all_it_needs() {
        let attachment = call(&ADD).unwrap().attachment.unwrap();
        assert_eq!((attachment.container.as_str(), attachment.interface.as_str()), ("c1", "eth0"));
        for (name, _) in ADD {
            let rest: Vec<_> = ADD.into_iter().filter(|(other, _)| *other != name).collect();
            let failure = call(&rest).unwrap_err();
            assert_eq!(failure.code, Code::Environment);
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }

    #[test]
    fn a_del_does_without_the_namespace_and_others_without_a_container() {
        let del =
            [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", "x")];
        assert_eq!(call(&del).unwrap().attachment.unwrap().netns, None);
        for verb in ["GC", "STATUS", "VERSION"] {
            assert_eq!(call(&[("CNI_COMMAND", verb)]).unwrap().attachment, None);
        }
        assert!(call(&[("CNI_COMMAND", "add")]).is_err());
    }

    #[test]
    fn bad_values_are_named() {
        for (name, value) in [
            ("CNI_CONTAINERID", "-x"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_IFNAME", "sixteen-letters-"),
            ("CNI_IFNAME", "a b"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "lo"),
            ("CNI_IFNAME", "all"),
            ("CNI_IFNAME", "eth%d"),
            ("CNI_IFNAME", "-x"),
            ("CNI_IFNAME", "é"),
            ("CNI_NETNS", "run/netns/x"),
            ("CNI_ARGS", "FOO=BAR"),
            ("CNI_ARGS", "FOO"),
            ("CNI_ARGS", "IP=foo"),
            ("CNI_ARGS", "IP=10.0.0.5/64"),
            ("CNI_ARGS", "MAC=foo"),
            ("CNI_ARGS", "MAC=01:00:00:00:00:01"),
        ] {
            let mut pairs: Vec<_> = ADD.iter().copied().filter(|(n, _)| *n != name).collect();
            pairs.push((name, value));
            let failure = call(&pairs).unwrap_err();
            assert_eq!(failure.code, Code::Environment);
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }

    #[test]
    fn an_address_may_have_its_prefix_length() {
        assert_eq!(args("IP=172.22.0.77/16;MAC=02:00:00:00:00:07").unwrap().ip, "172.22.0.77");
        assert_eq!(args("IP=fd00::7").unwrap().ip, "fd00::7");
    }

    #[test]
    fn a_kubelets_arguments_are_read() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;X=y;IP=10.0.0.5";
        let got = args(text).unwrap();
        assert_eq!(
            (got.pod.as_str(), got.namespace.as_str(), got.ip.as_str()),
            ("web-0", "default", "10.0.0.5")
        );
    }

    proptest! {
        #[test]
        fn no_environment_makes_it_panic(values in proptest::collection::vec(any::<String>(), 5)) {
            let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];
            for verb in Verb::ALL {
                let got = Call::parse(|key| match key {
                    "CNI_COMMAND" => Some(verb.name().to_owned()),
                    _ => names.iter().position(|n| *n == key).map(|n| values[n].clone()),
                });
                if let Ok(Call { attachment: Some(a), .. }) = got {
                    prop_assert!(is_identifier(&a.container) && is_interface(&a.interface));
                }
            }
        }
    }
}
