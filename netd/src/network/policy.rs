//! Which containers of a network may reach which, by their labels.
//!
//! The first rule that matches decides, in the order that they were given; what none matches meets the default. A rule is
//! about who begins: answers to what was allowed pass by themselves.

use std::collections::BTreeMap;
use std::fmt;

use davit_contracts::network as proto;
use serde::{Deserialize, Serialize};

use super::SpecError;

/// Rules that one network may have. A packet meets them one after another.
const RULES: usize = 100;

/// A network's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// In the order that they are tried in.
    pub rules: Vec<PolicyRule>,
    /// What happens to what no rule matches: whether it is allowed.
    pub default_allow: bool,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Allow, else deny.
    pub allow: bool,
    /// Labels that the source has.
    pub from: Selector,
    /// Labels that the destination has.
    pub to: Selector,
    /// Of which protocol; `None` for all.
    pub protocol: Option<Protocol>,
    /// First and last destination port; `None` for all.
    pub ports: Option<(u16, u16)>,
}

/// Labels, all of which a container must have; one with an empty value may have any. Without any it is everyone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(pub BTreeMap<String, String>);

impl Selector {
    /// Whether a container with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0
            .iter()
            .all(|(key, wanted)| labels.get(key).is_some_and(|value| wanted.is_empty() || value == wanted))
    }

    /// Whether everyone is meant.
    pub fn is_everyone(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everyone() {
            return f.write_str("any");
        }
        let word = |(key, value): (&String, &String)| match value.as_str() {
            "" => key.clone(),
            value => format!("{key}={value}"),
        };
        f.write_str(&self.0.iter().map(word).collect::<Vec<_>>().join(","))
    }
}

/// What a rule can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP of both IP versions.
    Icmp,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        }
    }

    /// Its number in an IP header.
    pub fn number(self, ipv6: bool) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Icmp if ipv6 => 58,
            Self::Icmp => 1,
        }
    }
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allow { "allow" } else { "deny" };
        write!(f, "{verb} from {} to {}", self.from, self.to)?;
        if let Some(protocol) = self.protocol {
            write!(f, " {}", protocol.name())?;
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, "/{first}"),
            Some((first, last)) => write!(f, "/{first}-{last}"),
            None => Ok(()),
        }
    }
}

/// Someone's labels.
pub type Labels = BTreeMap<String, String>;

impl Policy {
    /// What the policy says of a new connection: whether it is allowed, and by which rule (from 0); none for the default.
    pub fn decide(&self, from: &Labels, to: &Labels, protocol: u8, port: u16) -> (bool, Option<usize>) {
        let matches = |r: &PolicyRule| {
            r.from.matches(from)
                && r.to.matches(to)
                && r.protocol.is_none_or(|p| [p.number(false), p.number(true)].contains(&protocol))
                && r.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
        };
        match self.rules.iter().position(matches) {
            Some(index) => (self.rules[index].allow, Some(index)),
            None => (self.default_allow, None),
        }
    }

    /// Checks a request. `None` when it asks for nothing: every connection is allowed.
    pub fn parse(rules: &[proto::PolicyRule], default: &str) -> Result<Option<Self>, SpecError> {
        let default_allow = match default {
            "" | "allow" => true,
            "deny" => false,
            _ => return Err(value("default action", default, "allow or deny")),
        };
        if rules.len() > RULES {
            return Err(value("number of rules", &rules.len().to_string(), "at most 100"));
        }
        let rules = rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        Ok((!rules.is_empty() || !default_allow).then_some(Self { rules, default_allow }))
    }
}

fn value(name: &str, value: &str, expected: &'static str) -> SpecError {
    SpecError::Policy { what: name.to_owned(), value: value.to_owned(), expected }
}

fn rule(given: &proto::PolicyRule) -> Result<PolicyRule, SpecError> {
    let protocol = match given.protocol.as_str() {
        "" => None,
        word => Some(
            Protocol::ALL
                .into_iter()
                .find(|p| p.name() == word)
                .ok_or_else(|| value("protocol", word, "tcp, udp, sctp or icmp"))?,
        ),
    };
    let selector = |labels: &std::collections::HashMap<String, String>| {
        if let Some(label) = labels.keys().find(|k| k.is_empty() || k.chars().any(char::is_control)) {
            return Err(value("label", label, "a name"));
        }
        Ok(Selector(labels.clone().into_iter().collect()))
    };
    let (from, to) = (selector(&given.from)?, selector(&given.to)?);
    Ok(PolicyRule { allow: given.allow, from, to, protocol, ports: ports(given, protocol)? })
}

fn ports(given: &proto::PolicyRule, protocol: Option<Protocol>) -> Result<Option<(u16, u16)>, SpecError> {
    let (first, end) = (given.port, given.port_end);
    if first == 0 && end == 0 {
        return Ok(None);
    }
    if protocol.is_none_or(|p| p == Protocol::Icmp) {
        return Err(value("port", &first.to_string(), "none, without tcp, udp or sctp"));
    }
    let last = if end == 0 { first } else { end };
    match (u16::try_from(first), u16::try_from(last)) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Some((first, last))),
        _ => Err(value("port", &format!("{first}-{last}"), "a port or a range of 1 to 65535")),
    }
}

impl From<&PolicyRule> for proto::PolicyRule {
    fn from(rule: &PolicyRule) -> Self {
        let (first, last) = rule.ports.unwrap_or((0, 0));
        Self {
            allow: rule.allow,
            from: rule.from.0.clone().into_iter().collect(),
            to: rule.to.0.clone().into_iter().collect(),
            protocol: rule.protocol.map_or("", Protocol::name).to_owned(),
            port: first.into(),
            port_end: if last == first { 0 } else { last.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(of: &[(&str, &str)]) -> Labels {
        of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn given(
        allow: bool,
        from: &[(&str, &str)],
        to: &[(&str, &str)],
        protocol: &str,
        port: u32,
    ) -> proto::PolicyRule {
        proto::PolicyRule {
            allow,
            from: labels(from).into_iter().collect(),
            to: labels(to).into_iter().collect(),
            protocol: protocol.into(),
            port,
            port_end: 0,
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = [
            given(false, &[("role", "web"), ("stage", "")], &[], "", 0),
            given(true, &[("role", "web")], &[("role", "db")], "tcp", 5432),
        ];
        let policy = Policy::parse(&rules, "deny").unwrap().unwrap();
        let (web, db) = (labels(&[("role", "web")]), labels(&[("role", "db")]));
        let staged = labels(&[("role", "web"), ("stage", "test")]);
        assert_eq!(policy.decide(&web, &db, 6, 5432), (true, Some(1)));
        assert_eq!(policy.decide(&web, &db, 6, 22), (false, None));
        assert_eq!(policy.decide(&web, &db, 17, 5432), (false, None));
        assert_eq!(policy.decide(&db, &web, 6, 5432), (false, None));
        assert_eq!(policy.decide(&staged, &db, 6, 5432), (false, Some(0)));
        assert_eq!(policy.rules[1].to_string(), "allow from role=web to role=db tcp/5432");
        assert_eq!(policy.rules[0].to_string(), "deny from role=web,stage to any");
    }

    #[test]
    fn nothing_asked_is_no_policy_and_nonsense_is_refused() {
        assert_eq!(Policy::parse(&[], "allow").unwrap(), None);
        assert!(Policy::parse(&[], "deny").unwrap().is_some());
        for rule in [
            given(true, &[], &[], "ip", 0),
            given(true, &[], &[], "", 80),
            given(true, &[], &[], "icmp", 8),
            given(true, &[], &[], "tcp", 70000),
            given(true, &[("", "x")], &[], "", 0),
        ] {
            assert!(Policy::parse(std::slice::from_ref(&rule), "").is_err(), "{rule:?}");
        }
        assert!(Policy::parse(&[], "reject").is_err());
        let many = vec![given(true, &[], &[], "", 0); RULES + 1];
        assert!(Policy::parse(&many, "").is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_told_as_it_was_given(
            allow: bool,
            keys in prop::collection::hash_map("[a-z]{1,3}", "[a-z]{0,2}", 0..3),
            protocol in prop::sample::select(vec!["", "tcp", "udp", "sctp", "icmp", "x"]),
            port in 0u32..70000,
            port_end in 0u32..70000,
        ) {
            let rule = proto::PolicyRule { allow, from: keys.clone(), to: keys, protocol: protocol.into(), port, port_end };
            if let Ok(Some(policy)) = Policy::parse(std::slice::from_ref(&rule), "deny") {
                let told = proto::PolicyRule::from(&policy.rules[0]);
                let again = Policy::parse(std::slice::from_ref(&told), "deny").unwrap().unwrap();
                prop_assert_eq!(again, policy);
            }
        }
    }
}
