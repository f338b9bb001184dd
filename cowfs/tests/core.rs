//! The file system without a mount: operations on inode numbers over directories on disk.

#![allow(clippy::unwrap_used)] // what cannot be had fails the test

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use davit_cowfs::{Attr, Caller, Change, Config, CowFs, Errno, Ino, Kind, ROOT, Redirect, RenameMode};
use proptest::prelude::*;

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };

struct Layers(tempfile::TempDir);

impl Layers {
    /// Lower layers (topmost first) with files named by paths, an empty upper and a work directory.
    fn new(lowers: &[&[(&str, &str)]]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (n, files) in lowers.iter().enumerate() {
            let lower = dir.path().join(format!("lower{n}"));
            std::fs::create_dir(&lower).unwrap();
            for (path, text) in *files {
                let path = lower.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
        }
        std::fs::create_dir(dir.path().join("upper")).unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> Config {
        let lowers = (0..9).map(|n| self.path(&format!("lower{n}"))).take_while(|p| p.exists()).collect();
        let mut config = Config::new(lowers);
        config.upper = Some(self.path("upper"));
        config.work = Some(self.path("work"));
        config.redirect = Redirect::On;
        config
    }

    fn open(&self) -> CowFs {
        CowFs::open(&self.config()).unwrap()
    }
}

/// Looks a path up, giving back every lookup but the last.
fn find(fs: &CowFs, path: &str) -> Result<Option<Attr>, Errno> {
    let mut at = ROOT;
    let mut attr = fs.getattr(ROOT)?;
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    for (n, part) in parts.iter().enumerate() {
        let next = fs.lookup(at, part.as_bytes());
        if n > 0 {
            fs.forget(at, 1);
        }
        let Some(found) = next? else { return Ok(None) };
        (at, attr) = (found.ino, found);
    }
    Ok(Some(attr))
}

fn text(fs: &CowFs, path: &str) -> String {
    let attr = find(fs, path).unwrap().unwrap_or_else(|| panic!("{path} is not there"));
    let mut buf = vec![0; attr.size as usize + 10];
    let n = fs.read(attr.ino, 0, &mut buf).unwrap();
    buf.truncate(n);
    fs.forget(attr.ino, 1);
    String::from_utf8(buf).unwrap()
}

fn names(fs: &CowFs, dir: Ino) -> Vec<String> {
    let mut all = Vec::new();
    fs.readdir(dir, 0, &mut |entry| {
        all.push(String::from_utf8_lossy(entry.name).into_owned());
        true
    })
    .unwrap();
    all.sort();
    all.into_iter().filter(|n| n != "." && n != "..").collect()
}

#[test]
fn layers_merge_and_the_upper_hides() {
    let layers =
        Layers::new(&[&[("d/top", "1"), ("f", "top")], &[("d/bottom", "2"), ("f", "bottom"), ("f2/x", "")]]);
    let fs = layers.open();
    assert_eq!(text(&fs, "f"), "top");
    assert_eq!((text(&fs, "d/top"), text(&fs, "d/bottom")), ("1".into(), "2".into()));
    let d = find(&fs, "d").unwrap().unwrap();
    assert_eq!((d.nlink, names(&fs, d.ino)), (1, vec!["bottom".to_owned(), "top".into()]));
    fs.unlink(d.ino, b"bottom").unwrap();
    assert_eq!(names(&fs, d.ino), ["top"]);
    assert!(std::fs::metadata(layers.path("upper/d/bottom")).unwrap().file_type().is_char_device());
    assert_eq!(fs.unlink(d.ino, b"bottom"), Err(Errno::NOENT));
    assert_eq!(fs.rmdir(ROOT, b"d"), Err(Errno::NOTEMPTY));
    fs.unlink(d.ino, b"top").unwrap();
    fs.rmdir(ROOT, b"d").unwrap();
    let again = fs.mkdir(ROOT, b"d", 0o755, &ME).unwrap();
    assert_eq!(names(&fs, again.ino), Vec::<String>::new(), "what was removed does not come back");
    fs.forget(again.ino, 1);
    fs.forget(d.ino, 1);
    assert_eq!(fs.known(), 1, "only the root is known");
}

/// A directory that is asked for many names knows which of its layers have them; a fresh file system asks them all.
#[test]
fn a_directory_that_is_asked_for_much_answers_as_one_that_is_not() {
    const LAYERS: usize = 70;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for n in 0..LAYERS {
        for at in ["d", "d/sub"] {
            std::fs::create_dir_all(path(&format!("{n}/{at}"))).unwrap();
            std::fs::write(path(&format!("{n}/{at}/only{n}")), format!("{n}")).unwrap();
            std::fs::write(path(&format!("{n}/{at}/shared{}", n / 9)), format!("{n}")).unwrap();
        }
        if n > 3 {
            let whiteout = path(&format!("{}/d/only{n}", n - 3));
            let device = rustix::fs::FileType::CharacterDevice;
            if n % 5 == 0 {
                rustix::fs::mknodat(rustix::fs::CWD, whiteout, device, rustix::fs::Mode::empty(), 0).unwrap();
            }
        }
    }
    for made in ["upper", "work"] {
        std::fs::create_dir(path(made)).unwrap();
    }
    let mut config = Config::new((0..LAYERS).map(|n| path(&n.to_string())).collect());
    config.upper = Some(path("upper"));
    config.work = Some(path("work"));
    let fs = CowFs::open(&config).unwrap();
    let kinds = ["d/only", "d/shared", "d/sub/only", "d/sub/shared", "d/none"];
    let all: Vec<String> =
        kinds.iter().flat_map(|kind| (0..LAYERS).step_by(4).map(move |n| format!("{kind}{n}"))).collect();
    let seen = |fs: &CowFs, name: &str| find(fs, name).unwrap().map(|a| (a.ino, text(fs, name)));
    let check = |fs: &CowFs| {
        for name in &all {
            let asked_once =
                seen(&CowFs::open(&Config { upper: None, work: None, ..config.clone() }).unwrap(), name);
            assert_eq!(seen(fs, name), asked_once, "{name}");
        }
    };
    check(&fs);
    assert_eq!(seen(&fs, "d/only68").unwrap().1, "68");
    assert_eq!(seen(&fs, "d/only65"), None, "hidden by a layer above");
    // Once it is in the upper too, what is below is where it was.
    let d = find(&fs, "d").unwrap().unwrap();
    fs.setattr(d.ino, &Change { mode: Some(0o700), ..Change::default() }).unwrap();
    check(&fs);
    fs.unlink(d.ino, b"only68").unwrap();
    assert_eq!(seen(&fs, "d/only68"), None);
    fs.mknod(d.ino, b"none1", 0o100_644, 0, &ME).unwrap();
    assert!(seen(&fs, "d/none1").is_some(), "the upper is always asked");
}

#[test]
fn a_file_keeps_its_number_and_its_lower_its_bytes() {
    let layers = Layers::new(&[&[("a/b/f", "before")]]);
    let before = std::fs::metadata(layers.path("lower0/a/b/f")).unwrap();
    let number = {
        let fs = layers.open();
        let attr = find(&fs, "a/b/f").unwrap().unwrap();
        assert_eq!(attr.ino, before.ino());
        assert_eq!(fs.write(attr.ino, 3, b"after", false).unwrap(), 5);
        assert_eq!(text(&fs, "a/b/f"), "befafter");
        assert_eq!(find(&fs, "a/b/f").unwrap().unwrap().ino, attr.ino);
        attr.ino
    };
    let fs = layers.open();
    assert_eq!(find(&fs, "a/b/f").unwrap().unwrap().ino, number, "after another start");
    let after = std::fs::metadata(layers.path("lower0/a/b/f")).unwrap();
    assert_eq!((after.mtime_nsec(), after.ctime_nsec()), (before.mtime_nsec(), before.ctime_nsec()));
    assert_eq!(std::fs::read_to_string(layers.path("lower0/a/b/f")).unwrap(), "before");
    assert!(!layers.path("lower0").join("a/b/g").exists());
}

#[test]
fn hard_links_of_a_lower_stay_one_file() {
    let layers = Layers::new(&[&[("one", "x")]]);
    std::fs::create_dir(layers.path("lower0/d")).unwrap();
    for name in ["two", "d/three"] {
        std::fs::hard_link(layers.path("lower0/one"), layers.path("lower0").join(name)).unwrap();
    }
    {
        let fs = layers.open();
        let one = find(&fs, "one").unwrap().unwrap();
        assert_eq!(one.nlink, 3);
        fs.write(one.ino, 0, b"changed", false).unwrap();
        assert_eq!((text(&fs, "two"), text(&fs, "d/three")), ("changed".into(), "changed".into()));
        fs.unlink(ROOT, b"two").unwrap();
        assert_eq!(fs.getattr(one.ino).unwrap().nlink, 2);
    }
    let fs = layers.open();
    let three = find(&fs, "d/three").unwrap().unwrap();
    assert_eq!((three.nlink, text(&fs, "d/three")), (2, "changed".into()), "after another start");
    let d = find(&fs, "d").unwrap().unwrap();
    fs.unlink(d.ino, b"three").unwrap();
    fs.unlink(ROOT, b"one").unwrap();
    assert_eq!(std::fs::read_dir(layers.path("work/index")).unwrap().count(), 0, "the index is left empty");
}

#[test]
fn a_file_without_a_name_can_still_be_changed() {
    let layers = Layers::new(&[&[("f", "lower")]]);
    let fs = layers.open();
    let attr = find(&fs, "f").unwrap().unwrap();
    fs.unlink(ROOT, b"f").unwrap();
    assert!(find(&fs, "f").unwrap().is_none());
    fs.write(attr.ino, 5, b"!", false).unwrap();
    let mut buf = [0; 10];
    assert_eq!(fs.read(attr.ino, 0, &mut buf).unwrap(), 6);
    assert_eq!(&buf[..6], b"lower!");
    assert_eq!(
        fs.setattr(attr.ino, &Change { mode: Some(0o600), ..Change::default() }).unwrap().mode & 0o777,
        0o600
    );
    fs.forget(attr.ino, 1);
    assert_eq!(fs.read(attr.ino, 0, &mut buf), Err(Errno::STALE));
    assert_eq!(names(&fs, ROOT), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(layers.path("lower0/f")).unwrap(), "lower");
}

/// Readers hold no lock of the VFS that a rename takes: the name that they are led by may become another file's at any moment.
#[test]
fn what_is_read_while_its_name_becomes_another_files_is_its_own() {
    let layers = Layers::new(&[&[]]);
    for n in 0..2000 {
        std::fs::write(layers.path(&format!("upper/old{n}")), "old").unwrap();
        std::fs::write(layers.path(&format!("upper/new{n}")), "the new one").unwrap();
    }
    let fs = layers.open();
    let read = |ino| {
        let mut buf = [0; 20];
        let len = fs.read(ino, 0, &mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    };
    for n in 0..2000 {
        let (old, new) = (format!("old{n}"), format!("new{n}"));
        let ino = find(&fs, &old).unwrap().unwrap().ino;
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                fs.rename((ROOT, new.as_bytes()), (ROOT, old.as_bytes()), RenameMode::Replace).unwrap();
            });
            start.wait();
            for _ in 0..=(n % 20) {
                assert_eq!(fs.getattr(ino).unwrap().size, 3, "{n}");
            }
            assert_eq!(read(ino), "old", "{n}");
        });
        assert_eq!(read(ino), "old", "{n}, afterwards");
        fs.forget(ino, 1);
    }
    assert_eq!(fs.known(), 1);
}

#[test]
fn a_renamed_directory_of_lowers_keeps_what_is_in_it() {
    let layers = Layers::new(&[&[("d/e/top", "1")], &[("d/e/bottom", "2"), ("d/g", "3")]]);
    {
        let fs = layers.open();
        let d = find(&fs, "d").unwrap().unwrap();
        fs.rename((d.ino, b"e"), (ROOT, b"moved"), RenameMode::Replace).unwrap();
        assert_eq!((text(&fs, "moved/top"), text(&fs, "moved/bottom")), ("1".into(), "2".into()));
        assert_eq!(names(&fs, d.ino), ["g"]);
        fs.rename((ROOT, b"d"), (ROOT, b"g"), RenameMode::NoReplace).unwrap();
        assert_eq!(text(&fs, "g/g"), "3");
    }
    let fs = layers.open();
    assert_eq!(
        (text(&fs, "moved/top"), text(&fs, "moved/bottom"), text(&fs, "g/g")),
        ("1".into(), "2".into(), "3".into())
    );
    let mut config = layers.config();
    config.redirect = Redirect::Follow;
    let fs = CowFs::open(&config).unwrap();
    assert_eq!(fs.rename((ROOT, b"moved"), (ROOT, b"x"), RenameMode::Replace), Err(Errno::XDEV));
}

/// As overlayfs does, a path that a redirect names is followed through the redirects that it meets on the way, one after the other.
#[test]
fn a_redirect_into_redirected_directories_is_followed() {
    let layers = Layers::new(&[&[("d/own", "")], &[("a/b/middle", "")], &[("x/c/deep", "")]]);
    let redirect = |dir: &str, to: &str| {
        let name = "trusted.overlay.redirect";
        rustix::fs::setxattr(layers.path(dir), name, to.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    };
    redirect("lower0/d", "/a/b");
    redirect("lower1/a", "/x");
    redirect("lower1/a/b", "c");
    let fs = layers.open();
    let d = find(&fs, "d").unwrap().unwrap().ino;
    assert_eq!(names(&fs, d), ["deep", "middle", "own"]);
}

#[test]
fn a_broken_file_does_not_hide_the_others() {
    let layers = Layers::new(&[&[("a", ""), ("c", "")], &[]]);
    std::fs::File::create(layers.path("lower0/b")).unwrap().set_len(4096).unwrap();
    let metacopy = "trusted.overlay.metacopy"; // its data is nowhere
    rustix::fs::setxattr(layers.path("lower0/b"), metacopy, b"", rustix::fs::XattrFlags::empty()).unwrap();
    let fs = layers.open();
    let mut seen = BTreeMap::new();
    fs.readdirplus(ROOT, 0, &mut |entry, attr| {
        seen.insert(String::from_utf8(entry.name.to_vec()).unwrap(), attr.ino != 0);
        true
    })
    .unwrap();
    assert_eq!((seen["a"], seen["b"], seen["c"]), (true, false, true));
}

#[test]
fn without_an_upper_nothing_changes() {
    let layers = Layers::new(&[&[("f", "x")]]);
    let fs = CowFs::open(&Config::new(vec![layers.path("lower0")])).unwrap();
    let f = find(&fs, "f").unwrap().unwrap();
    assert_eq!(fs.write(f.ino, 0, b"y", false), Err(Errno::ROFS));
    assert_eq!(fs.unlink(ROOT, b"f"), Err(Errno::ROFS));
    assert_eq!(fs.mknod(ROOT, b"g", 0o100_644, 0, &ME), Err(Errno::ROFS));
    assert_eq!(fs.mknod(ROOT, b"w", 0o020_000, 0, &ME), Err(Errno::PERM), "a device 0:0 would be a whiteout");
}

#[test]
fn what_cannot_be_opened_says_so() {
    let layers = Layers::new(&[&[("f", "x")]]);
    let mut config = layers.config();
    config.work = None;
    assert!(CowFs::open(&config).unwrap_err().to_string().contains("needs a work directory"));
    config.work = Some(layers.path("upper/inside"));
    std::fs::create_dir(layers.path("upper/inside")).unwrap();
    assert!(CowFs::open(&config).unwrap_err().to_string().contains("lies within"));
    config.work = Some(layers.path("work"));
    config.lowers.push(layers.path("upper"));
    assert!(CowFs::open(&config).unwrap_err().to_string().contains("lies within"));
    config.lowers.pop();
    config.work = Some("/proc/self".into());
    assert!(CowFs::open(&config).is_err());
    config.lowers = vec!["/nowhere".into()];
    assert_eq!(CowFs::open(&Config::new(config.lowers)).unwrap_err().to_string(), "cannot open /nowhere");
}

/// An operation on a few names in the root and two directories.
#[derive(Debug, Clone)]
enum Op {
    Write(usize, usize, u8),
    Make(usize, usize),
    Remove(usize, usize),
    Rename((usize, usize), (usize, usize)),
    Link((usize, usize), (usize, usize)),
    Reopen,
}

const DIRS: [&str; 3] = ["", "d", "e"];
const NAMES: [&str; 4] = ["f", "g", "h", "k"];

fn op() -> impl Strategy<Value = Op> {
    let place = || (0..DIRS.len(), 0..NAMES.len());
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|((d, n), b)| Op::Write(d, n, b)),
        2 => place().prop_map(|(d, n)| Op::Make(d, n)),
        3 => place().prop_map(|(d, n)| Op::Remove(d, n)),
        3 => (place(), place()).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => (place(), place()).prop_map(|(a, b)| Op::Link(a, b)),
        1 => Just(Op::Reopen),
    ]
}

/// What the tree should be: names, and the contents they lead to.
#[derive(Default)]
struct Model {
    names: BTreeMap<(usize, usize), usize>,
    files: Vec<Vec<u8>>,
}

impl Model {
    fn add(&mut self, at: (usize, usize), content: &[u8]) {
        self.files.push(content.to_vec());
        self.names.insert(at, self.files.len() - 1);
    }
}

fn apply(fs: &CowFs, dirs: &[Ino], model: &mut Model, op: &Op) -> Result<(), TestCaseError> {
    let dir = |d: usize| dirs[d];
    let name = |n: usize| NAMES[n].as_bytes();
    match op {
        Op::Write(d, n, byte) => {
            let found = fs.lookup(dir(*d), name(*n)).unwrap();
            prop_assert_eq!(found.is_some(), model.names.contains_key(&(*d, *n)));
            if let Some(attr) = found {
                fs.write(attr.ino, attr.size, &[*byte], false).unwrap();
                fs.forget(attr.ino, 1);
                model.files[model.names[&(*d, *n)]].push(*byte);
            }
        }
        Op::Make(d, n) => {
            let made = fs.mknod(dir(*d), name(*n), 0o100_644, 0, &ME);
            prop_assert_eq!(made.is_ok(), !model.names.contains_key(&(*d, *n)));
            if let Ok(attr) = made {
                fs.forget(attr.ino, 1);
                model.add((*d, *n), b"");
            }
        }
        Op::Remove(d, n) => {
            let removed = fs.unlink(dir(*d), name(*n));
            prop_assert_eq!(removed.is_ok(), model.names.remove(&(*d, *n)).is_some());
        }
        Op::Rename(a, b) => {
            let renamed = fs.rename((dir(a.0), name(a.1)), (dir(b.0), name(b.1)), RenameMode::Replace);
            prop_assert_eq!(renamed.is_ok(), model.names.contains_key(a));
            if renamed.is_ok() && a != b && model.names.get(a) != model.names.get(b) {
                let file = model.names.remove(a).unwrap();
                model.names.insert(*b, file);
            }
        }
        Op::Link(a, b) => {
            let Some(attr) = fs.lookup(dir(a.0), name(a.1)).unwrap() else { return Ok(()) };
            let linked = fs.link(attr.ino, dir(b.0), name(b.1));
            prop_assert_eq!(linked.is_ok(), !model.names.contains_key(b));
            if linked.is_ok() {
                fs.forget(attr.ino, 1);
                model.names.insert(*b, model.names[a]);
            }
            fs.forget(attr.ino, 1);
        }
        Op::Reopen => {}
    }
    Ok(())
}

fn check(fs: &CowFs, dirs: &[Ino], model: &Model) -> Result<(), TestCaseError> {
    for (d, dir) in dirs.iter().enumerate() {
        let mut seen = Vec::new();
        fs.readdirplus(*dir, 0, &mut |entry, attr| {
            if entry.name != b"." && entry.name != b".." {
                seen.push((String::from_utf8_lossy(entry.name).into_owned(), *attr, entry.ino));
            }
            true
        })
        .unwrap();
        for (_, attr, _) in &seen {
            fs.forget(attr.ino, 1);
        }
        let files: Vec<_> = seen.iter().filter(|(_, attr, _)| attr.kind() == Kind::Regular).collect();
        prop_assert_eq!(files.len(), model.names.keys().filter(|k| k.0 == d).count());
        for (name, attr, number) in files {
            let n = NAMES.iter().position(|x| x == name).unwrap();
            let file = model.names[&(d, n)];
            let links = model.names.values().filter(|f| **f == file).count();
            prop_assert_eq!((attr.nlink as usize, attr.ino), (links, *number), "{}/{}", DIRS[d], name);
            let mut buf = vec![0; attr.size as usize];
            let found = fs.lookup(*dir, name.as_bytes()).unwrap().unwrap();
            fs.read(found.ino, 0, &mut buf).unwrap();
            fs.forget(found.ino, 1);
            prop_assert_eq!(&buf, &model.files[file]);
        }
    }
    Ok(())
}

fn digest(dir: &Path) -> String {
    let out = std::process::Command::new("sh")
        .args(["-c", "find . -printf '%p %y %m %n %i %T@ %C@ ' -type f -exec cat {} +"])
        .current_dir(dir)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_is_what_one_directory_would_be(ops in prop::collection::vec(op(), 1..40)) {
        let layers = Layers::new(&[
            &[("f", "top"), ("d/f", "1"), ("d/g", "2"), ("e/h", "3")],
            &[("f", "hidden"), ("d/h", "4"), ("e/h", "hidden"), ("e/k", "5"), ("g", "6")],
        ]);
        std::fs::hard_link(layers.path("lower1/g"), layers.path("lower1/d/k")).unwrap();
        let lowers = [digest(&layers.path("lower0")), digest(&layers.path("lower1"))];
        let mut model = Model::default();
        for (at, content) in [((0, 0), "top"), ((1, 0), "1"), ((1, 1), "2"), ((2, 2), "3"), ((1, 2), "4"), ((2, 3), "5"), ((0, 1), "6")] {
            model.add(at, content.as_bytes());
        }
        let linked = model.names[&(0, 1)];
        model.names.insert((1, 3), linked);
        let mut fs = layers.open();
        let enter = |fs: &CowFs| DIRS.map(|d| find(fs, d).unwrap().unwrap()).map(|a| a.ino);
        let mut dirs = enter(&fs);
        dirs[0] = ROOT;
        for op in &ops {
            if matches!(op, Op::Reopen) {
                drop(fs);
                fs = layers.open();
                dirs = enter(&fs);
                dirs[0] = ROOT;
            }
            apply(&fs, &dirs, &mut model, op)?;
            check(&fs, &dirs, &model)?;
        }
        fs.forget(dirs[1], 1);
        fs.forget(dirs[2], 1);
        prop_assert_eq!(fs.known(), 1, "only the root is known");
        prop_assert_eq!([digest(&layers.path("lower0")), digest(&layers.path("lower1"))], lowers, "a lower layer has changed");
    }
}

/// The kernel asks again for a name that it knows without holding its directory.
#[test]
fn a_lookup_while_a_name_goes_leaves_the_file_where_it_is() {
    let layers = Layers::new(&[&[("d/f", "")]]);
    let fs = layers.open();
    let dir = find(&fs, "d").unwrap().unwrap().ino;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (fs, done) = (&fs, &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Some(found) = fs.lookup(dir, name.as_bytes()).unwrap() {
                        fs.forget(found.ino, 1);
                    }
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..1000 {
                let directory = round % 2 == 0;
                let made = if directory {
                    fs.mkdir(dir, b"a", 0o755, &ME)
                } else {
                    fs.mknod(dir, b"a", 0o100_644, 0, &ME)
                };
                let ino = made.unwrap().ino;
                fs.rename((dir, b"a"), (dir, b"b"), RenameMode::Replace).unwrap();
                let renamed = fs.getattr(ino).unwrap_or_else(|e| panic!("{e} after rename {round}"));
                if directory { fs.rmdir(dir, b"b") } else { fs.unlink(dir, b"b") }.unwrap();
                let gone = fs.getattr(ino).unwrap_or_else(|e| panic!("{e} after removal {round}"));
                assert_eq!((renamed.ino, gone.ino), (ino, ino));
                assert_eq!((renamed.mode, gone.nlink), (gone.mode, 0));
                fs.forget(ino, 1);
            }
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.unwrap();
    });
    fs.forget(dir, 1);
    assert_eq!(fs.known(), 1, "only the root is known");
}
