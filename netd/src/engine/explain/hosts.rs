//! /etc/hosts as a container's programs find it: read through one of them, since the container may have changed it.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use davit_sys::beneath;
use davit_sys::process::ProcessRef;
use rustix::fs::OFlags;

use crate::endpoint::{Holder, Sandbox};

/// The rest of a longer file is not looked at.
const LONGEST: u64 = 1 << 20;

/// What a name means by the file of a sandbox; nothing when it has none that can be read.
pub(super) fn look(sandbox: &Sandbox, name: &str) -> Vec<IpAddr> {
    program(&sandbox.holder).and_then(|p| text(&p)).map(|t| addresses(&t, name)).unwrap_or_default()
}

/// A process of the container: the holder's child that has other mounts than the holder, or any that is in the namespace by
/// whose path it is known.
fn program(holder: &Holder) -> Option<ProcessRef> {
    let mounts = |pid: i32| namespace(pid, "mnt");
    let (not, belongs): (_, Box<dyn Fn(i32) -> bool>) = match *holder {
        Holder::Process { pid, .. } => (mounts(pid)?, Box::new(move |p| parent(p) == Some(pid))),
        Holder::Path { device, inode, .. } => {
            let own = i32::try_from(std::process::id()).ok()?;
            (mounts(own)?, Box::new(move |p| namespace(p, "net") == Some((device, inode))))
        }
    };
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut all = pids.filter(|p| belongs(*p) && mounts(*p).is_some_and(|m| m != not));
    ProcessRef::of(all.next()?).ok()
}

fn namespace(pid: i32, kind: &str) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok().map(|m| (m.dev(), m.ino()))
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Symbolic links stay inside, and what is no file is not waited for: the container decides what is there.
fn text(program: &ProcessRef) -> Option<String> {
    let root = program.root().ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File = beneath::open_in_root(root.as_fd(), Path::new("etc/hosts"), flags).ok()?.into();
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// hosts(5): an address, then its names; letters' case does not count.
fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(ip) = words.next().and_then(|w| w.parse().ok()) else { continue };
        if words.any(|w| w.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_found_on_all_lines_and_comments_are_none() {
        let text = "127.0.0.1 localhost\n10.0.0.1\tdb DB.example # not-this\nfd00::1 db\n# 10.0.0.9 db\nx db\n10.0.0.1 db\n";
        let ips = |name| addresses(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ips("DB"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(ips("db.example"), ["10.0.0.1"]);
        assert!(ips("not-this").is_empty() && ips("10.0.0.1").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC*", name in "[a-z]{1,3}") {
            let _ = addresses(&text, &name);
        }
    }
}
