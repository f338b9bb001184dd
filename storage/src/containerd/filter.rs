//! Filters of a list, in containerd's notation: `kind==active,labels."a/b"!=c`. Pure.
//!
//! ```text
//! filter    = selector { "," selector }          all of them
//! selector  = field [ operator value ]           without an operator: the field is there and not empty
//! operator  = "==" | "!=" | "~="                  equal, not equal, matches a regular expression
//! field     = "name" | "parent" | "kind" | "labels." key
//! key,value = letters, digits and -_./:@ ... | "quoted"
//! ```

use regex::Regex;

use super::{Kind, Record};

/// One filter.
#[derive(Debug)]
pub struct Filter {
    selectors: Vec<Selector>,
}

/// A text is no filter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a filter: {why}")]
pub struct InvalidFilter {
    text: String,
    why: String,
}

#[derive(Debug)]
struct Selector {
    field: Field,
    test: Test,
}

#[derive(Debug)]
enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
    /// Nothing has it, so that filters for other kinds of things match nothing.
    Other,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Takes containerd's notation; "" matches everything.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        let failed = |why: String| InvalidFilter { text: text.chars().take(200).collect(), why };
        let mut rest = text.trim();
        let mut selectors = Vec::new();
        while !rest.is_empty() {
            selectors.push(selector(&mut rest).map_err(failed)?);
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix(',').ok_or_else(|| failed(format!("unexpected '{rest}'")))?;
            if rest.is_empty() {
                return Err(failed("something is missing after the comma".into()));
            }
        }
        Ok(Self { selectors })
    }

    /// Whether all its selectors match.
    pub fn matches(&self, record: &Record) -> bool {
        self.selectors.iter().all(|s| s.matches(record))
    }
}

impl Selector {
    fn matches(&self, record: &Record) -> bool {
        let value = match &self.field {
            Field::Name => Some(record.name.as_str()),
            Field::Parent => Some(record.parent.as_str()),
            Field::Kind => Some(match record.kind {
                Kind::Active => "active",
                Kind::View => "view",
                Kind::Committed => "committed",
            }),
            Field::Label(key) => record.labels.get(key).map(String::as_str),
            Field::Other => None,
        };
        let value_or_empty = value.unwrap_or_default();
        match &self.test {
            Test::Present => !value_or_empty.is_empty(),
            Test::Equal(wanted) => {
                value.is_some_and(|v| v.eq_ignore_ascii_case(wanted) && exact(&self.field, v, wanted))
            }
            Test::NotEqual(unwanted) => value_or_empty != unwanted,
            Test::Matches(regex) => value.is_some_and(|v| regex.is_match(v)),
        }
    }
}

/// Kinds are words of the protocol, whatever their case; all else is exact.
fn exact(field: &Field, value: &str, wanted: &str) -> bool {
    matches!(field, Field::Kind) || value == wanted
}

fn selector(rest: &mut &str) -> Result<Selector, String> {
    let mut path = vec![word(rest)?];
    while let Some(after) = rest.strip_prefix('.') {
        *rest = after;
        path.push(word(rest)?);
    }
    let field = match (path[0].as_str(), path.len()) {
        ("name", 1) => Field::Name,
        ("parent", 1) => Field::Parent,
        ("kind", 1) => Field::Kind,
        ("labels", 2..) => Field::Label(path[1..].join(".")),
        _ => Field::Other,
    };
    let operator = ["==", "!=", "~="].into_iter().find(|o| rest.starts_with(o));
    let Some(operator) = operator else { return Ok(Selector { field, test: Test::Present }) };
    *rest = &rest[2..];
    let value = value(rest)?;
    let test = match operator {
        "==" => Test::Equal(value),
        "!=" => Test::NotEqual(value),
        _ => Test::Matches(Regex::new(&value).map_err(|_| "its regular expression is invalid".to_owned())?),
    };
    Ok(Selector { field, test })
}

/// A name of a field: bare or quoted.
fn word(rest: &mut &str) -> Result<String, String> {
    if rest.starts_with(['"', '|', '/']) {
        return quoted(rest);
    }
    let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(rest.len());
    if end == 0 {
        return Err("a field is missing".into());
    }
    let found = rest[..end].to_owned();
    *rest = &rest[end..];
    Ok(found)
}

fn value(rest: &mut &str) -> Result<String, String> {
    if rest.starts_with(['"', '|']) {
        return quoted(rest);
    }
    let end = rest.find(',').unwrap_or(rest.len());
    let found = rest[..end].to_owned();
    *rest = &rest[end..];
    Ok(found)
}

/// Text between a delimiter and the next one; a backslash takes the following character as it is.
fn quoted(rest: &mut &str) -> Result<String, String> {
    let mut chars = rest.char_indices();
    let (_, delimiter) = chars.next().ok_or("a quote is missing")?;
    let mut found = String::new();
    while let Some((at, c)) = chars.next() {
        if c == delimiter {
            *rest = &rest[at + c.len_utf8()..];
            return Ok(found);
        }
        match c {
            '\\' => found.extend(chars.next().map(|(_, c)| c)),
            c => found.push(c),
        }
    }
    Err("a quote is not closed".into())
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            number: 1,
            name: "sha256:abc".into(),
            parent: String::new(),
            kind: Kind::Committed,
            form: Form::Overlay,
            labels: [("containerd.io/gc.root".to_owned(), "2026-01-01T00:00:00Z".to_owned())].into(),
            created_unix_ns: 0,
            updated_unix_ns: 0,
            bytes: 0,
            inodes: 0,
        }
    }

    #[test]
    fn what_each_selector_means() {
        for yes in [
            "",
            "name==sha256:abc",
            "kind==committed",
            "kind==Committed",
            "name~=^sha256:",
            "parent!=x",
            "labels.\"containerd.io/gc.root\"",
            "labels.\"containerd.io/gc.root\"==2026-01-01T00:00:00Z,kind!=active",
            "name==\"sha256:abc\"",
        ] {
            assert!(Filter::parse(yes).unwrap().matches(&record()), "{yes}");
        }
        for no in
            ["name==sha256:ABC", "parent", "kind==active", "labels.other==x", "target.digest==x", "name~=^x"]
        {
            assert!(!Filter::parse(no).unwrap().matches(&record()), "{no}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["==x", "name==\"x", "name==x,", "name~=(", "name=x"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,80}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.matches(&record());
            }
        }

        #[test]
        fn a_quoted_name_is_found_whatever_is_in_it(name in ".{1,40}") {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let filter = Filter::parse(&format!("name==\"{quoted}\"")).unwrap();
            let found = Record { name, ..record() };
            prop_assert!(filter.matches(&found));
        }
    }
}
