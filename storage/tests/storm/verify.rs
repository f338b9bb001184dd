//! After a death: what was promised is there, what was not is there whole or not at all, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use davit_contracts::storage as pb;

use super::corpus::{Corpus, sha256};
use super::worker::{Change, Known};
use crate::host::Host;

/// What the death leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Of the process.
    Kill,
    /// Of the machine: containers are gone or not, as is what they used.
    Power,
}

/// Panics with what is wrong. Then what is known is what is there.
pub async fn verify(host: &Host, corpus: &Corpus, known: &mut [Known], death: Death) {
    let images = host.list().await;
    names(corpus, known, &images);
    layers(host, corpus, &images).await;
    snapshots(host, corpus, known, death).await;
    volumes(host, known, death).await;
    nothing_left(host, &images).await;
    run(host, known).await;
    for known in known {
        known.doubt = None;
    }
}

fn names(corpus: &Corpus, known: &mut [Known], images: &[pb::Image]) {
    let mut there: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for image in images {
        let layers: Vec<usize> = image.diff_ids.iter().map(|d| corpus.by_diff_id(d)).collect();
        for reference in &image.references {
            assert!(there.insert(reference, layers.clone()).is_none(), "{reference} twice");
        }
    }
    for known in known.iter_mut() {
        if let Some(Change::Name(name, after)) = known.doubt.clone() {
            let is = there.get(name.as_str()).cloned();
            let either = is == after || is.as_ref() == known.names.get(&name);
            assert!(either, "{name} is {is:?}, neither before nor after: {known:?}");
            known.apply(Change::Name(name, is));
        }
        for (name, layers) in &known.names {
            let is = there.remove(name.as_str());
            assert_eq!(is.as_ref(), Some(layers), "{name}; {:?}", known.doubt);
        }
    }
    assert!(there.is_empty(), "nobody was told of {there:?}");
}

async fn layers(host: &Host, corpus: &Corpus, images: &[pb::Image]) {
    let all: BTreeSet<&String> = images.iter().flat_map(|i| &i.diff_ids).collect();
    for diff_id in all {
        let tree = host.state().join("layers").join(&diff_id["sha256:".len()..]).join("fs");
        if let Some(difference) = corpus.layers[corpus.by_diff_id(diff_id)].differs(&tree) {
            panic!("a layer is damaged: {difference}\n{}", host.log());
        }
    }
    for image in images {
        let details = host.inspect(&image.id).await.unwrap();
        assert_eq!(format!("sha256:{}", sha256(details.config_json.as_bytes())), image.id);
    }
}

async fn snapshots(host: &Host, corpus: &Corpus, known: &mut [Known], death: Death) {
    let listed = host.snapshots().list(pb::ListSnapshotsRequest {}).await.unwrap().into_inner().snapshots;
    let mut there: BTreeSet<String> = listed.into_iter().map(|s| s.key).collect();
    for known in known.iter_mut() {
        if let Some(Change::Snapshot(key, after)) = known.doubt.clone() {
            let is = there.contains(&key);
            let layers = after.or_else(|| known.snapshots.get(&key).cloned());
            known.apply(Change::Snapshot(key, layers.filter(|_| is)));
        }
        let keys: Vec<(String, Vec<usize>)> = known.snapshots.clone().into_iter().collect();
        for (key, layers) in keys {
            if !there.remove(&key) {
                assert!(death == Death::Power, "snapshot {key} is lost");
                known.snapshots.remove(&key);
                continue;
            }
            let request = pb::MountsRequest { key: key.clone() };
            let mounts = host.snapshots().mounts(request).await.unwrap().into_inner().mounts;
            let lower = mounts[0].options.iter().filter(|o| o.starts_with("lowerdir+=")).count();
            if death == Death::Power {
                // It may be an earlier one of this key.
                continue;
            }
            assert_eq!(lower, layers.len(), "{key}: {mounts:?}");
            for layer in layers {
                let tree = format!("{}/fs", &corpus.layers[layer].diff_id["sha256:".len()..]);
                assert!(mounts[0].options.iter().any(|o| o.ends_with(&tree)), "{key} has not {tree}");
            }
        }
    }
    if death == Death::Kill {
        assert!(there.is_empty(), "nobody was told of the snapshots {there:?}");
    }
    for key in there {
        // Removed, but not durably so: a container's snapshot is not the user's to keep.
        host.snapshots().remove(pb::RemoveSnapshotRequest { key }).await.unwrap();
    }
}

async fn volumes(host: &Host, known: &mut [Known], death: Death) {
    let listed = host.volumes().list(pb::ListVolumesRequest::default()).await.unwrap().into_inner().volumes;
    let mut there: BTreeMap<String, BTreeSet<String>> =
        listed.into_iter().map(|v| (v.name, v.users.into_iter().collect())).collect();
    for known in known.iter_mut() {
        let doubt = known.doubt.clone();
        match &doubt {
            Some(Change::Volume(name, _)) => {
                known.apply(Change::Volume(name.clone(), there.contains_key(name)));
            }
            Some(Change::Use(name, user, true)) => {
                let is = there.get(name);
                known.apply(Change::Volume(name.clone(), is.is_some()));
                if is.is_some_and(|users| users.contains(user)) {
                    known.apply(Change::Use(name.clone(), user.clone(), true));
                }
            }
            // Some of its uses may have ended.
            Some(Change::Use(_, user, false)) => {
                known.uses.retain(|(v, u)| u != user || there.get(v).is_some_and(|users| users.contains(u)));
            }
            _ => {}
        }
        for name in known.volumes.clone() {
            let Some(users) = there.remove(&name) else { panic!("volume {name} is lost; {doubt:?}") };
            let wanted: BTreeSet<String> =
                known.uses.iter().filter(|u| u.0 == name).map(|u| u.1.clone()).collect();
            if death == Death::Kill {
                assert_eq!(users, wanted, "users of {name}; {doubt:?}");
            } else {
                known.uses.retain(|u| u.0 != name);
                known.uses.extend(users.into_iter().map(|u| (name.clone(), u)));
            }
            assert!(host.state().join("volumes").join(&name).join("_data").is_dir(), "{name} has no data");
        }
    }
    assert!(there.is_empty(), "nobody was told of the volumes {there:?}");
}

fn digests(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| format!("sha256:{}", e.unwrap().file_name().to_str().unwrap()))
        .collect()
}

/// No file that nothing needs, once what is collected in the background has been.
async fn nothing_left(host: &Host, images: &[pb::Image]) {
    host.system().collect(pb::CollectRequest {}).await.unwrap();
    for dir in ["staging", "ingest"] {
        assert_eq!(host.names(dir), Vec::<String>::new(), "left in {dir}");
    }
    for dir in ["snapshots", "volumes"] {
        assert!(
            !host.names(dir).iter().any(|n| n.starts_with(".new-")),
            "left in {dir}: {:?}",
            host.names(dir)
        );
    }
    let wanted: BTreeSet<String> = images.iter().flat_map(|i| i.diff_ids.clone()).collect();
    assert_eq!(digests(&host.state().join("layers")), wanted, "layers\n{}", host.log());
    let mut known: BTreeSet<String> = wanted;
    for image in images {
        known.insert(image.id.clone());
        let details = host.inspect(&image.id).await.unwrap();
        if !details.manifest_json.is_empty() {
            known.insert(format!("sha256:{}", sha256(details.manifest_json.as_bytes())));
            let manifest: serde_json::Value = serde_json::from_str(&details.manifest_json).unwrap();
            let layers = manifest["layers"].as_array().unwrap();
            known.extend(layers.iter().map(|l| l["digest"].as_str().unwrap().to_owned()));
        }
    }
    // The blob of a layer that came with one image may serve another: it is then named by nobody's manifest.
    for blob in digests(&host.state().join("blobs")) {
        let path = host.state().join("blobs").join(&blob["sha256:".len()..]);
        assert_eq!(format!("sha256:{}", sha256(&std::fs::read(&path).unwrap())), blob, "a blob is damaged");
        let shared = std::fs::read(&path).unwrap().starts_with(&[0x1f, 0x8b]);
        assert!(known.contains(&blob) || shared, "blob {blob} is left\n{}", host.log());
    }
    for _ in 0..1000 {
        if host.names("trash").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the trash is not emptied: {:?}\n{}", host.names("trash"), host.log());
}

/// Programs of some of the images run, and see all layers.
async fn run(host: &Host, known: &[Known]) {
    let runnable = known.iter().flat_map(|k| &k.names).filter(|(_, layers)| layers[0] == 0);
    for (name, layers) in runnable.take(2) {
        let prepared = host.prepare("check", name).await.unwrap();
        let marks = layers[1..].iter().map(|l| format!(" /mark{l}")).collect::<Vec<_>>().concat();
        let wanted = layers[1..].iter().map(|l| format!("layer {l}\n")).collect::<Vec<_>>().concat();
        let script = format!(
            "chroot $ROOT /bin/sh -c 'cat /bin/true{marks} > /tmp/all'; tail -c {} $ROOT/tmp/all",
            wanted.len()
        );
        let (ok, out) = host.in_mount(&prepared.mounts, &script);
        assert!(ok && out == wanted, "{name} does not run: {out}, not {wanted}");
        host.snapshots().remove(pb::RemoveSnapshotRequest { key: "check".into() }).await.unwrap();
    }
}
