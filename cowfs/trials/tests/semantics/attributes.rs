//! Owners, modes, ACLs, attributes and times.

use std::fs::File;
use std::os::unix::fs::FileExt;

use davit_cowfs_trials::fs::{Fs, on_both, on_cowfs};
use davit_cowfs_trials::mount::Manner;
use davit_cowfs_trials::op::{Op, Outcome, TIMES};
use davit_cowfs_trials::tree::all_xattrs;
use davit_cowfs_trials::userns;
use rustix::io::Errno;

const DENIED: Outcome = Outcome::Failed(Errno::ACCESS.raw_os_error());
const NOT_OWNER: Outcome = Outcome::Failed(Errno::PERM.raw_os_error());

fn open(path: &str, flags: i32) -> Op {
    Op::Open { path: path.into(), slot: 0, flags, mode: 0o666 }
}

fn write(len: u32) -> Op {
    Op::Write { slot: 0, len, seed: 0 }
}

#[test]
fn extended_attributes_come_along_and_change() {
    let lower = "mkdir d; echo x > f; ln -s f l; setfattr -n user.a -v 1 f; setfattr -n trusted.b -v 2 d f; \
                 setfattr -h -n trusted.l -v 3 l";
    on_both(Manner::ROOT, lower, |fs| {
        fs.sh("echo y >> f; chmod 700 d; chown -h 1:1 l");
        let check = "getfattr -h -d -m - --absolute-names f d l | grep -v '^$' | tr '\\n' ' '";
        let all =
            "# file: f trusted.b=\"2\" user.a=\"1\" # file: d trusted.b=\"2\" # file: l trusted.l=\"3\"";
        assert_eq!(fs.sh(check).trim(), all);
        fs.sh("setfattr -n user.a -v 9 f; setfattr -x trusted.b d; setfattr -n user.c -v 4 d");
        fs.remount();
        let all = "# file: f trusted.b=\"2\" user.a=\"9\" # file: d user.c=\"4\" # file: l trusted.l=\"3\"";
        assert_eq!(fs.sh(check).trim(), all);
        let set = |name: &str, flags| {
            let flags = rustix::fs::XattrFlags::from_bits_retain(flags);
            rustix::fs::setxattr(fs.path("f"), name, b"v", flags)
        };
        assert_eq!((set("user.a", 1), set("user.new", 2)), (Err(Errno::EXIST), Err(Errno::NODATA)));
        assert_eq!(rustix::fs::removexattr(fs.path("f"), "user.none"), Err(Errno::NODATA));
        assert_eq!(rustix::fs::getxattr(fs.path("f"), "user.a", &mut [0u8; 5][..]), Ok(1));
        set("user.long", 0).unwrap();
        let long = vec![b'v'; 60_000];
        rustix::fs::setxattr(fs.path("f"), "user.long", &long, rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(rustix::fs::getxattr(fs.path("f"), "user.long", &mut [0u8; 10][..]), Err(Errno::RANGE));
        let mut buffer = vec![0; 60_001];
        assert_eq!(rustix::fs::getxattr(fs.path("f"), "user.long", &mut buffer[..]), Ok(60_000));
    });
}

#[test]
fn attributes_of_the_overlay_itself_are_hidden() {
    on_both(Manner::ROOT, "mkdir d gone; echo x > f; touch gone/g", |fs| {
        fs.sh("rm -r gone; mkdir gone; mv d e; echo y >> f; ln f g");
        assert_eq!(fs.sh("getfattr -d -m - . gone e f g"), "");
        let own = all_xattrs(&fs.upper("e")).unwrap();
        assert!(own.contains_key(&b"trusted.overlay.redirect"[..]), "{own:?}");
        let mut buffer = [0; 100];
        let got = rustix::fs::getxattr(fs.path("gone"), "trusted.overlay.opaque", &mut buffer[..]);
        assert_eq!(got, Err(Errno::NODATA));
    });
}

#[test]
fn nobody_changes_how_layers_merge_by_an_attribute() {
    on_cowfs(Manner::ROOT, "mkdir d; echo x > d/f", |fs| {
        for (name, value) in [("trusted.overlay.opaque", "y"), ("trusted.overlay.redirect", "/")] {
            let flags = rustix::fs::XattrFlags::empty();
            let _ = rustix::fs::setxattr(fs.path("d"), name, value.as_bytes(), flags);
        }
        fs.remount();
        assert_eq!(fs.sh("find . | sort | tr '\\n' ' '").trim(), ". ./d ./d/f");
    });
}

#[test]
fn acls_are_kept_inherited_and_enforced() {
    let lower = "mkdir d shared; echo secret > d/f; chmod 600 d/f; setfacl -m u:1000:r d/f; \
                 setfacl -d -m u:1000:rwx,g::rx,o::- shared; setfacl -m u:1000:rwx shared";
    on_both(Manner::ROOT, lower, |fs| {
        let mut other = fs.actor(1000);
        assert_eq!(other.one(&open("d/f", 0)), Outcome::Done);
        assert_eq!(other.one(&open("d/f", 1)), DENIED);
        fs.sh("echo more >> d/f");
        assert_eq!(other.one(&open("d/f", 0)), Outcome::Done);
        assert_eq!(
            fs.sh("getfacl -cnE d/f | tr '\\n' ' '").trim(),
            "user::rw- user:1000:r-- group::--- mask::r-- other::---"
        );
        fs.sh("umask 077; echo x > shared/f; mkdir shared/s; setfacl -x u:1000 d/f");
        assert_eq!(other.one(&open("d/f", 0)), DENIED);
        let inherited =
            "user::rw- user:1000:rwx #effective:rw- group::r-x #effective:r-- mask::rw- other::---";
        assert_eq!(fs.sh("getfacl -cn shared/f | tr -s '\\t\\n' '  '").trim(), inherited);
        assert!(fs.sh("getfacl -cnE shared/s").contains("default:user:1000:rwx"));
        assert_eq!(other.one(&open("shared/f", 2)), Outcome::Done);
        assert_eq!(other.one(&open("shared/s/mine", 0o102)), Outcome::Done);
        // chmod changes the mask, and the mask what the ACL grants.
        fs.sh("chmod 600 shared/f");
        assert_eq!(other.one(&open("shared/f", 2)), DENIED);
        other.release();
        fs.remount();
        let mut other = fs.actor(1000);
        assert_eq!(other.one(&open("shared/f", 2)), DENIED);
        assert_eq!(other.one(&open("shared/s/mine", 2)), Outcome::Done);
        assert_eq!(
            fs.sh("getfacl -cnE shared/s/mine | grep 1000; stat -c %A shared/s/mine"),
            "user:1000:rwx\n-rw-rw----"
        );
        fs.sh("setfacl -b shared/s/mine; setfacl -k shared/s; echo x > shared/s/plain");
        assert_eq!(fs.sh("getfacl -cnE shared/s/mine shared/s/plain | grep -c 1000 || true"), "0");
    });
}

#[test]
fn the_umask_counts_where_no_default_acl_is() {
    on_both(Manner::ROOT, "mkdir d", |fs| {
        fs.sh("umask 027; echo x > d/f; mkdir d/s; mkfifo d/p; umask 0; echo x > d/g; mkdir d/t");
        assert_eq!(fs.sh("stat -c %a d/f d/s d/p d/g d/t | tr '\\n' ' '").trim(), "640 750 640 666 777");
    });
}

#[test]
fn a_group_directory_gives_its_group() {
    on_both(Manner::ROOT, "mkdir d; chgrp 77 d; chmod 2777 d", |fs| {
        let mut other = fs.actor(1000);
        assert_eq!(other.one(&open("d/f", 0o101)), Outcome::Done);
        other.one(&Op::Mkdir { path: "d/s".into(), mode: 0o755 });
        assert_eq!(fs.sh("stat -c '%u %g %a' d/f d/s | tr '\\n' ' '").trim(), "1000 77 644 1000 77 2755");
    });
}

#[test]
fn who_is_in_the_group_of_a_group_directory_keeps_set_group_id() {
    let lower =
        "mkdir g over; chgrp 2000 g over; chmod 2777 g over; for n in f s x p d; do touch over/$n; done";
    on_both(Manner::ROOT, lower, |fs| {
        fs.sh("rm over/*; chmod 2777 g");
        let make = "use Fcntl; use POSIX; umask 0; sub f { sysopen(my $f, $_[0], O_CREAT|O_EXCL|O_WRONLY, $_[1]) or die $! } \
                    f('f', 02755); f('s', 06711); f('x', 02744); POSIX::mkfifo('p', 02775) or die $!; mkdir('d', 02755) or die $!;";
        for dir in ["g", "over"] {
            for (groups, files) in [
                ("--groups 2000,3000", "2755 6711 2744 2775 2755"),
                ("--clear-groups", "755 4711 2744 775 2755"),
                // CAP_FSETID keeps it too.
                ("--groups 3000 --inh-caps +fsetid --ambient-caps +fsetid", "2755 6711 2744 2775 2755"),
            ] {
                let by = format!("setpriv --reuid 1000 --regid 1000 {groups}");
                fs.sh(&format!("cd {dir}; {by} perl -e \"{}\"", make.replace('$', "\\$")));
                let seen = fs.sh(&format!(
                    "cd {dir}; stat -c '%u:%g' * | sort -u; stat -c %a f s x p d | tr '\\n' ' '"
                ));
                assert_eq!(seen.trim(), format!("1000:2000\n{files}"), "in {dir} with {groups}");
                fs.sh(&format!("rm -r {dir}/*"));
            }
        }
    });
}

#[test]
fn what_others_make_is_theirs() {
    let lower = "mkdir d g; for n in f d l p u; do touch d/$n; done; chown 1000 d; chgrp 2000 g; chmod 770 g; chgrp 5 d";
    on_both(Manner::ROOT, lower, |fs| {
        fs.sh("rm d/*");
        let make = "touch $d/f; mkdir $d/d; ln -s x $d/l; mkfifo $d/p; cp /bin/true $d/u; chmod 4755 $d/u; \
                    install -m 2755 -d $d/sgid; install -m 4755 /dev/null $d/s";
        let as_other = "setpriv --reuid 1000 --regid 1000 --groups 2000,3000 sh -ec";
        // Over whiteouts, and where a supplementary group lets them in.
        for dir in ["d", "g"] {
            fs.sh(&format!("{as_other} 'd={dir}; {make}'"));
            let all = fs.sh(&format!("stat -c '%u:%g' {dir}/* | sort -u"));
            assert_eq!(all, "1000:1000", "in {dir}");
            assert_eq!(
                fs.sh(&format!("stat -c %a {dir}/u {dir}/s {dir}/sgid | tr '\\n' ' '")).trim(),
                "4755 4755 2755"
            );
        }
        fs.sh("chmod 2770 g; rm g/*[flp]");
        fs.sh(&format!("{as_other} 'touch g/f; mkdir g/e; ln -s x g/l; mkfifo g/p'"));
        assert_eq!(fs.sh("stat -c '%u:%g' g/f g/e g/l g/p | sort -u"), "1000:2000");
    });
}

#[test]
fn permissions_are_checked_for_others() {
    let lower = "mkdir d sticky; echo x > f; chmod 600 f; echo y > sticky/root; chmod 1777 sticky; touch mine; chown 1000 mine";
    on_both(Manner::ROOT, lower, |fs| {
        let mut other = fs.actor(1000);
        assert_eq!(other.one(&open("f", 0)), DENIED);
        assert_eq!(other.one(&open("d/new", 0o101)), DENIED);
        assert_eq!(other.one(&Op::Chmod { path: "f".into(), mode: 0o777 }), NOT_OWNER);
        assert_eq!(other.one(&Op::Unlink { path: "sticky/root".into() }), NOT_OWNER);
        assert_eq!(other.one(&open("sticky/own", 0o101)), Outcome::Done);
        assert_eq!(other.one(&Op::Unlink { path: "sticky/own".into() }), Outcome::Done);
        assert_eq!(other.one(&Op::Chmod { path: "mine".into(), mode: 0o640 }), Outcome::Done);
        let give = Op::Chown { path: "mine".into(), uid: Some(0), gid: None, follow: true };
        assert_eq!(other.one(&give), NOT_OWNER);
        fs.sh("chmod 666 f");
        assert_eq!(other.one(&open("f", 2)), Outcome::Done);
        fs.sh("chmod 700 .");
        assert_eq!(other.one(&open("f", 0)), DENIED);
    });
}

#[test]
fn a_write_by_others_takes_setuid_and_capabilities_away() {
    let lower = "for f in w t c r; do echo x > $f; chmod 6777 $f; setcap cap_net_raw+ep $f; done; chown 1000:1000 c; chmod 6777 c; echo x > s; chmod 6777 s";
    on_both(Manner::ROOT, lower, |fs| {
        let mode = |fs: &Fs<'_>, name: &str| fs.stat(name).st_mode & 0o7777;
        let capable = |fs: &Fs<'_>, name: &str| {
            rustix::fs::getxattr(fs.path(name), "security.capability", &mut [0u8; 64][..]).is_ok()
        };
        let mut other = fs.actor(1000);
        other.one(&open("w", 1));
        assert_eq!((mode(fs, "w"), capable(fs, "w")), (0o6777, true));
        assert_eq!(other.one(&write(1)), Outcome::Count(1));
        assert_eq!((mode(fs, "w"), capable(fs, "w")), (0o777, false), "write");
        assert_eq!(other.one(&Op::Truncate { path: "t".into(), len: 0 }), Outcome::Done);
        assert_eq!((mode(fs, "t"), capable(fs, "t")), (0o777, false), "truncate");
        let same = Op::Chown { path: "c".into(), uid: None, gid: Some(1000), follow: true };
        assert_eq!(other.one(&same), Outcome::Done);
        assert_eq!(mode(fs, "c"), 0o777, "chown");
        assert!(!capable(fs, "c"), "chown");
        // Root keeps the bits when it writes, and loses the capabilities.
        let file = File::options().write(true).open(fs.path("r")).unwrap();
        file.write_at(b"y", 0).unwrap();
        assert_eq!((mode(fs, "r"), capable(fs, "r")), (0o6777, false), "root writes");
        fs.sh("chown 5:5 s");
        assert_eq!(mode(fs, "s"), 0o777, "root's chown");
        drop((file, other));
        fs.remount();
        assert_eq!(["w", "t", "c", "r", "s"].map(|f| mode(fs, f)), [0o777, 0o777, 0o777, 0o6777, 0o777]);
    });
}

#[test]
fn setuid_of_a_program_works_from_a_layer() {
    on_both(Manner::ROOT, "cp $(readlink -f /usr/bin/id) id; chmod 4755 id", |fs| {
        let run = |fs: &Fs<'_>| fs.sh("setpriv --reuid 1000 --regid 1000 --clear-groups ./id -u");
        assert_eq!(run(fs), "0");
        fs.sh("touch id");
        assert_eq!(run(fs), "0");
    });
}

#[test]
fn times_have_nanoseconds_and_reach_before_1970() {
    on_both(
        Manner::ROOT,
        "mkdir d; echo x > f; ln -s x l; for f in d f l; do touch -h -d '1969-12-31 23:59:58.123456789 UTC' $f; done",
        |fs| {
            let time = |fs: &Fs<'_>, name: &str| (fs.stat(name).st_mtime, fs.stat(name).st_mtime_nsec);
            fs.sh("chmod 600 f d; chown -h 3:3 l");
            for name in ["d", "f", "l"] {
                assert_eq!(time(fs, name), (-2, 123_456_789), "{name} after it was copied up");
            }
            for (n, (sec, nsec)) in TIMES.into_iter().enumerate() {
                let mut actor = fs.actor(0);
                for name in ["d", "f", "l"] {
                    let set = Op::Utimens { path: name.into(), time: n as u8, follow: false };
                    assert_eq!(actor.one(&set), Outcome::Done);
                    assert_eq!(time(fs, name), (sec, nsec.into()), "{name}");
                }
                fs.forget();
                assert_eq!(time(fs, "f"), (sec, nsec.into()));
            }
            fs.remount();
            assert_eq!(time(fs, "f"), (8_589_934_592, 999_999_998));
            fs.sh("touch -a -d @77.000000001 f");
            assert_eq!((fs.stat("f").st_atime, time(fs, "f").0), (77, 8_589_934_592));
        },
    );
}

#[test]
fn a_write_moves_the_time_and_an_explicit_time_stays() {
    on_both(Manner::ROOT, "echo x > f; touch -d @1 f", |fs| {
        let file = File::options().write(true).open(fs.path("f")).unwrap();
        assert_eq!(fs.stat("f").st_mtime, 1);
        file.write_at(b"y", 0).unwrap();
        assert!(fs.stat("f").st_mtime > 1_000_000_000);
        // Data that is still in the page cache must not change it later.
        file.write_at(b"z", 0).unwrap();
        fs.sh("touch -d @5 f");
        file.sync_all().unwrap();
        drop(file);
        assert_eq!(fs.stat("f").st_mtime, 5);
        fs.remount();
        assert_eq!(fs.stat("f").st_mtime, 5);
        assert_eq!(fs.read("f"), b"z\n");
    });
}

#[test]
fn a_user_namespace_sees_and_gives_its_own_ids() {
    userns::run("attributes::a_user_namespace_sees_and_gives_its_own_ids", || {
        on_both(Manner::USER, "mkdir d; echo x > d/f; chown 1000:7 d/f; setfattr -n user.a -v 1 d/f", |fs| {
            let mut other = fs.actor(1000);
            fs.sh("chmod 777 d");
            assert_eq!(other.one(&open("d/f", 0o2001)), Outcome::Done);
            assert_eq!(other.one(&write(3)), Outcome::Count(3));
            assert_eq!(other.one(&open("d/new", 0o101)), Outcome::Done);
            drop(other);
            fs.sh("chown 5:6 d/new; echo x > gone; rm gone; mkdir sub; rm -r d; mkdir d; echo y > d/g");
            fs.remount();
            assert_eq!(fs.sh("find . | sort | tr '\\n' ' '").trim(), ". ./d ./d/g ./sub");
            assert_eq!(fs.sh("getfattr -d -m - d d/g sub"), "");
        });
    });
}

#[test]
fn lower_files_of_a_user_namespace_keep_their_attributes() {
    userns::run("attributes::lower_files_of_a_user_namespace_keep_their_attributes", || {
        on_both(Manner::USER, "echo x > f; chown 1000:7 f; chmod 6755 f; setfattr -n user.a -v 1 f", |fs| {
            fs.sh("touch -d @5 f");
            for _ in 0..2 {
                assert_eq!(
                    fs.sh("stat -c '%u %g %a %Y' f; getfattr -d f | grep a="),
                    "1000 7 6755 5\nuser.a=\"1\""
                );
                fs.remount();
            }
            assert!(all_xattrs(&fs.upper("f")).unwrap().keys().all(|name| name.starts_with(b"user.")));
        });
    });
}
