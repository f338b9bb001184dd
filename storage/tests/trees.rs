//! Images that are saved and trees that are committed, through the real daemon and with third-party tools.
#![allow(clippy::unwrap_used)]

#[path = "host/private.rs"]
mod host;

use davit_contracts::Kind;
use davit_contracts::storage as pb;
use host::{Host, busybox_layout, drain, sh};

async fn save(host: &Host, names: &[&str], format: pb::save_request::Format) -> Vec<u8> {
    let references = names.iter().map(ToString::to_string).collect();
    let request = pb::SaveRequest { references, format: format as i32 };
    let mut stream = host.images().save(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        bytes.extend(chunk.data);
    }
    bytes
}

async fn changes(host: &Host, key: &str) -> Vec<String> {
    use pb::change::Kind;
    let answer =
        host.snapshots().changes(pb::ChangesRequest { key: key.into(), ..Default::default() }).await.unwrap();
    let letter = |c: &pb::Change| match c.kind() {
        Kind::Added => "A",
        Kind::Deleted => "D",
        _ => "C",
    };
    answer.into_inner().changes.iter().map(|c| format!("{} {}", letter(c), c.path)).collect()
}

async fn commit(host: &Host, key: &str, reference: &str) -> pb::ImageDone {
    let request = pb::CommitRequest {
        snapshot_key: key.into(),
        reference: reference.into(),
        changes: vec!["ENV MADE=here".into()],
        message: "why".into(),
        author: "me".into(),
        ..Default::default()
    };
    let stream = host.images().commit(request).await.unwrap().into_inner();
    drain(stream).await.unwrap().remove(0)
}

/// A line for every file, with all that must be the same.
const LISTING: &str = "cd $ROOT; find . -mindepth 1 -printf '%p %y %m %U:%G %l %T@\\n' | sort
    find . -type f | sort | xargs md5sum";

#[tokio::test]
async fn a_saved_archive_is_read_by_skopeo_and_gives_the_same_image_again() {
    use pb::save_request::Format;
    let host = Host::new().await;
    host.load(&busybox_layout(host.tmp.path())).await.unwrap();
    let two = host.inspect("two").await.unwrap();
    let id = two.image.unwrap().id;
    let dir = host.tmp.path().display();
    for (format, name) in [(Format::DockerArchive, "docker"), (Format::Oci, "oci")] {
        let tar = save(&host, &["two", "base"], format).await;
        std::fs::write(host.tmp.path().join(format!("{name}.tar")), &tar).unwrap();
        let listed = sh(&format!("tar -tf {dir}/{name}.tar | sort"));
        // Two images of three layers, of which they share one: two configs, two manifests.
        assert_eq!(listed.lines().filter(|l| l.starts_with("blobs/sha256/") && l.len() > 20).count(), 7);
        let fresh = Host::new().await;
        let mut again = fresh.load_bytes(tar).await.unwrap();
        again.sort_by(|a, b| a.references.cmp(&b.references));
        assert_eq!(again[1].image_id, id);
        assert_eq!(again[1].references, ["two:latest"]);
        if format == Format::Oci {
            let kept = fresh.inspect("two").await.unwrap().manifest_json;
            assert_eq!(kept, two.manifest_json, "the manifest it came with");
        }
    }
    let digest = |url: &str| sh(&format!("skopeo inspect --config --raw {url} | sha256sum | cut -c1-64"));
    assert_eq!(
        format!("sha256:{}", digest(&format!("docker-archive:{dir}/docker.tar:two:latest")).trim()),
        id
    );
    sh(&format!("cd {dir}; mkdir unpacked; tar -xf docker.tar -C unpacked"));
    sh(&format!(
        "cd {dir}; skopeo copy -q --insecure-policy docker-archive:docker.tar:base:latest dir:copied"
    ));
}

#[tokio::test]
async fn a_tag_an_id_and_a_repository_are_saved_as_docker_names_them() {
    use pb::save_request::Format;
    let host = Host::new().await;
    host.load(&busybox_layout(host.tmp.path())).await.unwrap();
    let tag = |to: &str| pb::TagRequest { source: "two".into(), target: to.into() };
    host.images().tag(tag("two:v2")).await.unwrap();
    let id = host.inspect("two").await.unwrap().image.unwrap().id;
    for (asked, wanted) in
        [("two", vec!["two:latest", "two:v2"]), ("two:v2", vec!["two:v2"]), (&id[7..19], vec![])]
    {
        let fresh = Host::new().await;
        let tar = save(&host, &[asked], Format::DockerArchive).await;
        let mut references = fresh.load_bytes(tar).await.unwrap().remove(0).references;
        references.sort();
        assert_eq!(references, wanted, "{asked}");
    }
    let request = pb::SaveRequest { references: vec!["nothing".into()], format: 0 };
    let mut stream = host.images().save(request).await.unwrap().into_inner();
    let e = davit_contracts::Error::from(stream.message().await.unwrap_err());
    assert_eq!(e.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_commit_and_a_commit_of_it_have_the_trees_that_were_committed() {
    let host = Host::new().await;
    host.load(&busybox_layout(host.tmp.path())).await.unwrap();
    let mut base = "two".to_owned();
    for (round, script) in [
        "cd $ROOT; echo x > etc/new; rm -r dir; mkdir dir; echo only > dir/only; rm bin/ls; chmod 700 etc; ln etc/new etc/hard",
        "cd $ROOT; echo y >> etc/new; rm dir/only; mkdir -p dir/below; mkfifo dir/fifo; ln -sf nowhere bin/ls; rm -r bin/cat",
    ]
    .into_iter()
    .enumerate()
    {
        let (key, name) = (format!("c{round}"), format!("made:{round}"));
        let prepared = host.prepare(&key, &base).await.unwrap();
        let (ok, out) = host.in_mount(&prepared.mounts, script);
        assert!(ok, "{out}");
        let (ok, was) = host.in_mount(&prepared.mounts, LISTING);
        assert!(ok && was.contains("./etc/new"), "{was}");
        let done = commit(&host, &key, &name).await;
        assert_eq!(done.references, [name.as_str()]);
        let copy = host.prepare(&format!("{key}-copy"), &name).await.unwrap();
        let (_, is) = host.in_mount(&copy.mounts, LISTING);
        assert_eq!(is, was);
        assert_eq!(changes(&host, &format!("{key}-copy")).await, Vec::<String>::new());
        base = name;
    }
    let made = host.inspect("made:1").await.unwrap();
    assert_eq!(made.config.unwrap().env, ["A=b", "MADE=here"]);
    assert_eq!(made.image.unwrap().diff_ids.len(), 5);
    assert_eq!(made.history[0].comment, "why");
    // Nothing changed: no layer.
    host.prepare("same", "made:1").await.unwrap();
    commit(&host, "same", "made:same").await;
    let same = host.inspect("made:same").await.unwrap();
    assert_eq!(same.image.unwrap().diff_ids.len(), 5);
    assert!(same.history[0].empty_layer);
    assert_eq!(host.names("ingest"), Vec::<String>::new());
    assert_eq!(host.names("staging"), Vec::<String>::new());
}

#[tokio::test]
async fn changes_of_an_unknown_snapshot_are_not_found_and_of_a_known_one_are_told() {
    let host = Host::new().await;
    host.load(&busybox_layout(host.tmp.path())).await.unwrap();
    let e = host
        .snapshots()
        .changes(pb::ChangesRequest { key: "none".into(), ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(davit_contracts::Error::from(e).kind(), Kind::NotFound);
    let prepared = host.prepare("c", "two").await.unwrap();
    host.in_mount(&prepared.mounts, "cd $ROOT; rm dir/above; echo x > dir/x; echo y > etc/passwd");
    assert_eq!(changes(&host, "c").await, ["C /dir", "D /dir/above", "A /dir/x", "C /etc", "C /etc/passwd"]);
}
