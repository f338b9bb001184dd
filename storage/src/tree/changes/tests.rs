//! Real overlay mounts that are changed as containers change them; what is told, and what a layer of it gives.

use std::os::fd::AsFd;
use std::process::Command;

use super::*;
use crate::snapshot::driver::Mount;
use crate::tarball::TarReader;
use crate::tree::archive::tests::listing;
use crate::tree::place::Access;
use crate::tree::{Chunks, write_layer};
use crate::unpack::{Limits, Options, unpack};

/// Two layers of an image and a container's directories.
struct Fixture {
    tmp: tempfile::TempDir,
    extra: Vec<String>,
    copied: bool,
}

fn sh(dir: &Path, script: &str) {
    let out = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
}

const IMAGE: &str = "mkdir low/etc low/etc/sub low/dir low/dir/inner low/moved low/gone low/keep low/type
    echo 1 > low/etc/passwd; echo 2 > low/etc/group; echo 3 > low/etc/sub/x; echo 4 > low/dir/a; echo 5 > low/dir/inner/b
    echo 6 > low/moved/m1; echo 7 > low/moved/m2; echo 8 > low/gone/g; echo 9 > low/keep/k; echo 10 > low/type/t
    echo 11 > low/linked; ln low/linked low/linked2; mkdir top/dir; echo 12 > top/dir/c; echo 13 > top/dir/a
    find low top -exec touch -hd '2020-01-02 03:04:05.678' {} +";

impl Fixture {
    fn new(extra: &[&str], copied: bool) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        sh(tmp.path(), "mkdir low top fs work at");
        sh(tmp.path(), IMAGE);
        let me = Self { tmp, extra: extra.iter().map(ToString::to_string).collect(), copied };
        if copied {
            sh(me.path(), "cp -a low/. fs; cp -a top/. fs; touch -r top fs; sleep 0.02; echo > made");
        }
        me
    }

    fn path(&self) -> &Path {
        self.tmp.path()
    }

    fn overlay(&self, lower: &[&str], upper: bool) -> Mount {
        let mut options: Vec<String> =
            lower.iter().map(|l| format!("lowerdir+={}", self.path().join(l).display())).collect();
        if upper {
            options.push(format!("upperdir={}", self.path().join("fs").display()));
            options.push(format!("workdir={}", self.path().join("work").display()));
        }
        options.extend(self.extra.clone());
        Mount { kind: "overlay".into(), source: "overlay".into(), options, server: None }
    }

    fn tree(&self) -> Tree {
        let mount = if self.copied {
            let source = self.path().join("fs").display().to_string();
            Mount { kind: "bind".into(), source, options: vec!["rbind".into()], server: None }
        } else {
            self.overlay(&["top", "low"], true)
        };
        Tree {
            key: "test".into(),
            at: self.path().join("at"),
            mounts: vec![mount],
            binds: Vec::new(),
            read_only: false,
            process: None,
        }
    }

    fn image(&self) -> Image {
        Image {
            layers: vec![self.path().join("top"), self.path().join("low")],
            namespace: Namespace::Trusted,
            made_before: Some(self.path().join("made")),
        }
    }

    /// What a container does.
    fn does(&self, script: &'static str) {
        let at = self.path().join("at");
        self.tree()
            .enter(Access::Write, move |_| {
                sh(&at, script);
                Ok(())
            })
            .unwrap();
    }

    fn told(&self) -> Vec<String> {
        let letter = |change| match change {
            Change::Modified => 'C',
            Change::Added => 'A',
            Change::Deleted => 'D',
        };
        let changes = changes(&self.tree(), &self.image()).unwrap();
        changes.iter().map(|(c, p)| format!("{} {}", letter(*c), String::from_utf8_lossy(p))).collect()
    }

    /// Commits the changes to a layer and asserts that the image with it is what the container has.
    fn commits_to_the_same(&self) -> Vec<String> {
        let (sender, pieces) = std::sync::mpsc::channel();
        let out = Chunks::new(move |piece: Vec<u8>| sender.send(piece).is_ok());
        write_layer(&self.tree(), &self.image(), out).unwrap();
        let tar: Vec<u8> = pieces.iter().flatten().collect();
        let mut names = Vec::new();
        let mut reader = TarReader::new(tar.as_slice());
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        sh(self.path(), "mkdir new at2");
        let new = davit_sys::beneath::open_root(&self.path().join("new")).unwrap();
        let options = Options {
            namespace: Namespace::Trusted,
            rootless: false,
            whiteouts: true,
            limits: Limits::default(),
        };
        unpack(&mut TarReader::new(tar.as_slice()), new.as_fd(), &options, &mut crate::ledger::Unrecorded)
            .unwrap();
        let container = self.tree();
        let mut image = self.tree();
        image.at = self.path().join("at2");
        image.mounts = vec![self.overlay(&["new", "top", "low"], false)];
        let list = |tree: Tree| {
            let at = tree.at.clone();
            tree.enter(Access::Snapshot, move |_| Ok(listing(&at))).unwrap()
        };
        let without_root = |mut lines: Vec<String>| lines.split_off(1);
        assert_eq!(without_root(list(image)), without_root(list(container)), "members: {names:?}");
        names
    }
}

const CHANGES: &str = "echo new > etc/new; rm etc/group; echo changed > etc/passwd; rm -r gone; mkdir -p fresh/sub
    ln -s passwd etc/link; rm -r dir; mkdir dir; echo again > dir/a; echo only > dir/only
    rm -r type; echo file > type; chmod 700 keep; echo x >> linked; mknod fresh/null c 1 3; mkfifo fresh/fifo";

const TOLD: [&str; 21] = [
    "C /dir",
    "C /dir/a",
    "D /dir/c",
    "D /dir/inner",
    "A /dir/only",
    "C /etc",
    "D /etc/group",
    "A /etc/link",
    "A /etc/new",
    "C /etc/passwd",
    "A /fresh",
    "A /fresh/fifo",
    "A /fresh/null",
    "A /fresh/sub",
    "D /gone",
    "C /keep",
    "C /linked",
    "C /type",
    "",
    "",
    "",
];

fn expected() -> Vec<&'static str> {
    TOLD.into_iter().filter(|l| !l.is_empty()).collect()
}

#[test]
fn changes_are_told_as_docker_tells_them_and_commit_gives_the_same_tree() {
    let fixture = Fixture::new(&[], false);
    assert_eq!(fixture.told(), Vec::<String>::new());
    fixture.does(CHANGES);
    assert_eq!(fixture.told(), expected());
    let names = fixture.commits_to_the_same();
    for name in ["./", ".wh.gone", "etc/.wh.group", "dir/.wh..wh..opq", "dir/only", "fresh/null"] {
        assert!(names.contains(&name.to_owned()), "no {name} in {names:?}");
    }
    assert!(!names.iter().any(|n| n.starts_with("moved") || n == "etc/sub/x"), "{names:?}");
}

#[test]
fn a_copied_tree_has_the_same_changes() {
    let fixture = Fixture::new(&[], true);
    assert_eq!(fixture.told(), Vec::<String>::new());
    fixture.does(CHANGES);
    // The other name of a file that was not broken up by a copy has changed with it.
    let mut wanted = expected();
    wanted.insert(17, "C /linked2");
    assert_eq!(fixture.told(), wanted);
    let names = fixture.commits_to_the_same();
    assert!(!names.iter().any(|n| n.starts_with("moved") || n.starts_with("etc/sub")), "{names:?}");
}

#[test]
fn a_change_that_hides_behind_size_and_time_is_committed_from_a_copied_tree() {
    let fixture = Fixture::new(&[], true);
    fixture.does("echo X > etc/sub/x; touch -hd '2020-01-02 03:04:05.678' etc/sub/x etc/sub");
    let names = fixture.commits_to_the_same();
    assert!(names.contains(&"etc/sub/x".to_owned()), "{names:?}");
}

#[test]
fn renamed_directories_and_metadata_only_copies_come_out_right() {
    let fixture = Fixture::new(&["redirect_dir=on", "metacopy=on"], false);
    fixture.does("mv moved elsewhere; chown 5:6 etc/passwd; rm -r gone; mv keep gone; echo more > gone/more");
    assert_eq!(
        fixture.told(),
        [
            "A /elsewhere",
            "A /elsewhere/m1",
            "A /elsewhere/m2",
            "C /etc",
            "C /etc/passwd",
            "C /gone",
            "D /gone/g",
            "A /gone/k",
            "A /gone/more",
            "D /keep",
            "D /moved"
        ]
    );
    let names = fixture.commits_to_the_same();
    assert!(names.contains(&"gone/.wh..wh..opq".to_owned()), "{names:?}");
}

#[test]
fn places_that_the_engine_makes_are_no_changes_unless_something_is_in_them() {
    let fixture = Fixture::new(&[], false);
    fixture.does("mkdir -p dev/pts proc sys; : > etc/hosts; : > .dockerenv");
    assert_eq!(fixture.told(), Vec::<String>::new());
    assert_eq!(fixture.commits_to_the_same_but_for_places(), Vec::<String>::new());
    fixture.does("echo x > dev/mine; echo 1.2.3.4 a > etc/hosts");
    assert_eq!(fixture.told(), ["A /dev", "A /dev/mine", "C /etc", "A /etc/hosts"]);
}

#[test]
fn a_name_that_means_a_deletion_is_left_out() {
    let fixture = Fixture::new(&[], false);
    fixture.does("echo x > etc/.wh.passwd; mkdir .wh.keep; echo y > .wh.keep/file; echo z > etc/plain");
    let names = fixture.commits_to_the_same_but_for_places();
    assert_eq!(names, ["./", "etc/", "etc/plain"]);
}

#[test]
fn a_running_change_of_the_root_is_kept() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new(&[], false);
    fixture.does("chmod 1777 .; echo x > file");
    assert_eq!(fixture.told(), ["A /file"]);
    assert_eq!(fixture.commits_to_the_same_but_for_places(), ["./", "file"]);
    assert_eq!(fixture.path().join("new").metadata().unwrap().mode() & 0o7777, 0o1777);
}

impl Fixture {
    /// The names of the members alone; the layer is unpacked to `new`.
    fn commits_to_the_same_but_for_places(&self) -> Vec<String> {
        let (sender, pieces) = std::sync::mpsc::channel();
        let out = Chunks::new(move |piece: Vec<u8>| sender.send(piece).is_ok());
        write_layer(&self.tree(), &self.image(), out).unwrap();
        let tar: Vec<u8> = pieces.iter().flatten().collect();
        let new = self.path().join("new");
        std::fs::create_dir(&new).unwrap();
        let dir = davit_sys::beneath::open_root(&new).unwrap();
        let options = Options {
            namespace: Namespace::Trusted,
            rootless: false,
            whiteouts: true,
            limits: Limits::default(),
        };
        let mut names = Vec::new();
        let mut reader = TarReader::new(tar.as_slice());
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        unpack(&mut TarReader::new(tar.as_slice()), dir.as_fd(), &options, &mut crate::ledger::Unrecorded)
            .unwrap();
        names
    }
}
