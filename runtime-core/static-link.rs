//! Build script of the programs that run beside and inside of containers: links them statically where the C library can be.
//!
//! A static program starts in half the time, needs nothing of a container's root, and shares its pages among all its instances. rustc
//! names the C library's shared objects on the linker's command line; a directory that is searched first has linker scripts in their
//! place which name the archives. Where there are no archives (a C library without them) the programs are linked as any other.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What rustc asks for, and the archive with the same content.
const LIBRARIES: [(&str, &str); 3] =
    [("libgcc_s.so", "libgcc_eh.a"), ("libc.so", "libc.a"), ("libm.so", "libm.a")];

fn main() {
    println!("cargo::rerun-if-changed=../static-link.rs");
    println!("cargo::rerun-if-env-changed=CC");
    let target = |key: &str| std::env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    let native = std::env::var("TARGET") == std::env::var("HOST");
    let (Ok(out), true) = (std::env::var("OUT_DIR"), native && target("ENV") == "gnu") else { return };
    let Some(archives) = LIBRARIES.iter().map(|(_, archive)| find(archive)).collect::<Option<Vec<_>>>()
    else {
        return;
    };
    for ((object, _), archive) in LIBRARIES.iter().zip(archives) {
        let script = format!("INPUT({})\n", archive.display());
        std::fs::write(Path::new(&out).join(object), script).expect("OUT_DIR is there to be written to");
    }
    println!("cargo::rustc-link-arg-bins=-L{out}");
    println!("cargo::rustc-link-arg-bins=-static-pie");
}

/// Where the C compiler finds a library.
fn find(name: &str) -> Option<PathBuf> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // One that is not found is answered as it was asked for.
    path.is_absolute().then_some(path)
}
