//! `--filter`: which images and volumes are meant, by docker's rules.
//!
//! Filters of different keys must all hold, and so must several labels and moments; of several references, names or
//! drivers one is enough.

use std::collections::BTreeMap;

use crate::error::Error;

/// Key and value, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    /// Takes them as they are; [`Filters::only`] checks the keys.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Refuses keys that the command does not know.
    pub fn only(&self, known: &[&str]) -> Result<(), Error> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(Error::UnknownFilter(key.clone())),
            None => Ok(()),
        }
    }

    /// All values of a key.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Without a filter of the key everything matches; otherwise one is enough.
    pub fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        let mut values = self.values(key).peekable();
        values.peek().is_none() || values.any(matches)
    }

    /// A truth value, `None` without such a filter.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        let mut found = None;
        for value in self.values(key) {
            let truth = match value.to_ascii_lowercase().as_str() {
                "true" | "1" | "t" => true,
                "false" | "0" | "f" => false,
                _ => return Err(bad(key, value)),
            };
            if found.is_some_and(|f| f != truth) {
                return Err(bad(key, value));
            }
            found = Some(truth);
        }
        Ok(found)
    }

    /// `label=key`, `label=key=value`, and the same with `label!` for those that do not have it.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |text: &str| {
            let (name, wanted) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
            labels.get(name).is_some_and(|v| wanted.is_none_or(|w| w == v))
        };
        self.values("label").all(has) && !self.values("label!").any(has)
    }

    /// The earliest `until`, in nanoseconds since 1970.
    pub fn until(&self) -> Result<Option<i64>, Error> {
        let mut earliest = None;
        for value in self.values("until") {
            let at = unix_ns(value).ok_or_else(|| bad("until", value))?;
            earliest = Some(earliest.map_or(at, |e: i64| e.min(at)));
        }
        Ok(earliest)
    }
}

fn bad(key: &str, value: &str) -> Error {
    Error::BadFilter { key: key.to_owned(), value: value.to_owned() }
}

/// `1700000000.5`
fn unix_ns(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Shell patterns over paths, as Go's `path.Match` knows them: `*` and `?` do not match a slash; `[a-c]`, `[^x]` and `\` are
/// understood. A malformed pattern matches nothing. Takes time linear in both for each star.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j) = (0, 0);
    // Where the last star was, and what it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if i < p.len() && p[i] == '*' {
            star = Some((i + 1, j));
            i += 1;
            continue;
        }
        if j < t.len()
            && let Some(next) = one(&p, i, t[j])
        {
            i = next;
            j += 1;
            continue;
        }
        if i == p.len() && j == t.len() {
            return true;
        }
        match star {
            Some((after, at)) if at < t.len() && t[at] != '/' => {
                star = Some((after, at + 1));
                i = after;
                j = at + 1;
            }
            _ => return false,
        }
    }
}

/// Whether the element at `i` matches one character; where the next begins.
fn one(p: &[char], i: usize, c: char) -> Option<usize> {
    match p.get(i)? {
        '?' => (c != '/').then_some(i + 1),
        '\\' => (*p.get(i + 1)? == c).then_some(i + 2),
        '[' => class(p, i + 1, c),
        literal => (*literal == c).then_some(i + 1),
    }
}

fn class(p: &[char], mut i: usize, c: char) -> Option<usize> {
    let negated = *p.get(i)? == '^';
    i += usize::from(negated);
    let mut hit = false;
    let first = i;
    while *p.get(i)? != ']' || i == first {
        let (low, next) = literal(p, i)?;
        let (high, next) = if p.get(next) == Some(&'-') { literal(p, next + 1)? } else { (low, next) };
        hit |= (low..=high).contains(&c);
        i = next;
    }
    (hit != negated && c != '/').then_some(i + 1)
}

fn literal(p: &[char], i: usize) -> Option<(char, usize)> {
    match p.get(i)? {
        '\\' => Some((*p.get(i + 1)?, i + 2)),
        c => Some((*c, i + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_gos() {
        for (pattern, text) in [
            ("alp*", "alpine"),
            ("*:3", "alpine:3"),
            ("a?c", "abc"),
            ("alpine", "alpine"),
            ("*/*/x:*", "reg:5000/team/x:1"),
            ("[a-c]x[^0-9]", "bxy"),
            ("a\\*", "a*"),
            ("*****x", "aax"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a*", "a/b"),
            ("alp", "alpine"),
            ("[a", "a"),
            ("a\\", "a"),
            ("", "a"),
            ("?", "/"),
            ("[^a]", "a"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
        assert!(!glob(&"*a".repeat(200), &"a".repeat(199)));
    }

    #[test]
    fn labels_are_all_wanted_and_references_one() {
        let f = |list: &[(&str, &str)]| Filters::new(list.iter().map(|(k, v)| ((*k).into(), (*v).into())));
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        assert!(f(&[("label", "a"), ("label", "b")]).labels(&labels));
        assert!(f(&[("label", "a=1"), ("label!", "c")]).labels(&labels));
        assert!(!f(&[("label", "a"), ("label", "c")]).labels(&labels));
        assert!(!f(&[("label!", "a=1")]).labels(&labels) && f(&[("label!", "a=2")]).labels(&labels));
        let names = f(&[("name", "x"), ("name", "y")]);
        assert!(
            names.any("name", |v| v == "y") && !names.any("name", |v| v == "z") && names.any("q", |_| false)
        );
        assert_eq!(f(&[("dangling", "1")]).flag("dangling").unwrap(), Some(true));
        assert!(f(&[("dangling", "x")]).flag("dangling").is_err());
        assert!(f(&[("dangling", "1"), ("dangling", "0")]).flag("dangling").is_err());
        assert_eq!(f(&[("until", "2.5"), ("until", "7")]).until().unwrap(), Some(2_500_000_000));
        assert!(f(&[("until", "24h")]).until().is_err() && f(&[("x", "")]).only(&["label"]).is_err());
    }

    proptest! {
        #[test]
        fn a_pattern_without_signs_matches_itself_only(text in "[a-z:/.]{0,20}", other in "[a-z:/.]{0,20}") {
            prop_assert!(glob(&text, &text));
            prop_assert_eq!(glob(&text, &other), text == other);
        }

        #[test]
        fn never_panics(pattern in ".{0,20}", text in ".{0,20}") {
            let _ = glob(&pattern, &text);
            let _ = unix_ns(&text);
        }
    }
}
