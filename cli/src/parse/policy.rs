//! Rules of a network's policy: `allow|deny [from LABELS] [to LABELS] [PROTOCOL[/PORT[-PORT]]]`. LABELS are `key=value` or
//! `key`, with commas between, or `any`.

use std::collections::HashMap;

use davit_contracts::network::PolicyRule;

const EXAMPLE: &str = "such as 'allow from role=web to role=db tcp/5432'";

/// One rule.
pub fn rule(text: &str) -> Result<PolicyRule, String> {
    let bad = |why: String| format!("'{text}' is no rule of a policy: {why} ({EXAMPLE})");
    let mut words = text.split_whitespace().peekable();
    let mut rule = PolicyRule {
        allow: match words.next() {
            Some("allow") => true,
            Some("deny") => false,
            _ => return Err(bad("it starts with neither allow nor deny".to_owned())),
        },
        ..PolicyRule::default()
    };
    for (word, labels) in [("from", &mut rule.from), ("to", &mut rule.to)] {
        if words.next_if_eq(&word).is_some() {
            let selector = words.next().ok_or_else(|| bad(format!("labels are missing after '{word}'")))?;
            *labels = self::labels(selector).map_err(&bad)?;
        }
    }
    if let Some(word) = words.next() {
        let (protocol, ports) = word.split_once('/').map_or((word, None), |(p, ports)| (p, Some(ports)));
        if !["tcp", "udp", "sctp", "icmp"].contains(&protocol) {
            return Err(bad(format!("'{word}' is none of tcp, udp, sctp, icmp")));
        }
        protocol.clone_into(&mut rule.protocol);
        if let Some(ports) = ports {
            let range = self::ports(ports).filter(|_| protocol != "icmp");
            (rule.port, rule.port_end) =
                range.ok_or_else(|| bad(format!("'{word}' has no port of 1 to 65535")))?;
        }
    }
    match words.next() {
        Some(word) => Err(bad(format!("'{word}' is more than is expected"))),
        None => Ok(rule),
    }
}

fn labels(text: &str) -> Result<HashMap<String, String>, String> {
    if text == "any" {
        return Ok(HashMap::new());
    }
    let label = |word: &str| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if key.is_empty() {
            return Err(format!("'{word}' is no label"));
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    text.split(',').map(label).collect()
}

fn ports(text: &str) -> Option<(u32, u32)> {
    let port = |t: &str| t.parse::<u16>().ok().filter(|p| *p > 0).map(u32::from);
    match text.split_once('-') {
        None => Some((port(text)?, 0)),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some((first, if first == last { 0 } else { last }))
        }
    }
}

/// A rule as [`rule`] reads it.
pub fn show(rule: &PolicyRule) -> String {
    let labels = |of: &HashMap<String, String>| {
        let word = |(k, v): (&String, &String)| if v.is_empty() { k.clone() } else { format!("{k}={v}") };
        let mut words: Vec<_> = of.iter().map(word).collect();
        words.sort();
        if words.is_empty() { "any".to_owned() } else { words.join(",") }
    };
    let verb = if rule.allow { "allow" } else { "deny" };
    let protocol = if rule.protocol.is_empty() { String::new() } else { format!(" {}", rule.protocol) };
    let ports = match (rule.port, rule.port_end) {
        (0, _) => String::new(),
        (port, 0) => format!("/{port}"),
        (first, last) => format!("/{first}-{last}"),
    };
    format!("{verb} from {} to {}{protocol}{ports}", labels(&rule.from), labels(&rule.to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_read_and_shown() {
        for (text, shown) in [
            ("allow from role=web to role=db tcp/5432", "allow from role=web to role=db tcp/5432"),
            ("deny", "deny from any to any"),
            ("allow  to  role=db,stage udp/53-60", "allow from any to role=db,stage udp/53-60"),
            ("deny from any icmp", "deny from any to any icmp"),
        ] {
            assert_eq!(show(&rule(text).unwrap()), shown);
        }
    }

    #[test]
    fn nonsense_says_what_is_wrong() {
        for (text, why) in [
            ("", "neither"),
            ("let from a", "neither"),
            ("allow from", "missing"),
            ("allow from =x", "'=x'"),
            ("allow to a from b", "'from'"),
            ("allow tcp/0", "port"),
            ("allow tcp/9-3", "port"),
            ("allow icmp/8", "port"),
            ("allow tcp/80 now", "'now'"),
        ] {
            let e = rule(text).unwrap_err();
            assert!(e.contains(why) && e.contains("such as"), "{text}: {e}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_reads_the_same_when_shown(text in "(allow|deny)( from [a-c=,]{1,5})?( to (any|a=b))?( (tcp|udp|icmp)(/[0-9]{1,5}(-[0-9]{1,5})?)?)?") {
            if let Ok(read) = rule(&text) {
                prop_assert_eq!(rule(&show(&read)).unwrap(), read);
            }
        }
    }
}
