//! Pushing, read by skopeo and by ourselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use crate::fake::{Fake, answer};
use crate::host::{Host, busybox_layout, sh};
use crate::real::{Cutter, Registry, htpasswd};
use crate::{auth, configure, push, push_to, request, tag};

/// A tar with a few files and one large one that does not compress.
fn tar(dir: &std::path::Path) -> Vec<u8> {
    let d = dir.display();
    sh(&format!(
        "cd {d}; mkdir -p tree/etc; echo hello > tree/etc/motd; head -c 900000 /dev/urandom > tree/noise; tar -cf tree.tar -C tree ."
    ));
    std::fs::read(dir.join("tree.tar")).unwrap()
}

#[tokio::test]
async fn what_came_with_a_manifest_keeps_its_digest_and_layers_are_mounted() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let registry = Registry::start(host.tmp.path(), None, None);
    registry.fill(&layout, "two", "first/app:1");
    let pulled = host.pull(request(&registry.name("first/app:1"))).await.unwrap();

    // Mounted where they are known to be; nothing is sent but config and manifest.
    tag(&host, &pulled.image_id, &registry.name("second/app:2")).await;
    let told = push_to(&host, &registry.name("second/app:2")).await.unwrap();
    assert_eq!(told.lines[0], format!("The push refers to repository [{}]", registry.name("second/app")));
    assert_eq!(
        told.lines.iter().filter(|l| l.ends_with("Mounted from first/app")).count(),
        3,
        "{:?}",
        told.lines
    );
    assert_eq!(told.done[0].manifest_digest, pulled.manifest_digest);
    let size = registry.manifest("second/app:2").to_string().len();
    assert!(size > 100);
    let last = told.lines.last().unwrap();
    assert!(last.starts_with(&format!("2: digest: {} size: ", pulled.manifest_digest)), "{last}");
    assert_eq!(registry.inspect("second/app:2")["Digest"], pulled.manifest_digest.as_str());
    assert!(registry.log().contains("mount=sha256"), "{}", registry.log());
    registry.copy_out("second/app:2", &host.tmp.path().join("out"));
    // Both repositories are known now.
    let mut digests = host.inspect(&pulled.image_id).await.unwrap().image.unwrap().digests;
    digests.sort();
    let wanted =
        ["first/app", "second/app"].map(|n| format!("{}@{}", registry.name(n), pulled.manifest_digest));
    assert_eq!(digests, wanted);

    let again = push_to(&host, &registry.name("second/app:2")).await.unwrap();
    assert_eq!(
        again.lines.iter().filter(|l| l.ends_with("Layer already exists")).count(),
        3,
        "{:?}",
        again.lines
    );

    // To another registry everything goes.
    let other = Registry::start(host.tmp.path(), None, None);
    tag(&host, &pulled.image_id, &other.name("app:1")).await;
    let told = push_to(&host, &other.name("app:1")).await.unwrap();
    assert_eq!(told.lines.iter().filter(|l| l.ends_with(": Pushed")).count(), 3, "{:?}", told.lines);
    other.copy_out("app:1", &host.tmp.path().join("other"));
    assert_eq!(other.inspect("app:1")["Digest"], pulled.manifest_digest.as_str());
}

#[tokio::test]
async fn a_plain_layer_is_compressed_once_and_gets_dockers_manifest() {
    let host = Host::new().await;
    let registry = Registry::start(host.tmp.path(), None, None);
    let done = host.import(tar(host.tmp.path()), &registry.name("app:1"), &["CMD true"]).await.unwrap();
    let told = push_to(&host, &registry.name("app:1")).await.unwrap();
    let manifest = registry.manifest("app:1");
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(manifest["config"]["digest"], done.image_id.as_str());
    registry.copy_out("app:1", &host.tmp.path().join("out"));
    let blob = manifest["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    sh(&format!(
        "cd {0}; gzip -dc out/{blob} > plain.tar; cmp plain.tar tree.tar",
        host.tmp.path().display()
    ));

    // The compressed form is remembered: nothing is sent again, and the digest stays.
    let again = push_to(&host, &registry.name("app:1")).await.unwrap();
    assert!(again.says("Layer already exists"), "{:?}", again.lines);
    assert_eq!(again.done[0].manifest_digest, told.done[0].manifest_digest);
    tag(&host, &done.image_id, &registry.name("else/where:1")).await;
    assert!(push_to(&host, &registry.name("else/where:1")).await.unwrap().says("Mounted from app"));

    // And it comes back.
    let fresh = Host::new().await;
    let pulled = fresh.pull(request(&registry.name("app:1"))).await.unwrap();
    assert_eq!(pulled.image_id, done.image_id);
}

#[tokio::test]
async fn a_zstd_layer_stays_one() {
    let host = Host::new().await;
    let registry = Registry::start(host.tmp.path(), None, None);
    tar(host.tmp.path());
    sh(&format!("cd {}; zstd -q tree.tar", host.tmp.path().display()));
    let bytes = std::fs::read(host.tmp.path().join("tree.tar.zst")).unwrap();
    let done = host.import(bytes, &registry.name("app:1"), &[]).await.unwrap();
    push_to(&host, &registry.name("app:1")).await.unwrap();
    let manifest = registry.manifest("app:1");
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
    // Whatever form it is stored in, the type says the truth.
    assert!(kind.ends_with("tar+zstd") || kind.ends_with("tar+gzip"), "{kind}");
    registry.copy_out("app:1", &host.tmp.path().join("out"));
    let fresh = Host::new().await;
    assert_eq!(fresh.pull(request(&registry.name("app:1"))).await.unwrap().image_id, done.image_id);
}

#[tokio::test]
async fn an_upload_that_is_cut_goes_on() {
    let host = Host::new().await;
    let registry = Registry::start(host.tmp.path(), None, None);
    let cutter = Cutter::before(registry.port, 300_000, 2);
    let name = format!("127.0.0.1:{}/app:1", cutter.port);
    host.import(tar(host.tmp.path()), &name, &[]).await.unwrap();
    push_to(&host, &name).await.unwrap();
    assert_eq!(cutter.cuts.load(Ordering::SeqCst), 2);
    registry.copy_out("app:1", &host.tmp.path().join("out"));
}

#[tokio::test]
async fn an_upload_that_stalls_is_given_up_and_goes_on() {
    let mut host = Host::new().await;
    let registry = Registry::start(host.tmp.path(), None, None);
    let stalling = Cutter::stalling(registry.port, 300_000, 1);
    let toml =
        format!("[registries.\"127.0.0.1:{}\"]\nplain_http = true\ntimeout_seconds = 1\n", stalling.port);
    configure(&mut host, &toml).await;
    let name = format!("127.0.0.1:{}/app:1", stalling.port);
    host.import(tar(host.tmp.path()), &name, &[]).await.unwrap();
    push_to(&host, &name).await.unwrap();
    assert_eq!(stalling.cuts.load(Ordering::SeqCst), 1);
    registry.copy_out("app:1", &host.tmp.path().join("out"));
    assert!(host.log().contains("it takes nothing any more"), "{}", host.log());
}

#[tokio::test]
async fn all_tags_of_a_repository_go() {
    let host = Host::new().await;
    let registry = Registry::start(host.tmp.path(), None, None);
    let done = host.import(tar(host.tmp.path()), &registry.name("app:one"), &[]).await.unwrap();
    tag(&host, &done.image_id, &registry.name("app:two")).await;
    tag(&host, &done.image_id, &registry.name("not-this:one")).await;
    let all = |name: &str| pb::PushRequest { reference: name.into(), all_tags: true, ..Default::default() };
    let told = push(&host, all(&registry.name("app"))).await.unwrap();
    let names: Vec<String> = told.done.iter().flat_map(|d| d.references.clone()).collect();
    assert_eq!(names, [registry.name("app:one"), registry.name("app:two")]);
    assert_eq!(registry.inspect("app:two")["RepoTags"], serde_json::json!(["one", "two"]));
    assert!(!registry.log().contains("not-this"), "{}", registry.log());

    let e = push(&host, all(&registry.name("nothing"))).await.err().unwrap();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
    let e = push_to(&host, &registry.name("app:three")).await.err().unwrap();
    assert!(e.kind() == Kind::NotFound && e.hint().contains("app:"), "{e}: {}", e.hint());
    let pinned = format!("{}@{}", registry.name("app"), told.done[0].manifest_digest);
    let e = push_to(&host, &pinned).await.err().unwrap();
    assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
}

#[tokio::test]
async fn a_push_needs_the_right_password() {
    let host = Host::new().await;
    let dir = host.tmp.path();
    let registry = Registry::start(dir, None, Some(&htpasswd(dir)));
    let name = registry.name("app:1");
    host.import(tar(dir), &name, &[]).await.unwrap();
    let as_user = |auth| pb::PushRequest { reference: name.clone(), auth, ..Default::default() };
    for wrong in [None, auth("user", "wrong")] {
        let e = push(&host, as_user(wrong)).await.err().unwrap();
        assert!(
            e.kind() == Kind::Unauthenticated && e.to_string().contains("authentication required"),
            "{e}"
        );
    }
    push(&host, as_user(auth("user", "secret"))).await.unwrap();
    assert!(registry.log().contains("PUT /v2/app/manifests/1"), "{}", registry.log());
}

#[tokio::test]
async fn an_image_that_is_removed_while_it_is_pushed_goes_out_whole() {
    let host = Host::new().await;
    let real = Registry::start(host.tmp.path(), None, None);
    // Layers are asked for only when the test says so.
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let port = real.port;
    let front = Fake::start(move |asked| {
        if asked.method == "HEAD" {
            while !gate.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            return answer("404 Not Found", "", b"");
        }
        // Uploads begin here and go on at the real one.
        let body = sh(&format!("curl -s -X POST -D - -o /dev/null http://127.0.0.1:{port}{}", asked.path));
        let location =
            body.lines().find_map(|l| l.strip_prefix("Location: ")).unwrap_or_default().trim().to_owned();
        answer("202 Accepted", &format!("Location: {location}\r\n"), b"")
    });
    let name = front.name("app:1");
    host.import(tar(host.tmp.path()), &name, &[]).await.unwrap();
    let pushing = {
        let (mut images, reference) = (host.images(), name.clone());
        tokio::spawn(async move {
            let request = pb::PushRequest { reference, ..Default::default() };
            crate::told(images.push(request).await?.into_inner()).await
        })
    };
    while front.count("HEAD") == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    host.remove(&name, false).await.unwrap();
    assert!(host.list().await.is_empty());
    assert_eq!(host.names("layers").len(), 1, "the layer is held");
    open.store(true, Ordering::SeqCst);
    // The front takes the manifest; layer and config have gone to the registry.
    assert_eq!(pushing.await.unwrap().unwrap().done.len(), 1);
    assert_eq!(real.log().matches("PUT /v2/app/blobs/uploads/").count(), 2, "{}", real.log());
}
