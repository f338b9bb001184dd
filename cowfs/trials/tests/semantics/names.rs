//! Names, and what moves them.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use davit_cowfs_trials::fs::{Fs, is_whiteout, on_both, on_cowfs};
use davit_cowfs_trials::mount::{Engine, Manner};
use davit_cowfs_trials::tree::all_xattrs;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

const TREE: &str =
    "mkdir -p dir/sub full; echo data > file; echo x > dir/sub/deep; echo y > dir/two; echo z > full/z";

fn rename(fs: &Fs<'_>, from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, fs.path(from), CWD, fs.path(to), flags)
}

#[test]
fn a_lower_directory_is_renamed_by_a_redirect() {
    on_both(Manner::ROOT, TREE, |fs| {
        let ino = fs.stat("dir").st_ino;
        fs.sh("mv dir moved; echo more >> moved/sub/deep; rm moved/two; mkdir other; mv moved/sub other/");
        for _ in 0..2 {
            assert_eq!(
                fs.sh("find . | sort | tr '\\n' ' '").trim(),
                ". ./file ./full ./full/z ./moved ./other ./other/sub ./other/sub/deep"
            );
            assert_eq!(fs.read("other/sub/deep"), b"x\nmore\n");
            assert_eq!(fs.stat("moved").st_ino, ino);
            fs.remount();
        }
        fs.sh("mv moved dir; mv other/sub dir/");
        fs.remount();
        assert_eq!(fs.read("dir/sub/deep"), b"x\nmore\n");
        assert!(!fs.path("dir/two").exists());
    });
}

#[test]
fn a_lower_directory_moves_into_a_new_one_and_keeps_what_it_has() {
    on_both(Manner::ROOT, TREE, |fs| {
        fs.sh("mkdir new; mv dir new/a; rm file; mkdir file; mv full file/b; mv new/a/sub file/c");
        let all = ". ./file ./file/b ./file/b/z ./file/c ./file/c/deep ./new ./new/a ./new/a/two";
        for _ in 0..2 {
            assert_eq!(fs.sh("find . | sort | tr '\n' ' '").trim(), all);
            fs.remount();
        }
        fs.remount_by(Engine::Kernel);
        assert_eq!(fs.sh("find . | sort | tr '\n' ' '").trim(), all);
    });
}

#[test]
fn a_lower_directory_without_redirects_is_exdev_and_its_files_move() {
    on_both(Manner::PLAIN, TREE, |fs| {
        assert_eq!(rename(fs, "dir", "moved", RenameFlags::empty()), Err(Errno::XDEV));
        assert_eq!(rename(fs, "file", "full", RenameFlags::EXCHANGE), Err(Errno::XDEV));
        assert_eq!(rename(fs, "file", "dir/file", RenameFlags::empty()), Ok(()));
        fs.sh("mkdir new; mv new dir/new");
        // mv(1) copies then.
        fs.sh("mv dir moved");
        fs.remount();
        assert_eq!(
            fs.sh("find moved | sort | tr '\\n' ' '").trim(),
            "moved moved/file moved/new moved/sub moved/sub/deep moved/two"
        );
        assert!(!fs.path("dir").exists());
    });
}

#[test]
fn renames_with_flags() {
    on_both(Manner::ROOT, TREE, |fs| {
        fs.sh("echo up > up");
        assert_eq!(rename(fs, "up", "file", RenameFlags::NOREPLACE), Err(Errno::EXIST));
        assert_eq!(rename(fs, "file", "up", RenameFlags::EXCHANGE), Ok(()));
        assert_eq!((fs.read("file"), fs.read("up")), (b"up\n".to_vec(), b"data\n".to_vec()));
        assert_eq!(rename(fs, "dir", "file", RenameFlags::EXCHANGE), Ok(()));
        assert_eq!(rename(fs, "up", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
        assert_eq!(rename(fs, "up", "free", RenameFlags::NOREPLACE), Ok(()));
        fs.remount();
        assert_eq!(fs.sh("cat file/sub/deep dir free"), "x\nup\ndata");
        assert!(!fs.path("up").exists());
    });
}

#[test]
fn what_a_rename_replaces_must_fit() {
    on_both(Manner::ROOT, TREE, |fs| {
        fs.sh("mkdir empty");
        let plain = RenameFlags::empty();
        assert_eq!(rename(fs, "file", "dir", plain), Err(Errno::ISDIR));
        assert_eq!(rename(fs, "dir", "file", plain), Err(Errno::NOTDIR));
        assert_eq!(rename(fs, "empty", "full", plain), Err(Errno::NOTEMPTY));
        assert_eq!(rename(fs, "dir", "dir/sub/in", plain), Err(Errno::INVAL));
        // A lower directory all of whose names are hidden is empty.
        fs.sh("rm full/z");
        assert_eq!(rename(fs, "empty", "full", plain), Ok(()));
        assert_eq!(fs.sh("ls -A full"), "");
        fs.remount();
        assert_eq!(fs.sh("ls -A full"), "");
    });
}

#[test]
fn what_is_removed_stays_removed() {
    on_both(Manner::ROOT, TREE, |fs| {
        fs.sh("rm file; rm -r dir; mkdir dir; echo other > dir/two");
        assert!(is_whiteout(&fs.upper("file")));
        for _ in 0..2 {
            assert_eq!(fs.sh("ls -A . dir | tr '\\n' ' '").trim(), ".: dir full  dir: two");
            fs.remount();
        }
        fs.sh("echo back > file");
        assert!(!is_whiteout(&fs.upper("file")));
        assert_eq!(fs.read("file"), b"back\n");
        let all = all_xattrs(&fs.upper("dir")).unwrap();
        let opaque = all.get(&b"trusted.overlay.opaque"[..]);
        assert_eq!(opaque.map(Vec::as_slice), Some(&b"y"[..]));
    });
}

#[test]
fn removing_what_only_the_upper_has_leaves_nothing() {
    on_both(Manner::ROOT, TREE, |fs| {
        fs.sh("echo x > dir/new; mkdir dir/d; rm dir/new; rmdir dir/d");
        assert_eq!(std::fs::read_dir(fs.upper("dir")).unwrap().count(), 0);
    });
}

#[test]
fn a_directory_is_removed_when_it_is_empty_and_not_before() {
    on_both(Manner::ROOT, TREE, |fs| {
        assert_eq!(rustix::fs::rmdir(fs.path("full")), Err(Errno::NOTEMPTY));
        fs.sh("rm full/z; rmdir full");
        assert_eq!(rustix::fs::rmdir(fs.path("file")), Err(Errno::NOTDIR));
        assert_eq!(rustix::fs::unlink(fs.path("dir")), Err(Errno::ISDIR));
        fs.remount();
        assert!(!fs.path("full").exists());
    });
}

#[test]
fn nobody_makes_a_whiteout_by_hand() {
    on_both(Manner::ROOT, TREE, |fs| {
        let kind = FileType::CharacterDevice;
        let made = rustix::fs::mknodat(CWD, fs.path("w"), kind, Mode::from_raw_mode(0o600), 0);
        assert_eq!(made, Err(Errno::PERM));
        assert_eq!(rename(fs, "file", "f", RenameFlags::WHITEOUT), Err(Errno::INVAL));
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, fs.path("null"), kind, Mode::from_raw_mode(0o600), null).unwrap();
        fs.remount();
        assert_eq!((fs.stat("null").st_rdev, fs.stat("null").st_mode), (null, 0o020_600));
    });
}

#[test]
fn files_without_a_name_are_refused_so_that_programs_make_one() {
    on_cowfs(Manner::ROOT, TREE, |fs| {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let made = rustix::fs::open(fs.path("dir"), flags, Mode::from_raw_mode(0o600));
        assert_eq!(made.err(), Some(Errno::OPNOTSUPP));
    });
}

#[test]
fn names_are_bytes() {
    on_both(Manner::ROOT, TREE, |fs| {
        let odd = OsStr::from_bytes(b"dir/\xff\xfe \n\xc3(");
        std::fs::write(fs.layers.at.join(odd), "odd").unwrap();
        std::fs::rename(fs.layers.at.join(odd), fs.layers.at.join(OsStr::from_bytes(b"\x80"))).unwrap();
        fs.remount();
        assert_eq!(std::fs::read(fs.layers.at.join(OsStr::from_bytes(b"\x80"))).unwrap(), b"odd");
        let names = std::fs::read_dir(&fs.layers.at).unwrap();
        assert!(names.map(|e| e.unwrap().file_name()).any(|n| n.as_bytes() == b"\x80"));
        let (fits, long) = ("n".repeat(255), "n".repeat(256));
        fs.write(&fits, b"x");
        assert_eq!(
            std::fs::write(fs.path(&long), b"x").unwrap_err().raw_os_error(),
            Some(Errno::NAMETOOLONG.raw_os_error())
        );
        assert_eq!(rustix::fs::stat(fs.path(&long)).err(), Some(Errno::NAMETOOLONG));
        // Whiteouts and copies of it have room for it too.
        fs.sh("mkdir x; chmod 700 dir");
        assert_eq!(rename(fs, &fits, &format!("x/{}", "m".repeat(255)), RenameFlags::empty()), Ok(()));
        assert_eq!(rename(fs, "file", &long, RenameFlags::empty()), Err(Errno::NAMETOOLONG));
    });
}

#[test]
fn a_lower_name_of_255_bytes_is_copied_up_and_removed() {
    let lower = "for c in a b c; do n=$(printf \"%0255d\" 0 | tr 0 $c); echo $c > $n; done";
    on_both(Manner::ROOT, lower, |fs| {
        let [a, b, c] = ["a", "b", "c"].map(|c| c.repeat(255));
        fs.write(&a, b"new");
        std::fs::remove_file(fs.path(&b)).unwrap();
        assert_eq!(rename(fs, &c, &b, RenameFlags::empty()), Ok(()));
        fs.remount();
        assert_eq!((fs.read(&a), fs.read(&b)), (b"new".to_vec(), b"c\n".to_vec()));
        assert_eq!(fs.sh("ls | wc -l"), "2");
    });
}

#[test]
fn a_directory_can_be_read_while_its_entries_go() {
    on_both(Manner::ROOT, "mkdir d; for i in $(seq 300); do echo $i > d/low$i; done", |fs| {
        fs.sh("for i in $(seq 300); do echo $i > d/up$i; done");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(fs.path("d"), flags, Mode::empty()).unwrap();
        let mut dir = rustix::fs::Dir::read_from(fd.as_fd()).unwrap();
        let mut seen = 0;
        while let Some(entry) = dir.read() {
            let entry = entry.unwrap();
            if entry.file_name().to_bytes().starts_with(b".") {
                continue;
            }
            seen += 1;
            rustix::fs::unlinkat(&fd, entry.file_name(), rustix::fs::AtFlags::empty()).unwrap();
        }
        assert_eq!(seen, 600);
        dir.rewind();
        let left: Vec<_> = dir.map(|e| e.unwrap().file_name().to_owned()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        std::fs::remove_dir(fs.path("d")).unwrap();
    });
}

#[test]
fn links_and_symlinks_work_as_anywhere() {
    on_both(Manner::ROOT, "mkdir d; ln -s d/f to; ln -s self self; echo x > d/f", |fs| {
        assert_eq!(fs.sh("cat to; readlink to self"), "x\nd/f\nself");
        assert_eq!(rustix::fs::stat(fs.path("self")).err(), Some(Errno::LOOP));
        fs.sh("echo y >> to; ln to hard; ln -s $(printf '%04000d' 0) long");
        assert_eq!(fs.stat("hard").st_mode & 0o170_000, 0o120_000);
        assert_eq!(fs.stat("long").st_size, 4000);
        assert_eq!(rustix::fs::link(fs.path("d"), fs.path("e")), Err(Errno::PERM));
        fs.remount();
        assert_eq!(fs.read("to"), b"x\ny\n");
        assert_eq!(fs.sh("readlink hard; readlink long | wc -c"), "d/f\n4001");
    });
}

#[test]
fn names_of_tar_whiteouts_in_a_lower_layer_hide_as_fuse_overlayfs_has_it() {
    // The storage library of podman writes layers so when a program mounts them.
    on_cowfs(Manner::PLAIN, "mkdir d; touch d/.wh..wh..opq d/own .wh.file", |fs| {
        let bottom = fs.host.dir("bottom");
        davit_cowfs_trials::host::sh(&bottom, "mkdir d; echo x > d/hidden; echo x > file; echo x > seen");
        fs.unmount();
        fs.layers.lowers.push(bottom);
        let mut again = Fs::mount(fs.host, Engine::Cowfs, Manner::PLAIN, fs.layers.clone());
        assert_eq!(again.sh("find . | sort | tr '\\n' ' '").trim(), ". ./d ./d/own ./seen");
        again.sh("echo back > file");
        again.remount();
        assert_eq!(again.sh("cat file; ls -A | tr '\\n' ' '").trim(), "back\nd file seen");
        again.end();
    });
}
