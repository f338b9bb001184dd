//! Indexes, manifests and configs that lie.

use std::path::Path;

use davit_storage::digest::Digest;
use serde_json::{Value, json};

use crate::case::{Case, Input, harmless, refused};
use crate::hand::{Entry, Layout, Tar, one_layer};

fn good() -> Vec<u8> {
    Tar::new().file("a", "a").end()
}

/// A layout whose manifest is this document.
fn manifest(document: impl Into<Vec<u8>>) -> Input {
    let mut layout = Layout::new();
    let descriptor = layout.blob("application/vnd.oci.image.manifest.v1+json", document);
    layout.index(descriptor, "evil");
    Input::Archive(layout.tar())
}

/// A layout whose config is this document, with one good layer.
fn config(document: impl Into<Vec<u8>>) -> Input {
    let mut layout = Layout::new();
    let config = layout.blob("application/vnd.oci.image.config.v1+json", document);
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar", good());
    let manifest = layout.manifest(&config, &[layer]);
    layout.index(manifest, "evil");
    Input::Archive(layout.tar())
}

/// A right layout, changed.
fn changed(change: impl Fn(&mut Layout)) -> Input {
    let mut layout = one_layer("evil", &good());
    change(&mut layout);
    Input::Archive(layout.tar())
}

fn index(document: &Value) -> Input {
    changed(|l| {
        l.0.insert("index.json".into(), document.to_string().into_bytes());
    })
}

/// A docker-archive with this manifest.json and one layer.
fn docker(document: &Value) -> Input {
    let layer = good();
    let config =
        json!({"rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).as_str()]}, "os": "linux"});
    let tar = Tar::new()
        .file("config.json", &config.to_string())
        .entry(&Entry::new("layer.tar", b'0').data(layer))
        .symlink("circle", "circle2")
        .symlink("circle2", "circle")
        .symlink("out", "/etc/passwd")
        .file("manifest.json", &document.to_string());
    Input::Archive(tar.end())
}

pub fn cases() -> Vec<Case> {
    let mut all = digests();
    all.extend(indexes());
    all.extend(manifests());
    all.extend(archives());
    all
}

fn digests() -> Vec<Case> {
    let layer = good();
    let blob = format!("blobs/sha256/{}", Digest::of(&layer).hex());
    let other = Digest::of(b"other").to_string();
    let with_diff_id = |id: &str| json!({"rootfs": {"type": "layers", "diff_ids": [id]}}).to_string();
    let lie_about = |what: &'static str, value: Value| {
        let mut layout = Layout::new();
        let config = layout.config(&[Digest::of(&good()).to_string()]);
        let mut layer = layout.blob("application/vnd.oci.image.layer.v1.tar", good());
        layer[what] = value;
        let manifest = layout.manifest(&config, &[layer]);
        layout.index(manifest, "evil");
        Input::Archive(layout.tar())
    };
    vec![
        refused("a wrong diff id", config(with_diff_id(&other)), &["is corrupt: it unpacks to"]),
        refused(
            "a diff id that is a path",
            config(with_diff_id("sha256:../../../evil")),
            &["config cannot be read"],
        ),
        refused(
            "a diff id in capitals",
            config(with_diff_id(&other.to_uppercase())),
            &["config cannot be read"],
        ),
        refused("a diff id by sha512", config(with_diff_id("sha512:00")), &["config cannot be read"]),
        refused("a layer's size that is too small", lie_about("size", json!(3)), &["is corrupt: it has"]),
        refused(
            "a layer's size that is too large",
            lie_about("size", json!(1u64 << 50)),
            &["is corrupt: it has"],
        ),
        refused("a layer's size below zero", lie_about("size", json!(-1)), &["manifest cannot be read"]),
        refused(
            "a layer's digest that is a path",
            lie_about("digest", json!("sha256:/etc/passwd")),
            &["manifest cannot be read"],
        ),
        refused("a layer that is not there", lie_about("digest", json!(other)), &["incomplete", &other[7..]]),
        refused(
            "a layer with other bytes",
            changed(move |l| l.0.get_mut(&blob).unwrap()[600] ^= 1),
            &["is corrupt: its digest is"],
        ),
        refused(
            "a config with other bytes",
            changed(|l| {
                let name = l.0.iter().find(|(_, b)| b.starts_with(b"{\"architecture")).unwrap().0.clone();
                l.0.get_mut(&name).unwrap().push(b' ');
            }),
            &["the config is corrupt"],
        ),
        refused(
            "a manifest with other bytes",
            changed(|l| {
                let name =
                    l.0.iter().find(|(_, b)| b.starts_with(b"{\"config\":{\"digest")).unwrap().0.clone();
                l.0.get_mut(&name).unwrap().push(b' ');
            }),
            &["the manifest is corrupt"],
        ),
    ]
}

fn indexes() -> Vec<Case> {
    let chain = {
        let mut layout = one_layer("evil", &good());
        let index: Value = serde_json::from_slice(&layout.0["index.json"]).unwrap();
        let mut descriptor = index["manifests"][0].clone();
        for _ in 0..6 {
            let next = json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string();
            descriptor = layout.blob("application/vnd.oci.image.index.v1+json", next);
        }
        layout.index(descriptor, "evil");
        Input::Archive(layout.tar())
    };
    let entry = json!({"mediaType": "x", "digest": Digest::of(b"x").as_str(), "size": 1,
        "platform": {"os": "plan9", "architecture": "pdp11"}});
    vec![
        refused("indexes that only lead to indexes", chain, &["a manifest behind its indexes"]),
        refused(
            "an index that names itself as a path",
            index(&json!({"manifests": [{"digest": "sha256:../../index.json", "size": 1}]})),
            &["index cannot be read"],
        ),
        refused(
            "an index of a million images",
            index(&json!({"manifests": vec![&entry; 50_000]})),
            &["is larger than"],
        ),
        refused(
            "an index for other machines",
            index(&json!({"manifests": [&entry, &entry]})),
            &["plan9/pdp11"],
        ),
        refused("an index that is a list", index(&json!([[[]]])), &["index cannot be read"]),
        refused(
            "an index of nothing but depth",
            changed(|l| {
                l.0.insert(
                    "index.json".into(),
                    b"{\"manifests\":".iter().copied().chain(vec![b'['; 500_000]).collect(),
                );
            }),
            &["index cannot be read"],
        ),
    ]
}

fn manifests() -> Vec<Case> {
    let descriptor = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"c").as_str(), "size": 1});
    let with =
        |layers: Value| json!({"schemaVersion": 2, "config": descriptor, "layers": layers}).to_string();
    let helm = json!({"schemaVersion": 2, "layers": [], "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json",
        "digest": Digest::of(b"c").as_str(), "size": 1}});
    let mut layout = one_layer("evil", &good());
    let config_of_two = layout.config(&vec![Digest::of(b"x").to_string(); 2]);
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar", good());
    let two = layout.manifest(&config_of_two, &[layer]);
    layout.index(two, "evil");
    let history = json!({"rootfs": {"type": "layers", "diff_ids": []}, "history": vec![json!({"created_by": "x".repeat(1000)}); 9000]});
    vec![
        refused("a manifest that is no JSON", manifest("\u{feff}<xml/>"), &["manifest cannot be read"]),
        refused(
            "a manifest of nothing but depth",
            manifest("[".repeat(1_000_000)),
            &["manifest cannot be read"],
        ),
        refused("a manifest of five megabytes", manifest(vec![b' '; 5 << 20]), &["larger than"]),
        refused("a manifest of 501 layers", manifest(with(json!(vec![&descriptor; 501]))), &["501 layers"]),
        refused("docker's schema 1", manifest(r#"{"schemaVersion":1,"fsLayers":[]}"#), &["schema 1"]),
        refused("an artifact that is no image", manifest(helm.to_string()), &["not a container image"]),
        refused(
            "a manifest without a config",
            manifest(r#"{"schemaVersion":2,"layers":[]}"#),
            &["manifest cannot be read"],
        ),
        refused("a config that is not there", manifest(with(json!([]))), &["incomplete"]),
        refused(
            "fewer layers than the config names",
            Input::Archive(layout.tar()),
            &["1 layers, but the config 2"],
        ),
        refused("a config that is a list", config("[]"), &["config cannot be read"]),
        refused("a config of nine megabytes", config(history.to_string()), &["larger than"]),
        refused(
            "a config of ten thousand layers",
            config(
                json!({"rootfs": {"type": "layers", "diff_ids": vec![Digest::of(b"x").as_str(); 10_000]}})
                    .to_string(),
            ),
            &["10000 layers"],
        ),
    ]
}

fn archives() -> Vec<Case> {
    let image = |config: &str, layer: &str, tags: &[&str]| {
        docker(&json!([{"Config": config, "Layers": [layer], "RepoTags": tags}]))
    };
    let files = (0..100_001).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), "")).end();
    vec![
        refused(
            "a config outside the archive",
            image("../../../../etc/passwd", "layer.tar", &[]),
            &["lacks ../../../../etc/passwd"],
        ),
        refused("an absolute layer", image("config.json", "/etc/passwd", &[]), &["lacks /etc/passwd"]),
        refused("a layer that is a link to a file outside", image("config.json", "out", &[]), &["lacks out"]),
        refused("a layer that is links in a circle", image("config.json", "circle", &[]), &["lacks circle"]),
        harmless(
            "names that are no names",
            image("config.json", "layer.tar", &["../../x", "UPPER:1", "ok:1", ""]),
            |_| (),
        ),
        refused(
            "a manifest.json that is no list",
            docker(&json!({"Config": 1})),
            &["manifest cannot be read"],
        ),
        refused("an archive of a hundred thousand files", Input::Archive(files), &["more than 100000 files"]),
        refused("no archive at all", Input::Archive(b"hello".to_vec()), &["cannot be read"]),
        refused("an empty archive", Input::Archive(Vec::new()), &["cannot be read"]),
        refused(
            "a directory whose index is a link to a file outside",
            Input::Directory(linked_index),
            &["index.json"],
        ),
        refused("a directory whose index is a fifo", Input::Directory(fifo_index), &["no image archive"]),
    ]
}

fn linked_index(dir: &Path) {
    std::os::unix::fs::symlink("/etc/passwd", dir.join("index.json")).unwrap();
}

fn fifo_index(dir: &Path) {
    crate::host::sh(&format!("mkfifo {}/index.json", dir.display()));
}
