//! What containerd expects of a snapshotter. Its own two are held against the same tests, which shows that they ask for no more than it does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use davit_contracts::Kind;
use davit_contracts::containerd::client::Labels;
use davit_contracts::containerd::snapshots::{Info, Kind as SnapshotKind};

use super::subject::Snapshots;
use super::tree::{acl, capability, facts, mounted, names, read};

impl Snapshots {
    /// A committed snapshot: what `work` does to its parent's tree. Kept by containerd's garbage collector.
    async fn layer<T: Send>(&self, name: &str, parent: &str, work: impl FnOnce(&Path) -> T + Send) {
        let key = format!("extract-{name}");
        let mounts = self.client.prepare(&key, parent, kept()).await.unwrap();
        mounted(&mounts, work);
        self.client.commit(name, &key, kept()).await.unwrap();
    }

    async fn kind(&self, name: &str) -> Option<SnapshotKind> {
        self.client.stat(name).await.unwrap().map(|i| i.kind())
    }
}

fn kept() -> Labels {
    [("containerd.io/gc.root".to_owned(), "2026-01-01T00:00:00Z".to_owned())].into()
}

fn write(path: std::path::PathBuf, text: &str) {
    std::fs::write(path, text).unwrap();
}

pub async fn kinds_follow_one_another(s: Snapshots) {
    s.layer("base", "", |root| write(root.join("f"), "base")).await;
    assert_eq!(s.kind("base").await, Some(SnapshotKind::Committed));
    assert_eq!(s.kind("extract-base").await, None);
    let active = s.client.prepare("c", "base", kept()).await.unwrap();
    assert_eq!(s.kind("c").await, Some(SnapshotKind::Active));
    assert_eq!(s.client.mounts("c").await.unwrap(), active);
    mounted(&active, |root| {
        assert_eq!(read(root.join("f")), "base");
        write(root.join("f"), "changed");
        std::fs::write(root.join("big"), vec![1; 200_000]).unwrap();
    });
    let (bytes, inodes) = s.client.usage("c").await.unwrap();
    assert!(bytes >= 200_000 && inodes >= 2, "{bytes} {inodes}");
    let view = s.client.view("v", "base", kept()).await.unwrap();
    assert_eq!(s.kind("v").await, Some(SnapshotKind::View));
    mounted(&view, |root| {
        assert_eq!(read(root.join("f")), "base");
        assert!(std::fs::write(root.join("f"), "x").is_err());
    });
    s.client.commit("changed", "c", kept()).await.unwrap();
    let info = s.client.stat("changed").await.unwrap().unwrap();
    assert_eq!((info.parent.as_str(), info.kind()), ("base", SnapshotKind::Committed));
    assert!(info.created_at.is_some() && info.updated_at.is_some());
    let view = s.client.view("w", "changed", kept()).await.unwrap();
    mounted(&view, |root| assert_eq!(read(root.join("f")), "changed"));
    assert!(s.client.usage("changed").await.unwrap().0 >= 200_000);
    for key in ["v", "w", "changed", "base"] {
        s.client.remove(key).await.unwrap();
    }
    assert_eq!(s.client.list(&[]).await.unwrap(), Vec::<Info>::new());
}

pub async fn what_is_deleted_above_is_there_below(s: Snapshots) {
    s.layer("base", "", |root| {
        std::fs::create_dir_all(root.join("dir/sub")).unwrap();
        write(root.join("dir/sub/f"), "1");
        write(root.join("file"), "1");
        write(root.join("kept"), "1");
    })
    .await;
    s.layer("holes", "base", |root| {
        std::fs::remove_file(root.join("file")).unwrap();
        std::fs::remove_dir_all(root.join("dir")).unwrap();
        std::fs::create_dir(root.join("dir")).unwrap();
        write(root.join("dir/new"), "2");
    })
    .await;
    let mounts = s.client.prepare("c", "holes", kept()).await.unwrap();
    mounted(&mounts, |root| {
        assert_eq!(names(root.to_owned()), ["dir", "kept"]);
        assert_eq!(names(root.join("dir")), ["new"]);
    });
    let mounts = s.client.view("below", "base", kept()).await.unwrap();
    mounted(&mounts, |root| assert_eq!(names(root.to_owned()), ["dir", "file", "kept"]));
}

pub async fn a_chain_of_128_is_one_tree(s: Snapshots) {
    let mut parent = String::new();
    for n in 0..128 {
        let name = format!("layer-{n}");
        s.layer(&name, &parent, |root| {
            write(root.join(format!("f{n}")), "x");
            write(root.join("same"), &n.to_string());
        })
        .await;
        parent = name;
    }
    let mounts = s.client.prepare("c", &parent, kept()).await.unwrap();
    mounted(&mounts, |root| {
        assert_eq!(names(root.to_owned()).len(), 129);
        assert_eq!(read(root.join("same")), "127");
    });
}

pub async fn removal_with_children_is_refused(s: Snapshots) {
    s.layer("base", "", |root| write(root.join("f"), "1")).await;
    s.layer("app", "base", |root| write(root.join("g"), "1")).await;
    s.client.view("v", "app", kept()).await.unwrap();
    for parent in ["base", "app"] {
        assert_eq!(s.client.remove(parent).await.unwrap_err().kind(), Kind::WrongState, "{parent}");
    }
    for key in ["v", "app", "base"] {
        s.client.remove(key).await.unwrap();
    }
}

pub async fn labels_are_kept_changed_and_found(s: Snapshots) {
    let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let mut labels = kept();
    labels.extend([label("containerd.io/snapshot.ref", "sha256:x"), label("a", "1"), label("b", "2")]);
    s.client.prepare("c", "", labels).await.unwrap();
    let info = s.client.stat("c").await.unwrap().unwrap();
    assert_eq!(
        (info.labels["containerd.io/snapshot.ref"].as_str(), info.labels["a"].as_str()),
        ("sha256:x", "1")
    );
    let wanted = Info { name: "c".into(), labels: [label("a", "changed")].into(), ..Info::default() };
    let paths = ["labels.a".to_owned(), "labels.b".to_owned()];
    let updated = s.client.update(wanted.clone(), &paths).await.unwrap().unwrap();
    assert_eq!((updated.labels["a"].as_str(), updated.labels.get("b")), ("changed", None));
    assert_eq!(updated.labels["containerd.io/snapshot.ref"], "sha256:x");
    assert_eq!(s.client.stat("c").await.unwrap().unwrap().labels, updated.labels);
    let error = s.client.update(wanted, &["parent".to_owned()]).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::InvalidArgument | Kind::Unsupported), "{error}");
    s.client.prepare("d", "", kept()).await.unwrap();
    for (filter, found) in
        [("labels.a==changed", 1), ("name==d,kind==active", 1), ("kind==active", 2), ("name==x", 0)]
    {
        assert_eq!(s.client.list(&[filter.to_owned()]).await.unwrap().len(), found, "{filter}");
    }
    let either = ["name==c".to_owned(), "name==d".to_owned()];
    assert_eq!(s.client.list(&either).await.unwrap().len(), 2);
}

pub async fn wrong_calls_have_the_codes_that_containerd_knows(s: Snapshots) {
    s.layer("base", "", |_| ()).await;
    s.client.prepare("c", "base", kept()).await.unwrap();
    s.client.view("v", "base", kept()).await.unwrap();
    let c = &s.client;
    assert_eq!(c.prepare("c", "base", kept()).await.unwrap_err().kind(), Kind::AlreadyExists);
    assert_eq!(c.prepare("x", "none", kept()).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(c.prepare("x", "c", kept()).await.unwrap_err().kind(), Kind::InvalidArgument);
    assert_eq!(c.mounts("none").await.unwrap_err().kind(), Kind::NotFound);
    assert!(c.mounts("base").await.is_err());
    assert_eq!(c.remove("none").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(c.usage("none").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(c.commit("x", "none", kept()).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(c.commit("base", "c", kept()).await.unwrap_err().kind(), Kind::AlreadyExists);
    assert!(c.commit("x", "v", kept()).await.is_err());
    assert!(c.commit("x", "base", kept()).await.is_err());
    // None of this has changed anything.
    let mut all: Vec<_> = c.list(&[]).await.unwrap().into_iter().map(|i| (i.kind(), i.name)).collect();
    all.sort_by(|a, b| a.1.cmp(&b.1));
    let expected =
        [(SnapshotKind::Committed, "base"), (SnapshotKind::Active, "c"), (SnapshotKind::View, "v")];
    assert_eq!(all, expected.map(|(k, n)| (k, n.to_owned())));
    assert_eq!(c.prepare("x", "base", kept()).await.unwrap().len(), 1);
}

pub async fn concurrent_prepares_of_one_key_have_one_winner(s: Snapshots) {
    // Enough to copy that calls meet.
    s.layer("base", "", |root| {
        (0..500).for_each(|n| write(root.join(format!("more-{n}")), "x"));
        write(root.join("f"), "1");
    })
    .await;
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let client = s.client.clone();
            let key = if n % 2 == 0 { "same".to_owned() } else { format!("own-{n}") };
            tokio::spawn(async move { client.prepare(&key, "base", kept()).await.map(|m| (key, m)) })
        })
        .collect();
    let mut winners = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Ok((key, mounts)) => {
                mounted(&mounts, |root| assert_eq!(read(root.join("f")), "1"));
                winners.push(key);
            }
            Err(e) => assert_eq!(e.kind(), Kind::AlreadyExists),
        }
    }
    winners.sort();
    assert_eq!(winners, ["own-1", "own-3", "own-5", "own-7", "same"]);
}

pub async fn everything_survives_a_restart(mut s: Snapshots) {
    s.layer("base", "", |root| write(root.join("f"), "1")).await;
    let mounts = s.client.prepare("c", "base", kept()).await.unwrap();
    mounted(&mounts, |root| write(root.join("mine"), "m"));
    let before = s.client.list(&[]).await.unwrap();
    s.restart().await;
    assert_eq!(s.client.list(&[]).await.unwrap(), before);
    assert_eq!(s.client.mounts("c").await.unwrap(), mounts);
    mounted(&mounts, |root| {
        assert_eq!((read(root.join("f")), read(root.join("mine"))), ("1".into(), "m".into()));
    });
    assert_eq!(s.client.remove("base").await.unwrap_err().kind(), Kind::WrongState);
    s.client.commit("done", "c", kept()).await.unwrap();
    s.restart().await;
    assert_eq!(s.kind("done").await, Some(SnapshotKind::Committed));
    let mounts = s.client.view("v", "done", kept()).await.unwrap();
    mounted(&mounts, |root| assert_eq!(read(root.join("mine")), "m"));
}

pub async fn everything_that_a_file_has_is_inherited(s: Snapshots) {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};
    let all = |root: &Path| -> Vec<String> {
        ["program", "device", "fifo", "link", "dir"].map(|n| facts(&root.join(n))).to_vec()
    };
    let mut first = Vec::new();
    s.layer("base", "", |root| {
        let program = root.join("program");
        write(program.clone(), "#!");
        std::os::unix::fs::chown(&program, Some(5), Some(6)).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4750)).unwrap();
        for (name, value) in [
            ("user.davit", b"kept".to_vec()),
            ("security.capability", capability()),
            ("system.posix_acl_access", acl()),
        ] {
            rustix::fs::setxattr(&program, name, &value, XattrFlags::empty()).unwrap();
        }
        let bits = Mode::from_raw_mode(0o644);
        mknodat(CWD, root.join("device"), FileType::CharacterDevice, bits, makedev(1, 7)).unwrap();
        mknodat(CWD, root.join("fifo"), FileType::Fifo, bits, 0).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::set_permissions(root.join("dir"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        std::fs::hard_link(&program, root.join("second")).unwrap();
        first = all(root);
    })
    .await;
    s.layer("app", "base", |root| write(root.join("other"), "x")).await;
    let mounts = s.client.prepare("c", "app", kept()).await.unwrap();
    mounted(&mounts, |root| {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(all(root), first);
        let ino = |n: &str| root.join(n).metadata().unwrap().ino();
        assert_eq!(ino("program"), ino("second"));
    });
}
