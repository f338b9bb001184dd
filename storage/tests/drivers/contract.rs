//! What runtimed may expect of storaged, whichever driver it uses.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use davit_contracts::Kind;
use davit_contracts::containerd::snapshots::Kind as SnapshotKind;
use davit_contracts::storage as pb;
use tar::EntryType;

use super::image::{Layer, TIME, archive};
use super::subject::Driver;
use super::tree::{acl, capability, mounted, names, read, xattr};

pub fn two_layers() -> Vec<Layer> {
    vec![
        Layer::new().dir("etc").file("etc/name", "base").dir("data").file("data/a", "1"),
        Layer::new().dir("etc").file("etc/name", "app").file("extra", "x"),
    ]
}

pub async fn load(subject: &Driver, name: &str, layers: Vec<Layer>) {
    subject.host.load_bytes(archive(name, layers)).await.unwrap();
}

pub async fn remove(subject: &Driver, key: &str) {
    let request = pb::RemoveSnapshotRequest { key: key.into() };
    subject.host.snapshots().remove(request).await.unwrap();
}

pub async fn usage(subject: &Driver, key: &str) -> Result<pb::UsageResponse, davit_contracts::Error> {
    let request = pb::UsageRequest { key: key.into() };
    Ok(subject.host.snapshots().usage(request).await?.into_inner())
}

/// Keys that a proxy has on the other side.
pub async fn keys_behind(subject: &Driver) -> usize {
    subject.behind().await.iter().filter(|i| i.kind() != SnapshotKind::Committed).count()
}

pub async fn a_snapshot_lives_from_prepare_to_remove(subject: Driver) {
    let host = &subject.host;
    load(&subject, "app:1", two_layers()).await;
    load(&subject, "other:1", vec![Layer::new().file("o", "o")]).await;
    let prepared = host.prepare("c1", "app:1").await.unwrap();
    assert_eq!(prepared.driver, subject.name);
    mounted(&prepared.mounts, |root| {
        assert_eq!(names(root.to_owned()), ["data", "etc", "extra"]);
        assert_eq!(read(root.join("etc/name")), "app");
        assert_eq!(read(root.join("data/a")), "1");
        std::fs::write(root.join("mine"), vec![b'm'; 300_000]).unwrap();
        std::fs::remove_file(root.join("data/a")).unwrap();
    });
    // The same key is the same tree; another key of the same image is not.
    let again = host.prepare("c1", "app:1").await.unwrap();
    assert_eq!(again.mounts, prepared.mounts);
    mounted(&again.mounts, |root| assert_eq!(names(root.to_owned()), ["data", "etc", "extra", "mine"]));
    let other = host.prepare("c2", "app:1").await.unwrap();
    mounted(&other.mounts, |root| {
        assert_eq!(read(root.join("data/a")), "1");
        assert!(!root.join("mine").exists());
    });
    assert_eq!(host.prepare("c1", "other:1").await.unwrap_err().kind(), Kind::AlreadyExists);
    let used = usage(&subject, "c1").await.unwrap();
    assert!(used.bytes >= 300_000 && used.inodes >= 1, "{used:?}");
    assert!(usage(&subject, "c2").await.unwrap().bytes < used.bytes);

    for _ in 0..2 {
        remove(&subject, "c1").await;
    }
    assert_eq!(usage(&subject, "c1").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(host.names("snapshots"), ["c2"]);
    let fresh = host.prepare("c1", "app:1").await.unwrap();
    mounted(&fresh.mounts, |root| assert!(!root.join("mine").exists() && root.join("data/a").exists()));
    remove(&subject, "c1").await;
    remove(&subject, "c2").await;
    assert_eq!(host.names("snapshots"), Vec::<String>::new());
    assert_eq!(keys_behind(&subject).await, 0);
}

pub async fn whiteouts_and_opaque_directories_hide_what_is_below(subject: Driver) {
    let layers = vec![
        Layer::new()
            .dir("gone")
            .file("gone/f", "1")
            .file("file", "1")
            .dir("opaque")
            .file("opaque/below", "1")
            .dir("merged")
            .file("merged/below", "1")
            .dir("becomes-file")
            .file("becomes-file/f", "1")
            .file("becomes-dir", "1")
            .file("one", "1")
            .dir("back")
            .file("back/old", "1"),
        Layer::new()
            .whiteout("gone")
            .whiteout("file")
            .opaque("opaque")
            .file("opaque/above", "2")
            .dir("merged")
            .file("merged/above", "2")
            .file("becomes-file", "2")
            .dir("becomes-dir")
            .file("becomes-dir/f", "2")
            .whiteout("back"),
        Layer::new().whiteout("merged/below").dir("back").file("back/new", "3"),
    ];
    load(&subject, "holes:1", layers).await;
    let prepared = subject.host.prepare("c", "holes:1").await.unwrap();
    mounted(&prepared.mounts, |root| {
        assert_eq!(
            names(root.to_owned()),
            ["back", "becomes-dir", "becomes-file", "merged", "one", "opaque"]
        );
        assert_eq!(names(root.join("opaque")), ["above"]);
        assert_eq!(names(root.join("merged")), ["above"]);
        assert_eq!(names(root.join("back")), ["new"]);
        assert_eq!(read(root.join("becomes-file")), "2");
        assert_eq!(names(root.join("becomes-dir")), ["f"]);
    });
}

pub async fn everything_that_a_file_has_is_there(subject: Driver) {
    let pax: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.davit", b"kept"),
        ("SCHILY.xattr.security.capability", &capability()),
        ("SCHILY.xattr.system.posix_acl_access", &acl()),
        ("mtime", b"1600000000.123456789"),
    ];
    let device = |h: &mut tar::Header| {
        h.set_device_major(1).unwrap();
        h.set_device_minor(7).unwrap();
    };
    let lower = Layer::new()
        .entry("dir/", EntryType::Directory, 0o1777, &pax[3..], b"", |_| ())
        .entry("empty/", EntryType::Directory, 0o755, &pax[3..], b"", |_| ())
        .entry("program", EntryType::Regular, 0o640, &pax, b"#!", |h| h.set_gid(42))
        .entry("setuid", EntryType::Regular, 0o4755, &[], b"s", |h| h.set_uid(7))
        .entry("full", EntryType::Char, 0o666, &[], b"", device)
        .entry("fifo", EntryType::Fifo, 0o620, &[], b"", |_| ())
        .entry("link", EntryType::Symlink, 0o777, &pax[3..], b"", |h| h.set_link_name("/nowhere").unwrap())
        .file("dir/first", "same")
        .hard_link("dir/second", "dir/first")
        .hard_link("third", "dir/first");
    let upper = Layer::new().file("top", "t");
    load(&subject, "all:1", vec![lower, upper]).await;
    let prepared = subject.host.prepare("c", "all:1").await.unwrap();
    let copied_by_containerd = subject.containerd.is_some() && prepared.mounts[0].r#type == "bind";
    mounted(&prepared.mounts, |root| {
        let meta = |name: &str| root.join(name).symlink_metadata().unwrap();
        let program = meta("program");
        assert_eq!((program.mode() & 0o7777, program.uid(), program.gid()), (0o640, 0, 42));
        assert_eq!((program.mtime() as u64, program.mtime_nsec()), (TIME, 123_456_789));
        assert_eq!(xattr(&root.join("program"), "user.davit"), Some(b"kept".to_vec()));
        assert_eq!(xattr(&root.join("program"), "security.capability"), Some(capability()));
        assert_eq!(xattr(&root.join("program"), "system.posix_acl_access"), Some(acl()));
        assert_eq!((meta("dir").mode() & 0o7777, meta("empty").mtime_nsec()), (0o1777, 123_456_789));
        // containerd's native snapshotter sets the time of a directory and then copies its files into it.
        assert!(copied_by_containerd || meta("dir").mtime_nsec() == 123_456_789);
        assert_eq!((meta("setuid").mode() & 0o7777, meta("setuid").uid()), (0o4755, 7));
        assert_eq!((meta("full").mode(), meta("full").rdev()), (0o020_666, 0x107));
        assert_eq!(meta("fifo").mode(), 0o010_620);
        assert_eq!(std::fs::read_link(root.join("link")).unwrap().to_str(), Some("/nowhere"));
        assert_eq!(meta("link").mtime_nsec(), 123_456_789);
        assert_eq!((meta("third").nlink(), meta("third").ino()), (3, meta("dir/second").ino()));
        assert_eq!(read(root.join("dir/first")), "same");
    });
}

pub async fn an_image_of_128_layers_is_one_tree(subject: Driver) {
    let layers = (0..128)
        .map(|n| {
            let layer = Layer::new().file(&format!("f{n}"), "x").file("same", &n.to_string());
            if n % 16 == 15 { layer.whiteout(&format!("f{}", n - 1)) } else { layer }
        })
        .collect();
    load(&subject, "deep:1", layers).await;
    let prepared = subject.host.prepare("c", "deep:1").await.unwrap();
    mounted(&prepared.mounts, |root| {
        assert_eq!(names(root.to_owned()).len(), 128 - 8 + 1);
        assert_eq!(read(root.join("same")), "127");
        assert!(!root.join("f14").exists() && root.join("f13").exists());
        std::fs::write(root.join("f0"), "written").unwrap();
    });
}

pub async fn concurrent_prepares_do_not_disturb_one_another(subject: Driver) {
    load(&subject, "app:1", two_layers()).await;
    let host = &subject.host;
    let keys = ["a", "b", "c", "same", "same", "same"];
    let all = futures_of(keys.iter().map(|key| host.prepare(key, "app:1"))).await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert!(all[3].mounts == all[4].mounts && all[4].mounts == all[5].mounts);
    for prepared in &all {
        mounted(&prepared.mounts, |root| {
            assert_eq!(read(root.join("etc/name")), "app");
            assert_eq!(read(root.join("data/a")), "1");
        });
    }
    assert_eq!(host.names("snapshots"), ["a", "b", "c", "same"]);
    if subject.behind.is_some() {
        assert_eq!(keys_behind(&subject).await, 4);
    }
}

/// Waits for all, at the same time.
async fn futures_of<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in waiting.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(cx) {
                *done = Some(output);
            }
        }
        if waiting.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

pub use super::clones::a_clone_begins_as_its_source_and_goes_its_own_way;

pub async fn a_view_is_read_only(subject: Driver) {
    load(&subject, "app:1", two_layers()).await;
    let request =
        pb::PrepareRequest { key: "v".into(), image: "app:1".into(), read_only: true, ..Default::default() };
    let view = subject.host.snapshots().prepare(request).await.unwrap().into_inner();
    mounted(&view.mounts, |root| {
        assert_eq!(read(root.join("etc/name")), "app");
        let refused = std::fs::write(root.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        assert!(std::fs::remove_file(root.join("extra")).is_err());
    });
    assert_eq!(subject.host.prepare("v", "app:1").await.unwrap_err().kind(), Kind::AlreadyExists);
}

pub async fn a_kill_in_the_middle_leaves_nothing(mut subject: Driver) {
    let many = |n: usize| (0..100).fold(Layer::new(), |l, f| l.file(&format!("{n}-{f}"), "content"));
    load(&subject, "many:1", (0..6).map(many).collect()).await;
    load(&subject, "app:1", two_layers()).await;
    let kept = subject.host.prepare("kept", "app:1").await.unwrap();
    mounted(&kept.mounts, |root| std::fs::write(root.join("mine"), "m").unwrap());
    for wait in [0, 3, 15, 60] {
        let mut snapshots = subject.host.snapshots();
        let call = tokio::spawn(async move {
            let request =
                pb::PrepareRequest { key: "c".into(), image: "many:1".into(), ..Default::default() };
            let _ = snapshots.prepare(request).await;
        });
        tokio::time::sleep(Duration::from_millis(wait)).await;
        subject.host.kill();
        call.await.unwrap();
        subject.host.start().await;
        let names = subject.host.names("snapshots");
        assert!(names == ["kept"] || names == ["c", "kept"], "{names:?}");
        let prepared = subject.host.prepare("c", "many:1").await.unwrap();
        mounted(&prepared.mounts, |root| assert_eq!(names_in(root), 600));
        remove(&subject, "c").await;
        // So that the next round builds its chain again.
        subject.host.remove("many:1", false).await.unwrap();
        // What a proxy was asked for when the daemon was killed may have been made later than the next one looked: it looks again.
        let began = std::time::Instant::now();
        while subject.behind.is_some() && keys_behind(&subject).await != 1 {
            assert!(began.elapsed() < Duration::from_secs(60), "left: {:?}", subject.behind().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        load(&subject, "many:1", (0..6).map(many).collect()).await;
    }
    let again = subject.host.prepare("kept", "app:1").await.unwrap();
    mounted(&again.mounts, |root| assert_eq!(read(root.join("mine")), "m"));
}

fn names_in(root: &std::path::Path) -> usize {
    names(root.to_owned()).len()
}

pub async fn images_go_with_what_was_made_for_them(subject: Driver) {
    load(&subject, "app:1", two_layers()).await;
    let mut more = two_layers();
    more.push(Layer::new().file("third", "3"));
    load(&subject, "more:1", more).await;
    subject.host.prepare("a", "app:1").await.unwrap();
    subject.host.prepare("m", "more:1").await.unwrap();
    let committed =
        || async { subject.behind().await.iter().filter(|i| i.kind() == SnapshotKind::Committed).count() };
    let proxy = subject.behind.is_some();
    assert_eq!(committed().await, if proxy { 3 } else { 0 });
    assert_eq!(subject.host.remove("more:1", false).await.unwrap_err().kind(), Kind::InUse);
    remove(&subject, "m").await;
    subject.host.remove("more:1", false).await.unwrap();
    assert_eq!(committed().await, if proxy { 2 } else { 0 });
    remove(&subject, "a").await;
    subject.host.remove("app:1", false).await.unwrap();
    assert_eq!(subject.behind().await, Vec::new());
    subject.host.assert_empty();
}
