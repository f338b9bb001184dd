//! Random sequences on davit-cowfs, overlayfs and a plain directory at once: they agree after each step, each reads what the other has
//! written, and no lower layer changes.
//!
//! `DAVIT_STORM` scales the number of cases, `DAVIT_SEED` has one run again. A shrunk failure is printed as JSON: keep it in
//! `regressions/`, whose files are tried too.

use davit_cowfs_trials::Host;
use davit_cowfs_trials::mount::Manner;
use davit_cowfs_trials::scale::{scaled, seed};
use davit_cowfs_trials::strategy::case;
use davit_cowfs_trials::trial::{Case, Stage};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

fn storm(manner: Manner, usual: usize) {
    let cases = u32::try_from(scaled(usual)).unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 600, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    Host::run(|host| {
        let mut stage = Stage::new(host, manner);
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let tried = |case: Case| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stage.run(&case)))
                .unwrap_or_else(|_| Err("a panic".to_owned()))
                .map_err(TestCaseError::fail)
        };
        let stage = std::cell::RefCell::new(tried);
        match runner.run(&case(40), |case| (stage.borrow_mut())(case)) {
            Err(TestError::Fail(reason, case)) => {
                panic!("{reason}\n{}\n", serde_json::to_string(&case).unwrap())
            }
            other => other.unwrap(),
        }
    });
}

#[test]
fn as_root_with_redirects_and_an_index() {
    storm(Manner::ROOT, 600);
}

#[test]
fn as_root_without_redirects() {
    storm(Manner { redirect: false, ..Manner::ROOT }, 300);
}
