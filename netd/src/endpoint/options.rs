//! Docker's options of an endpoint: `--network name=NET,driver-opt=KEY=VALUE`.

use std::collections::BTreeMap;

use crate::network::options::near;

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// The name of the interface inside.
pub const IFNAME_OPTION: &str = "com.docker.network.endpoint.ifname";
/// The setting that turns IPv6 off.
pub const IPV6_OFF: &str = "net.ipv6.conf.IFNAME.disable_ipv6";
const KNOWN: [&str; 2] = [SYSCTLS, IFNAME_OPTION];

/// Why an endpoint cannot have an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// One that is not known.
    #[error("unknown option '{name}' of an endpoint")]
    Unknown {
        /// As given.
        name: String,
        /// The known one that looks like it.
        nearest: Option<&'static str>,
    },
    /// Not of the form `a=b,c=d`.
    #[error("'{0}' is no kernel setting with a value")]
    Form(String),
    /// A setting that is not one of the endpoint's interface.
    #[error("the kernel setting '{0}' is not one of the endpoint's interface")]
    Scope(String),
}

impl OptionError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            Self::Unknown { nearest: None, .. } => format!("the options are {}", KNOWN.join(" and ")),
            Self::Form(_) => "write it as net.ipv4.conf.IFNAME.log_martians=1, several with commas between".into(),
            Self::Scope(_) => {
                "write it as net.ipv4.conf.IFNAME.SETTING, with IFNAME for the interface's name; --sysctl sets others"
                    .into()
            }
        }
    }
}

/// Options, understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointOptions {
    /// Settings of the interface, with `IFNAME` in place of its name, and values.
    pub sysctls: Vec<(String, String)>,
    /// The name of the interface inside.
    pub ifname: Option<String>,
}

impl EndpointOptions {
    /// Checks options.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let mut me = Self::default();
        for (name, value) in options {
            match name.as_str() {
                SYSCTLS => me.sysctls = value.split(',').map(sysctl).collect::<Result<_, _>>()?,
                IFNAME_OPTION => me.ifname = Some(value.clone()),
                _ => {
                    let nearest = near(name, KNOWN);
                    return Err(OptionError::Unknown { name: name.clone(), nearest });
                }
            }
        }
        Ok(me)
    }
}

/// Whether settings of an endpoint turn IPv6 off: it is to have no address of it then.
pub fn turn_ipv6_off(sysctls: &[(String, String)]) -> bool {
    let last = sysctls.iter().rfind(|(setting, _)| setting == IPV6_OFF);
    last.is_some_and(|(_, value)| value != "0")
}

/// `net.ipv4.conf.IFNAME.log_martians=1`. Docker's rule: only settings of one interface, which is called `IFNAME`.
fn sysctl(text: &str) -> Result<(String, String), OptionError> {
    let (name, value) = text.split_once('=').ok_or_else(|| OptionError::Form(text.to_owned()))?;
    let parts: Vec<&str> = name.trim().split('.').collect();
    let word =
        |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let scoped = matches!(parts.as_slice(), ["net", "ipv4" | "ipv6" | "mpls", "conf" | "neigh", "IFNAME", _]);
    if !scoped || !parts.iter().all(word) {
        return Err(OptionError::Scope(name.trim().to_owned()));
    }
    if value.trim().is_empty() {
        return Err(OptionError::Form(text.to_owned()));
    }
    Ok((parts.join("."), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<EndpointOptions, OptionError> {
        EndpointOptions::parse(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn settings_of_the_interface_are_taken() {
        let got = parse(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.IFNAME.gc_stale_time=9")
            .unwrap();
        assert_eq!(got.sysctls[0], ("net.ipv4.conf.IFNAME.log_martians".into(), "1".into()));
        assert_eq!(got.sysctls.len(), 2);
        assert_eq!(parse(IFNAME_OPTION, "wan").unwrap().ifname.as_deref(), Some("wan"));
    }

    #[test]
    fn ipv6_may_be_off() {
        for (settings, off) in [
            ("net.ipv6.conf.IFNAME.disable_ipv6=1", true),
            ("net.ipv6.conf.IFNAME.disable_ipv6=0", false),
            ("net.ipv6.conf.IFNAME.disable_ipv6=1,net.ipv6.conf.IFNAME.disable_ipv6=0", false),
            ("net.ipv6.conf.IFNAME.accept_ra=1", false),
        ] {
            assert_eq!(turn_ipv6_off(&parse(SYSCTLS, settings).unwrap().sysctls), off, "{settings}");
        }
    }

    #[test]
    fn other_settings_are_refused() {
        for other in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.forwarding=1",
            "net.ipv4.conf.eth0.forwarding=1",
            "net.ipv4.conf.IFNAME.a/../../x=1",
            "kernel.core_pattern.x.IFNAME.y=1",
            "net.ipv4.conf.IFNAME=1",
            "net.ipv4.conf.IFNAME.=1",
        ] {
            assert!(matches!(parse(SYSCTLS, other), Err(OptionError::Scope(_))), "{other}");
        }
        for malformed in ["", "net.ipv4.conf.IFNAME.forwarding", "net.ipv4.conf.IFNAME.forwarding="] {
            assert!(matches!(parse(SYSCTLS, malformed), Err(OptionError::Form(_))), "{malformed}");
        }
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        let e = parse("com.docker.network.endpoint.sysctl", "x").unwrap_err();
        assert_eq!(e.hint(), format!("did you mean {SYSCTLS}?"));
        assert_eq!(
            parse("foo", "x").unwrap_err().hint(),
            format!("the options are {SYSCTLS} and {IFNAME_OPTION}")
        );
    }
}
