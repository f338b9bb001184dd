//! Power cuts: the upper is on an ext4 on a disk with a volatile write cache. Of each crash image every file is the old or the new, whole,
//! and what was synced is the new.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::op::pattern;
use davit_tests::scale::{scaled, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::disks::{Disks, LIVE};

const FILES: usize = 60;
const LEN: usize = 50_000;

/// What was promised, by file number.
#[derive(Debug, Default, Clone)]
struct Promises {
    written: Vec<usize>,
    moved: Vec<usize>,
    removed: Vec<usize>,
    made: Vec<usize>,
}

fn lower(dir: &Path) {
    sh(dir, "mkdir w m g n t");
    for n in 0..FILES {
        for kind in ["w", "m", "g"] {
            std::fs::write(dir.join(kind).join(n.to_string()), pattern(n as u8, LEN)).unwrap();
        }
    }
}

fn new_of(n: usize) -> Vec<u8> {
    let mut data = pattern(n as u8, LEN);
    data[100..200].copy_from_slice(&pattern(n as u8 + 90, 100));
    data
}

fn work(root: &Path, promises: &Mutex<Promises>, stop: &AtomicBool) -> io::Result<()> {
    let sync_dir = |name: &str| File::open(root.join(name))?.sync_all();
    for n in 0..FILES {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let file = File::options().write(true).open(root.join(format!("w/{n}")))?;
        file.write_all_at(&pattern(n as u8 + 90, 100), 100)?;
        if n % 3 != 0 {
            file.sync_all()?;
            promises.lock().unwrap().written.push(n);
        }
        std::fs::rename(root.join(format!("m/{n}")), root.join(format!("t/{n}")))?;
        std::fs::remove_file(root.join(format!("g/{n}")))?;
        if n % 4 == 0 {
            sync_dir("t")?;
            sync_dir("m")?;
            sync_dir("g")?;
            promises.lock().unwrap().moved.extend(0..=n);
            promises.lock().unwrap().removed.extend(0..=n);
        }
        let made = File::create_new(root.join(format!("n/{n}")))?;
        made.write_all_at(&pattern(n as u8, LEN), 0)?;
        made.sync_all()?;
        sync_dir("n")?;
        promises.lock().unwrap().made.push(n);
    }
    Ok(())
}

fn check(fs: &Fs<'_>, promises: &Promises) {
    for n in 0..FILES {
        let (old, new) = (pattern(n as u8, LEN), new_of(n));
        let data = fs.read(&format!("w/{n}"));
        assert!(data == new || data == old, "w/{n} is half copied: {} bytes", data.len());
        assert!(data == new || !promises.written.contains(&n), "w/{n} was synced");
        let there = |kind: &str| fs.path(&format!("{kind}/{n}")).exists();
        // Between the two directories the rename may be seen from both sides at once, never from none.
        assert!(there("m") || there("t"), "m/{n} is lost");
        for kind in ["m", "t", "g"] {
            assert!(!there(kind) || fs.read(&format!("{kind}/{n}")) == old, "{kind}/{n} is not whole");
        }
        assert!(there("t") && !there("m") || !promises.moved.contains(&n), "m/{n} was moved");
        assert!(!there("g") || !promises.removed.contains(&n), "g/{n} was removed");
        if promises.made.contains(&n) {
            assert!(fs.read(&format!("n/{n}")) == old, "n/{n} was synced");
        }
    }
}

/// Loop mounts hold their disk busy until they are gone: they go before it, whatever happens.
struct Disk<'a>(&'a Path);

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        sh(self.0, "cd /; umount $OLDPWD || umount -l $OLDPWD");
    }
}

#[test]
fn a_power_cut_leaves_the_old_or_the_new() {
    let mut random = StdRng::seed_from_u64(seed());
    Host::run(|host| {
        lower(&host.dir("lower"));
        let fuse = host.dir("disks");
        let (disks, session) = Disks::mount(&fuse, 64 << 20);
        let live = fuse.join(LIVE.to_string());
        let make = "mkfs.ext4 -q -F -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        sh(&fuse, &format!("{make} {}", live.display()));
        let at = host.dir("live");
        sh(&at, &format!("mount -o loop {} .", live.display()));
        let disk = Disk(&at);
        let fs =
            Fs::mount(host, Engine::Cowfs, Manner::ROOT, Layers::new(host, "live", &[host.path("lower")]));
        let (promises, stop) = (Mutex::new(Promises::default()), AtomicBool::new(false));
        let mut kept = 0;
        std::thread::scope(|scope| {
            let root = fs.path("");
            let (promises, stop) = (&promises, &stop);
            let worker = scope.spawn(move || work(&root, promises, stop));
            for number in (LIVE + 1..).take(scaled(15)) {
                std::thread::sleep(Duration::from_micros(random.random_range(1000..60_000)));
                let (cut, promised) = {
                    let held = promises.lock().unwrap();
                    (disks.crash(number, &mut random), held.clone())
                };
                kept += promised.written.len() + promised.made.len();
                println!(
                    "crash {number}: {cut:?}, {} written, {} made",
                    promised.written.len(),
                    promised.made.len()
                );
                let name = format!("crash{number}");
                let at = host.dir(&name);
                sh(&at, &format!("mount -o loop {} .", fuse.join(number.to_string()).display()));
                let disk = Disk(&at);
                let layers = Layers::new(host, &name, &[host.path("lower")]);
                let crashed = Fs::mount(host, Engine::Cowfs, Manner::ROOT, layers);
                check(&crashed, &promised);
                crashed.end();
                drop(disk);
                disks.remove(number);
            }
            stop.store(true, Ordering::SeqCst);
            worker.join().unwrap().unwrap();
        });
        assert!(kept > 0, "nothing was at stake");
        fs.end();
        drop(disk);
        session.umount_and_join().unwrap();
    });
}
