//! SIGKILL in the middle of everything.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::op::pattern;
use davit_cowfs_trials::tree::{Leeway, difference, snapshot};
use davit_tests::scale::{scaled, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Files of each kind.
const FILES: usize = 24;
const LEN: usize = 150_000;

/// What was promised before the server died.
#[derive(Debug, Default)]
struct Promises {
    changed: Mutex<Vec<usize>>,
    synced: Mutex<Vec<usize>>,
    moved: Mutex<Vec<usize>>,
    removed: Mutex<Vec<usize>>,
}

fn lower(dir: &Path) {
    sh(dir, "mkdir mode synced move dirs gone target");
    for n in 0..FILES {
        for kind in ["mode", "synced", "move", "gone"] {
            std::fs::write(dir.join(kind).join(n.to_string()), pattern(n as u8, LEN)).unwrap();
        }
        sh(&dir.join("dirs"), &format!("mkdir -p {n}/s; echo {n} > {n}/s/f"));
    }
}

/// Does its part until the server is dead. Errors of a dead server are the end, all others are wrong.
fn work(root: &Path, part: usize, promises: &Promises, done: &AtomicUsize) {
    for n in 0..FILES {
        let result = match part {
            0 => std::fs::set_permissions(root.join(format!("mode/{n}")), Permissions::from_mode(0o600))
                .map(|()| promises.changed.lock().unwrap().push(n)),
            1 => write_and_sync(&root.join(format!("synced/{n}")), n)
                .map(|()| promises.synced.lock().unwrap().push(n)),
            2 => std::fs::rename(root.join(format!("move/{n}")), root.join(format!("target/{n}")))
                .and_then(|()| {
                    std::fs::rename(root.join(format!("dirs/{n}")), root.join(format!("target/d{n}")))
                })
                .map(|()| promises.moved.lock().unwrap().push(n)),
            _ => std::fs::remove_file(root.join(format!("gone/{n}")))
                .map(|()| promises.removed.lock().unwrap().push(n)),
        };
        if let Err(e) = result {
            let dead = [nix::libc::ENOTCONN, nix::libc::ECONNABORTED, nix::libc::EIO, nix::libc::EINTR];
            assert!(e.raw_os_error().is_some_and(|e| dead.contains(&e)), "part {part}, {n}: {e}");
            return;
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

fn write_and_sync(path: &Path, n: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&pattern(n as u8 + 100, 5000), 1000)?;
    file.sync_all()
}

fn check(fs: &Fs<'_>, promises: &Promises) {
    let whole = |kind: &str, n: usize| {
        let data = fs.read(&format!("{kind}/{n}"));
        assert!(data == pattern(n as u8, LEN), "{kind}/{n} is {} bytes of something", data.len());
    };
    let (changed, moved) = (promises.changed.lock().unwrap(), promises.moved.lock().unwrap());
    let (synced, removed) = (promises.synced.lock().unwrap(), promises.removed.lock().unwrap());
    for n in 0..FILES {
        whole("mode", n);
        let mode = fs.stat(&format!("mode/{n}")).st_mode & 0o7777;
        assert!(mode == 0o600 || (mode == 0o644 && !changed.contains(&n)), "mode/{n} is {mode:o}");
        let there = |name: String| fs.path(&name).exists();
        let (old, new) = (there(format!("move/{n}")), there(format!("target/{n}")));
        assert!(old != new, "move/{n}: old {old}, new {new}");
        whole(if old { "move" } else { "target" }, n);
        let (before, after) = (there(format!("dirs/{n}/s/f")), there(format!("target/d{n}/s/f")));
        assert!(before != after, "dirs/{n}: old {before}, new {after}");
        assert!(!moved.contains(&n) || (new && after), "{n} was moved");
        if there(format!("gone/{n}")) {
            whole("gone", n);
        }
        assert!(!removed.contains(&n) || !there(format!("gone/{n}")), "gone/{n} was removed");
        let data = fs.read(&format!("synced/{n}"));
        assert_eq!(data.len(), LEN, "synced/{n}");
        if synced.contains(&n) {
            assert!(data[1000..6000] == pattern(n as u8 + 100, 5000), "synced/{n} was synced");
        }
        assert!(data[..1000] == pattern(n as u8, LEN)[..1000], "synced/{n} is half copied");
        assert!(data[6000..] == pattern(n as u8, LEN)[6000..], "synced/{n} is half copied");
    }
    let names = fs.sh("find . -mindepth 2 -maxdepth 2 | wc -l").parse::<usize>().unwrap();
    assert!(names <= 6 * FILES, "{names} names");
}

#[test]
fn the_server_is_killed_and_each_file_is_whole() {
    let mut random = StdRng::seed_from_u64(seed());
    for round in 0..scaled(12) {
        let at = random.random_range(0..4 * FILES);
        let pause = Duration::from_micros(random.random_range(0..3000));
        Host::run(|host| {
            lower(&host.dir("lower"));
            let layers = Layers::new(host, "fs", &[host.path("lower")]);
            let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, layers);
            let (promises, done) = (Promises::default(), AtomicUsize::new(0));
            let root = fs.path("");
            std::thread::scope(|scope| {
                for part in 0..4 {
                    let (root, promises, done) = (&root, &promises, &done);
                    scope.spawn(move || work(root, part, promises, done));
                }
                while done.load(Ordering::SeqCst) < at {
                    std::thread::sleep(Duration::from_micros(50));
                }
                std::thread::sleep(pause);
                fs.kill_server();
            });
            fs.kill();
            let finished = done.load(Ordering::SeqCst);
            println!("round {round}: killed after {at} steps and {pause:?}, {finished} were done");
            fs.remount();
            check(&fs, &promises);
            let seen = snapshot(&fs.path("")).unwrap();
            let rests = sh(fs.layers.work(), "find . -mindepth 2 -not -path './index/*' | wc -l");
            assert!(rests == "0" || rests == "1", "{rests} rests in the work directory");
            fs.remount_by(Engine::Kernel);
            check(&fs, &promises);
            assert_eq!(difference(&seen, &snapshot(&fs.path("")).unwrap(), &Leeway::default()), None);
            fs.end();
        });
    }
}

#[test]
fn a_dead_mount_can_be_taken_away_and_mounted_anew_under_an_open_file() {
    Host::run(|host| {
        lower(&host.dir("lower"));
        let layers = Layers::new(host, "fs", &[host.path("lower")]);
        let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, layers);
        let open = File::open(fs.path("mode/1")).unwrap();
        let unseen = File::options().write(true).open(fs.path("mode/2")).unwrap();
        fs.kill();
        assert_eq!(unseen.sync_all().unwrap_err().raw_os_error(), Some(nix::libc::ENOTCONN));
        fs.remount();
        assert!(open.metadata().is_err() || open.read_at(&mut [0; 10], 0).is_err());
        assert_eq!(fs.read("mode/1").len(), LEN);
        fs.end();
    });
}
