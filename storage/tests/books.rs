//! Lists, removal, usage and volumes through the real daemon, with kill -9 where something is half done.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;

use davit_contracts::storage as pb;
use host::{Host, busybox_layout, sh};
use pb::system_client::SystemClient;

/// An image of a directory with a file, and its snapshot `c1`.
async fn with_data(host: &Host) {
    sh(&format!(
        "cd {}; mkdir -p r/data/sub; echo hello > r/data/file; chmod 750 r/data; chown 7:8 r/data; tar -cf r.tar -C r .",
        host.tmp.path().display()
    ));
    host.import(std::fs::read(host.tmp.path().join("r.tar")).unwrap(), "mine", &["LABEL a=b"]).await.unwrap();
    host.prepare("c1", "mine").await.unwrap();
}

fn wish(name: &str) -> pb::AcquireVolumeRequest {
    pb::AcquireVolumeRequest {
        name: name.into(),
        user: "c1".into(),
        snapshot_key: "c1".into(),
        image_path: "/data".into(),
        ..Default::default()
    }
}

/// The names in a volume's directory, but for those of its record.
fn inside(host: &Host, volume: &str) -> Vec<String> {
    let names = host.names(&format!("volumes/{volume}"));
    names.into_iter().filter(|n| !matches!(n.as_str(), "_data" | "users" | "volume.json")).collect()
}

#[tokio::test]
async fn killed_while_a_volume_is_made_or_filled_it_is_whole_or_not_there() {
    let mut host = Host::new().await;
    with_data(&host).await;
    host.restart_with(&[("DAVIT_FAILPOINT", "volume.recorded")]).await;
    let create = pb::CreateVolumeRequest { name: "v".into(), ..Default::default() };
    assert!(host.volumes().create(create.clone()).await.is_err());
    host.restart_with(&[("DAVIT_FAILPOINT", "volume.filled")]).await;
    assert_eq!(host.names("volumes"), Vec::<String>::new());
    host.volumes().create(create).await.unwrap();
    assert!(host.volumes().acquire(wish("v")).await.is_err());
    assert_eq!(inside(&host, "v").len(), 1);
    host.restart_with(&[]).await;
    assert_eq!(inside(&host, "v"), Vec::<String>::new());
    let listed = host.volumes().list(pb::ListVolumesRequest::default()).await.unwrap().into_inner().volumes;
    assert_eq!((listed.len(), listed[0].users.len()), (1, 0));
    // Nothing of the half copy is taken for the user's own.
    let got = host.volumes().acquire(wish("v")).await.unwrap().into_inner();
    let out = sh(&format!("cd {}; stat -c '%a %u:%g' .; cat file; ls", got.mount.unwrap().source));
    assert_eq!(out, "750 7:8\nhello\nfile\nsub\n");
}

#[tokio::test]
async fn the_copy_driver_and_a_plain_user_fill_volumes_too() {
    let mut copy = Host::new().await;
    std::fs::create_dir_all(copy.tmp.path().join("config")).unwrap();
    std::fs::write(copy.tmp.path().join("config/storaged.toml"), "driver = \"copy\"\n").unwrap();
    copy.restart_with(&[]).await;
    with_data(&copy).await;
    let rootless = Host::rootless().await;
    sh(&format!(
        "cd {}; mkdir -p r/data/sub; echo hello > r/data/file; chmod 750 r/data; tar -cf r.tar -C r .",
        rootless.tmp.path().display()
    ));
    let tar = std::fs::read(rootless.tmp.path().join("r.tar")).unwrap();
    rootless.import(tar, "mine", &[]).await.unwrap();
    rootless.prepare("c1", "mine").await.unwrap();
    for host in [&copy, &rootless] {
        let got = host.volumes().acquire(wish("v")).await.unwrap().into_inner();
        let out = sh(&format!("cd {}; stat -c %a .; cat file", got.mount.unwrap().source));
        assert_eq!(out, "750\nhello\n");
    }
}

#[tokio::test]
async fn usage_tells_what_a_prune_frees() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    host.load(&layout).await.unwrap();
    let usage = async || {
        let mut client = SystemClient::new(davit_contracts::client::lazy(&host.socket()));
        client.disk_usage(pb::DiskUsageRequest { verbose: true }).await.unwrap().into_inner()
    };
    let before = usage().await;
    let images = before.images.unwrap();
    assert_eq!((images.count, images.active, images.reclaimable), (2, 0, images.bytes));
    // "two" has base's layer and two more: with a container of base only those can go.
    host.prepare("c1", "base").await.unwrap();
    let after = usage().await;
    let (now, volume) = (after.images.unwrap(), after.volumes.unwrap());
    assert_eq!((now.active, now.bytes, volume.count), (1, images.bytes, 0));
    assert!(now.reclaimable > 0 && now.reclaimable < images.bytes);
    let of = |name: &str| {
        let named = |i: &&pb::disk_usage_response::ImageUsage| {
            i.image.as_ref().unwrap().references.contains(&name.to_owned())
        };
        after.image.iter().find(named).cloned().unwrap()
    };
    let (base, two) = (of("base:latest"), of("two:latest"));
    assert_eq!((base.shared_bytes, base.unique_bytes), (base.image.unwrap().size, 0));
    assert_eq!(two.shared_bytes, base.shared_bytes);
    assert!(two.unique_bytes > 0);
    let prune = pb::PruneImagesRequest { all: true, ..Default::default() };
    let pruned = host.images().prune(prune).await.unwrap().into_inner();
    assert_eq!(pruned.reclaimed_bytes, now.reclaimable);
    let end = usage().await.images.unwrap();
    assert_eq!((end.count, end.reclaimable, end.bytes), (1, 0, images.bytes - now.reclaimable));
}

#[tokio::test]
async fn lists_and_prefixes_survive_a_restart_and_digests_go_with_their_tags() {
    let mut host = Host::new().await;
    with_data(&host).await;
    host.make_from_host("tools", &["/bin/true"]).await.unwrap();
    let before = host.list().await;
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|i| i.size > 0));
    host.kill();
    host.start().await;
    assert_eq!(host.list().await, before);
    let filter = |key: &str, value: &str| pb::Filter { key: key.into(), value: value.into() };
    let list = async |filter: Vec<pb::Filter>| {
        let request = pb::ListImagesRequest { filter, ..Default::default() };
        host.images().list(request).await.map(|r| r.into_inner().images)
    };
    assert_eq!(list(vec![filter("label", "a=b"), filter("label", "a")]).await.unwrap().len(), 1);
    assert_eq!(list(vec![filter("reference", "mine"), filter("reference", "tool*")]).await.unwrap().len(), 2);
    assert!(list(vec![filter("until", "yesterday")]).await.is_err());
    for image in &before {
        let hex = &image.id["sha256:".len()..];
        for asked in [hex, &image.id, &hex[..12], &image.id[..20]] {
            assert_eq!(host.inspect(asked).await.unwrap().image.unwrap().id, image.id, "{asked}");
        }
    }
    assert!(host.inspect("mine").await.unwrap().last_tag_unix_ns > 0);
}
