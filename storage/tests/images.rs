//! Images as third-party tools make them, through the real daemon.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;

use davit_contracts::Kind;
use davit_contracts::storage as pb;
use host::{Host, busybox_layout, sh};

#[tokio::test]
async fn a_layout_of_umoci_is_loaded_and_its_layers_stack() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let mut done = host.load(&layout).await.unwrap();
    done.sort_by(|a, b| a.references.cmp(&b.references));
    let names: Vec<_> = done.iter().flat_map(|d| d.references.clone()).collect();
    assert_eq!(names, ["base:latest", "two:latest"]);

    let two = host.inspect("two").await.unwrap();
    let image = two.image.unwrap();
    assert_eq!(image.diff_ids.len(), 3);
    assert_eq!(image.labels["made"], "umoci");
    assert_eq!(two.config.unwrap().cmd, ["/bin/sh"]);
    assert!(!two.manifest_json.is_empty() && two.history.len() >= 3);
    assert_eq!(two.history[0].image_id, image.id);

    let prepared = host.prepare("c1", "two").await.unwrap();
    assert_eq!(prepared.config.unwrap().env, ["A=b"]);
    assert_eq!((prepared.reference.as_str(), prepared.driver.as_str()), ("two:latest", "overlay"));
    let script = "chroot $ROOT /bin/sh -c 'ls / /dir; test ! -e /gone; cat /dir/above; test ! -e /dir/below; echo mine > /dir/mine'";
    let (ok, out) = host.in_mount(&prepared.mounts, script);
    assert!(ok, "{out}");

    // What one container writes, another of the same image does not see; the same key sees it again.
    let other = host.prepare("c2", "two").await.unwrap();
    assert!(host.in_mount(&other.mounts, "test ! -e $ROOT/dir/mine").0);
    let again = host.prepare("c1", "two").await.unwrap();
    assert_eq!(again.mounts, prepared.mounts);
    assert!(host.in_mount(&again.mounts, "test -e $ROOT/dir/mine").0);
    assert_eq!(host.prepare("c1", "base").await.unwrap_err().kind(), Kind::AlreadyExists);
}

#[tokio::test]
async fn a_docker_archive_of_skopeo_is_loaded_by_path_streamed_and_compressed() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let tar = host.tmp.path().join("image.tar");
    sh(&format!(
        "skopeo copy --insecure-policy -q oci:{}:two docker-archive:{}:example/app:v1; gzip -k {}; zstd -q {}",
        layout.display(),
        tar.display(),
        tar.display(),
        tar.display()
    ));
    let by_path = host.load(&tar).await.unwrap();
    assert_eq!(by_path[0].references, ["example/app:v1"]);
    for file in ["image.tar", "image.tar.gz", "image.tar.zst"] {
        let streamed = host.load_bytes(std::fs::read(host.tmp.path().join(file)).unwrap()).await.unwrap();
        assert_eq!(streamed[0].image_id, by_path[0].image_id, "{file}");
    }
    let by_gz_path = host.load(&host.tmp.path().join("image.tar.gz")).await.unwrap();
    assert_eq!(by_gz_path[0].image_id, by_path[0].image_id);
    assert_eq!(host.list().await.len(), 1);
    assert_eq!(host.names("ingest"), Vec::<String>::new());

    sh(&format!("cd {}; tar -cf layout.tar -C layout .", host.tmp.path().display()));
    let as_tar = host.load(&host.tmp.path().join("layout.tar")).await.unwrap();
    assert_eq!(as_tar.len(), 2);
    // The docker-archive and the layout share every layer.
    assert_eq!(host.names("layers").len(), 3);
}

#[tokio::test]
async fn removing_the_last_reference_removes_what_nothing_else_needs() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    host.load(&layout).await.unwrap();
    let tag = pb::TagRequest { source: "two".into(), target: "team/two:v2".into() };
    assert_eq!(host.images().tag(tag).await.unwrap().into_inner().reference, "team/two:v2");

    let removed = host.remove("two", false).await.unwrap();
    assert_eq!((removed.untagged, removed.deleted.len()), (vec!["two:latest".to_owned()], 0));
    host.prepare("c1", "team/two:v2").await.unwrap();
    let refused = host.remove("team/two:v2", false).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse);
    assert!(refused.message().contains("c1"), "{refused}");
    let id = host.inspect("team/two:v2").await.unwrap().image.unwrap().id;
    let forced = host.remove("team/two:v2", true).await.unwrap();
    assert_eq!((forced.untagged.len(), forced.deleted.len()), (1, 0));

    // Unnamed, but there: its container goes on, and it is known by a prefix of its id.
    assert_eq!(host.inspect(&id[7..19]).await.unwrap().image.unwrap().containers, 1);
    host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c1".into() }).await.unwrap();
    host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c1".into() }).await.unwrap();
    let pruned = host.images().prune(pb::PruneImagesRequest::default()).await.unwrap().into_inner();
    // The image and its two layers; the third belongs to "base", too.
    assert_eq!(pruned.deleted.len(), 3, "{:?}", pruned.deleted);
    assert!(pruned.reclaimed_bytes > 0);
    assert_eq!(host.names("layers").len(), 1);
    host.remove("base", false).await.unwrap();
    host.assert_empty();
}

#[tokio::test]
async fn an_unknown_image_names_the_nearest() {
    let host = Host::new().await;
    host.make_from_host("tools", &["/bin/true"]).await.unwrap();
    for asked in ["tool", "tools:v2", "toolz"] {
        let e = host.inspect(asked).await.unwrap_err();
        assert_eq!((e.kind(), e.hint()), (Kind::NotFound, "did you mean tools:latest?"), "{asked}");
    }
    let e = host.prepare("c", "something-else").await.unwrap_err();
    assert_eq!(
        (e.kind(), e.hint(), e.to_string().as_str()),
        (Kind::NotFound, "", "no image 'something-else'")
    );
}

#[tokio::test]
async fn programs_of_the_host_run_from_their_image() {
    let host = Host::new().await;
    let programs = ["sh", "/bin/cat", "ls", "/usr/bin/python3"];
    host.make_from_host("tools", &programs).await.unwrap();
    let first = host.inspect("tools").await.unwrap();
    assert_eq!(first.config.as_ref().unwrap().cmd, ["/bin/sh"]);
    let prepared = host.prepare("c1", "tools").await.unwrap();
    let script = "chroot $ROOT /bin/sh -c 'cat /etc/passwd; ls -ld /tmp; ls /usr/lib >/dev/null
        /usr/bin/python3 -c \"import socket, http.server, ssl, json; print(socket.gethostname)\"'";
    let (ok, out) = host.in_mount(&prepared.mounts, script);
    assert!(ok && out.contains("root:x:0:0") && out.contains("drwxrwxrwt"), "{out}");
    // The same programs make the same layer.
    host.make_from_host("again", &programs).await.unwrap();
    let again = host.inspect("again").await.unwrap().image.unwrap();
    assert_eq!(first.image.unwrap().diff_ids, again.diff_ids);
    let e = host.make_from_host("x", &["no-such-program"]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    let e = host.make_from_host("x", &["/etc/passwd"]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn a_root_file_system_is_imported_with_changes() {
    let host = Host::new().await;
    sh(&format!(
        "cd {}; mkdir -p r/bin; cp /usr/bin/busybox r/bin/sh; touch r/.wh.kept; tar -cf r.tar -C r .; gzip -k r.tar",
        host.tmp.path().display()
    ));
    let tar = std::fs::read(host.tmp.path().join("r.tar.gz")).unwrap();
    host.import(tar, "mine:1", &["CMD [\"/bin/sh\"]", "ENV X=y"]).await.unwrap();
    let got = host.inspect("mine:1").await.unwrap();
    assert_eq!(got.config.unwrap().cmd, ["/bin/sh"]);
    assert_eq!(got.image.unwrap().platform.unwrap().os, "linux");
    let prepared = host.prepare("c", "mine:1").await.unwrap();
    // In a root file system a name is a name, also one that looks like a whiteout.
    assert!(host.in_mount(&prepared.mounts, "test -f $ROOT/.wh.kept && chroot $ROOT /bin/sh -c true").0);

    let e = host.import(b"nonsense".to_vec(), "bad", &[]).await.unwrap_err();
    assert_eq!((e.kind(), e.hint().contains("tar")), (Kind::Corrupt, true), "{e}");
    let e = host.import(vec![0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2], "bad", &[]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().starts_with("xz-compressed"), "{e}");
    let e = host.import(Vec::new(), "bad", &["RUN x"]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn a_volume_is_filled_from_the_image_once() {
    let host = Host::new().await;
    sh(&format!(
        "cd {}; mkdir -p r/data/sub; echo hello > r/data/file; chmod 750 r/data; ln -s file r/data/link; tar -cf r.tar -C r .",
        host.tmp.path().display()
    ));
    host.import(std::fs::read(host.tmp.path().join("r.tar")).unwrap(), "mine", &[]).await.unwrap();
    host.prepare("c1", "mine").await.unwrap();
    let acquire = |name: &str, path: &str| pb::AcquireVolumeRequest {
        name: name.into(),
        user: "c1".into(),
        snapshot_key: "c1".into(),
        image_path: path.into(),
        ..Default::default()
    };
    let got = host.volumes().acquire(acquire("vol", "/data")).await.unwrap().into_inner();
    let mount = got.mount.unwrap();
    assert_eq!((mount.r#type.as_str(), mount.target.as_str()), ("bind", "data"));
    let out = sh(&format!("cd {}; stat -c %a .; cat link; test -d sub", mount.source));
    assert_eq!(out, "750\nhello\n");
    let anonymous = host.volumes().acquire(acquire("", "/nowhere")).await.unwrap().into_inner();
    assert!(anonymous.volume.unwrap().anonymous);
    let in_use = pb::RemoveVolumeRequest { name: "vol".into(), force: true };
    assert_eq!(
        davit_contracts::Error::from(host.volumes().remove(in_use.clone()).await.unwrap_err()).kind(),
        Kind::InUse
    );
    let release = pb::ReleaseVolumeRequest { user: "c1".into(), remove_anonymous: true };
    assert_eq!(host.volumes().release(release).await.unwrap().into_inner().removed.len(), 1);
    host.volumes().remove(in_use).await.unwrap();
}

#[tokio::test]
async fn the_copy_driver_gives_the_same_tree() {
    let mut host = Host::new().await;
    host.kill();
    let config = host.tmp.path().join("config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("storaged.toml"), "driver = \"copy\"\n").unwrap();
    host.start().await;
    let layout = busybox_layout(host.tmp.path());
    host.load(&layout).await.unwrap();
    let prepared = host.prepare("c1", "two").await.unwrap();
    assert_eq!((prepared.driver.as_str(), prepared.mounts[0].r#type.as_str()), ("copy", "bind"));
    let script = "chroot $ROOT /bin/sh -c 'test ! -e /gone; cat /dir/above; test ! -e /dir/below; echo mine > /dir/mine'";
    let (ok, out) = host.in_mount(&prepared.mounts, script);
    assert!(ok && out.contains("above"), "{out}");
    let other = host.prepare("c2", "two").await.unwrap();
    assert!(host.in_mount(&other.mounts, "test ! -e $ROOT/dir/mine").0);
}

#[tokio::test]
async fn records_survive_a_restart() {
    let mut host = Host::new().await;
    host.make_from_host("tools", &["/bin/true"]).await.unwrap();
    let before = host.prepare("c1", "tools").await.unwrap();
    host.kill();
    host.start().await;
    let again = host.snapshots().mounts(pb::MountsRequest { key: "c1".into() }).await.unwrap().into_inner();
    assert_eq!((again.mounts, again.reference), (before.mounts, before.reference));
    let listed = host.snapshots().list(pb::ListSnapshotsRequest {}).await.unwrap().into_inner().snapshots;
    assert_eq!(listed.len(), 1);
    let keys = ["../x", "", ".new-x", "a/b"];
    for key in keys {
        assert_eq!(host.prepare(key, "tools").await.unwrap_err().kind(), Kind::InvalidArgument, "{key}");
    }
}

#[tokio::test]
async fn in_a_user_namespace_layers_carry_user_xattrs() {
    let host = Host::rootless().await;
    let layout = busybox_layout(host.tmp.path());
    host.load(&layout).await.unwrap();
    let prepared = host.prepare("c1", "two").await.unwrap();
    assert!(prepared.mounts[0].options.contains(&"userxattr".to_owned()), "{:?}", prepared.mounts);
    let (ok, out) = host
        .in_mount(&prepared.mounts, "test ! -e $ROOT/gone; test ! -e $ROOT/dir/below; cat $ROOT/dir/above");
    assert!(ok && out.contains("above"), "{out}");
}
