//! Image references as docker spells and normalises them. Pure: text in, validated type out.
//!
//! `alpine` is `docker.io/library/alpine:latest`; a first component with a dot, a colon, an upper-case letter or the
//! name `localhost` is a registry (distribution's reference grammar).

use std::fmt;

use crate::digest::Digest;

/// The registry that a name without one belongs to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// docker's bound on domain and path together.
const MAX_NAME: usize = 255;

/// A normalised reference: always a domain and a path, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Nothing was given.
    #[error("an image reference cannot be empty")]
    Empty,
    /// docker refuses upper case in repository names with its own words, because it is the usual mistake.
    #[error("invalid reference '{0}': a repository name must be lower case")]
    UpperCase(String),
    /// 64 hexadecimal digits would be mistaken for an image id.
    #[error("invalid reference '{0}': a repository name cannot be 64 hexadecimal digits")]
    LooksLikeId(String),
    /// Longer than 255 bytes.
    #[error("invalid reference '{0}': longer than 255 bytes")]
    TooLong(String),
    /// A part does not follow the grammar.
    #[error("invalid reference '{text}': '{part}' is not a valid {what}")]
    Grammar {
        /// All of it.
        text: String,
        /// The offending part.
        part: String,
        /// "registry", "repository name", "tag" or "digest".
        what: &'static str,
    },
}

impl Reference {
    /// Parses and normalises what a person typed.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() {
            return Err(InvalidReference::Empty);
        }
        let grammar =
            |part: &str, what| InvalidReference::Grammar { text: shorten(text), part: shorten(part), what };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, d)) => (rest, Some(Digest::parse(d).map_err(|_| grammar(d, "digest"))?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; before it, a port.
        let name_start = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[name_start..].find(':') {
            Some(i) => (&rest[..name_start + i], Some(&rest[name_start + i + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(grammar(tag, "tag"));
        }
        let (domain, path) = split_domain(name);
        if digest.is_none() && domain.is_none() && is_id(path) {
            return Err(InvalidReference::LooksLikeId(text.to_owned()));
        }
        let domain = domain.unwrap_or(DEFAULT_DOMAIN);
        if !is_domain(domain) {
            return Err(grammar(domain, "registry"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidReference::UpperCase(shorten(text)));
        }
        if !path.split('/').all(is_path_component) {
            return Err(grammar(path, "repository name"));
        }
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{DEFAULT_NAMESPACE}{path}")
        } else {
            path.to_owned()
        };
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(InvalidReference::TooLong(shorten(text)));
        }
        let tag = match (&digest, tag) {
            (_, Some(tag)) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (Some(_), None) => None,
        };
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }

    /// Host and port of the registry: "docker.io", "localhost:5000", "[::1]:5000".
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: "library/alpine".
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, when it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when it is pinned to one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest when pinned, else the tag.
    pub fn identifier(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(d), _) => d.as_str(),
            (None, Some(t)) => t,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// Domain and path: "docker.io/library/alpine".
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it: "alpine", "team/app", "localhost:5000/app".
    pub fn familiar_repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let official = self.path.strip_prefix(DEFAULT_NAMESPACE).filter(|p| !p.contains('/'));
        let short = official.unwrap_or(&self.path);
        // A path that begins like a registry, or looks like an image id, must not lose its own registry.
        match Self::parse(short) {
            Ok(read) if (&read.domain, &read.path) == (&self.domain, &self.path) => short.to_owned(),
            _ => self.repository(),
        }
    }

    /// The whole reference as people write it: "alpine:latest", "alpine@sha256:...".
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), self.suffix())
    }

    /// The key under which it is stored: one text for all spellings. A digest outweighs a tag.
    pub fn canonical(&self) -> String {
        format!("{}{}", self.repository(), self.suffix())
    }

    fn suffix(&self) -> String {
        match &self.digest {
            Some(d) => format!("@{d}"),
            None => format!(":{}", self.identifier()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

fn shorten(text: &str) -> String {
    const MAX: usize = 300;
    if text.len() <= MAX {
        return text.to_owned();
    }
    let end = (0..=MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}...", &text[..end])
}

fn split_domain(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn is_id(path: &str) -> bool {
    path.len() == 64 && path.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128 && bytes.next().is_some_and(word) && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if let Some(rest) = domain.strip_prefix('[') {
        let Some((inner, after)) = rest.split_once(']') else { return false };
        if inner.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match after.strip_prefix(':') {
            Some(port) => return is_port(port),
            None => return after.is_empty(),
        }
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        }
    };
    let label = |l: &str| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !l.is_empty() && l.bytes().all(ok) && !l.starts_with('-') && !l.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let mut i = 0;
    loop {
        let start = i;
        while i < bytes.len() && alnum(bytes[i]) {
            i += 1;
        }
        if i == start {
            return false;
        }
        if i == bytes.len() {
            return true;
        }
        match bytes[i] {
            b'.' => i += 1,
            b'_' => i += if bytes.get(i + 1) == Some(&b'_') { 2 } else { 1 },
            b'-' => {
                while i < bytes.len() && bytes[i] == b'-' {
                    i += 1;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
