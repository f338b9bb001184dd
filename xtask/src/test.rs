//! `cargo xtask test`: everything that has to hold before a change goes in.

use crate::{cargo, check, fuzz, packages};

/// Installs, checks, builds, makes the images once, and runs all tests; the runner's summary comes last.
pub fn run() -> anyhow::Result<()> {
    packages::ensure_installed()?;
    check::run()?;
    fuzz::run(&fuzz::Options::default())?;
    let binaries = cargo::build(false)?;
    println!("making the test images (kept in {}/../fixtures)", binaries.display());
    davit_tests::fixture::make_all();
    if cargo::has("nextest") {
        cargo::run(&mut cargo::cargo(&["test", "--workspace", "--doc"]))?;
        cargo::run(&mut cargo::cargo(&["nextest", "run", "--workspace", "--no-tests", "fail"]))
    } else {
        cargo::run(&mut cargo::cargo(&["test", "--workspace", "--no-fail-fast"]))
    }
}
