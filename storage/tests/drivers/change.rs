//! Another driver than before, one that is away, and one that cannot be used.

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use super::containerd::Containerd;
use super::host::Host;
use super::image::{Layer, archive};
use super::subject::{Driver, proxy};
use super::tree::{mounted, names, read};

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
    assert!(said.contains("'zfs' is unknown; there are overlay, copy and proxy"), "{said}");
    let said = refused("driver = \"fuse\"");
    assert!(said.contains("fuse: it is not in this version of davit"), "{said}");
    let said = refused("driver = \"proxy\"\n[proxy]\naddress = \"/nowhere/containerd.sock\"");
    assert!(said.contains("the snapshotter at /nowhere/containerd.sock does not answer"), "{said}");
    let containerd = Containerd::start(None).await;
    let said = refused(&proxy(&containerd.socket(), "no-such"));
    assert!(said.contains("no-such") && said.contains("not loaded"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_filled_from_the_image_whatever_the_driver() {
    for subject in [Driver::local("copy").await, Driver::of_containerd("overlayfs").await] {
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
