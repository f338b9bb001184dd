//! Options as Go's flag package takes them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Options found, and the words after them.
#[derive(Debug, Default)]
pub struct Options {
    values: HashMap<String, Vec<String>>,
    flags: Vec<String>,
    /// Words from the first that is no option.
    pub rest: Vec<String>,
}

/// Splits `args` into options and the rest. `values` take a value, `flags` none, `short` maps letters to names.
pub fn parse(args: &[String], values: &[&str], flags: &[&str], short: &[(&str, &str)]) -> Result<Options> {
    let mut out = Options::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(option) = word.strip_prefix('-').filter(|o| !o.is_empty()) else {
            out.rest.push(word.clone());
            break;
        };
        let option = option.strip_prefix('-').unwrap_or(option);
        let (name, inline) = match option.split_once('=') {
            Some((n, v)) => (n, Some(v.to_owned())),
            None => (option, None),
        };
        let name = short.iter().find(|(s, _)| *s == name).map_or(name, |(_, long)| *long);
        if flags.contains(&name) {
            if !matches!(inline.as_deref(), Some("false" | "0")) {
                out.flags.push(name.to_owned());
            }
        } else if values.contains(&name) {
            let missing = || Error::Usage(format!("option --{name} needs a value"));
            let value = inline.or_else(|| words.next().cloned()).ok_or_else(missing)?;
            out.values.entry(name.to_owned()).or_default().push(value);
        } else {
            return Err(Error::Usage(format!("unknown option {word:?}; davit-runner --help lists them")));
        }
    }
    out.rest.extend(words.cloned());
    Ok(out)
}

impl Options {
    /// Whether it was given.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|f| f == name)
    }

    /// Its last value.
    pub fn value(&mut self, name: &str) -> Option<String> {
        self.values.get_mut(name)?.pop()
    }

    /// All its values.
    pub fn values(&mut self, name: &str) -> Vec<String> {
        self.values.remove(name).unwrap_or_default()
    }

    /// Its value as a path; empty is none.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.value(name).filter(|v| !v.is_empty()).map(PathBuf::from)
    }

    /// Its value as a number.
    pub fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        self.value(name).map(|v| number(name, &v)).transpose()
    }

    /// The container's id: exactly one word that makes a file name.
    pub fn id(&mut self) -> Result<String> {
        let [id] = self.rest.as_slice() else {
            return Err(Error::Usage(format!(
                "exactly one container id is needed, {} words were given",
                self.rest.len()
            )));
        };
        valid_id(id)?;
        Ok(id.clone())
    }
}

/// An id is a file name of letters, digits and `_+-.`.
pub fn valid_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(allowed) {
        return Err(Error::Usage(format!("invalid container ID: {id:?}: letters, digits and _+-. only")));
    }
    Ok(())
}

/// A number given to an option.
pub fn number<T: FromStr>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::Usage(format!("--{name} {text}: a number is needed")))
}
