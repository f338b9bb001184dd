//! docker's rules for what a copy is called. Pure but for [`Destination::local`], which looks at what is there.

use std::path::{Path, PathBuf};

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// As typed, or behind a link.
    pub path: String,
    pub exists: bool,
    pub is_dir: bool,
}

/// How a tar is to be unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In this directory.
    pub into: String,
    /// With this name for its top entry.
    pub rename: Option<String>,
}

/// Container and path of an argument; a path that begins with `/` or `.` is none of a container.
pub fn argument(text: &str) -> (Option<&str>, &str) {
    if text.starts_with('/') {
        return (None, text);
    }
    match text.split_once(':') {
        Some((container, path)) if !container.starts_with('.') && !container.is_empty() => {
            (Some(container), path)
        }
        _ => (None, text),
    }
}

/// Without "." and empty parts, and with `..` taken away where something is before it.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

fn is_current_dir(path: &str) -> bool {
    path.rsplit('/').next() == Some(".")
}

/// Directory and last component; that of "dir/." is ".".
pub fn split(path: &str) -> (String, String) {
    let cleaned = clean(path);
    if is_current_dir(path) {
        return (cleaned, ".".into());
    }
    match cleaned.rsplit_once('/') {
        Some(("", name)) => ("/".into(), if name.is_empty() { "/".into() } else { name.to_owned() }),
        Some((dir, name)) => (dir.to_owned(), name.to_owned()),
        None => (".".into(), cleaned),
    }
}

/// What a link in `dir` leads to.
pub fn join_link(dir: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { clean(&format!("{dir}/{target}")) }
}

/// Where what is called `name` goes, and how it is called there.
pub fn plan(source_is_dir: bool, name: &str, to: &Destination) -> Result<Plan, String> {
    if to.exists && to.is_dir {
        return Ok(Plan { into: to.path.clone(), rename: None });
    }
    if to.exists && source_is_dir {
        return Err("cannot copy directory".into());
    }
    if !to.exists && !source_is_dir && (to.path.ends_with('/') || is_current_dir(&to.path)) {
        return Err("no such directory".into());
    }
    let (into, base) = split(&to.path);
    Ok(Plan { into, rename: Some(base).filter(|base| base != name) })
}

impl Destination {
    /// A path of this host.
    pub fn local(path: &str) -> Result<Self, String> {
        let there = Path::new(path);
        if super::is_special(there) {
            return Err(format!("got a device: {path} must be a directory or a regular file"));
        }
        if let Ok(real) = there.canonicalize() {
            let is_dir = real.is_dir();
            return Ok(Self { path: real.to_string_lossy().into_owned(), exists: true, is_dir });
        }
        let mut path = path.to_owned();
        if let Ok(link) = std::fs::read_link(clean(&path)) {
            path = join_link(&split(&path).0, &link.to_string_lossy());
        }
        let parent = PathBuf::from(split(&path).0);
        let parent = if is_current_dir(&path) { parent.parent().map(Path::to_owned) } else { Some(parent) };
        let parent = parent.filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| ".".into());
        if parent.is_dir() {
            return Ok(Self { path, exists: false, is_dir: false });
        }
        Err(format!("invalid output path: directory \"{}\" does not exist", parent.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_from_paths() {
        assert_eq!(argument("c:/etc"), (Some("c"), "/etc"));
        assert_eq!(argument("c:a:b"), (Some("c"), "a:b"));
        assert_eq!(argument("./a:b"), (None, "./a:b"));
        assert_eq!(argument("/a:b"), (None, "/a:b"));
        assert_eq!(argument("-"), (None, "-"));
    }

    #[test]
    fn paths_are_split_with_their_dot() {
        let split = |p: &str| {
            let (dir, name) = split(p);
            format!("{dir} {name}")
        };
        assert_eq!(split("/a/b"), "/a b");
        assert_eq!(split("/a/b/"), "/a b");
        assert_eq!(split("/a/b/."), "/a/b .");
        assert_eq!(split("a"), ". a");
        assert_eq!(split("/a"), "/ a");
        assert_eq!(split("../x/../y"), ".. y");
        assert_eq!(join_link("/a", "../b"), "/b");
    }

    #[test]
    fn every_case_of_dockers_table() {
        let to = |path: &str, exists, is_dir| Destination { path: path.into(), exists, is_dir };
        let ok = |into: &str, rename: Option<&str>| {
            Ok(Plan { into: into.into(), rename: rename.map(str::to_owned) })
        };
        // A file.
        assert_eq!(plan(false, "f", &to("/d", true, true)), ok("/d", None));
        assert_eq!(plan(false, "f", &to("/d/g", true, false)), ok("/d", Some("g")));
        assert_eq!(plan(false, "f", &to("/d/g", false, false)), ok("/d", Some("g")));
        assert_eq!(plan(false, "f", &to("/d/f", false, false)), ok("/d", None));
        assert_eq!(plan(false, "f", &to("/d/g/", false, false)), Err("no such directory".into()));
        // A directory.
        assert_eq!(plan(true, "s", &to("/d", true, true)), ok("/d", None));
        assert_eq!(plan(true, "s", &to("/d/new", false, false)), ok("/d", Some("new")));
        assert_eq!(plan(true, "s", &to("/d/new/", false, false)), ok("/d", Some("new")));
        assert_eq!(plan(true, "s", &to("/d/g", true, false)), Err("cannot copy directory".into()));
        // What is in a directory.
        assert_eq!(plan(true, ".", &to("/d", true, true)), ok("/d", None));
        assert_eq!(plan(true, ".", &to("/d/new", false, false)), ok("/d", Some("new")));
    }
}
