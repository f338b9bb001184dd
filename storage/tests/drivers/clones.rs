//! A snapshot that begins as another one, whichever driver made both.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use super::contract::{keys_behind, load, remove, usage};
use super::host::sh;
use super::image::Layer;
use super::subject::Driver;
use super::tree::{acl, facts, mounted, names, read, xattr};

/// Everything that a container may have done to its files.
const CHANGES: &str = r#"set -e
cd "$ROOT"
rm gone; rm -r dir-gone; rm -r opaque; mkdir opaque; echo above > opaque/above
rm becomes-dir; mkdir becomes-dir; echo inner > becomes-dir/inner
rm -r becomes-file; echo file > becomes-file
echo changed > changed; chmod 4750 changed; chown 7:42 changed
echo same > links-a; ln links-a links-b; mkdir sub; ln links-a sub/links-c
ln -s /nowhere link; mkfifo -m 620 fifo; mknod -m 640 null c 1 7
truncate -s 40M sparse; printf end | dd of=sparse bs=1 seek=41943040 conv=notrunc status=none
head -c 300000 /dev/zero | tr '\0' m > large
touch -h -d '2020-02-03 04:05:06.123456789' link changed sparse sub merged
"#;

fn image() -> Vec<Layer> {
    vec![
        Layer::new()
            .file("gone", "1")
            .dir("dir-gone")
            .file("dir-gone/f", "1")
            .dir("opaque")
            .file("opaque/below", "1")
            .dir("merged")
            .file("merged/below", "1")
            .file("becomes-dir", "1")
            .dir("becomes-file")
            .file("becomes-file/f", "1")
            .file("changed", "1")
            .file("heavy", &"x".repeat(2_000_000)),
    ]
}

async fn fork(
    subject: &Driver,
    key: &str,
    source: &str,
) -> Result<pb::PrepareResponse, davit_contracts::Error> {
    let labels = [("davit.owner".to_owned(), "tests".to_owned())].into();
    let request = pb::ForkRequest { key: key.into(), source: source.into(), labels, ..Default::default() };
    Ok(subject.host.snapshots().fork(request).await?.into_inner())
}

fn change(root: &Path) {
    sh(&format!("ROOT='{}'\n{CHANGES}", root.display()));
    let file = std::fs::File::open(root.join("changed")).unwrap();
    rustix::fs::fsetxattr(&file, "user.davit", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::fsetxattr(&file, "system.posix_acl_access", &acl(), rustix::fs::XattrFlags::empty()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
}

/// Every name with what it is; of the top, whatever else.
fn all(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for name in names(dir.clone()) {
            let path = dir.join(name);
            let meta = path.symlink_metadata().unwrap();
            let content =
                if meta.is_file() { sh(&format!("cksum < '{}'", path.display())) } else { String::new() };
            let shown = path.strip_prefix(root).unwrap().display();
            found.push(format!(
                "{shown}: {} {} {content}",
                facts(&path),
                if meta.is_dir() { 0 } else { meta.nlink() }
            ));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}

pub async fn a_clone_begins_as_its_source_and_goes_its_own_way(mut subject: Driver) {
    load(&subject, "app:1", image()).await;
    let source = subject.host.prepare("source", "app:1").await.unwrap();
    let before = mounted(&source.mounts, |root| {
        change(root);
        all(root)
    });
    assert!(before.iter().any(|l| l.starts_with("socket:")) && before.len() >= 18, "{before:#?}");

    let clone = fork(&subject, "clone", "source").await.unwrap();
    assert_eq!((clone.image_id.as_str(), clone.driver.as_str()), (source.image_id.as_str(), subject.name));
    assert_eq!(clone.reference, "app:1");
    mounted(&clone.mounts, |root| {
        assert_eq!(all(root), before);
        assert!(root.join("sparse").metadata().unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
        assert_eq!(xattr(&root.join("changed"), "user.davit"), Some(b"kept".to_vec()));
        assert_eq!(names(root.join("opaque")), ["above"]);
        assert_eq!(names(root.join("merged")), ["below"]);
        // Names of one file are names of one file here, too.
        std::fs::write(root.join("links-b"), "mine").unwrap();
        assert_eq!(read(root.join("sub/links-c")), "mine");
        std::fs::write(root.join("large"), "mine").unwrap();
        std::fs::write(root.join("merged/below"), "mine").unwrap();
        std::fs::remove_file(root.join("heavy")).unwrap();
    });
    // Neither sees what the other does later.
    mounted(&source.mounts, |root| {
        assert_eq!(all(root), before);
        std::fs::write(root.join("later"), "l").unwrap();
        std::fs::remove_dir_all(root.join("opaque")).unwrap();
    });
    mounted(&clone.mounts, |root| {
        assert!(!root.join("later").exists() && root.join("opaque/above").exists());
    });
    // What is not whole is not there, and what is asked for again is.
    assert_eq!(fork(&subject, "clone", "source").await.unwrap().mounts, clone.mounts);
    assert_eq!(fork(&subject, "x", "nobody").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fork(&subject, "source", "clone").await.unwrap_err().kind(), Kind::AlreadyExists);
    assert_eq!(fork(&subject, "/x", "source").await.unwrap_err().kind(), Kind::InvalidArgument);
    let listed = subject.host.snapshots().list(pb::ListSnapshotsRequest {}).await.unwrap().into_inner();
    let labels = |key: &str| listed.snapshots.iter().find(|s| s.key == key).unwrap().labels.len();
    assert_eq!((labels("clone"), labels("source")), (1, 0));
    if subject.name == "overlay" || subject.name == "fuse" {
        let used = usage(&subject, "clone").await.unwrap();
        assert!(used.bytes < 1_000_000, "the image is not copied: {used:?}");
    }
    killed_meanwhile(&mut subject).await;
    // A clone of a clone, of one whose source has gone, after a restart.
    remove(&subject, "source").await;
    let again = fork(&subject, "again", "clone").await.unwrap();
    mounted(&again.mounts, |root| {
        assert_eq!((read(root.join("large")), root.join("heavy").exists()), ("mine".into(), false));
    });
    remove(&subject, "clone").await;
    remove(&subject, "again").await;
    assert_eq!(subject.host.names("snapshots"), Vec::<String>::new());
    assert_eq!(keys_behind(&subject).await, 0);
}

/// kill -9 once everything is copied, but has no name.
async fn killed_meanwhile(subject: &mut Driver) {
    subject.host.kill();
    subject.host.env = vec![("DAVIT_FAILPOINT".into(), "snapshot.copied:1".into())];
    subject.host.start().await;
    assert!(fork(subject, "killed", "source").await.is_err());
    subject.host.buried();
    subject.host.env.clear();
    subject.host.start().await;
    assert_eq!(subject.host.names("snapshots"), ["clone", "source"]);
    let began = std::time::Instant::now();
    while subject.behind.is_some() && keys_behind(subject).await != 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "left: {:?}", subject.behind().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
