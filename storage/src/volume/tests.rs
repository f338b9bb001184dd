//! Volumes on a directory of their own.

use super::*;

fn volumes() -> (tempfile::TempDir, Volumes) {
    let tmp = tempfile::tempdir().unwrap();
    let trash = Trash::open(tmp.path().join("trash")).unwrap();
    let volumes = Volumes::open(tmp.path(), trash).unwrap();
    (tmp, volumes)
}

fn wish<'a>(name: &'a str, user: &'a str) -> Wish<'a> {
    Wish { name, user, ..Wish::default() }
}

#[test]
fn a_volume_in_use_is_kept() {
    let (_tmp, volumes) = volumes();
    volumes.create("data", BTreeMap::new(), BTreeMap::new()).unwrap();
    let fill = |dir: &Path| std::fs::write(dir.join("from-image"), "x").map(|()| true);
    volumes.acquire(wish("data", "c1"), fill).unwrap();
    volumes.acquire(wish("data", "c1"), |_| panic!("filled twice")).unwrap();
    assert!(matches!(volumes.remove("data", true), Err(VolumeError::InUse { .. })));
    assert_eq!(volumes.release("c1", true).unwrap(), Vec::<String>::new());
    assert!(volumes.data("data").join("from-image").exists());
    volumes.remove("data", false).unwrap();
    assert!(matches!(volumes.get("data"), Err(VolumeError::Unknown(_))));
    volumes.remove("data", true).unwrap();
}

#[test]
fn an_anonymous_volume_goes_with_its_last_user() {
    let (_tmp, volumes) = volumes();
    let made = volumes.acquire(wish("", "c1"), |_| Ok(false)).unwrap();
    assert!(made.anonymous && made.name.len() == 64);
    assert_eq!(volumes.release("c1", true).unwrap(), [made.name]);
    assert!(volumes.list().unwrap().is_empty());
}

#[test]
fn names_cannot_leave_the_directory() {
    let (_tmp, volumes) = volumes();
    for bad in ["../x", "a/b", ".new-x", "."] {
        assert!(volumes.create(bad, BTreeMap::new(), BTreeMap::new()).is_err(), "{bad}");
        assert!(volumes.get(bad).is_err(), "{bad}");
    }
    assert!(volumes.acquire(wish("ok", "../evil"), |_| Ok(false)).is_err());
}

#[test]
fn an_anonymous_volume_outlives_a_torn_record_and_a_named_one_says_so() {
    let (_tmp, volumes) = volumes();
    let name = volumes.acquire(wish("", "c1"), |_| Ok(false)).unwrap().name;
    std::fs::write(volumes.data(&name).join("kept"), "x").unwrap();
    volumes.create("named", BTreeMap::new(), BTreeMap::new()).unwrap();
    for volume in [name.as_str(), "named"] {
        std::fs::write(volumes.dir.join(volume).join("volume.json"), "").unwrap();
    }
    let again = volumes.get(&name).unwrap();
    assert!(again.anonymous && again.users == ["c1"] && again.created_unix_ns > 0);
    std::fs::remove_file(volumes.dir.join(&name).join("volume.json")).unwrap();
    assert_eq!(volumes.list().unwrap().len(), 1);
    assert!(matches!(volumes.get("named"), Err(VolumeError::Record { .. })));
}

#[test]
fn content_is_there_whole_or_not_at_all() {
    let (tmp, volumes) = volumes();
    let torn = |dir: &Path| {
        std::fs::write(dir.join("half"), "x")?;
        Err(std::io::Error::other("the disk is full"))
    };
    assert!(matches!(volumes.acquire(wish("v", "c1"), torn), Err(VolumeError::Copy { .. })));
    assert_eq!(std::fs::read_dir(volumes.data("v")).unwrap().count(), 0);
    assert!(volumes.get("v").unwrap().users.is_empty());
    // A crash while it grew.
    std::fs::create_dir(tmp.path().join("volumes/v/.fill-0")).unwrap();
    let volumes = Volumes::open(tmp.path(), Trash::open(tmp.path().join("trash")).unwrap()).unwrap();
    assert!(!tmp.path().join("volumes/v/.fill-0").exists());
    let fill = |dir: &Path| std::fs::write(dir.join("whole"), "x").map(|()| true);
    volumes.acquire(wish("v", "c1"), fill).unwrap();
    assert!(volumes.data("v").join("whole").exists());
}

#[test]
fn unused_anonymous_volumes_are_pruned_and_named_ones_only_with_all() {
    let (_tmp, volumes) = volumes();
    let keep = BTreeMap::from([("keep".to_owned(), String::new())]);
    volumes.create("named", keep, BTreeMap::new()).unwrap();
    let used = volumes.acquire(wish("", "c1"), |_| Ok(false)).unwrap().name;
    let unused = volumes.create("", BTreeMap::new(), BTreeMap::new()).unwrap().name;
    std::fs::write(volumes.data(&unused).join("f"), [0; 10]).unwrap();
    let none = Filters::default();
    assert_eq!(volumes.prune(false, &none).unwrap(), (vec![unused], 10));
    let kept = Filters::new([("label!".to_owned(), "keep".to_owned())]);
    assert!(volumes.prune(true, &kept).unwrap().0.is_empty());
    assert_eq!(volumes.prune(true, &none).unwrap().0, ["named"]);
    assert_eq!(volumes.list().unwrap()[0].name, used);
    assert!(volumes.prune(true, &Filters::new([("name".to_owned(), String::new())])).is_err());
}

#[test]
fn a_part_of_a_volume_is_in_it_and_no_link() {
    let (_tmp, volumes) = volumes();
    let record = volumes.create("v", BTreeMap::new(), BTreeMap::new()).unwrap();
    let data = volumes.data("v");
    std::fs::create_dir_all(data.join("a/b")).unwrap();
    std::os::unix::fs::symlink("/etc", data.join("out")).unwrap();
    std::os::unix::fs::symlink("a", data.join("in")).unwrap();
    let part = volumes.mount(&record, "a/b").unwrap();
    assert_eq!((part.source, part.options[1].as_str()), (data, "X-davit.subpath=a/b"));
    for bad in ["out", "out/passwd", "in/b", "../v/_data/a", "/etc", "absent", "a/../../volume.json"] {
        assert!(matches!(volumes.mount(&record, bad), Err(VolumeError::Subpath { .. })), "{bad}");
    }
}
