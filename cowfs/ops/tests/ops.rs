//! Every operation does its work, here on a plain directory.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Little enough for a test, and still a megabyte of data.
const PART: &str = "50";

/// In memory: what a disk takes for it is not what is tested.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn ops(args: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_davit-fs-ops")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>().unwrap()
}

fn layers(at: &Path) -> String {
    ops(&["lowers", at.to_str().unwrap(), "--part", PART]);
    at.join("3").to_str().unwrap().to_owned()
}

#[test]
fn every_operation_counts_what_it_did() {
    for op in ops(&["list"]) {
        let name = op["name"].as_str().unwrap();
        let dir = directory();
        let measured = ops(&["run", "--part", PART, name, &layers(dir.path())]);
        assert!(measured[0]["units"].as_u64().unwrap() > 0, "{name}: {measured:?}");
        assert!(measured[0]["nanos"].as_u64().unwrap() > 0, "{name}: {measured:?}");
    }
}

#[test]
fn the_layers_differ_as_layers_of_an_image_do() {
    let dir = directory();
    let base = layers(dir.path());
    let count = |layer: &str| ops(&["visit", dir.path().join(layer).to_str().unwrap()])[0].as_u64().unwrap();
    // Directories of their own, and: a new file in 2, whiteouts in 1, 5 files in 4 of 8, all 25 in 8 and two big ones.
    let expected = [2 + 2 + 2, 2 + 1 + 1, 2 + 4 + 20, 2 + 8 + 200 + 2 + 1 + 2000];
    assert_eq!(["0", "1", "2", &base].map(count), expected);
}
