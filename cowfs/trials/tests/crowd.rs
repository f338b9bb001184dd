//! Many processes on the same few names at once. What each of them sees is anybody's guess; but the server lives, answers nothing that
//! no system call has to answer, and what is there in the end is what the layers hold, for it as for overlayfs.

#![allow(clippy::unwrap_used)]

use davit_cowfs_trials::actor::Actor;
use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::host::Host;
use davit_cowfs_trials::layer;
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::op::{Op, Outcome, Stat};
use davit_cowfs_trials::strategy::{calls, runner};
use davit_cowfs_trials::tree::{Identity, Leeway, difference, false_entry, snapshot};
use davit_cowfs_trials::userns;
use davit_tests::scale::scaled;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::Config;

const ACTORS: usize = 4;

/// What a file system must not answer to these calls: EIO, and that it has lost the file.
const WRONG: [i32; 4] = [5, 116, 107, 103];

fn crowd(host: &Host, name: &str, manner: Manner, calls: &[Vec<Op>]) {
    let base = host.dir(&format!("{name}/base"));
    layer::base(&base, manner.index);
    let layers = Layers::new(host, &format!("{name}/fs"), std::slice::from_ref(&base));
    layer::attributes(&base, layers.upper(), &davit_cowfs_trials::act::lstat(&base).unwrap());
    let mut fs = Fs::mount(host, Engine::Cowfs, manner, layers);
    std::thread::scope(|scope| {
        for (n, calls) in calls.iter().enumerate() {
            let mut actor = Actor::start(if n == 0 { 1000 } else { 0 });
            actor.trees(&[&fs.layers.at]);
            scope.spawn(move || {
                for call in calls {
                    let outcome = actor.one(call);
                    let wrong = matches!(outcome, Outcome::Failed(errno) if WRONG.contains(&errno));
                    assert!(!wrong, "{call:?}: {outcome:?}");
                }
            });
        }
    });
    let numbered = |stat: &Stat| manner.keeps_number(stat);
    let before = snapshot(&fs.path("")).unwrap();
    assert_eq!(false_entry(&before, numbered), None);
    fs.remount();
    let after = snapshot(&fs.path("")).unwrap();
    let none = Leeway::default();
    assert_eq!(difference(&before, &after, &none), None, "mounted again");
    Identity::default().trees(&before, &after, numbered).unwrap();
    if manner.index || manner.userxattr {
        fs.remount_by(Engine::Kernel);
        assert_eq!(difference(&before, &snapshot(&fs.path("")).unwrap(), &none), None, "overlayfs");
    }
    fs.end();
    std::fs::remove_dir_all(host.path(name)).unwrap();
}

fn crowds(manner: Manner) {
    let mut runner = runner(Config::default());
    Host::run(|host| {
        for round in 0..scaled(25) {
            let all: Vec<Vec<Op>> =
                (0..ACTORS).map(|_| calls(400).new_tree(&mut runner).unwrap().current()).collect();
            crowd(host, &round.to_string(), manner, &all);
        }
    });
}

#[test]
fn a_crowd_of_processes() {
    crowds(Manner::ROOT);
}

#[test]
fn a_crowd_in_a_user_namespace() {
    userns::run("a_crowd_in_a_user_namespace", || crowds(Manner::USER));
}
