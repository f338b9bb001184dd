//! All fuzz targets in one program; `DAVIT_FUZZ_TARGET` names the one to run. With `DAVIT_FUZZ_SEEDS=DIR` it writes the
//! target's first inputs, valid documents, into a directory and ends.
#![no_main]

mod seeds;
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn begin() {
    let name = std::env::var("DAVIT_FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = targets::ALL.iter().find(|(n, _)| *n == name) else {
        let names: Vec<&str> = targets::ALL.iter().map(|(n, _)| *n).collect();
        eprintln!("DAVIT_FUZZ_TARGET must be one of: {}", names.join(" "));
        std::process::exit(2);
    };
    if let Some(dir) = std::env::var_os("DAVIT_FUZZ_SEEDS") {
        for (n, seed) in seeds::of(&name).into_iter().enumerate() {
            let path = std::path::Path::new(&dir).join(format!("seed-{n}"));
            std::fs::write(path, seed).expect("the directory of seeds can be written");
        }
        std::process::exit(0);
    }
    TARGET.get_or_init(|| *target);
}

fuzz_target!(init: begin(), |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        target(data);
    }
});
