//! Bad input, a full disk, sudden death.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;

use std::path::Path;
use std::time::Duration;

use davit_contracts::Kind;
use davit_contracts::storage as pb;
use host::{Host, busybox_layout, sh};
use pb::import_request::Part;

/// A file of a layout whose name is found by the manifest's media type.
fn largest_blob(layout: &Path) -> std::path::PathBuf {
    let mut blobs: Vec<_> =
        std::fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|e| e.unwrap().path()).collect();
    blobs.sort_by_key(|p| p.metadata().unwrap().len());
    blobs.pop().unwrap()
}

#[tokio::test]
async fn a_corrupt_or_truncated_archive_is_refused_and_leaves_nothing() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let blob = largest_blob(&layout);
    let good = std::fs::read(&blob).unwrap();

    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    std::fs::write(&blob, &flipped).unwrap();
    let e = host.load(&layout).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(e.to_string().contains("is corrupt: its digest is"), "{e}");
    host.assert_empty();

    std::fs::write(&blob, &good[..good.len() / 2]).unwrap();
    let e = host.load(&layout).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    host.assert_empty();

    std::fs::remove_file(&blob).unwrap();
    let e = host.load(&layout).await.unwrap_err();
    assert!(e.to_string().contains("incomplete"), "{e}");
    std::fs::write(&blob, &good).unwrap();

    let tar = host.tmp.path().join("a.tar");
    sh(&format!(
        "skopeo copy --insecure-policy -q oci:{}:two docker-archive:{}:x:1",
        layout.display(),
        tar.display()
    ));
    let whole = std::fs::read(&tar).unwrap();
    for cut in [10, 600, whole.len() / 3, whole.len() / 2, whole.len() - 3000] {
        let e = host.load_bytes(whole[..cut].to_vec()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt, "cut at {cut}: {e}");
    }
    let e = host.load(Path::new("/no/such/file")).await.unwrap_err();
    assert_eq!((e.kind(), e.to_string().contains("/no/such/file")), (Kind::NotFound, true));
    let e = host.load(Path::new("/etc/passwd")).await.unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("not a tar"), "{e}");
    sh(&format!("cd {}; mkdir r; touch r/x; tar -cf r.tar -C r .", host.tmp.path().display()));
    let e = host.load(&host.tmp.path().join("r.tar")).await.unwrap_err();
    assert!(e.hint().contains("import"), "{e}");
    host.assert_empty();
    assert!(host.list().await.is_empty());
    host.load(&tar).await.unwrap();
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let tar = host.tmp.path().join("a.tar");
    // Another layer under the name of the first.
    sh(&format!(
        "cd {}; skopeo copy --insecure-policy -q oci:{}:two docker-archive:a.tar:x:1; mkdir x; tar -C x -xf a.tar
         cd x; for l in *.tar; do test -L $l || {{ echo hi > f; tar -cf $l f; break; }}; done; rm f; tar -cf ../a.tar *",
        host.tmp.path().display(),
        layout.display()
    ));
    let e = host.load(&tar).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(e.to_string().contains("it unpacks to"), "{e}");
    host.assert_empty();
}

#[tokio::test]
async fn a_full_disk_is_one_clear_error_and_leaves_nothing() {
    let host = Host::on_tmpfs("24m").await;
    sh(&format!(
        "cd {}; mkdir -p big small; head -c 40M /dev/urandom > big/data; echo x > small/x
         tar -cf big.tar -C big .; tar -cf small.tar -C small .",
        host.tmp.path().display()
    ));
    let big = std::fs::read(host.tmp.path().join("big.tar")).unwrap();
    let small = std::fs::read(host.tmp.path().join("small.tar")).unwrap();
    let e = host.import(big.clone(), "big", &[]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NoSpace, "{e}");
    assert!(e.hint().contains("free some space"), "{e}");
    // A stream that is spooled first fails in another place.
    let e = host.load_bytes(big).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NoSpace, "{e}");
    host.assert_empty();
    host.import(small, "small", &[]).await.unwrap();
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_is_refused_with_one_line() {
    let host = Host::new().await;
    let out = host.command().env("DAVIT_RUN_DIR", host.tmp.path().join("run2")).output().unwrap();
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains(&format!("another daemon (pid {})", host.pid())), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    assert!(host.list().await.is_empty());
}

#[tokio::test]
async fn sudden_death_at_any_moment_of_a_load_leaves_nothing_or_all() {
    let mut host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    sh(&format!(
        "cd {}; mkdir many; i=0; while test $i -lt 400; do head -c 20000 /dev/urandom > many/$i; i=$((i+1)); done
         umoci insert --image layout:two many /many",
        host.tmp.path().display()
    ));
    let mut whole = 0;
    for round in 0..12u64 {
        let images = host.images();
        let header = pb::LoadHeader { path: layout.display().to_string(), ..Default::default() };
        let request = pb::LoadRequest { part: Some(pb::load_request::Part::Header(header)) };
        let loading = tokio::spawn(async move {
            let mut images = images;
            host::drain(images.load(tokio_stream::iter([request])).await?.into_inner()).await
        });
        tokio::time::sleep(Duration::from_millis(round * 17)).await;
        host.kill();
        let acknowledged = matches!(loading.await.unwrap(), Ok(done) if done.len() == 2);
        host.start().await;
        let images = host.list().await;
        assert!(images.len() == 2 || (images.is_empty() && !acknowledged), "round {round}: {}", images.len());
        assert_eq!(host.names("staging").len() + host.names("ingest").len(), 0);
        if images.is_empty() {
            host.assert_empty();
            continue;
        }
        whole += 1;
        let prepared = host.prepare("c", "two").await.unwrap();
        let (ok, out) =
            host.in_mount(&prepared.mounts, "test $(ls $ROOT/many | wc -l) = 400; chroot $ROOT /bin/true");
        assert!(ok, "{out}");
        host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c".into() }).await.unwrap();
        for name in ["base", "two"] {
            host.remove(name, false).await.unwrap();
        }
        host.assert_empty();
    }
    host.load(&layout).await.unwrap();
    assert!(whole < 12, "no death came early enough to matter");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing() {
    let host = Host::new().await;
    let part = |p| pb::ImportRequest { part: Some(p) };
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    sender.send(part(Part::Header(pb::ImportHeader::default()))).await.unwrap();
    let stream = host.images().import(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("file").unwrap();
    header.set_size(10 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    sender.send(part(Part::Data(header.as_bytes().to_vec()))).await.unwrap();
    sender.send(part(Part::Data(vec![1; 1 << 20]))).await.unwrap();
    while host.names("staging").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    drop(sender);
    for _ in 0..500 {
        if host.names("staging").is_empty() && host.names("ingest").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.assert_empty();
    assert!(host.list().await.is_empty());
}
