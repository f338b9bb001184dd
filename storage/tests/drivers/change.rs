//! Another driver than before, one that is away, and one that cannot be used.

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use super::containerd::Containerd;
use super::host::Host;
use super::image::{Layer, archive};
use super::subject::{Driver, proxy};
use super::tree::{mounted, names, read};

/// What a container may do to its image's files; the shell runs in the root.
const DOES: &str = "echo new > new; echo more >> a; rm b; rm -r opaque; mkdir opaque; echo above > opaque/above
    chmod 2755 merged; chown 5:6 merged/f; echo x > merged/mine; ln linked again; ln -s nowhere link; mkfifo fifo
    setfattr -n user.davit -v kept again; mkdir -p made/deep; mv merged/g made/deep/g; touch -hd '2001-02-03 04:05:06.789' link
    rm -r whole; echo file > whole; mv new moved; mknod null c 1 3; truncate -s 1M sparse
    find . ! -type d -newermt 2021-01-01 -exec touch -hd '2002-03-04 05:06:07.8' {} +";

/// All that can be seen of a tree but the times of directories, which listing and copying up may change.
fn seen(root: &std::path::Path) -> Vec<String> {
    let script = "find . -mindepth 1 -printf '%p %y %m %U:%G %s %n %l' \\( -type d -printf '\n' -o -printf ' %t\n' \\) | sed 's/^\\(.* d [0-9]* [0-9:]* \\)[0-9]* [0-9]*/\\1/' | sort
        find . -type f | sort | xargs sha256sum; getfattr -R -d -m user.davit . | sort; ls -i linked again | awk '{print $1}' | uniq | wc -l";
    let out = std::process::Command::new("sh").args(["-ec", script]).current_dir(root).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlay_and_fuse_mount_what_the_other_made() {
    let mut subject = Driver::local("copy").await;
    let low =
        Layer::new().file("a", "1").file("b", "2").dir("opaque").file("opaque/below", "3").dir("merged");
    let low = low.file("merged/f", "4").file("merged/g", "5").file("linked", "6");
    let top = Layer::new().dir("whole").file("whole/x", "7").dir("merged").file("merged/h", "8");
    subject.host.load_bytes(archive("app:1", vec![low, top])).await.unwrap();
    let does = |root: &std::path::Path, script: &str| {
        let out = std::process::Command::new("sh").args(["-ec", script]).current_dir(root).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        seen(root)
    };
    // What a plain copy of the image becomes by it.
    let plain = subject.host.prepare("plain", "app:1").await.unwrap();
    let expected = mounted(&plain.mounts, |root| does(root, DOES));
    let more = "rm opaque/above moved; echo below > opaque/below; rm whole; mkdir whole; echo y > whole/y; mv made merged/made
        find . ! -type d -newermt 2021-01-01 -exec touch -hd '2003-03-04 05:06:07.8' {} +";
    let expected_more = mounted(&plain.mounts, |root| does(root, more));
    for (writer, reader) in [("overlay", "fuse"), ("fuse", "overlay")] {
        let config = |driver: &str| format!("driver = \"{driver}\"");
        let key = format!("by-{writer}");
        subject.host.kill();
        subject.host.configure(&config(writer));
        subject.host.start().await;
        let prepared = subject.host.prepare(&key, "app:1").await.unwrap();
        assert_eq!(prepared.driver, writer);
        let first = mounted(&prepared.mounts, |root| does(root, DOES));
        assert_eq!(first, expected, "{writer}");
        for (driver, script, expected) in [(reader, more, &expected_more), (writer, "true", &expected_more)] {
            subject.host.kill();
            subject.host.configure(&config(driver));
            subject.host.start().await;
            let prepared = subject.host.prepare(&key, "app:1").await.unwrap();
            assert_eq!(prepared.driver, driver);
            if driver == reader {
                mounted(&prepared.mounts, |root| assert_eq!(seen(root), first, "{driver} reads {writer}"));
            }
            mounted(&prepared.mounts, |root| {
                assert_eq!(&does(root, script), expected, "{driver} on {writer}");
            });
        }
    }
}

async fn load_app(host: &Host) {
    let layers = vec![Layer::new().file("a", "1"), Layer::new().file("b", "2")];
    host.load_bytes(archive("app:1", layers)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_remembers_the_driver_that_made_it() {
    let mut subject = Driver::of_containerd("native").await;
    load_app(&subject.host).await;
    let address = subject.containerd.as_ref().unwrap().socket();
    let proxied = proxy(&address, "native");
    for (driver, config) in
        [("proxy", proxied.as_str()), ("copy", "driver = \"copy\""), ("overlay", "driver = \"overlay\"")]
    {
        subject.host.kill();
        subject.host.configure(config);
        subject.host.start().await;
        let prepared = subject.host.prepare(driver, "app:1").await.unwrap();
        assert_eq!(prepared.driver, driver);
        mounted(&prepared.mounts, |root| std::fs::write(root.join("by"), driver).unwrap());
    }
    for driver in ["proxy", "copy", "overlay"] {
        let prepared = subject.host.prepare(driver, "app:1").await.unwrap();
        assert_eq!(prepared.driver, driver);
        mounted(&prepared.mounts, |root| {
            assert_eq!(names(root.to_owned()), ["a", "b", "by"]);
            assert_eq!(read(root.join("by")), driver);
        });
        let request = pb::RemoveSnapshotRequest { key: driver.into() };
        subject.host.snapshots().remove(request).await.unwrap();
    }
    assert_eq!(subject.host.names("snapshots"), Vec::<String>::new());
    let keys = subject.behind().await.into_iter().filter(|i| i.name.starts_with("davit-")).count();
    assert_eq!(keys, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshotter_that_is_away_is_named_and_found_again() {
    let mut subject = Driver::of_containerd("overlayfs").await;
    load_app(&subject.host).await;
    subject.host.prepare("before", "app:1").await.unwrap();
    subject.containerd.as_mut().unwrap().kill();
    let error = subject.host.prepare("meanwhile", "app:1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("containerd.sock does not answer"), "{error}");
    assert!(!error.hint().is_empty());
    assert_eq!(subject.host.names("snapshots"), ["before"]);
    subject.containerd.as_mut().unwrap().restart().await;
    let before = subject.host.prepare("before", "app:1").await.unwrap();
    mounted(&before.mounts, |root| assert_eq!(names(root.to_owned()), ["a", "b"]));
    subject.host.prepare("meanwhile", "app:1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_program_is_waited_for_is_not_lost() {
    // It comes back while a call waits for it.
    let mut subject = Driver::of_containerd("native").await;
    load_app(&subject.host).await;
    subject.containerd.as_mut().unwrap().kill();
    let mut containerd = subject.containerd.take().unwrap();
    let (restarted, prepared) = tokio::join!(containerd.restart(), subject.host.prepare("c", "app:1"));
    let () = restarted;
    mounted(&prepared.unwrap().mounts, |root| assert_eq!(names(root.to_owned()), ["a", "b"]));
}

fn refused(config: &str) -> String {
    let tmp = tempfile::tempdir().unwrap();
    let dir = |name: &str| tmp.path().join(name);
    std::fs::create_dir(dir("config")).unwrap();
    std::fs::write(dir("config").join("storaged.toml"), config).unwrap();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_davit-storaged"))
        .env("DAVIT_STATE_DIR", dir("state"))
        .env("DAVIT_RUN_DIR", dir("run"))
        .env("DAVIT_CONFIG_DIR", dir("config"))
        .output()
        .unwrap();
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    text.lines().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_cannot_be_used_ends_the_start_with_its_reason() {
    let said = refused("driver = \"zfs\"");
    assert!(said.contains("'zfs' is unknown; there are overlay, fuse, copy and proxy"), "{said}");
    let said = refused("driver = \"fuse\"\n[fuse]\nprogram = \"/absent/cowfs\"");
    assert!(said.contains("fuse: cannot run /absent/cowfs: No such file"), "{said}");
    let said = refused("driver = \"fuse\"\n[fuse]\nprogram = \"/bin/false\"");
    assert!(said.contains("fuse: /bin/false did not mount: it ended with exit status: 1"), "{said}");
    let said = refused("driver = \"proxy\"\n[proxy]\naddress = \"/nowhere/containerd.sock\"");
    assert!(said.contains("the snapshotter at /nowhere/containerd.sock does not answer"), "{said}");
    let containerd = Containerd::start(None).await;
    let said = refused(&proxy(&containerd.socket(), "no-such"));
    assert!(said.contains("no-such") && said.contains("not loaded"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_filled_from_the_image_whatever_the_driver() {
    for subject in
        [Driver::local("fuse").await, Driver::local("copy").await, Driver::of_containerd("overlayfs").await]
    {
        let layers = vec![Layer::new().dir("data").file("data/a", "1"), Layer::new().file("data/b", "2")];
        subject.host.load_bytes(archive("app:1", layers)).await.unwrap();
        subject.host.prepare("c", "app:1").await.unwrap();
        let request = pb::AcquireVolumeRequest {
            name: "v".into(),
            user: "c".into(),
            snapshot_key: "c".into(),
            image_path: "/data".into(),
            ..Default::default()
        };
        let volume = subject.host.volumes().acquire(request).await.unwrap().into_inner().volume.unwrap();
        assert_eq!(names(volume.mountpoint.into()), ["a", "b"]);
    }
}
