//! What happens while a change is on its way: the server is held up at a point of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::mount::{Engine, Layers, Manner, Mounted};
use rustix::fs::{AtFlags, CWD, RenameFlags, StatxFlags};

/// A mount whose server waits at a point of its work when it is told to.
struct Held {
    layers: Layers,
    mounted: Option<Mounted>,
    stall: PathBuf,
}

impl Held {
    /// Over a lower layer that a script makes.
    fn at(host: &Host, point: &str, lower: &str) -> Self {
        sh(&host.dir("lower"), lower);
        let layers = Layers::new(host, "fs", &[host.path("lower")]);
        let stall = host.path("stall");
        let env = format!("{point}={}", stall.display());
        let mounted = layers.mount_cowfs(Manner::ROOT, "", &[("DAVIT_STALLPOINT", &env)]);
        Self { layers, mounted: Some(mounted), stall }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layers.at.join(name)
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        sh(&self.layers.at, script)
    }

    /// Makes a change, holds it up at the point, does something else, and lets go of it, whether or not what else is done waits for it.
    #[track_caller]
    fn while_held(&mut self, change: impl FnOnce(&Self) + Send, meanwhile: impl FnOnce(&Self) + Send) {
        std::fs::write(&self.stall, "").unwrap();
        let reached = self.stall.with_extension("reached");
        let this = &*self;
        std::thread::scope(|scope| {
            let change = scope.spawn(move || change(this));
            until("the point is reached", || reached.exists());
            let other = scope.spawn(move || meanwhile(this));
            std::thread::sleep(Duration::from_millis(200));
            std::fs::remove_file(&this.stall).unwrap();
            let start = Instant::now();
            while !(change.is_finished() && other.is_finished()) {
                if start.elapsed() > Duration::from_secs(20) {
                    let server = this.mounted.as_ref().unwrap().server().to_string();
                    sh(Path::new("/"), &format!("kill -9 {server}"));
                    eprintln!("the two wait for each other");
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            change.join().unwrap();
            other.join().unwrap();
        });
        std::fs::remove_file(reached).unwrap();
    }

    fn remount(&mut self, engine: Engine) {
        self.mounted.take().unwrap().unmount();
        self.mounted = Some(self.layers.mount(engine, Manner::ROOT));
    }

    /// The time of a directory, as the kernel has it and on the disk.
    #[track_caller]
    fn time(&self, name: &str) -> i64 {
        let [shown, real] = [self.path(name), self.layers.upper().join(name)]
            .map(|path| rustix::fs::lstat(path).unwrap().st_mtime);
        assert_eq!(shown, real, "{name} is shown with another time than it has");
        shown
    }
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

const DIR: &str =
    "mkdir -p d/s; echo x > d/f; echo y > d/g; echo z > d/h; ln d/f linked; echo s > d/s/f; touch -d @5 d";

/// `d` has been copied up and its time is 5. Then `change` is held at `point`.
fn in_a_directory(point: &str, change: &str, meanwhile: impl FnOnce(&Held) + Send, expect: fn(i64)) {
    Host::run(|host| {
        let mut held = Held::at(host, point, DIR);
        held.sh("chmod 700 d; touch -d @5 d; stat d d/f d/s linked > /dev/null");
        held.while_held(|held| drop(held.sh(change)), meanwhile);
        expect(held.time("d"));
        held.remount(Engine::Cowfs);
        held.sh("stat . d d/* > /dev/null");
        expect(held.time("d"));
        held.mounted.take().unwrap().unmount();
    });
}

fn is_kept(time: i64) {
    assert_eq!(time, 5);
}

fn is_set(time: i64) {
    assert_eq!(time, 77);
}

fn is_now(time: i64) {
    assert!(time > 1_000_000_000, "{time}");
}

const COPIES: [(&str, &str); 2] =
    [("copyup.placed", "echo more >> d/f"), ("copydir.placed", "chmod 700 d/s")];

#[test]
fn a_time_that_is_set_while_a_file_is_copied_up_stays() {
    for (point, change) in COPIES {
        in_a_directory(point, change, |held| drop(held.sh("touch -d @77 d")), is_set);
    }
}

#[test]
fn names_that_come_and_go_while_a_file_is_copied_up_move_the_time() {
    for (point, change) in COPIES {
        for names in [
            "echo x > d/new",
            "mkdir d/new",
            "ln -s x d/new",
            "mkfifo d/new",
            "ln linked d/new",
            "rm d/g",
            "mv d/h d/i",
            "mv d/h .",
            "mv linked d/new",
        ] {
            println!("{names} during {change}");
            in_a_directory(point, change, |held| drop(held.sh(names)), is_now);
        }
    }
}

#[test]
fn a_directory_made_and_removed_while_a_file_is_copied_up_moves_the_time() {
    let swap = |held: &Held| {
        let (a, b) = (held.path("d/h"), held.path("linked"));
        rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
    };
    in_a_directory("copydir.placed", "chmod 700 d/s", swap, is_now);
    in_a_directory("copyup.placed", "echo x >> d/f", |held| drop(held.sh("rm d/s/f; rmdir d/s")), is_now);
}

#[test]
fn who_looks_while_a_file_is_copied_up_does_not_see_the_time_in_between() {
    for (point, change) in COPIES {
        let asked = |held: &Held| {
            let flags = AtFlags::STATX_FORCE_SYNC;
            let seen = rustix::fs::statx(CWD, held.path("d"), flags, StatxFlags::MTIME).unwrap();
            assert_eq!(seen.stx_mtime.tv_sec, 5);
        };
        in_a_directory(point, change, asked, is_kept);
        // By READDIRPLUS.
        in_a_directory(point, change, |held| drop(held.sh("ls -l . > /dev/null")), is_kept);
    }
}

#[test]
fn only_the_time_of_change_is_put_back() {
    let accessed = |held: &Held| drop(held.sh("touch -a -d @77 d"));
    for (point, change) in COPIES {
        Host::run(|host| {
            let mut held = Held::at(host, point, DIR);
            held.sh("chmod 700 d; touch -d @5 d; stat d d/f d/s > /dev/null");
            held.while_held(|held| drop(held.sh(change)), accessed);
            let stat = rustix::fs::lstat(held.layers.upper().join("d")).unwrap();
            assert_eq!((stat.st_atime, stat.st_mtime), (77, 5));
        });
    }
}

/// The file is copied up by its name in the directory that it is exchanged with, where another file is being copied up too.
#[test]
fn a_directory_is_exchanged_with_a_file_that_has_another_name_in_it() {
    Host::run(|host| {
        let lower = "mkdir -p d/s; echo x > d/s/f; echo y > d/s/other; ln d/s/f linked";
        let mut held = Held::at(host, "copydir.made", lower);
        held.sh("stat d/s/f d/s/other linked > /dev/null");
        held.while_held(
            |held| {
                let (a, b) = (held.path("d"), held.path("linked"));
                rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
            },
            |held| {
                rustix::fs::chmod(held.path("d/s/other"), rustix::fs::Mode::RUSR).unwrap();
            },
        );
        for engine in [Engine::Cowfs, Engine::Kernel] {
            assert_eq!(
                held.sh("cat d linked/s/f linked/s/other; stat -c '%h %a' d linked/s/other"),
                "x\nx\ny\n2 644\n1 400"
            );
            held.remount(engine);
        }
    });
}
