//! Random sequences on davit-cowfs, overlayfs and a plain directory at once: they agree after each step, each reads what the other has
//! written, and no lower layer changes.
//!
//! `DAVIT_STORM` scales the number of cases, `DAVIT_SEED` has one run again. A shrunk failure is printed as JSON: keep it in
//! `regressions/`, whose files are tried too.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use davit_cowfs_trials::Host;
use davit_cowfs_trials::mount::Manner;
use davit_cowfs_trials::op::Op;
use davit_cowfs_trials::strategy::{case, runner};
use davit_cowfs_trials::trial::{Case, Ground, Stage, Step};
use davit_cowfs_trials::userns;
use davit_tests::scale::scaled;
use proptest::strategy::Strategy as _;
use proptest::test_runner::{Config, TestCaseError, TestError};

fn storm(manner: Manner, usual: usize) {
    Host::run(|host| storm_on(host, manner, Ground::default(), usual));
}

fn storm_on(host: &Host, manner: Manner, ground: Ground, usual: usize) {
    let cases = u32::try_from(scaled(usual)).unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 600, ..Config::default() };
    let stage = RefCell::new(Stage::on(host, manner, ground));
    let outcome = runner(config).run(
        &case(40).prop_map(move |case| if ground.aligned { without_direct(case) } else { case }),
        |case| {
            catch_unwind(AssertUnwindSafe(|| stage.borrow_mut().run(&case)))
                .unwrap_or_else(|panic| Err(words(&*panic)))
                .map_err(TestCaseError::fail)
        },
    );
    if let Err(TestError::Fail(reason, case)) = &outcome {
        panic!("{reason}\n{}\n", serde_json::to_string(case).unwrap());
    }
    outcome.unwrap();
    let (retired, all) = stage.into_inner().retired();
    println!("overlayfs was left out of {retired} of {all} cases");
    assert!(retired <= all / 10 + 1, "overlayfs is hardly compared");
}

/// A disk refuses O_DIRECT that is not aligned to its blocks; FUSE asks for nothing, which no program can hold against it.
fn without_direct(mut case: Case) -> Case {
    const O_DIRECT: i32 = 0o40_000;
    for step in case.layers.iter_mut().flatten().chain(&mut case.steps) {
        if let Step::Make(_, Op::Open { flags, .. }) = step {
            *flags &= !O_DIRECT;
        }
    }
    case
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

#[test]
fn as_root_with_redirects_and_an_index() {
    storm(Manner::ROOT, 400);
}

#[test]
fn as_root_without_redirects() {
    storm(Manner { redirect: false, ..Manner::ROOT }, 200);
}

#[test]
fn with_layers_on_several_file_systems() {
    let ground = Ground { split: true, ..Ground::default() };
    Host::run(|host| storm_on(host, Manner { redirect: true, ..Manner::PLAIN }, ground, 100));
}

#[test]
fn on_ext4() {
    let ground = Ground { reuses_numbers: true, aligned: true, ..Ground::default() };
    Host::run_on("ext4", |host| storm_on(host, Manner::ROOT, ground, 80));
}

#[test]
fn on_btrfs_which_shares_blocks() {
    let ground = Ground { aligned: true, ..Ground::default() };
    Host::run_on("btrfs", |host| storm_on(host, Manner::ROOT, ground, 80));
}

#[test]
fn with_the_kernel_writing_back_later() {
    storm(Manner { writeback: true, ..Manner::ROOT }, 100);
}

#[test]
fn in_a_user_namespace() {
    userns::run("in_a_user_namespace", || storm(Manner::USER, 200));
}

/// Every failure that was ever found, shrunk.
#[test]
fn what_was_once_wrong() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    Host::run(|host| {
        let mut stage = Stage::new(host, Manner::ROOT);
        for file in &files {
            let case: Case = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            stage.run(&case).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        }
        assert!(!files.is_empty());
    });
}
