//! docker-registry on loopback: filled once, then served to every engine on its own host.

use std::fs;
use std::path::Path;

use davit_tests::{Host, Registry};

/// Pushes the layout into a registry's storage directory.
pub fn fill(layout: &str, storage: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(storage)?;
    let host = Host::builder().unchecked().create()?;
    let registry = Registry::writable(&host, storage);
    let to = format!("docker://{}", registry.image("bench/unpack:1"));
    host.command("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &format!("oci:{layout}:1"), &to])
        .start()
        .wait()
        .ok();
    Ok(())
}
