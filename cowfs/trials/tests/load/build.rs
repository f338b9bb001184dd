//! cargo builds a crate that lies in the lower layer.

use std::fmt::Write as _;

use davit_cowfs_trials::host::sh;
use davit_tests::scale::scaled;

use crate::Load;

/// The environment that the test itself was built in must not say where to build.
const CARGO: &str = "unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR RUSTC_WRAPPER RUSTFLAGS CARGO_ENCODED_RUSTFLAGS; cd crate\n";

#[test]
fn a_crate_is_built_changed_and_built_again() {
    let modules = scaled(30);
    Load {
        prepare: &|lower| {
            sh(lower, "mkdir -p crate/src");
            let write = |name: &str, text: &str| std::fs::write(lower.join("crate").join(name), text).unwrap();
            write("Cargo.toml", "[package]\nname = 'sum'\nversion = '1.0.0'\nedition = '2021'\n[workspace]\n");
            write(
                "build.rs",
                "fn main() { let out = std::env::var(\"OUT_DIR\").unwrap(); println!(\"cargo:rerun-if-changed=build.rs\");\
                 std::fs::write(out + \"/made.rs\", \"pub const MADE: u64 = 5;\").unwrap(); }",
            );
            let mut lib = "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n".to_owned();
            let mut sum = "MADE".to_owned();
            for n in 0..modules {
                let _ = writeln!(lib, "pub mod m{n};");
                let _ = write!(sum, " + m{n}::value()");
                write(
                    &format!("src/m{n}.rs"),
                    &format!(
                        "pub fn value() -> u64 {{ (0..{n}u64).map(|x| x % 7).sum() }}\n#[test] fn t() {{ assert!(value() < 1000); }}"
                    ),
                );
            }
            write("src/lib.rs", &format!("{lib}pub fn sum() -> u64 {{ {sum} }}"));
            write("src/main.rs", "fn main() { println!(\"{}\", sum::sum()); }");
        },
        work: &|root| {
            let build = |what: &str| sh(root, &format!("{CARGO}cargo {what} --offline 2>&1"));
            assert!(build("build").contains("Compiling sum"));
            // Times of files are as cargo left them: nothing is out of date.
            assert!(!build("build").contains("Compiling"), "cargo builds what it has just built");
            assert!(build("test").contains(&format!("{modules} passed")));
            sh(root, "cp crate/target/debug/sum first; sed -i 's/u64 = 5/u64 = 1005/' crate/build.rs; touch crate/build.rs");
            assert!(build("build").contains("Compiling sum"));
        },
        verify: &|root| {
            let number = |program: &str| sh(root, program).parse::<u64>().unwrap();
            assert_eq!(number("./first") + 1000, number("crate/target/debug/sum"));
        },
    }
    .run();
}
