//! Builds the program: linked statically, whatever the rest of the workspace is, because an image may have no libc. Cargo has
//! `crt-static` for a whole target only; so rustc is called here.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "program/main.rs";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("davit-init");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc.args(["--edition", "2024", "--crate-name", "davit_init", "--crate-type", "bin"]);
    rustc.args(["--target", &env::var("TARGET").expect("cargo sets it")]);
    rustc.args(["-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "opt-level=s"]);
    rustc.args(["-C", "strip=symbols", "-C", "relocation-model=static"]);
    // Without std nothing names them.
    for library in
        ["-static", "-Wl,-Bstatic", "-Wl,--start-group", "-lc", "-lgcc", "-lgcc_eh", "-Wl,--end-group"]
    {
        rustc.arg("-C").arg(format!("link-arg={library}"));
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    rustc.arg("-o").arg(&out).arg(source);
    let status = rustc.status().expect("rustc can be run");
    assert!(status.success(), "davit-init does not build: a static C library (libc6-dev) is needed");
}
