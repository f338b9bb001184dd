//! Users of an image: /etc/passwd and /etc/group of its root, read safely beneath it, and docker's rules to look up in them.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::oci::User;
use crate::error::RuntimeError;

/// An image is hostile: no more than this of its files is read.
const MAX_FILE: u64 = 4 << 20;

/// The two files' texts.
#[derive(Debug, Clone, Default)]
pub struct Database {
    /// /etc/passwd; empty when there is none.
    pub passwd: String,
    /// /etc/group; empty when there is none.
    pub group: String,
}

/// A user, as numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// For the OCI configuration; `additional_gids` holds the primary one too, as docker's do.
    pub user: User,
    /// The home directory, "/" when the user has none.
    pub home: String,
}

impl Database {
    /// Reads the files beneath `root`; links in it are followed as if it were `/`. Missing files are empty ones.
    pub fn read(root: BorrowedFd<'_>) -> Self {
        Self { passwd: read_beneath(root, "etc/passwd"), group: read_beneath(root, "etc/group") }
    }
}

fn read_beneath(root: BorrowedFd<'_>, path: &str) -> String {
    // O_NONBLOCK: a FIFO in place of the file must not hang us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(fd) = openat2(root, path, flags, Mode::empty(), resolve) else { return String::new() };
    let regular = rustix::fs::fstat(fd.as_fd())
        .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::RegularFile);
    let mut bytes = Vec::new();
    if regular {
        let _ = File::from(fd).take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut f = line.split(':');
        let (name, _, uid, gid) = (f.next()?, f.next()?, f.next()?, f.next()?);
        let home = f.nth(1).unwrap_or("");
        Some(Passwd { name: name.trim(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut f = line.split(':');
        let (name, _, gid) = (f.next()?, f.next()?, f.next()?);
        Some(Group { name: name.trim(), gid: gid.parse().ok()?, members: f.next().unwrap_or("") })
    })
}

/// Looks up `user[:group]` and `--group-add` names.
///
/// A name must exist; a number need not. Without a group the user's own is taken, and every group that lists it.
pub fn resolve(text: &str, add: &[String], db: &Database) -> Result<Resolved, RuntimeError> {
    let (user_text, group_text) = text.split_once(':').map_or((text, ""), |(u, g)| (u, g));
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let entry = passwd(&db.passwd).find(|e| e.name == user_text || user_text.parse() == Ok(e.uid));
    let (uid, mut gid, name, home) = match (&entry, id(user_text)) {
        (Some(e), _) => (e.uid, e.gid, Some(e.name), e.home),
        (None, Some(uid)) => (uid, 0, None, ""),
        (None, None) => return Err(missing("user", user_text, "passwd")),
    };
    let mut gids = Vec::new();
    if group_text.is_empty() {
        if let Some(name) = name {
            let lists = |g: &Group<'_>| g.members.split(',').any(|m| m.trim() == name);
            gids.extend(groups(&db.group).filter(lists).map(|g| g.gid));
        }
    } else {
        gid = group_id(group_text, db)?;
    }
    for group in add {
        gids.push(group_id(group, db)?);
    }
    gids.retain(|g| *g != gid);
    gids.sort_unstable();
    gids.dedup();
    gids.insert(0, gid);
    let home = if home.is_empty() { "/" } else { home };
    Ok(Resolved { user: User { uid, gid, additional_gids: gids }, home: home.to_owned() })
}

fn group_id(text: &str, db: &Database) -> Result<u32, RuntimeError> {
    let known = groups(&db.group).find(|g| g.name == text).map(|g| g.gid);
    known.or_else(|| id(text)).ok_or_else(|| missing("group", text, "group"))
}

/// A uid or gid: up to 2^31 - 1, as docker's limit is.
fn id(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok())
}

fn missing(what: &'static str, name: &str, what_file: &'static str) -> RuntimeError {
    RuntimeError::NoUser { what, name: name.to_owned(), what_file }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> Database {
        Database {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101::/srv:/bin/false\nbroken\nnum:x:z:1::/:\n"
                .into(),
            group: "root:x:0:root\nadm:x:4:root,web\nweb:x:101:\nwheel:x:10:root\n".into(),
        }
    }

    fn of(text: &str) -> (u32, u32, Vec<u32>, String) {
        let r = resolve(text, &[], &db()).unwrap();
        (r.user.uid, r.user.gid, r.user.additional_gids, r.home)
    }

    #[test]
    fn users_by_name_number_and_group() {
        assert_eq!(of(""), (0, 0, vec![0, 4, 10], "/root".into()));
        assert_eq!(of("web"), (100, 101, vec![101, 4], "/srv".into()));
        assert_eq!(of("100"), (100, 101, vec![101, 4], "/srv".into()));
        assert_eq!(of("web:wheel"), (100, 10, vec![10], "/srv".into()));
        assert_eq!(of("4711:42"), (4711, 42, vec![42], "/".into()));
        assert_eq!(of("4711"), (4711, 0, vec![0], "/".into()));
        assert_eq!(of(":adm").1, 4);
    }

    #[test]
    fn added_groups_are_looked_up() {
        let r = resolve("web", &["wheel".into(), "77".into()], &db()).unwrap();
        assert_eq!(r.user.additional_gids, [101, 4, 10, 77]);
        assert!(resolve("web", &["nope".into()], &db()).is_err());
    }

    #[test]
    fn unknown_names_are_errors_in_dockers_words() {
        let e = resolve("nosuch", &[], &db()).unwrap_err().to_string();
        assert_eq!(e, "unable to find user nosuch: no matching entries in passwd file");
        assert!(resolve("num", &[], &db()).is_err());
        assert!(resolve("0:nosuch", &[], &Database::default()).is_err());
        assert!(resolve("4294967295", &[], &db()).is_err());
    }

    #[test]
    fn files_are_read_beneath_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/real", dir.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/group", dir.path().join("etc/group")).unwrap();
        std::fs::write(dir.path().join("real"), "root:x:0:0::/r:\n").unwrap();
        let root = File::open(dir.path()).unwrap();
        let db = Database::read(root.as_fd());
        assert_eq!(resolve("root", &[], &db).unwrap().home, "/r");
        assert!(db.group.is_empty(), "the host's file must not be reached");
    }
}
