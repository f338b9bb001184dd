//! Which crate of the workspace may depend on which.

use std::collections::BTreeMap;

use serde_json::Value;

/// Every workspace crate with the workspace crates that it may depend on. Daemons never depend on one another; the CLI
/// never on `davit-sys`; the monitor, the runner and the supervisor stay without tonic.
const ALLOWED: &[(&str, &[&str])] = &[
    ("davit-sys", &[]),
    ("davit-wire", &[]),
    ("davit-init", &[]),
    ("davit-layout", &[]),
    ("davit-supervision", &["davit-layout"]),
    ("davit-contracts", &["davit-layout"]),
    ("davit-daemon-kit", &["davit-contracts", "davit-sys"]),
    ("davit-supervisor", &["davit-layout", "davit-sys"]),
    ("davit-cowfs", &["davit-sys"]),
    ("davit-cowfs-fuse", &["davit-cowfs", "davit-sys", "davit-tests"]),
    ("davit-fs-ops", &["davit-sys"]),
    ("davit-cowfs-trials", &["davit-cowfs", "davit-sys", "davit-tests"]),
    ("davit-storage", &["davit-contracts", "davit-sys", "davit-daemon-kit", "davit-cowfs", "davit-tests"]),
    ("davit-netd", &["davit-contracts", "davit-sys", "davit-daemon-kit", "davit-tests"]),
    ("davit-cni", &["davit-contracts", "davit-sys"]),
    (
        "davit-runtime-core",
        &[
            "davit-contracts",
            "davit-sys",
            "davit-init",
            "davit-daemon-kit",
            "davit-supervision",
            "davit-wire",
        ],
    ),
    ("davit-monitor", &["davit-sys", "davit-wire"]),
    ("davit-runner", &["davit-sys"]),
    ("davit-cli", &["davit-contracts", "davit-supervision", "davit-wire"]),
    ("davit-tests", &[]),
    ("xtask", &["davit-contracts", "davit-tests"]),
];

/// Crates from elsewhere that some of ours must not use, with the reason.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("davit-monitor", &["tokio", "tonic"], "one monitor a container has to stay small"),
    ("davit-supervisor", &["tokio", "tonic"], "the supervisor has to stay small"),
    ("davit-runner", &["tonic"], "the runner is an OCI runtime and knows no daemon"),
    ("davit-wire", &["tokio", "tonic"], "the monitor uses it"),
    ("davit-layout", &["tokio", "tonic"], "the supervisor uses it"),
    ("davit-sys", &["tonic"], "it is about the kernel"),
];

/// One line for each edge that is not allowed.
pub fn broken(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut broken = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may) = allowed.get(name) else {
            broken.push(format!("{name} is not in the table of xtask/src/check/edges.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if allowed.contains_key(on) && !may.contains(&on) {
                broken.push(format!("{name} must not depend on {on}"));
            }
            for (who, what, why) in FORBIDDEN {
                if *who == name && what.contains(&on) {
                    broken.push(format!("{name} must not depend on {on}: {why}"));
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, on: &[&str]) -> Value {
        let on: Vec<_> = on.iter().map(|n| json!({"name": n})).collect();
        json!({"name": name, "dependencies": on})
    }

    #[test]
    fn the_edges_of_the_design_are_allowed_and_others_are_not() {
        let good = json!({"packages": [package("davit-cli", &["davit-contracts", "tonic"])]});
        assert_eq!(broken(&good), Vec::<String>::new());
        let packages = [
            package("davit-cli", &["davit-sys"]),
            package("davit-netd", &["davit-storage"]),
            package("davit-monitor", &["tokio"]),
            package("unknown", &[]),
        ];
        assert_eq!(broken(&json!({ "packages": packages })).len(), 4);
    }
}
