//! What is on the disk: overlayfs writes it and davit-cowfs reads it, and the other way round.

use std::fs::File;
use std::os::unix::fs::FileExt;

use davit_cowfs_trials::Host;
use davit_cowfs_trials::fs::{Fs, on_both, on_cowfs};
use davit_cowfs_trials::host::sh;
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::tree::{Leeway, Snapshot, all_xattrs, difference, snapshot};
use rustix::io::Errno;

const TREE: &str = "mkdir -p a/b/c d/e gone; echo 1 > a/b/c/f; echo 2 > a/g; echo 3 > d/e/h; touch gone/x; ln a/g d/i; \
                    ln -s a/g link; echo 4 > top; setfattr -n user.k -v v top";

const CHANGES: [&str; 3] = [
    "echo 5 >> a/g; rm -r gone; mv a/b d/; chmod 700 d/e; echo 6 > new; rm link",
    "mkdir gone; touch gone/y; mv d/b/c e; rm -r d/b; mv top d/e/; ln new newer; ln -s x link",
    "mv d z; mkdir d; mv e/f d/; rm z/e/h; mv z/e d/; touch -d @5 d/e; setfattr -n user.l -v w d/e",
];

fn seen(fs: &Fs<'_>) -> Snapshot {
    snapshot(&fs.path("")).unwrap()
}

/// Each time another engine goes on; a third, which has done all itself, shows what is right.
#[track_caller]
fn in_turns(manner: Manner, changes: &[&str]) {
    Host::run(|host| {
        sh(&host.dir("lower"), TREE);
        let new = |name: &str, engine| {
            Fs::mount(host, engine, manner, Layers::new(host, name, &[host.path("lower")]))
        };
        let plain = host.dir("plain");
        davit_cowfs_trials::layer::copy(&host.path("lower"), &plain);
        let mut pair = [new("one", Engine::Kernel), new("two", Engine::Cowfs)];
        let mut engines = [Engine::Cowfs, Engine::Kernel];
        for change in changes {
            sh(&plain, change);
            for (fs, next) in pair.iter_mut().zip(engines) {
                fs.sh(change);
                for _ in 0..2 {
                    let wrong = difference(&snapshot(&plain).unwrap(), &seen(fs), &Leeway::default());
                    assert_eq!(wrong, None, "before {next:?} after `{change}` on {}", fs.layers.at.display());
                    fs.remount_by(next);
                }
            }
            engines.reverse();
        }
        pair.into_iter().for_each(Fs::end);
    });
}

#[test]
fn engines_go_on_where_the_other_has_stopped() {
    in_turns(Manner::ROOT, &CHANGES);
}

#[test]
fn layers_over_layers_of_the_other() {
    Host::run(|host| {
        sh(&host.dir("lower"), TREE);
        let mut lowers = vec![host.path("lower")];
        let plain = host.dir("plain");
        davit_cowfs_trials::layer::copy(&host.path("lower"), &plain);
        for (n, change) in CHANGES.iter().enumerate() {
            let engine = [Engine::Kernel, Engine::Cowfs][n % 2];
            let manner = Manner { index: false, ..Manner::ROOT };
            let fs = Fs::mount(host, engine, manner, Layers::new(host, &n.to_string(), &lowers));
            // Links that span layers are not links any more: that is left out here.
            fs.sh(&change.replace("echo 5 >> a/g", "true"));
            sh(&plain, &change.replace("echo 5 >> a/g", "true"));
            lowers.insert(0, fs.layers.upper().to_owned());
            fs.end();
        }
        for engine in [Engine::Kernel, Engine::Cowfs] {
            let layers = Layers::new(host, engine.name(), &lowers).read_only();
            let fs = Fs::mount(host, engine, Manner::ROOT, layers);
            let wrong = difference(&snapshot(&plain).unwrap(), &seen(&fs), &Leeway::default());
            assert_eq!(wrong.filter(|w| !w.contains("the root")), None, "{engine:?}");
            fs.end();
        }
    });
}

#[test]
fn whiteouts_by_attribute_are_read() {
    // Linux 6.7: an empty file with the attribute, in a directory that says that it has such, as the layer's root does.
    on_both(
        Manner::ROOT,
        "mkdir d e; touch d/gone d/kept e/f; setfattr -n trusted.overlay.opaque -v x . d; \
                           setfattr -n trusted.overlay.whiteout -v y d/gone; setfattr -n trusted.overlay.whiteout -v y e/f",
        |fs| {
            let bottom = fs.host.dir("bottom");
            sh(&bottom, "mkdir d; echo x > d/gone; echo y > d/low");
            let mut layers = Layers::new(fs.host, "again", &[fs.layers.lowers[0].clone(), bottom]);
            layers.upper = None;
            let mut merged = Fs::mount(fs.host, fs.engine, Manner::ROOT, layers);
            assert_eq!(merged.sh("ls -A d e | tr '\\n' ' '").trim(), "d: kept low  e: f");
            assert!(!merged.path("d/gone").exists());
            merged.unmount();
            merged.end();
        },
    );
}

#[test]
fn files_with_attributes_only_are_read_and_completed() {
    Host::run(|host| {
        let script = "mkdir d; printf %010000d 7 > d/big; echo x > other; ln other linked";
        sh(&host.dir("lower"), script);
        let layers = Layers::new(host, "fs", &[host.path("lower")]);
        let kernel = layers.mount_kernel(",redirect_dir=on,metacopy=on,index=off");
        sh(&layers.at, "chmod 600 d/big; mv d/big moved; mv moved d/back; chown 5 other; mv d e");
        kernel.unmount();
        let has_none = |name: &str| {
            let all = all_xattrs(&layers.upper().join(name)).unwrap();
            all.contains_key(&b"trusted.overlay.metacopy"[..])
        };
        assert!(has_none("e/back") && has_none("other"), "the fixture has no such files");
        // As an upper layer, and as a lower one.
        let over = Layers::new(host, "over", &[layers.upper().to_owned(), host.path("lower")]);
        for layers in [over, layers.clone()] {
            let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, layers);
            assert_eq!((fs.read("e/back").len(), fs.read("other")), (10_000, b"x\n".to_vec()));
            assert_eq!((fs.stat("e/back").st_size, fs.stat("e/back").st_mode), (10_000, 0o100_600));
            assert!(fs.stat("e/back").st_blocks >= 16);
            fs.sh("mv e/back again");
            assert_eq!(fs.read("again").len(), 10_000);
            let file = File::options().write(true).open(fs.path("again")).unwrap();
            file.write_at(b"new", 9998).unwrap();
            drop(file);
            for engine in [Engine::Cowfs, Engine::Kernel] {
                fs.remount_by(engine);
                assert_eq!(&fs.read("again")[9995..], b"000new");
                // Overlayfs reads others only with metacopy=on.
                if engine == Engine::Cowfs {
                    assert_eq!((fs.read("other"), fs.stat("other").st_uid), (b"x\n".to_vec(), 5));
                }
            }
            fs.end();
        }
    });
}

#[test]
fn without_an_upper_layer_nothing_changes() {
    Host::run(|host| {
        sh(&host.dir("lower"), TREE);
        for engine in [Engine::Kernel, Engine::Cowfs] {
            let layers =
                Layers::new(host, engine.name(), &[host.path("lower"), host.dir("second")]).read_only();
            let fs = Fs::mount(host, engine, Manner::ROOT, layers);
            let refused = Some(Errno::ROFS.raw_os_error());
            assert_eq!(fs.read("top"), b"4\n");
            assert_eq!(std::fs::write(fs.path("top"), "x").unwrap_err().raw_os_error(), refused);
            assert_eq!(std::fs::create_dir(fs.path("n")).unwrap_err().raw_os_error(), refused);
            assert_eq!(std::fs::remove_file(fs.path("top")).unwrap_err().raw_os_error(), refused);
            assert_eq!(std::fs::rename(fs.path("a"), fs.path("n")).unwrap_err().raw_os_error(), refused);
            let mode = rustix::fs::Mode::from_raw_mode(0o700);
            assert_eq!(rustix::fs::chmod(fs.path("a"), mode), Err(Errno::ROFS));
            fs.end();
        }
    });
}

#[test]
fn rests_in_the_work_directory_are_cleared() {
    on_both(Manner::ROOT, TREE, |fs| {
        fs.sh("echo x >> top; mv a b");
        fs.unmount();
        let work = fs.layers.work().join("work");
        sh(&work, "mkdir '#1'; touch '#1/f' '#2'; mknod '#3' c 0 0");
        fs.remount();
        assert_eq!(fs.sh("cat top"), "4\nx");
        assert_eq!(sh(&work, "find . -name '#[123]*'"), "");
    });
}

#[test]
fn the_size_of_the_file_system_is_the_uppers() {
    on_both(Manner::ROOT, TREE, |fs| {
        let (here, upper) =
            (rustix::fs::statvfs(fs.path("")).unwrap(), rustix::fs::statvfs(fs.layers.upper()).unwrap());
        let comparable = |s: &rustix::fs::StatVfs| (s.f_blocks, s.f_bsize, s.f_files, s.f_namemax);
        assert_eq!(comparable(&here), comparable(&upper));
        let before = here.f_bfree * here.f_frsize;
        fs.sh("head -c 8M /dev/zero > big; sync big");
        let after = rustix::fs::statvfs(fs.path("")).unwrap();
        assert!(before - after.f_bfree * after.f_frsize >= 8 << 20);
    });
}

#[test]
fn redirects_are_followed_only_as_far_as_told() {
    on_cowfs(Manner::ROOT, TREE, |fs| {
        fs.sh("mv a moved");
        fs.unmount();
        let mounted = fs.layers.mount_cowfs(Manner::PLAIN, "", &[]);
        assert_eq!(sh(&fs.layers.at, "cat moved/g"), "2", "follow");
        mounted.unmount();
        let mounted = fs.layers.mount_cowfs(Manner::PLAIN, ",redirect_dir=nofollow", &[]);
        assert!(!fs.path("moved/g").exists());
        mounted.unmount();
        fs.remount();
    });
}
