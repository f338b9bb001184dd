//! Collection of garbage: beside everything else, in nobody's way, and only of garbage.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;
#[path = "storm/storm.rs"]
mod storm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use davit_contracts::Kind;
use davit_contracts::storage as pb;
use davit_tests::scale::{scaled, seed};
use host::{Host, drain};
use storm::Storm;
use storm::registry::Registry;
use storm::verify::Death;
use storm::worker::Taste;

/// A host in memory whose daemon waits at a point while a file is there.
async fn stalling(point: &str) -> (Host, PathBuf) {
    let mut host = Host::unstarted(Path::new("/dev/shm"));
    let stall = host.tmp.path().join("stall");
    host.env = vec![("DAVIT_STALLPOINT".into(), format!("{point}={}", stall.display()))];
    host.start().await;
    (host, stall)
}

async fn reached(stall: &Path) {
    let mark = PathBuf::from(format!("{}.reached", stall.display()));
    while !mark.exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn load(host: &Host, archive: &[u8], name: &str) -> Result<(), davit_contracts::Error> {
    use pb::load_request::Part;
    let header = pb::LoadHeader { reference: name.into(), ..Default::default() };
    let parts = [Part::Header(header), Part::Data(archive.to_vec())];
    let requests: Vec<_> = parts.into_iter().map(|p| pb::LoadRequest { part: Some(p) }).collect();
    let stream = host.images().load(tokio_stream::iter(requests)).await?.into_inner();
    drain(stream).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_pulls_loads_and_removals_nothing_is_lost_and_nothing_is_left() {
    let seed = seed();
    let mut host = Host::unstarted(Path::new("/dev/shm"));
    let mut storm = Storm::new(seed);
    let registry = Registry::start(host.tmp.path(), &storm.corpus);
    storm.pulled.clone_from(&registry.names);
    host.start().await;
    for round in 0..scaled(6) {
        let taste = if round % 2 == 0 { Taste::Images } else { Taste::Removals };
        let storming = storm.begin(&host.clients(), taste, 80);
        let stop = Arc::new(AtomicBool::new(false));
        let (clients, stopped) = (host.clients(), Arc::clone(&stop));
        let collecting = tokio::spawn(async move {
            let mut rounds = 0;
            while !stopped.load(Ordering::SeqCst) {
                clients.system.clone().collect(pb::CollectRequest {}).await.unwrap();
                clients.images.clone().prune(pb::PruneImagesRequest::default()).await.unwrap();
                clients.images.clone().list(pb::ListImagesRequest::default()).await.unwrap();
                rounds += 1;
            }
            rounds
        });
        while !storming.is_over() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        storming.end().await;
        stop.store(true, Ordering::SeqCst);
        println!("round {round}: beside {} collections", collecting.await.unwrap());
        storm.verify(&host, Death::Kill).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_containers_go_on_while_a_collection_is_held_up() {
    for point in ["collect.chosen", "collect.recorded", "collect.layer"] {
        let (host, stall) = stalling(point).await;
        let corpus = storm::corpus::Corpus::new();
        load(&host, &corpus.pictures[2].archive, "kept").await.unwrap();
        load(&host, &corpus.pictures[4].archive, "going").await.unwrap();
        std::fs::write(&stall, "").unwrap();
        let mut images = host.images();
        let removing = tokio::spawn(async move {
            images.remove(pb::RemoveImageRequest { reference: "going".into(), force: false }).await
        });
        reached(&stall).await;
        let reads = async {
            assert!(!host.list().await.is_empty());
            host.inspect("kept").await.unwrap();
            // What is chosen cannot be used any more, also while its record is still there.
            assert_eq!(host.prepare("c0", "going").await.unwrap_err().kind(), Kind::NotFound, "{point}");
            let prepared = host.prepare("c1", "kept").await.unwrap();
            assert!(host.in_mount(&prepared.mounts, "chroot $ROOT /bin/cat /mark1 /mark2").0);
            host.snapshots().mounts(pb::MountsRequest { key: "c1".into() }).await.unwrap();
            host.snapshots().list(pb::ListSnapshotsRequest {}).await.unwrap();
            host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c1".into() }).await.unwrap();
            host.volumes()
                .create(pb::CreateVolumeRequest { name: "v".into(), ..Default::default() })
                .await
                .unwrap();
            host.volumes().list(pb::ListVolumesRequest::default()).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(30), reads)
            .await
            .expect("something waits for the collection");
        assert!(!removing.is_finished());
        std::fs::remove_file(&stall).unwrap();
        removing.await.unwrap().unwrap();
        assert_eq!(host.names("layers").len(), 3, "{point}");
    }
}

/// Starts a load of two layers, the first of which is there, and removes the image of that when the load waits to commit.
async fn load_while_its_base_is_removed(
    host: &Host,
    stall: &Path,
    corpus: &storm::corpus::Corpus,
) -> tokio::task::JoinHandle<Result<(), davit_contracts::Error>> {
    load(host, &corpus.pictures[0].archive, "base").await.unwrap();
    std::fs::write(stall, "").unwrap();
    let _ = std::fs::remove_file(format!("{}.reached", stall.display()));
    let archive = corpus.pictures[1].archive.clone();
    let mut images = host.images();
    let loading = tokio::spawn(async move {
        use pb::load_request::Part;
        let header = pb::LoadHeader { reference: "over".into(), ..Default::default() };
        let parts = [Part::Header(header), Part::Data(archive)];
        let requests: Vec<_> = parts.into_iter().map(|p| pb::LoadRequest { part: Some(p) }).collect();
        drain(images.load(tokio_stream::iter(requests)).await?.into_inner()).await.map(drop)
    });
    reached(stall).await;
    let removed = host.remove("base", false).await.unwrap();
    assert_eq!(removed.deleted.len(), 1, "the layer is leased: {removed:?}");
    host.system().collect(pb::CollectRequest {}).await.unwrap();
    assert_eq!(host.names("layers").len(), 1);
    loading
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_running_load_uses_stays() {
    let (host, stall) = stalling("image.whole").await;
    let corpus = storm::corpus::Corpus::new();
    let loading = load_while_its_base_is_removed(&host, &stall, &corpus).await;
    std::fs::remove_file(&stall).unwrap();
    loading.await.unwrap().unwrap();
    let prepared = host.prepare("c", "over").await.unwrap();
    assert!(host.in_mount(&prepared.mounts, "chroot $ROOT /bin/cat /mark1").0);
    host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c".into() }).await.unwrap();
    host.remove("over", false).await.unwrap();
    host.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_load_that_failed_used_goes_without_being_asked_for() {
    let (host, stall) = stalling("image.whole").await;
    let corpus = storm::corpus::Corpus::new();
    for attempt in 0.. {
        let loading = load_while_its_base_is_removed(&host, &stall, &corpus).await;
        // The caller goes away; it takes the daemon a moment to see it.
        loading.abort();
        for _ in 0..20 * (attempt + 1) {
            host.list().await;
        }
        std::fs::remove_file(&stall).unwrap();
        for _ in 0..1000 {
            if host.names("layers").is_empty() && host.names("blobs").is_empty()
                || !host.list().await.is_empty()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if host.list().await.is_empty() {
            break;
        }
        assert!(attempt < 20, "a load whose caller has gone is always committed");
        host.remove("over", false).await.unwrap();
    }
    host.assert_empty();
}

#[tokio::test]
async fn an_image_with_a_container_stays_when_its_name_goes() {
    let mut host = Host::unstarted(Path::new("/dev/shm"));
    host.start().await;
    let corpus = storm::corpus::Corpus::new();
    load(&host, &corpus.pictures[1].archive, "image").await.unwrap();
    let prepared = host.prepare("c", "image").await.unwrap();
    host.remove("image", true).await.unwrap();
    for _ in 0..2 {
        host.system().collect(pb::CollectRequest {}).await.unwrap();
        let all = pb::PruneImagesRequest { all: true, ..Default::default() };
        assert_eq!(host.images().prune(all).await.unwrap().into_inner().deleted, Vec::<String>::new());
        assert!(host.in_mount(&prepared.mounts, "chroot $ROOT /bin/cat /mark1").0);
        host.kill();
        host.start().await;
    }
    host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c".into() }).await.unwrap();
    host.images().prune(pb::PruneImagesRequest::default()).await.unwrap();
    host.assert_empty();
}

#[tokio::test]
async fn files_without_a_record_go_and_all_others_stay() {
    let mut host = Host::unstarted(Path::new("/dev/shm"));
    host.start().await;
    let corpus = storm::corpus::Corpus::new();
    load(&host, &corpus.pictures[1].archive, "image").await.unwrap();
    host.volumes().create(pb::CreateVolumeRequest { name: "v".into(), ..Default::default() }).await.unwrap();
    let before = (host.names("layers"), host.names("blobs"));
    for stray in ["layers/x", &format!("layers/{}", "0".repeat(64))] {
        std::fs::create_dir_all(host.state().join(stray).join("deep")).unwrap();
    }
    for stray in ["blobs/x", &format!("blobs/{}", "0".repeat(64))] {
        std::fs::write(host.state().join(stray), "x").unwrap();
    }
    let done = host.system().collect(pb::CollectRequest {}).await.unwrap().into_inner();
    assert_eq!((done.deleted.len(), done.reclaimed_bytes), (0, 0), "no record went");
    assert_eq!((host.names("layers"), host.names("blobs")), before);
    assert_eq!(host.names("volumes"), ["v"]);
    let prepared = host.prepare("c", "image").await.unwrap();
    assert!(host.in_mount(&prepared.mounts, "chroot $ROOT /bin/cat /mark1").0);
}
