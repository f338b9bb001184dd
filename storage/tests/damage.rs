//! A state directory that is full, read-only, damaged, or of another version: a clear error, and nothing is lost.
#![allow(clippy::unwrap_used)]

#[path = "storm/corpus.rs"]
#[allow(dead_code)]
mod corpus;
#[path = "host/private.rs"]
mod host;

use std::path::Path;

use corpus::Corpus;
use davit_contracts::storage as pb;
use davit_contracts::{Error, Kind};
use host::{Host, drain, sh};

async fn load(host: &Host, archive: &[u8], name: &str) -> Result<(), Error> {
    use pb::load_request::Part;
    let header = pb::LoadHeader { reference: name.into(), ..Default::default() };
    let mut parts = vec![Part::Header(header)];
    parts.extend(archive.chunks(500_000).map(|c| Part::Data(c.to_vec())));
    let requests: Vec<_> = parts.into_iter().map(|p| pb::LoadRequest { part: Some(p) }).collect();
    let stream = host.images().load(tokio_stream::iter(requests)).await?.into_inner();
    drain(stream).await.map(drop)
}

async fn create_volume(host: &Host, name: &str) -> Result<(), Error> {
    let request = pb::CreateVolumeRequest { name: name.into(), ..Default::default() };
    host.volumes().create(request).await.map(drop).map_err(Into::into)
}

async fn tag(host: &Host, source: &str, target: &str) -> Result<(), Error> {
    let request = pb::TagRequest { source: source.into(), target: target.into() };
    host.images().tag(request).await.map(drop).map_err(Into::into)
}

fn whole(host: &Host, corpus: &Corpus, images: &[pb::Image]) {
    for diff_id in images.iter().flat_map(|i| &i.diff_ids) {
        let tree = host.state().join("layers").join(&diff_id[7..]).join("fs");
        assert_eq!(corpus.layers[corpus.by_diff_id(diff_id)].differs(&tree), None);
    }
}

/// Leaves so many bytes free.
fn fill(host: &Host, free: u64) {
    let ballast = host.state().parent().unwrap().join("ballast");
    let _ = std::fs::remove_file(&ballast);
    let fs = rustix::fs::statvfs(host.state()).unwrap();
    let all = fs.f_bavail * fs.f_frsize;
    let file = std::fs::File::create(&ballast).unwrap();
    let bytes = all.saturating_sub(free);
    if bytes > 0 {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
    }
    // What the file's own blocks of addresses take is made up for by small change.
    if free == 0 {
        use std::io::Write;
        let mut rest = std::fs::File::create(host.state().parent().unwrap().join("ballast2")).unwrap();
        while rest.write_all(&[0; 4096]).is_ok() {}
    }
}

fn empty(host: &Host) {
    for name in ["ballast", "ballast2"] {
        let _ = std::fs::remove_file(host.state().parent().unwrap().join(name));
    }
}

/// All that may be asked for, with so much space; how many of these failed, all with a clear error.
async fn everything(host: &Host, corpus: &Corpus, free: u64) -> usize {
    let made = [
        ("load", load(host, &corpus.pictures[4].archive, "loaded").await),
        ("import", host.import(corpus.layers[7].tar.clone(), "imported", &[]).await.map(drop)),
        ("from-host", host.make_from_host("tools", &["/bin/true"]).await.map(drop)),
        ("volume", create_volume(host, "v").await),
        ("prepare", host.prepare("c", "first").await.map(drop)),
        ("tag", tag(host, "first", "second").await),
    ];
    let mut failed = 0;
    for (what, done) in made {
        if let Err(e) = done {
            assert_eq!(e.kind(), Kind::NoSpace, "{what} with {free} free: {e}\n{}", host.log());
            failed += 1;
        }
    }
    failed
}

async fn at_many_levels(host: &Host) {
    let corpus = Corpus::new();
    load(host, &corpus.pictures[1].archive, "first").await.unwrap();
    let names = |dir| host.names(dir);
    let (layers, blobs) = (names("layers"), names("blobs"));
    let mut failures = Vec::new();
    for free in [0, 4 << 10, 40 << 10, 400 << 10, 1 << 20, 2 << 20, 3 << 20, 5 << 20, 7 << 20, 24 << 20] {
        fill(host, free);
        let failed = everything(host, &corpus, free).await;
        failures.push(failed);
        // Reading goes on, what is there is whole, and there is no part of what is not.
        let images = host.list().await;
        assert!(images.iter().any(|i| i.references.contains(&"first:latest".to_owned())));
        for dir in ["staging", "ingest"] {
            assert_eq!(names(dir), Vec::<String>::new(), "left in {dir} with {free} free");
        }
        // Removing works on a full disk.
        for name in ["loaded", "imported", "tools", "second"] {
            match host.remove(name, false).await {
                Err(e) if e.kind() != Kind::NotFound => {
                    panic!("removing {name} with {free} free: {e}\n{}", host.log())
                }
                _ => {}
            }
        }
        host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c".into() }).await.unwrap();
        host.volumes().remove(pb::RemoveVolumeRequest { name: "v".into(), force: true }).await.unwrap();
        whole(host, &corpus, &host.list().await);
        assert_eq!((names("layers"), names("blobs")), (layers.clone(), blobs.clone()), "with {free} free");
        empty(host);
    }
    println!("of 6 failed: {failures:?}");
    assert!(failures[0] >= 4, "a full disk is not full: {failures:?}");
    assert_eq!(failures.last(), Some(&0), "{}", host.log());
}

#[tokio::test]
async fn a_full_tmpfs_at_any_level_loses_and_leaves_nothing() {
    at_many_levels(&Host::on_tmpfs("48m").await).await;
}

#[tokio::test]
async fn a_full_ext4_at_any_level_loses_and_leaves_nothing() {
    let mut host = Host::on_tmpfs("ext4:64m").await;
    at_many_levels(&host).await;
    host.stop();
    host.start().await;
    let prepared = host.prepare("c", "first").await.unwrap();
    assert!(prepared.mounts[0].options.iter().filter(|o| o.starts_with("lowerdir+=")).count() == 2);
}

#[tokio::test]
async fn a_quota_is_told_as_what_it_is_and_leaves_nothing() {
    let host = Host::on_tmpfs("btrfs:14M").await;
    let corpus = Corpus::new();
    load(&host, &corpus.pictures[1].archive, "first").await.unwrap();
    let (layers, blobs) = (host.names("layers"), host.names("blobs"));
    let big = host.tmp.path().join("big");
    sh(&format!("mkdir {0}; head -c 20M /dev/urandom > {0}/file; tar -C {0} -cf {0}.tar .", big.display()));
    let tar = std::fs::read(big.with_extension("tar")).unwrap();
    for _ in 0..3 {
        let e = host.import(tar.clone(), "big", &[]).await.unwrap_err();
        let text = format!("{e} {:?}", e.causes());
        assert_eq!(e.kind(), Kind::NoSpace, "{text}");
        assert!(text.contains("quota exceeded"), "{text}");
        assert_eq!(host.list().await.len(), 1);
        for dir in ["staging", "ingest"] {
            assert_eq!(host.names(dir), Vec::<String>::new(), "left in {dir}");
        }
        assert_eq!((host.names("layers"), host.names("blobs")), (layers.clone(), blobs.clone()));
    }
    whole(&host, &corpus, &host.list().await);
    let state = host.tmp.path().join("state");
    sh(&format!("nsenter -t {} -m btrfs qgroup limit none {}", host.pid(), state.display()));
    host.import(tar, "big", &[]).await.unwrap();
}

#[tokio::test]
async fn a_read_only_state_is_still_read() {
    let mut host = Host::on_tmpfs("ext4:64m").await;
    let corpus = Corpus::new();
    load(&host, &corpus.pictures[1].archive, "image").await.unwrap();
    host.prepare("c", "image").await.unwrap();
    // As after an error of the disk: the kernel makes the file system read-only under the daemon.
    let state = host.tmp.path().join("state");
    sh(&format!(
        "sync -f {0}; disk=$(nsenter -t {1} -m findmnt -n -o SOURCE {2}); echo test > /sys/fs/ext4/${{disk#/dev/}}/trigger_fs_error",
        host.state().display(),
        host.pid(),
        state.display()
    ));
    let refused = [
        load(&host, &corpus.pictures[2].archive, "more").await.unwrap_err(),
        tag(&host, "image", "more").await.unwrap_err(),
        host.remove("image", true).await.unwrap_err(),
        create_volume(&host, "v").await.unwrap_err(),
        host.prepare("d", "image").await.unwrap_err(),
    ];
    for e in refused {
        let text = format!("{e} {:?}", e.causes());
        assert!(text.to_lowercase().contains("read-only file system"), "{text}");
        assert!(e.hint().contains("read-only"), "{e}: {}", e.hint());
    }
    assert_eq!(host.list().await.len(), 1);
    host.inspect("image").await.unwrap();
    host.snapshots().mounts(pb::MountsRequest { key: "c".into() }).await.unwrap();
    whole(&host, &corpus, &host.list().await);
    host.kill();
    sh(&format!("e2fsck -f -p {} || test $? -le 1", host.tmp.path().join("disk").display()));
    host.start().await;
    load(&host, &corpus.pictures[2].archive, "more").await.unwrap();
    assert_eq!(host.list().await.len(), 2);
}

/// What a start that must fail says, in one line.
fn refusal(host: &Host) -> String {
    let out = host.command().output().unwrap();
    assert!(!out.status.success(), "it starts");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    assert!(out.status.code().is_some() && !text.contains("panicked"), "{text}");
    text
}

fn everything_below(dir: &Path) -> String {
    sh(&format!("cd {}; find layers blobs volumes snapshots | sort", dir.display()))
}

#[tokio::test]
async fn a_directory_of_another_version_is_refused_naming_both() {
    let mut host = Host::new().await;
    let corpus = Corpus::new();
    load(&host, &corpus.pictures[1].archive, "image").await.unwrap();
    host.kill();
    let format = host.state().join("format");
    let own = std::fs::read_to_string(&format).unwrap();
    let before = everything_below(&host.state());
    std::fs::write(&format, "99\n").unwrap();
    let text = refusal(&host);
    assert!(text.contains("format 99") && text.contains(&format!("only {}", own.trim())), "{text}");
    std::fs::write(&format, "0\n").unwrap();
    assert!(refusal(&host).contains("format 0"), "{text}");
    std::fs::write(&format, "what\n").unwrap();
    assert!(refusal(&host).contains("holds no format version"), "{text}");
    assert_eq!(everything_below(&host.state()), before);
    std::fs::write(&format, own).unwrap();
    host.start().await;
    whole(&host, &corpus, &host.list().await);
    assert_eq!(host.list().await.len(), 1);
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_nothing_is_deleted() {
    let mut host = Host::unstarted(Path::new("/dev/shm"));
    host.start().await;
    let corpus = Corpus::new();
    load(&host, &corpus.pictures[1].archive, "image").await.unwrap();
    // An orderly end: after another redb itself looks for damage.
    host.stop();
    let file = host.state().join("metadata.redb");
    let good = std::fs::read(&file).unwrap();
    let before = everything_below(&host.state());
    let mut refused = 0;
    for page in 0..good.len() / 4096 {
        let mut bad = good.clone();
        // Something that is used: the first byte of the page that is not zero, and one in its middle.
        let start = page * 4096;
        let Some(first) = bad[start..start + 4096].iter().position(|b| *b != 0) else { continue };
        bad[start + first + 40.min(4095 - first)] ^= 0x55;
        bad[start + first] ^= 0x55;
        std::fs::write(&file, &bad).unwrap();
        if host.start_or_die().await {
            // A page that nothing refers to any more.
            assert_eq!(host.list().await.len(), 1, "page {page}");
            host.inspect("image").await.unwrap();
            host.stop();
        } else {
            assert_eq!(host.buried(), None, "page {page}: {}", host.log());
            refused += 1;
        }
        assert_eq!(everything_below(&host.state()), before, "page {page}");
    }
    assert!(refused > 3, "{refused}");
    for (bad, says) in [
        (Vec::new(), "missing"),
        (good[..good.len() / 2].to_vec(), "damaged"),
        (b"nonsense".to_vec(), "damaged"),
    ] {
        std::fs::write(&file, bad).unwrap();
        let text = refusal(&host);
        assert!(text.contains(says) && text.contains("nothing was changed"), "{text}");
        assert_eq!(everything_below(&host.state()), before);
    }
    std::fs::remove_file(&file).unwrap();
    let text = refusal(&host);
    assert!(text.contains("is missing"), "{text}");
    assert_eq!(everything_below(&host.state()), before);
    std::fs::write(&file, &good).unwrap();
    host.start().await;
    whole(&host, &corpus, &host.list().await);
}

#[tokio::test]
async fn a_layer_whose_files_have_gone_is_named_and_comes_again_with_its_image() {
    let mut host = Host::unstarted(Path::new("/dev/shm"));
    host.start().await;
    let corpus = Corpus::new();
    for (picture, name) in [(2, "broken"), (5, "whole")] {
        load(&host, &corpus.pictures[picture].archive, name).await.unwrap();
    }
    let layer = host.state().join("layers").join(&corpus.layers[2].diff_id[7..]);
    for restart in [false, true] {
        std::fs::remove_dir_all(&layer).unwrap();
        if restart {
            host.kill();
            host.start().await;
        }
        let e = host.prepare("c", "broken").await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt, "{e}");
        assert!(e.to_string().contains(&corpus.layers[2].diff_id[7..19]), "{e}");
        assert!(e.hint().contains("storage check --repair"), "{}", e.hint());
        assert_eq!(host.list().await.len(), 2);
        host.prepare("w", "whole").await.unwrap();
        load(&host, &corpus.pictures[2].archive, "broken").await.unwrap();
        whole(&host, &corpus, &host.list().await);
        let prepared = host.prepare("c", "broken").await.unwrap();
        assert!(host.in_mount(&prepared.mounts, "chroot $ROOT /bin/cat /mark2").0);
        host.snapshots().remove(pb::RemoveSnapshotRequest { key: "c".into() }).await.unwrap();
    }
}
