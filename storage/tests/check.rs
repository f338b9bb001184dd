//! Damage of every kind is found, named and repaired; nothing else is touched.
#![allow(clippy::unwrap_used)]

#[path = "check/damage.rs"]
mod damage;
#[path = "host/hand.rs"]
mod hand;
#[path = "host/private.rs"]
mod host;
#[path = "host/tree.rs"]
mod tree;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use davit_contracts::storage as pb;
use davit_contracts::{Error, client};
use davit_storage::digest::Digest;
use hand::{Entry, Layout, Tar, gzip, image};
use host::{Host, sh};
use pb::finding::Problem;
use pb::system_client::SystemClient;

/// A layer with everything that a layer can hold.
fn rich_layer() -> Vec<u8> {
    // User, a named user, the group, the mask, others: rw-rw----.
    let acl: Vec<u8> = [2u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(
            [
                (1u16, 6u16, u32::MAX),
                (2, 6, 1234),
                (4, 4, u32::MAX),
                (0x10, 6, u32::MAX),
                (0x20, 0, u32::MAX),
            ]
            .map(|(tag, perm, id)| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()),
        )
        .flatten()
        .collect();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Tar::new()
        .dir("./")
        .dir("bin/")
        .entry(&Entry::new("bin/tool", b'0').mode(0o4755).data(vec![7u8; 100_000]))
        .hard("bin/tool2", "bin/tool")
        .hard("bin/tool3", "bin/tool")
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("mtime", b"1500000000.123456789")])
        .file("bin/ping", "ping")
        .symlink("bin/sh", "tool")
        .dir("data/")
        .pax(&[("SCHILY.xattr.user.note", b"keep"), ("SCHILY.xattr.user.more", b"too")])
        .entry(&Entry::new("data/noted", b'0').owner(1000, 1000).data("noted"))
        .pax(&[("SCHILY.xattr.system.posix_acl_access", &acl)])
        .entry(&Entry::new("data/shared", b'0').mode(0o660).data("acl"))
        .file("data/empty", "")
        .file("data/plain", "some text\n")
        .entry(&Entry::new("data/pipe", b'6').mode(0o622))
        .entry(&Entry::new("data/tty", b'3').device(5, 0).mode(0o666))
        .entry(&Entry::new("data/disk", b'4').device(8, 1).mode(0o660).owner(0, 6))
        .entry(&Entry::new("data/sticky/", b'5').mode(0o1777))
        .file(".wh.removed", "")
        .file("data/.wh.old", "")
        .dir("hidden/")
        .file("hidden/.wh..wh..opq", "")
        .file("hidden/inside", "inside")
        .dir("tree/")
        .dir("tree/a/")
        .dir("tree/a/b/")
        .file("tree/a/b/leaf", "leaf")
        .file("tree/a/leaf", "other leaf")
        .end()
}

/// A host with the image "rich" of two layers, whose ledgers are there.
async fn rich_host() -> (Host, PathBuf, Layout) {
    let host = Host::with_config("keep_layer_archives = true").await;
    let (base, rich) = (Tar::new().file("base", "base").file("removed", "x").end(), rich_layer());
    let layout = image("rich", &[(base.clone(), &base), (gzip(&rich), &rich)]);
    host.load_bytes(layout.tar()).await.unwrap();
    check(&host, true).await.unwrap();
    let layer = tree::of_layer(&host.state(), Digest::of(&rich).hex());
    (host, layer, layout)
}

struct Report {
    findings: Vec<pb::Finding>,
    done: pb::CheckDone,
}

async fn run(host: &Host, request: pb::CheckRequest) -> Result<Report, Error> {
    let mut client = SystemClient::new(client::lazy(&host.socket()));
    let mut stream = client.check(request).await?.into_inner();
    let (mut findings, mut done) = (Vec::new(), None);
    while let Some(event) = stream.message().await? {
        match event.event {
            Some(pb::check_event::Event::Finding(f)) => findings.push(f),
            Some(pb::check_event::Event::Done(d)) => done = Some(d),
            _ => {}
        }
    }
    Ok(Report { findings, done: done.unwrap() })
}

async fn check(host: &Host, repair: bool) -> Result<Report, Error> {
    run(host, pb::CheckRequest { repair, ..Default::default() }).await
}

async fn assert_clean(host: &Host, after: &str) {
    let report = check(host, false).await.unwrap();
    assert_eq!(report.findings, [], "after {after}");
    assert_eq!((report.done.problems, report.done.layers), (0, 2));
}

fn show(findings: &[pb::Finding]) -> String {
    let lines: Vec<String> =
        findings.iter().map(|f| format!("/{}: {} ({})", f.path, f.detail, f.why_not)).collect();
    lines.join("\n")
}

#[tokio::test]
async fn every_kind_of_damage_to_a_layer_is_found_named_and_repaired() {
    let (host, layer, _) = rich_host().await;
    assert_clean(&host, "loading").await;
    let (before, inodes) = (tree::listing(&layer), tree::inodes(&layer));
    for case in damage::CASES {
        (case.damage)(&layer);
        assert_ne!(tree::listing(&layer), before, "{} did nothing", case.name);
        let found = check(&host, false).await.unwrap();
        for (problem, path, detail) in case.expected {
            let hit = |f: &&pb::Finding| {
                f.problem == *problem as i32 && f.path == *path && f.detail.contains(detail)
            };
            let finding = found.findings.iter().find(hit);
            let finding = finding.unwrap_or_else(|| panic!("{}:\n{}", case.name, show(&found.findings)));
            assert_eq!(finding.images, ["rich:latest"], "{}", case.name);
            assert!(layer.display().to_string().contains(&finding.diff_id[7..]));
            assert!(!finding.repaired);
        }
        // What else is told is the time of a directory in which something was made or removed.
        let expected = |f: &pb::Finding| case.expected.iter().any(|e| e.1 == f.path);
        for other in found.findings.iter().filter(|f| !expected(f)) {
            let of_directory =
                other.detail.starts_with("was modified at") && layer.join(&other.path).is_dir();
            assert!(of_directory, "{}: /{}: {}", case.name, other.path, other.detail);
        }
        let repaired = check(&host, true).await.unwrap();
        assert!(repaired.findings.iter().all(|f| f.repaired), "{}:\n{}", case.name, show(&repaired.findings));
        assert_eq!(repaired.findings.len(), found.findings.len());
        assert_eq!(tree::listing(&layer), before, "{}", case.name);
        assert_clean(&host, case.name).await;
        let changed: Vec<String> =
            tree::inodes(&layer).into_iter().filter(|(p, i)| inodes[p] != *i).map(|(p, _)| p).collect();
        let replaced = |p: &String| case.replaced.iter().any(|r| p == r);
        assert!(changed.iter().all(|p| replaced(p) || seen_before(p)), "{}: {changed:?}", case.name);
        for path in &changed {
            remember(path);
        }
    }
    // Nothing of the repairs is left anywhere.
    assert_eq!(host.names("staging"), Vec::<String>::new());
    assert_eq!(host.names("ingest"), Vec::<String>::new());
}

/// Paths that an earlier case has replaced.
static REPLACED: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

fn seen_before(path: &str) -> bool {
    REPLACED.lock().unwrap().iter().any(|p| p == path)
}

fn remember(path: &str) {
    REPLACED.lock().unwrap().push(path.to_owned());
}

#[tokio::test]
async fn all_damage_at_once_is_repaired_at_once_and_quick_sees_all_but_content() {
    let (host, layer, _) = rich_host().await;
    let before = tree::listing(&layer);
    damage::CASES.iter().filter(|c| c.combines).for_each(|c| (c.damage)(&layer));
    let quick = run(&host, pb::CheckRequest { quick: true, ..Default::default() }).await.unwrap();
    let full = check(&host, false).await.unwrap();
    let paths = |r: &Report| r.findings.iter().map(|f| f.path.clone()).collect::<Vec<_>>();
    assert!(
        paths(&full).contains(&"data/plain".to_owned()) && !paths(&quick).contains(&"data/plain".to_owned())
    );
    assert!(
        quick.findings.len() > 8 && quick.findings.len() < full.findings.len(),
        "{}",
        show(&quick.findings)
    );
    let repaired = check(&host, true).await.unwrap();
    assert!(repaired.findings.iter().all(|f| f.repaired), "{}", show(&repaired.findings));
    assert_eq!(tree::listing(&layer), before);
    assert_clean(&host, "all at once").await;
}

#[tokio::test]
async fn a_random_byte_of_any_file_is_found() {
    let (host, layer, _) = rich_host().await;
    let before = tree::listing(&layer);
    for _ in 0..24 {
        let path =
            ["bin/tool", "bin/ping", "data/noted", "data/plain", "tree/a/leaf"][rand::random_range(0..5)];
        damage::flip(&layer.join(path), None);
        let repaired = check(&host, true).await.unwrap();
        assert!(repaired.findings.iter().any(|f| f.path == path), "{path}\n{}", show(&repaired.findings));
        assert!(repaired.findings.iter().all(|f| f.repaired && f.problem == Problem::Content as i32));
        assert_eq!(tree::listing(&layer), before);
    }
}

/// A byte of a stored blob changes.
fn flip_blob(host: &Host, digest: &str) {
    damage::flip(&host.state().join("blobs").join(&digest[7..]), None);
}

fn descriptors(layout: &Layout) -> (String, String, String) {
    let index: serde_json::Value = serde_json::from_slice(&layout.0["index.json"]).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let bytes = &layout.0[&format!("blobs/sha256/{}", &manifest[7..])];
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let text = |v: &serde_json::Value| v["digest"].as_str().unwrap().to_owned();
    (manifest, text(&document["config"]), text(&document["layers"][1]))
}

#[tokio::test]
async fn damaged_blobs_are_named_and_without_a_registry_the_advice_is_clear() {
    let (host, layer, layout) = rich_host().await;
    let (manifest, config, archive) = descriptors(&layout);
    for digest in [&manifest, &config, &archive] {
        flip_blob(&host, digest);
    }
    damage::flip(&layer.join("data/plain"), None);
    let report = check(&host, true).await.unwrap();
    let blobs: Vec<_> = report.findings.iter().filter(|f| f.problem == Problem::Blob as i32).collect();
    assert_eq!(blobs.len(), 3, "{}", show(&report.findings));
    for what in ["manifest", "config", "archive"] {
        let hit = blobs.iter().find(|f| f.detail.contains(&format!("the {what} "))).unwrap();
        assert!(hit.detail.contains("its content differs"), "{}", hit.detail);
        assert!(hit.why_not.contains("remove the image, and load or pull it again"), "{}", hit.why_not);
    }
    let file = report.findings.iter().find(|f| f.path == "data/plain").unwrap();
    assert!(!file.repaired && file.why_not.contains("archive is damaged, too"), "{}", file.why_not);
    assert_eq!((report.done.problems, report.done.repaired), (4, 0));

    std::fs::remove_file(host.state().join("blobs").join(&config[7..])).unwrap();
    let report = check(&host, false).await.unwrap();
    assert!(report.findings.iter().any(|f| f.detail.ends_with("its file is missing")));
    // Metadata needs no archive.
    sh(&format!("chmod 0 {}", layer.join("data/noted").display()));
    let report = check(&host, true).await.unwrap();
    assert!(
        report.findings.iter().any(|f| f.path == "data/noted" && f.repaired),
        "{}",
        show(&report.findings)
    );
}

#[tokio::test]
async fn blobs_and_files_come_back_from_the_registry_that_the_image_was_pulled_from() {
    let host = Host::with_config("keep_layer_archives = true").await;
    let rich = rich_layer();
    let layout = image("rich", &[(gzip(&rich), &rich)]);
    let dir = host.tmp.path().join("layout");
    for (name, bytes) in &layout.0 {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let registry = registry::Registry::start(host.tmp.path());
    let name = format!("127.0.0.1:{}/rich:1", registry.port);
    sh(&format!(
        "skopeo copy -q --insecure-policy --preserve-digests --dest-tls-verify=false oci:{}:rich docker://{name}",
        dir.display()
    ));
    host.pull(pb::PullRequest { reference: name.clone(), ..Default::default() }).await.unwrap();
    check(&host, true).await.unwrap();
    let layer = tree::of_layer(&host.state(), Digest::of(&rich).hex());
    let before = tree::listing(&layer);
    for blob in host.names("blobs") {
        flip_blob(&host, &format!("sha256:{blob}"));
    }
    damage::flip(&layer.join("bin/tool"), None);
    std::fs::remove_dir_all(layer.join("tree")).unwrap();
    let report = check(&host, true).await.unwrap();
    assert!(report.findings.iter().all(|f| f.repaired), "{}", show(&report.findings));
    assert!(report.findings.iter().all(|f| f.images == [name.clone()]));
    assert_eq!(tree::listing(&layer), before);
    // The archive is gone altogether: the file comes through the registry all the same.
    let report = check(&host, false).await.unwrap();
    assert_eq!(report.findings, []);
}

#[tokio::test]
async fn a_lost_or_damaged_ledger_is_told_and_made_again_and_a_lost_layer_comes_back() {
    let (host, layer, _) = rich_host().await;
    let before = tree::listing(&layer);
    let ledger = if layer.ends_with("fs") {
        layer.parent().unwrap().join("ledger")
    } else {
        host.state().join("ledgers").join(layer.file_name().unwrap())
    };
    let good = std::fs::read(&ledger).unwrap();
    for (what, expected) in [("flip", "the ledger is damaged"), ("remove", "there is no ledger of its files")]
    {
        match what {
            "flip" => damage::flip(&ledger, Some(good.len() as u64 / 2)),
            _ => std::fs::remove_file(&ledger).unwrap(),
        }
        damage::flip(&layer.join("data/plain"), None);
        let told = check(&host, false).await.unwrap();
        assert!(told.findings.iter().any(|f| f.detail.contains(expected)), "{}", show(&told.findings));
        assert!(told.findings.iter().any(|f| f.path == "data/plain"), "{}", show(&told.findings));
        let repaired = check(&host, true).await.unwrap();
        assert!(repaired.findings.iter().all(|f| f.repaired), "{}", show(&repaired.findings));
        assert_eq!(tree::listing(&layer), before);
        assert_clean(&host, what).await;
    }
    std::fs::remove_dir_all(&layer).unwrap();
    let told = check(&host, false).await.unwrap();
    assert!(told.findings[0].detail.contains("its directory cannot be opened"), "{}", show(&told.findings));
    assert!(check(&host, true).await.unwrap().findings[0].repaired);
    assert_eq!(tree::listing(&layer), before);
    assert_clean(&host, "a lost layer").await;
}

#[tokio::test]
async fn only_the_named_images_are_checked_and_an_unknown_one_is_refused() {
    let (host, layer, _) = rich_host().await;
    let other = Tar::new().file("other", "other").end();
    host.load_bytes(hand::one_layer("other", &other).tar()).await.unwrap();
    check(&host, true).await.unwrap();
    damage::flip(&layer.join("data/plain"), None);
    let only = |name: &str| pb::CheckRequest { references: vec![name.into()], ..Default::default() };
    let report = run(&host, only("other")).await.unwrap();
    assert_eq!((report.findings.len(), report.done.layers), (0, 1));
    assert_eq!(run(&host, only("rich")).await.unwrap().findings.len(), 1);
    let e = run(&host, only("never")).await.err().unwrap();
    assert_eq!(e.kind(), davit_contracts::Kind::NotFound);
}

#[tokio::test]
async fn a_repair_that_is_killed_at_any_step_leaves_the_layer_no_worse() {
    let (mut host, layer, _) = rich_host().await;
    let before = tree::listing(&layer);
    let mut steps = 0;
    for step in 1..100 {
        damage::CASES.iter().filter(|c| c.combines).for_each(|c| (c.damage)(&layer));
        let damaged = tree::listing(&layer);
        host.kill();
        let log = std::fs::File::create(host.tmp.path().join("doomed.log")).unwrap();
        let mut command = host.command();
        command.env("DAVIT_FAILPOINT", format!("check.repair:{step}"));
        let mut doomed = command.stderr(log).stdout(Stdio::null()).spawn().unwrap();
        while client::connect(&host.socket()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let survived = check(&host, true).await.is_ok();
        if survived {
            doomed.kill().unwrap();
        }
        doomed.wait().unwrap();
        for (path, line) in tree::listing(&layer) {
            let old = [before.get(&path), damaged.get(&path)];
            let is_directory = layer.join(&path).is_dir();
            // A directory's time follows what is renamed in it.
            assert!(is_directory || old.contains(&Some(&line)), "step {step}: /{path} became {line}");
        }
        host.start().await;
        let report = check(&host, true).await.unwrap();
        assert!(report.findings.iter().all(|f| f.repaired), "step {step}: {}", show(&report.findings));
        assert_eq!(tree::listing(&layer), before, "step {step}");
        assert_eq!(host.names("staging"), Vec::<String>::new());
        if survived {
            break;
        }
        steps = step;
    }
    assert!(steps >= 10, "only {steps} steps");
}

mod registry {
    use super::{Child, Command, Path, Stdio, TcpListener};

    /// Debian's docker-registry on loopback.
    pub struct Registry {
        pub port: u16,
        process: Child,
    }

    impl Registry {
        pub fn start(dir: &Path) -> Self {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/registry}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                dir.display()
            );
            let path = dir.join("registry.yml");
            std::fs::write(&path, config).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let process = command.spawn().unwrap();
            let me = Self { port, process };
            for _ in 0..500 {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return me;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            panic!("docker-registry does not start");
        }
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

#[tokio::test]
async fn a_layer_without_a_stored_archive_is_checked_and_comes_back_from_where_it_was_pushed() {
    let host = Host::new().await;
    let plain = Tar::new().file("kept", "kept").file("data", "some text").end();
    host.load_bytes(image("plain", &[(plain.clone(), &plain)]).tar()).await.unwrap();
    assert_eq!(check(&host, false).await.unwrap().findings, []);
    let diff_id = Digest::of(&plain);
    assert!(!host.names("blobs").contains(&diff_id.hex().to_owned()), "the plain tar is not kept");
    let layer = tree::of_layer(&host.state(), diff_id.hex());
    // The archive does not name the root, so that nobody keeps its time.
    let listing =
        || tree::listing(&layer).into_iter().filter(|(path, _)| !path.is_empty()).collect::<Vec<_>>();
    let (before, recipe) = (listing(), layer.parent().unwrap().join("recipe"));
    // A recipe that makes something else is told, though all files are whole.
    let good = std::fs::read(&recipe).unwrap();
    std::fs::write(&recipe, &good[..good.len() / 2]).unwrap();
    let told = check(&host, false).await.unwrap();
    assert!(
        told.findings.len() == 1 && told.findings[0].detail.contains("recipe"),
        "{}",
        show(&told.findings)
    );
    std::fs::write(&recipe, &good).unwrap();
    // Nobody has the bytes: the damage is told with what to do.
    let data = std::fs::read(layer.join("data")).unwrap();
    damage::flip(&layer.join("data"), Some(0));
    let told = check(&host, true).await.unwrap();
    assert!(!told.findings[0].repaired && told.findings[0].why_not.contains("load or pull it again"));
    std::fs::write(layer.join("data"), data).unwrap();
    // What the ledger knows by itself comes back without an archive: here the time.
    assert!(check(&host, true).await.unwrap().findings.iter().all(|f| f.repaired));
    assert_eq!(listing(), before);
    // A registry to which it was pushed has them, compressed.
    let registry = registry::Registry::start(host.tmp.path());
    let name = format!("127.0.0.1:{}/plain:1", registry.port);
    host.images().tag(pb::TagRequest { source: "plain".into(), target: name.clone() }).await.unwrap();
    let push = pb::PushRequest { reference: name, ..Default::default() };
    let mut pushing = host.images().push(push).await.unwrap().into_inner();
    while pushing.message().await.unwrap().is_some() {}
    damage::flip(&layer.join("data"), None);
    std::fs::remove_file(layer.join("kept")).unwrap();
    let repaired = check(&host, true).await.unwrap();
    assert!(
        repaired.findings.len() == 2 && repaired.findings.iter().all(|f| f.repaired),
        "{}",
        show(&repaired.findings)
    );
    assert_eq!(listing(), before);
    assert_eq!(check(&host, false).await.unwrap().findings, []);
}
