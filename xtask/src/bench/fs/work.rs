//! Real work: what people do all day, each a script that is timed as a whole.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::plan::Op;

/// Name, what it is, and the script; it runs in the root of the mount.
const ALL: &[(&str, &str, &str)] = &[
    ("untar", "tar extracts a Debian root of 140 MB", "mkdir new; tar -xpf $ROOTFS -C new"),
    (
        "dpkg",
        "dpkg installs 17 essential packages over a Debian root",
        "chroot . dpkg --force-confold -i -R /debs",
    ),
    (
        "git-clone",
        "git clones a repository of 4,000 files without hard links",
        "git clone -q --no-hardlinks repo copy",
    ),
    ("git-status", "git status of it, cold", "git -C repo status --porcelain"),
    ("git-checkout", "git checks out another commit of it", "git -C repo checkout -q HEAD~1"),
    (
        "sqlite-journal",
        "300 transactions, rollback journal, synchronous=full",
        "sqlite3 -bail db < journal.sql > /dev/null",
    ),
    (
        "sqlite-wal",
        "300 transactions, write-ahead log, synchronous=full",
        "sqlite3 -bail db < wal.sql > /dev/null",
    ),
    ("cargo-build", "cargo builds a crate of 40 modules", "cd crate; cargo build -q --offline"),
    ("grep", "grep reads all of /usr and /repo, cold", "grep -r nothing-has-this usr repo || true"),
    ("copy", "cp -a of /usr", "cp -a usr copied"),
    ("remove", "rm -rf of /usr", "rm -rf usr"),
];

/// What [`ALL`] starts from: `$ROOTFS` is a tar of a Debian root, `$DEBS` a directory of packages.
const PREPARE: &str = r#"
tar -xpf "$ROOTFS"; cp -r "$DEBS" debs
git init -q -b main repo; cd repo; git config gc.auto 0; git config maintenance.auto false
git config user.name a; git config user.email a@example.com
for d in $(seq 40); do mkdir -p d$d; for f in $(seq 100); do echo "file $f of $d" > d$d/f$f; done; done
git add .; git commit -qm first
for d in $(seq 40); do for f in $(seq 10); do echo changed >> d$d/f$f; done; done
git commit -qam second; cd ..
sql() { echo "pragma journal_mode=$1; pragma synchronous=full;"; for n in $(seq 300); do echo "insert into t values ($n, hex(randomblob(100)));"; done; }
sqlite3 db 'create table t(id int, text text)'; sql delete > journal.sql; sql wal > wal.sql
mkdir -p crate/src; cd crate; printf '[package]\nname = "sum"\nversion = "1.0.0"\nedition = "2021"\n[workspace]\n' > Cargo.toml
for n in $(seq 40); do echo "mod m$n;"; echo "pub fn value() -> u64 { (0..$n).map(|x: u64| x % 7).sum() }" > src/m$n.rs; done > src/main.rs
(printf 'fn main() { println!("{}", 0'; for n in $(seq 40); do printf ' + m%s::value()' $n; done; echo ') }') >> src/main.rs
"#;

/// Where the tools that work starts from come from.
pub struct Sources<'a> {
    /// A tar of a Debian root.
    pub rootfs: &'a str,
    /// A directory of Debian packages.
    pub debs: &'a str,
}

/// All of them, named as operations are.
pub fn all() -> Vec<Op> {
    let op = |&(name, about, _): &(&str, &str, &str)| Op {
        name: name.into(),
        unit: "run".into(),
        about: about.into(),
    };
    ALL.iter().map(op).collect()
}

/// Fills the lower layer that all of them share.
pub fn prepare(lower: &Path, sources: &Sources<'_>) -> anyhow::Result<()> {
    shell(lower, PREPARE, sources).map(drop)
}

/// Does one in the root of a mount; answers nanoseconds.
pub fn run(name: &str, root: &Path, sources: &Sources<'_>) -> anyhow::Result<u64> {
    let (_, _, script) = ALL.iter().find(|(n, ..)| *n == name).context("no such work")?;
    shell(root, script, sources)
}

fn shell(dir: &Path, script: &str, sources: &Sources<'_>) -> anyhow::Result<u64> {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).env("ROOTFS", sources.rootfs).env("DEBS", sources.debs);
    command.envs([
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("CARGO_TARGET_DIR", "target"),
    ]);
    let begin = Instant::now();
    let output = command.stdin(std::process::Stdio::null()).output().context("cannot run sh")?;
    let nanos = begin.elapsed().as_nanos().try_into()?;
    ensure!(output.status.success(), "`{script}`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(nanos)
}
