//! Death at each point that a change passes: before it, or after it, and nothing between is visible.

use std::collections::BTreeSet;

use davit_cowfs::failpoint::POINTS;
use davit_cowfs_trials::actor::Actor;
use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::layer;
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::op::{Node, Op, Outcome};
use davit_cowfs_trials::tree::{Leeway, difference, snapshot};

const LOWER: &str = "mkdir -p d/s/t e f/g h k; echo 1 > d/s/f; echo 2 > d/two; echo 3 > gone; echo 4 > file; ln file linked; \
                     ln -s file link; echo 5 > over; mkdir full; touch f/g/x h/y full/z; echo 6 > sub; chmod 777 . d; chown 1000 h; \
                     setfattr -n user.a -v 1 file";

/// Each is one system call, which a crash may not cut in two.
fn steps() -> Vec<Op> {
    let s = str::to_owned;
    let rename = |from: &str, to: &str, flags| Op::Rename { from: from.into(), to: to.into(), flags };
    vec![
        Op::Chmod { path: s("d/s/f"), mode: 0o600 },
        Op::Truncate { path: s("d/two"), len: 1 },
        Op::Chmod { path: s("file"), mode: 0o640 },
        Op::Chown { path: s("link"), uid: Some(5), gid: None, follow: false },
        Op::Unlink { path: s("gone") },
        Op::Mkdir { path: s("gone"), mode: 0o700 },
        rename("d/s", "e/s", 0),
        rename("over", "moved", 0),
        rename("sub", "e/s/f", 0),
        rename("f", "k", 2),
        Op::Unlink { path: s("linked") },
        Op::Symlink { target: s("x"), path: s("linked") },
        Op::Unlink { path: s("h/y") },
        Op::Mknod { path: s("h/y"), kind: Node::Fifo, mode: 0o600 },
        Op::Unlink { path: s("h/y") },
        Op::Rmdir { path: s("h") },
        Op::Mkdir { path: s("h"), mode: 0o755 },
        rename("h", "f", 2),
        Op::Link { from: s("moved"), to: s("over") },
        rename("moved", "file", 0),
        Op::Rmdir { path: s("e/s/t") },
        rename("e/s", "back", 0),
        Op::Unlink { path: s("back/f") },
        Op::Unlink { path: s("full/z") },
        rename("back", "full", 0),
    ]
}

/// Goes through the steps until the server dies; then compares. Answers whether it died.
fn die_at(host: &Host, point: &str, n: usize) -> bool {
    sh(&host.dir("lower"), LOWER);
    let plain = host.dir("plain");
    layer::copy(&host.path("lower"), &plain);
    // A crash may leave the count of a file's names too high, as overlayfs's does: it is never removed too early.
    let loose = Leeway { links: BTreeSet::from([linked(&plain)]), ..Leeway::default() };
    let layers = Layers::new(host, "fs", &[host.path("lower")]);
    layer::attributes(&plain, layers.upper(), &davit_cowfs_trials::act::lstat(&plain).unwrap());
    let wanted = format!("{point}:{n}");
    let mounted = layers.mount_cowfs(Manner::ROOT, "", &[("DAVIT_FAILPOINT", &wanted)]);
    let mut actor = Actor::start(0);
    actor.trees(&[&layers.at, &plain]);
    let mut cut = None;
    for step in steps() {
        let outcome = actor.one(&step);
        if matches!(outcome, Outcome::Failed(nix::libc::ENOTCONN | nix::libc::ECONNABORTED)) {
            cut = Some(step);
            break;
        }
        assert_eq!(outcome, actor.one_of(1, &step), "{step:?}");
    }
    drop(actor);
    let Some(cut) = cut else {
        mounted.unmount();
        return false;
    };
    mounted.kill();
    let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, layers);
    let seen = snapshot(&fs.path("")).unwrap();
    let before = difference(&snapshot(&plain).unwrap(), &seen, &loose);
    let mut actor = Actor::start(0);
    actor.trees(&[&plain, &fs.layers.at]);
    actor.one(&cut);
    let after = difference(&snapshot(&plain).unwrap(), &seen, &loose);
    assert!(before.is_none() || after.is_none(), "{wanted} in {cut:?}: {before:?}, {after:?}");
    let rests = sh(&fs.layers.work().join("work"), "find . -mindepth 1 | wc -l");
    assert_eq!(rests, "0", "rests of {wanted} in the work directory");
    // Goes on where it was cut off.
    if after.is_some() {
        assert_eq!(actor.one_of(1, &cut), Outcome::Done, "{wanted}");
    }
    drop(actor);
    for engine in [Engine::Kernel, Engine::Cowfs] {
        fs.remount_by(engine);
        let wrong = difference(&snapshot(&plain).unwrap(), &snapshot(&fs.path("")).unwrap(), &loose);
        assert_eq!(wrong, None, "{engine:?} after {wanted} in {cut:?}");
    }
    fs.end();
    true
}

fn linked(plain: &std::path::Path) -> u64 {
    davit_cowfs_trials::act::lstat(&plain.join("file")).unwrap().ino
}

#[test]
fn a_death_at_any_point_leaves_the_old_or_the_new() {
    let mut unmet = Vec::new();
    for point in POINTS {
        let mut deaths = 0;
        while Host::run(|host| die_at(host, point, deaths + 1)) {
            deaths += 1;
        }
        println!("{point}: {deaths} deaths");
        if deaths == 0 {
            unmet.push(point);
        }
    }
    assert!(unmet.is_empty(), "no step passes {unmet:?}");
}
