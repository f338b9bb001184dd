//! Pulling from a real registry, over HTTP and HTTPS.

use std::fs;
use std::path::Path;

use davit_tests::{Host, Registry, fixture};

#[test]
fn an_image_is_pulled_over_http_from_loopback() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let layered = registry.image("layered:1");
    host.davit(["image", "pull", &layered]).ok();
    host.davit(["run", "--rm", "--net", "none", &layered]).ok().prints("entry: defaults");
    host.davit(["image", "ls"]).ok().says("127.0.0.1:5000/layered");
}

#[test]
fn run_pulls_what_is_missing() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let busybox = registry.image("busybox:1");
    host.davit(["run", "--rm", "--net", "none", "--pull", "never", &busybox, "true"]).refused(&["busybox:1"]);
    host.davit(["run", "--rm", "--net", "none", &busybox, "echo", "pulled"]).ok().prints("pulled");
}

#[test]
fn an_image_is_pulled_by_digest() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let url = format!("docker://{}", registry.image("busybox:1"));
    let digest = host.sh(&format!("skopeo inspect --tls-verify=false {url} | jq -r .Digest")).ok();
    let reference = format!("{}@{}", registry.image("busybox"), digest.text());
    host.davit(["image", "pull", &reference]).ok();
    host.davit(["run", "--rm", "--net", "none", &reference, "true"]).ok();
}

#[test]
fn an_image_is_pulled_over_https_with_an_authority_of_ones_own() {
    let host = Host::new();
    let registry = Registry::https(&host);
    let busybox = registry.image("busybox:1");
    let authority = registry.authority().to_string_lossy().into_owned();
    host.leaves_nothing(|| {
        host.davit(["image", "pull", &busybox]).refused(&["registry.test", "certificate"])
    });
    host.davit(["image", "pull", "--ca-file", &authority, &busybox]).ok();
    host.davit(["run", "--rm", "--net", "none", &busybox, "true"]).ok();
    host.davit(["image", "rm", &busybox]).ok();
    host.davit(["image", "pull", "--tls-verify=false", &busybox]).ok();
}

#[test]
fn a_second_pull_finds_all_layers_there() {
    let host = Host::with_busybox();
    let registry = Registry::http(&host);
    host.davit(["image", "pull", &registry.image("busybox:1")]).ok();
    host.davit(["image", "pull", &registry.image("busybox:1")]).ok();
    host.davit(["image", "pull", &registry.image("layered:1")]).ok();
}

#[test]
fn what_a_registry_lacks_is_named() {
    let host = Host::new();
    let registry = Registry::http(&host);
    for name in ["busybox:9", "nothing:1"] {
        let reference = registry.image(name);
        host.leaves_nothing(|| host.davit(["image", "pull", &reference]).refused(&[name]));
    }
}

#[test]
fn an_unreachable_registry_is_named() {
    let host = Host::new();
    host.leaves_nothing(|| {
        host.davit(["image", "pull", "127.0.0.1:5999/busybox:1"]).refused(&["127.0.0.1:5999"])
    });
    host.leaves_nothing(|| {
        host.davit(["image", "pull", "no-such-host.test/busybox:1"]).refused(&["no-such-host.test"])
    });
}

#[test]
fn a_blob_of_another_content_than_its_digest_is_refused() {
    let host = Host::new();
    let storage = host.work("storage");
    host.sh(&format!("cp -a {} {}", fixture::registry().registry(), storage.display())).ok();
    spoil_the_largest_blob(&host, &storage);
    let registry = Registry::writable(&host, &storage);
    let layered = registry.image("layered:1");
    host.leaves_nothing(|| host.davit(["image", "pull", &layered]).refused(&["digest"]));
}

/// Changes one byte in the middle, so that the size stays.
fn spoil_the_largest_blob(host: &Host, storage: &Path) {
    let find = format!("find {} -name data -size +500k", storage.display());
    for path in host.sh(&find).ok().stdout.lines() {
        let mut bytes = fs::read(path).expect("just found");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).expect("the copy is ours");
    }
}
