//! What can happen to a layer's files.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::host::sh;
use crate::pb::finding::Problem;

/// One way of damage.
pub struct Case {
    pub name: &'static str,
    pub damage: fn(&Path),
    /// Problem, path, and what the detail must say.
    pub expected: &'static [(Problem, &'static str, &'static str)],
    /// Paths that get another inode by the repair.
    pub replaced: &'static [&'static str],
    /// Whether it can happen together with the others of this kind.
    pub combines: bool,
}

/// Changes one byte, and nothing else that one could see: the time is put back.
pub fn flip(path: &Path, at: Option<u64>) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let meta = file.metadata().unwrap();
    let at = at.unwrap_or_else(|| rand::random_range(0..meta.len()));
    let mut byte = [0u8];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= rand::random_range(1..=255u8);
    file.write_all_at(&byte, at).unwrap();
    let time =
        std::time::UNIX_EPOCH + std::time::Duration::new(meta.mtime() as u64, meta.mtime_nsec() as u32);
    file.set_modified(time).unwrap();
    // Writing took the setuid bit: only the byte is to differ.
    file.set_permissions(std::fs::Permissions::from_mode(meta.mode())).unwrap();
}

fn at(layer: &Path, script: &str) {
    sh(&format!("cd {}\n{script}", layer.display()));
}

const fn alone(
    name: &'static str,
    damage: fn(&Path),
    expected: &'static [(Problem, &'static str, &'static str)],
    replaced: &'static [&'static str],
) -> Case {
    Case { name, damage, expected, replaced, combines: false }
}

const fn any(
    name: &'static str,
    damage: fn(&Path),
    expected: &'static [(Problem, &'static str, &'static str)],
    replaced: &'static [&'static str],
) -> Case {
    Case { name, damage, expected, replaced, combines: true }
}

use Problem::{Content, Extra, Metadata, Missing};

pub const CASES: &[Case] = &[
    any(
        "a flipped byte",
        |l| flip(&l.join("data/plain"), Some(3)),
        &[(Content, "data/plain", "content differs")],
        &["data/plain"],
    ),
    alone(
        "a flipped byte of a file with three names",
        |l| flip(&l.join("bin/tool2"), None),
        &[
            (Content, "bin/tool", "content differs"),
            (Content, "bin/tool2", "content differs"),
            (Content, "bin/tool3", "content differs"),
        ],
        &["bin/tool", "bin/tool2", "bin/tool3"],
    ),
    alone(
        "a cut file",
        |l| at(l, "truncate -s 3 data/plain"),
        &[(Content, "data/plain", "has 3 bytes, not 10")],
        &["data/plain"],
    ),
    any(
        "a grown file",
        |l| at(l, "printf x >> data/empty"),
        &[(Content, "data/empty", "has 1 bytes, not 0")],
        &["data/empty"],
    ),
    alone(
        "a deleted file",
        |l| at(l, "rm data/noted"),
        &[(Missing, "data/noted", "is missing")],
        &["data/noted"],
    ),
    any(
        "a deleted tree",
        |l| at(l, "rm -r tree"),
        &[
            (Missing, "tree", "is missing"),
            (Missing, "tree/a", "is missing"),
            (Missing, "tree/a/b", "is missing"),
            (Missing, "tree/a/b/leaf", "is missing"),
            (Missing, "tree/a/leaf", "is missing"),
        ],
        &["tree", "tree/a", "tree/a/b", "tree/a/b/leaf", "tree/a/leaf"],
    ),
    any(
        "an added file",
        |l| at(l, "echo x > data/sticky/new"),
        &[(Extra, "data/sticky/new", "does not belong")],
        &[],
    ),
    any(
        "an added tree",
        |l| at(l, "mkdir -p bin/x/y; echo z > bin/x/y/z"),
        &[(Extra, "bin/x", "does not belong")],
        &[],
    ),
    any(
        "an added whiteout",
        |l| at(l, "mknod bin/gone c 0 0"),
        &[(Extra, "bin/gone", "does not belong")],
        &[],
    ),
    any(
        "chmod",
        |l| at(l, "chmod 600 data/noted"),
        &[(Metadata, "data/noted", "mode is 0600, not 0644")],
        &[],
    ),
    any(
        "a lost setuid bit",
        |l| at(l, "chmod u-s bin/tool"),
        &[
            (Metadata, "bin/tool", "mode is 0755, not 4755"),
            (Metadata, "bin/tool2", "mode is 0755, not 4755"),
            (Metadata, "bin/tool3", "mode is 0755, not 4755"),
        ],
        &[],
    ),
    alone(
        "chown",
        |l| at(l, "chown 5:6 data/noted"),
        &[(Metadata, "data/noted", "owner is 5:6, not 1000:1000")],
        &[],
    ),
    any(
        "chown of a link",
        |l| at(l, "chown -h 7:7 bin/sh"),
        &[(Metadata, "bin/sh", "owner is 7:7, not 0:0")],
        &[],
    ),
    alone(
        "a changed attribute",
        |l| at(l, "setfattr -n user.note -v lost data/noted"),
        &[(Metadata, "data/noted", "attribute user.note differs")],
        &[],
    ),
    any(
        "a lost attribute",
        |l| at(l, "setfattr -x user.more data/noted"),
        &[(Metadata, "data/noted", "attribute user.more is missing")],
        &[],
    ),
    any(
        "an added attribute",
        |l| at(l, "setfattr -n user.new -v x data/shared"),
        &[(Metadata, "data/shared", "attribute user.new should not be there")],
        &[],
    ),
    any(
        "lost capabilities",
        |l| at(l, "setfattr -x security.capability bin/ping"),
        &[(Metadata, "bin/ping", "attribute security.capability is missing")],
        &[],
    ),
    alone(
        "a lost ACL",
        |l| at(l, "setfacl -b data/shared"),
        &[(Metadata, "data/shared", "attribute system.posix_acl_access is missing")],
        &[],
    ),
    any("touch", |l| at(l, "touch -h bin/sh"), &[(Metadata, "bin/sh", "was modified at")], &[]),
    alone(
        "a nanosecond",
        |l| at(l, "touch -d @1500000000.123456788 bin/ping"),
        &[(Metadata, "bin/ping", "was modified at 1500000000.123456788, not 1500000000.123456789")],
        &[],
    ),
    any("touch of a directory", |l| at(l, "touch hidden"), &[(Metadata, "hidden", "was modified at")], &[]),
    alone(
        "a file replaced by a link",
        |l| at(l, "rm data/plain; ln -s /etc/passwd data/plain"),
        &[(Metadata, "data/plain", "is a symbolic link, not a file")],
        &["data/plain"],
    ),
    alone(
        "a file replaced by a directory",
        |l| at(l, "rm data/plain; mkdir -p data/plain/deep; touch data/plain/deep/file"),
        &[(Metadata, "data/plain", "is a directory, not a file")],
        &["data/plain"],
    ),
    alone(
        "a directory replaced by a file",
        |l| at(l, "rm -r tree/a; echo x > tree/a"),
        &[
            (Metadata, "tree/a", "is a file, not a directory"),
            (Missing, "tree/a/b", "is missing"),
            (Missing, "tree/a/b/leaf", "is missing"),
            (Missing, "tree/a/leaf", "is missing"),
        ],
        &["tree/a", "tree/a/b", "tree/a/b/leaf", "tree/a/leaf"],
    ),
    alone(
        "a link that points elsewhere",
        |l| at(l, "ln -sfn /etc bin/sh"),
        &[(Content, "bin/sh", "points to '/etc', not to 'tool'")],
        &["bin/sh"],
    ),
    any("a removed whiteout", |l| at(l, "rm removed"), &[(Missing, "removed", "is missing")], &["removed"]),
    alone(
        "a whiteout replaced by a file",
        |l| at(l, "rm data/old; echo back > data/old"),
        &[(Metadata, "data/old", "is a file, not a whiteout")],
        &["data/old"],
    ),
    any(
        "a broken hard link",
        |l| at(l, "cp -p bin/tool3 x; mv x bin/tool3"),
        &[(Metadata, "bin/tool3", "is no longer the same file as '/bin/tool'")],
        &["bin/tool3"],
    ),
    alone(
        "files that became one",
        |l| at(l, "ln -f bin/ping data/plain"),
        &[
            (Content, "data/plain", "has 4 bytes, not 10"),
            (Content, "bin/ping", "is the same file as '/data/plain', but must be one of its own"),
        ],
        &["data/plain", "bin/ping"],
    ),
    alone("a lost fifo", |l| at(l, "rm data/pipe"), &[(Missing, "data/pipe", "is missing")], &["data/pipe"]),
    any(
        "another device",
        |l| at(l, "rm data/tty; mknod data/tty c 1 3; chmod 666 data/tty"),
        &[(Metadata, "data/tty", "is character device 1:3, not character device 5:0")],
        &["data/tty"],
    ),
    any(
        "a device of another kind",
        |l| at(l, "rm data/disk; mknod data/disk c 8 1"),
        &[(Metadata, "data/disk", "is character device 8:1, not block device 8:1")],
        &["data/disk"],
    ),
    alone(
        "a directory that is no longer opaque",
        |l| at(l, "setfattr -x trusted.overlay.opaque hidden"),
        &[(Metadata, "hidden", "attribute trusted.overlay.opaque is missing")],
        &[],
    ),
    any(
        "a directory that became opaque",
        |l| at(l, "setfattr -n trusted.overlay.opaque -v y bin"),
        &[(Metadata, "bin", "attribute trusted.overlay.opaque should not be there")],
        &[],
    ),
    any("the root's mode", |l| at(l, "chmod 700 ."), &[(Metadata, "", "mode is 0700, not 0755")], &[]),
];
