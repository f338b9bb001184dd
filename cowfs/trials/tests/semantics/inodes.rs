//! Which file is which.

use std::os::unix::fs::MetadataExt;

use davit_cowfs_trials::fs::{Fs, on_both, on_cowfs};
use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::tree::all_xattrs;
use davit_cowfs_trials::tree::{false_entry, snapshot};
use davit_cowfs_trials::userns;

const TREE: &str =
    "mkdir -p dir/sub; echo data > file; echo x > dir/sub/deep; ln -s file link; mkfifo fifo; echo r > moved";

const ALL: [&str; 7] = ["", "dir", "dir/sub", "dir/sub/deep", "file", "link", "fifo"];

fn numbers(fs: &Fs<'_>, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| fs.stat(name).st_ino).collect()
}

#[test]
fn inode_numbers_stay_over_copy_up_and_remount() {
    on_both(Manner::ROOT, TREE, |fs| stay(fs, &ALL));
}

#[test]
fn inode_numbers_stay_in_a_user_namespace() {
    // Links and pipes have no room for `user.` attributes, which is where it is noted what a file was copied from.
    userns::run("inodes::inode_numbers_stay_in_a_user_namespace", || {
        on_cowfs(Manner::USER, TREE, |fs| stay(fs, &ALL[..5]));
    });
}

fn stay(fs: &mut Fs<'_>, names: &[&str]) {
    let before = numbers(fs, names);
    fs.sh("echo more >> file; chmod 700 dir dir/sub; touch dir/sub/deep; chown -h 5:5 link fifo; mv moved dir/sub/");
    assert_eq!(numbers(fs, names), before, "over copy-up");
    let moved = fs.stat("dir/sub/moved").st_ino;
    fs.forget();
    assert_eq!(numbers(fs, names), before, "over forgetting");
    fs.remount();
    assert_eq!(numbers(fs, names), before, "over a remount");
    assert_eq!(fs.stat("dir/sub/moved").st_ino, moved);
}

#[test]
fn an_open_file_keeps_its_number_over_copy_up_by_another() {
    on_both(Manner::ROOT, TREE, |fs| {
        let open = std::fs::File::open(fs.path("file")).unwrap();
        let before = open.metadata().unwrap().ino();
        fs.sh("echo more >> file");
        assert_eq!(open.metadata().unwrap().ino(), before);
        assert_eq!(open.metadata().unwrap().len(), 10);
    });
}

#[test]
fn readdir_tells_the_numbers_that_stat_tells() {
    on_both(Manner::ROOT, TREE, |fs| {
        fs.sh("echo new > dir/new; mkdir dir/fresh");
        for step in ["true", "chmod 600 file dir/sub/deep", "mv dir/sub dir/other", "rm dir/new"] {
            fs.sh(step);
            assert_eq!(false_entry(&snapshot(&fs.path("")).unwrap(), |_| true), None, "after {step}");
        }
        fs.remount();
        assert_eq!(false_entry(&snapshot(&fs.path("")).unwrap(), |_| true), None, "after a remount");
    });
}

const LINKED: &str = "mkdir d; echo one > a; ln a d/b; ln a c";

#[test]
fn hard_links_are_kept_over_copy_up_and_remount() {
    on_both(Manner::ROOT, LINKED, links_stay);
}

#[test]
fn hard_links_are_kept_in_a_user_namespace() {
    let name = "inodes::hard_links_are_kept_in_a_user_namespace";
    userns::run(name, || on_cowfs(Manner::USER, LINKED, links_stay));
}

fn links_stay(fs: &mut Fs<'_>) {
    let same = |fs: &Fs<'_>, names: u64| {
        let all = ["a", "d/b", "c"].map(|n| (fs.stat(n).st_ino, fs.stat(n).st_nlink, fs.read(n)));
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        assert_eq!(all[0].1, names);
    };
    same(fs, 3);
    fs.sh("echo two >> a");
    same(fs, 3);
    fs.forget();
    same(fs, 3);
    fs.sh("echo three >> d/b; chmod 640 c");
    same(fs, 3);
    fs.remount();
    same(fs, 3);
    fs.sh("echo four >> c; ln d/b e");
    same(fs, 4);
    fs.remount();
    same(fs, 4);
    fs.sh("rm e");
    same(fs, 3);
    assert_eq!(fs.read("d/b"), b"one\ntwo\nthree\nfour\n");
}

#[test]
fn names_of_a_lower_file_are_counted_as_they_go() {
    on_both(Manner::ROOT, LINKED, |fs| {
        fs.sh("rm a");
        assert_eq!(fs.stat("c").st_nlink, 2);
        fs.sh("echo two >> c");
        assert_eq!(fs.read("d/b"), b"one\ntwo\n");
        fs.sh("mv c f");
        assert_eq!((fs.stat("f").st_nlink, fs.stat("f").st_ino), (2, fs.stat("d/b").st_ino));
        fs.remount();
        assert_eq!((fs.stat("f").st_nlink, fs.stat("f").st_ino), (2, fs.stat("d/b").st_ino));
        fs.sh("rm f");
        assert_eq!((fs.stat("d/b").st_nlink, fs.read("d/b")), (1, b"one\ntwo\n".to_vec()));
    });
}

#[test]
fn hard_links_in_the_upper_layer_are_counted() {
    on_both(Manner::ROOT, "echo low > low", |fs| {
        fs.sh("echo x > a; ln a b; ln low l2");
        assert_eq!((fs.stat("a").st_nlink, fs.stat("b").st_ino), (2, fs.stat("a").st_ino));
        assert_eq!((fs.stat("low").st_nlink, fs.stat("l2").st_ino), (2, fs.stat("low").st_ino));
        fs.remount();
        fs.sh("rm a");
        assert_eq!(fs.stat("b").st_nlink, 1);
        assert_eq!((fs.stat("low").st_nlink, fs.stat("l2").st_ino), (2, fs.stat("low").st_ino));
    });
}

#[test]
fn a_name_that_is_made_again_is_another_file() {
    on_both(Manner::ROOT, TREE, |fs| {
        let (file, dir) = (fs.stat("file").st_ino, fs.stat("dir").st_ino);
        fs.sh("rm -r file dir; echo new > file; mkdir dir");
        assert_ne!(fs.stat("file").st_ino, file);
        assert_ne!(fs.stat("dir").st_ino, dir);
        assert_eq!(fs.sh("ls -A dir"), "");
        fs.remount();
        assert_eq!(fs.sh("ls -A dir; cat file"), "new");
    });
}

/// A file system and a copy of it, block by block: the same UUID, and different files with the same inode numbers and generations.
const TWINS: &str = "truncate -s 8M disk1; mkfs.ext4 -q -F disk1; mount -o loop disk1 one; \
                     mkdir one/d; echo x > one/d/one; echo x > one/f; mkfifo one/p; umount one; cp disk1 disk2; \
                     mount -o loop disk1 one; mount -o loop disk2 two; \
                     mv two/d/one two/d/two; mv two/f two/g; mv two/p two/q; \
                     for f in one/d/one one/f two/d/two two/g; do echo $f > $f; done";

#[test]
fn file_systems_with_one_uuid_are_told_apart() {
    Host::run(|host| {
        let lowers = ["one", "two"].map(|name| host.dir(name));
        sh(&host.path(""), TWINS);
        let twins = |name| lowers.each_ref().map(|l| l.join(name).metadata().unwrap().ino());
        assert_eq!(twins("d")[0], twins("d")[1]);
        let names = ["d", "d/one", "d/two", "f", "g", "p", "q"];
        // What was copied up while only one of them was there says where it came from.
        let mut alone = Fs::mount(host, Engine::Cowfs, Manner::ROOT, Layers::new(host, "fs", &lowers[..1]));
        let before = alone.stat("d/one").st_ino;
        alone.sh("echo early >> d/one");
        alone.remount();
        assert_eq!(alone.stat("d/one").st_ino, before);
        assert!(has_origin(&alone, "d/one"));
        alone.end();

        let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, Layers::new(host, "fs", &lowers));
        let apart = |fs: &Fs<'_>| {
            let mut all = numbers(fs, &names);
            let tree = snapshot(&fs.path("")).unwrap();
            assert_eq!(false_entry(&tree, |_| true), None);
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), names.len(), "two files have one number: {tree:?}");
        };
        apart(&fs);
        assert_eq!(fs.read("d/one"), b"one/d/one\nearly\n");
        let before = numbers(&fs, &names);
        for name in &names[..5] {
            fs.sh(&format!("chmod 700 {name}; test -d {name} || echo more >> {name}"));
            assert_eq!(numbers(&fs, &names), before, "after {name} was copied up");
        }
        fs.sh("chmod 600 p q");
        assert_eq!(numbers(&fs, &names), before);
        apart(&fs);
        for name in &names[2..] {
            assert!(!has_origin(&fs, name), "{name} may be said to be another file");
        }
        let read = "cat d/two f g; stat -c '%F %a' p q";
        let seen = fs.sh(read);
        assert_eq!(seen, "two/d/two\nmore\none/f\nmore\ntwo/g\nmore\nfifo 600\nfifo 600");
        fs.remount();
        assert_eq!(fs.sh(read), seen);
        apart(&fs);
        fs.remount_by(Engine::Kernel);
        assert_eq!(fs.sh(read), seen);
        fs.end();
        sh(&host.path(""), "umount one two");
    });
}

fn has_origin(fs: &Fs<'_>, name: &str) -> bool {
    all_xattrs(&fs.upper(name)).unwrap().contains_key(&b"trusted.overlay.origin"[..])
}
