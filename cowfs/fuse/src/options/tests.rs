use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use davit_cowfs::{IdMap, IdRange, Namespace, Redirect};
use proptest::prelude::*;
use rustix::mount::MountFlags;

use super::text::escape;
use super::{Access, Command, OptionError, Options, parse};

fn read(words: &[&str]) -> Result<Options, OptionError> {
    match parse(words.iter().map(OsString::from))? {
        Command::Mount(options) => Ok(*options),
        other => panic!("{words:?} is no mount: {other:?}"),
    }
}

fn with(options: &str) -> Result<Options, OptionError> {
    read(&["-o", &format!("lowerdir=/l,{options}"), "/m"])
}

#[test]
fn podmans_command_line() {
    let words = [
        "-o",
        "lowerdir=/s/l/A:/s/l/B,upperdir=/s/x/diff,workdir=/s/x/work,volatile",
        "-o",
        "uidmapping=0:1000:1:1:110000:65536,gidmapping=0:1000:1",
        "/s/x/merged",
    ];
    let options = read(&words).unwrap();
    assert_eq!(options.mountpoint, PathBuf::from("/s/x/merged"));
    assert!(!options.foreground && !options.debug && !options.config.sync && options.config.xattrs);
    assert_eq!(options.config.lowers, [PathBuf::from("/s/l/A"), PathBuf::from("/s/l/B")]);
    assert_eq!(options.config.upper, Some("/s/x/diff".into()));
    assert_eq!(options.config.work, Some("/s/x/work".into()));
    let first = IdRange { disk: 0, shown: 1000, len: 1 };
    assert_eq!(options.config.uid_map, IdMap(vec![first, IdRange { disk: 1, shown: 110_000, len: 65536 }]));
    assert_eq!(options.config.gid_map, IdMap(vec![first]));
}

#[test]
fn the_shapes_of_a_command_line() {
    let options = read(&["-f", "cowfs", "/m", "-olowerdir=/l", "-o", "ro"]).unwrap();
    assert!(options.foreground && *options.mountpoint == *"/m");
    assert!(options.mount.flags.contains(MountFlags::RDONLY));
    assert!(read(&["--debug", "-o", "lowerdir=/l", "/m"]).unwrap().foreground);
    assert_eq!(read(&["-o", "lowerdir=/l", "--", "-m"]).unwrap().mountpoint, PathBuf::from("-m"));
    assert_eq!(read(&["-s", "-o", "lowerdir=/l", "/m"]).unwrap().serving.workers, Some(1));
    assert!(matches!(parse(["-V".into()]), Ok(Command::Version)));
    assert!(matches!(parse(["--help".into(), "-x".into()]), Ok(Command::Help)));
}

#[test]
fn what_is_refused() {
    let unknown = |e| matches!(e, Err(OptionError::Unknown(_)));
    assert!(unknown(with("uperdir=/u")));
    assert!(unknown(read(&["-x", "/m"])));
    assert_eq!(read(&["-o", "lowerdir=/l"]).unwrap_err(), OptionError::NoMountpoint);
    assert_eq!(read(&["-o"]).unwrap_err(), OptionError::Missing("-o"));
    assert_eq!(read(&["/m"]).unwrap_err(), OptionError::NoLower);
    assert_eq!(with("upperdir=/u").unwrap_err(), OptionError::NoWork);
    assert!(matches!(read(&["a", "b", "c"]), Err(OptionError::TooManyNames(name)) if name == "c"));
    for (options, key) in [
        ("xattr_permissions=2", "xattr_permissions"),
        ("plugins=/a.so", "plugins"),
        ("lowerdir=//fs//data/l", "lowerdir"),
        ("nfs_export=on", "nfs_export"),
    ] {
        assert!(
            matches!(with(options), Err(OptionError::Unsupported { key: k, .. }) if k == key),
            "{options}"
        );
    }
    for options in [
        "lowerdir=/a::/b",
        "uidmapping=0:1",
        "uidmapping=",
        "uidmapping=0:1:x",
        "gidmapping=4294967295:0:2",
        "redirect_dir=maybe",
        "squash_to_uid=-1",
        "fsync=2",
        "timeout=never",
        "timeout=-1",
        "max_threads=0",
        "fsname=",
    ] {
        assert!(matches!(with(options), Err(OptionError::Value { .. })), "{options}");
    }
    assert_eq!(with("upperdir").unwrap_err(), OptionError::NoValue("upperdir".into()));
}

#[test]
fn each_key_has_its_effect() {
    assert_eq!(with("redirect_dir=on").unwrap().config.redirect, Redirect::On);
    assert_eq!(with("redirect_dir=off").unwrap().config.redirect, Redirect::Follow);
    assert_eq!(with("redirect_dir=nofollow").unwrap().config.redirect, Redirect::NoFollow);
    assert_eq!(with("userxattr").unwrap().config.namespace, Some(Namespace::User));
    let squashed = with("squash_to_root,squash_to_gid=7").unwrap().config.squash;
    assert_eq!((squashed.uid, squashed.gid), (Some(0), Some(7)));
    assert!(!with("noxattrs=1").unwrap().config.xattrs && with("noxattrs=0").unwrap().config.xattrs);
    assert!(!with("fsync=0").unwrap().config.sync && with("fsync=1").unwrap().config.sync);
    assert!(with("writeback=1").unwrap().serving.writeback && !with("").unwrap().serving.writeback);
    assert!(!with("noacl").unwrap().serving.acl);
    assert_eq!(with("timeout=1.5").unwrap().serving.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(with("").unwrap().serving.timeout, None);
    assert!(with("clone_fd").unwrap().serving.clone_fd);
    assert_eq!(with("allow_root").unwrap().mount.access, Access::OwnerAndRoot);
    assert_eq!(with("allow_other").unwrap().mount.access, Access::All);
    assert!(with("auto_unmount").unwrap().mount.auto_unmount);
    let named = with("fsname=a\\,b,subtype=x,context=\"u:r:t\\,c\"").unwrap().mount;
    assert_eq!((named.fsname, named.subtype), ("a,b".into(), "x".into()));
    assert_eq!(named.context, Some("u:r:t,c".into()));
    let flags = with("nodev,nosuid,noexec,noatime,suid").unwrap().mount;
    assert_eq!(flags.flags, MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME);
    assert_eq!(flags.flag_words(), ["nodev", "noexec", "noatime"]);
}

#[test]
fn a_work_directory_without_an_upper_one_is_left_alone() {
    let options = with("workdir=/w").unwrap();
    assert_eq!((options.config.upper, options.config.work), (None, None));
}

#[test]
fn what_is_right_already_is_accepted() {
    let harmless = "fast_ino=1,static_nlink,ino32_t,plugins=,xattr_permissions=0,metacopy=on,xino=auto,index=off,\
                    max_idle_threads=10,splice_write,default_permissions,x-systemd.automount,nofail,lazytime,defaults";
    with(harmless).unwrap();
}

#[test]
fn a_directory_may_be_called_anything() {
    let options = with("lowerdir=/a\\:b:/c\\,d:/e\\\\f:/g\\040h,lowerdir+=/i").unwrap();
    let names: Vec<&str> = options.config.lowers.iter().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(names, ["/a:b", "/c,d", "/e\\f", "/g h", "/i"]);
}

proptest! {
    #[test]
    fn nothing_upsets_it(words in proptest::collection::vec(proptest::collection::vec(1u8..=255, 0..40), 0..6)) {
        let _ = parse(words.into_iter().map(OsString::from_vec));
    }

    #[test]
    fn no_option_upsets_it(text in "(lowerdir|uidmapping|timeout|fsname|redirect_dir|x)(=[0-9:.,/\\\\a-f-]{0,30})?(,[a-z_]{1,12}=?[0-9]{0,12})?") {
        let _ = parse(["-o".into(), text.into(), "/m".into()]);
    }

    #[test]
    fn escaped_names_come_back(names in proptest::collection::vec("[ -~]{1,20}".prop_map(|s| format!("/{}", s.trim_start_matches('/'))), 1..8)) {
        let escaped: Vec<String> =
            names.iter().map(|n| String::from_utf8(escape(n.as_bytes())).unwrap()).collect();
        let line = format!("lowerdir={},upperdir={},workdir=/w", escaped.join(":"), escaped[0]);
        let options = read(&["-o", &line, "/m"]).unwrap();
        prop_assert_eq!(options.config.upper, Some(PathBuf::from(&names[0])));
        let read: Vec<_> = options.config.lowers.iter().map(|p| p.to_str().unwrap().to_owned()).collect();
        prop_assert_eq!(read, names);
    }
}
