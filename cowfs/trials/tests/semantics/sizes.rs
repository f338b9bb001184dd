//! Much of everything.

use davit_cowfs_trials::Host;
use davit_cowfs_trials::fs::{Fs, on_both, on_cowfs};
use davit_cowfs_trials::host::sh;
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_tests::scale::scaled;
use rustix::fs::{Mode, OFlags};

/// What davit-cowfs may hold after so many files: 64 MB for a million.
fn limit(files: usize) -> u64 {
    (8 << 10) + files as u64 * 56 / 1024
}

#[test]
fn five_hundred_layers() {
    for engine in [Engine::Kernel, Engine::Cowfs] {
        Host::run(|host| {
            let all = host.dir("l");
            sh(
                &all,
                "for i in $(seq 0 499); do mkdir -p $i/d/s; echo $i > $i/f$i; echo $i > $i/d/s/$i; echo $i > $i/top; done",
            );
            let lowers: Vec<_> = (0..500).map(|i| all.join(i.to_string())).collect();
            let layers = Layers::new(host, "500", &lowers);
            let mut fs = Fs::mount(host, engine, Manner::ROOT, layers);
            assert_eq!(fs.sh("ls -A | wc -l; ls d/s | wc -l; cat top f499 d/s/250"), "502\n500\n0\n499\n250");
            fs.sh("echo more >> f499; rm top d/s/0; mv d e; echo new > e/s/499");
            fs.remount();
            assert_eq!(fs.sh("ls -A | wc -l; ls e/s | wc -l; cat f499 e/s/499"), "501\n499\n499\nmore\nnew");
            fs.end();
        });
    }
}

/// Entries as getdents64(2) gives them, which names no inode to the kernel that it did not know.
fn count(fs: &Fs<'_>, dir: &str) -> usize {
    let fd = rustix::fs::open(fs.path(dir), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    rustix::fs::Dir::new(fd).unwrap().filter(|e| e.as_ref().is_ok_and(|e| e.ino() != 0)).count() - 2
}

#[test]
fn a_large_directory_is_read_in_bounded_memory() {
    let n = scaled(200_000);
    on_cowfs(
        Manner::ROOT,
        &format!(
            "mkdir d; cd d; seq 1 {n} | xargs touch; seq 1 {n} | sed 's/$/x/' | head -1000 | xargs touch"
        ),
        |fs| {
            assert_eq!(count(fs, "d"), n + n.min(1000));
            // Merged: the upper has some of the same names and some of its own.
            fs.unmount();
            sh(fs.layers.upper(), &format!("mkdir d; cd d; seq {} {} | xargs touch", n - n / 10, n + n / 10));
            fs.remount();
            assert_eq!(count(fs, "d"), n + n / 10 + n.min(1000));
            let most = fs.mounted().memory("VmHWM");
            assert!(most < limit(n), "{most} KiB for {n} entries");
            println!("{most} KiB for {n} entries");
        },
    );
}

#[test]
fn memory_is_given_back_when_the_kernel_forgets() {
    let n = scaled(200_000);
    let dirs = n / 100;
    // A process for each directory would take longer than the test.
    let lower = format!(
        "seq {dirs} | xargs mkdir; seq 0 {} | awk '{{ print int($1 / 100) + 1 \"/\" $1 }}' | xargs touch",
        dirs * 100 - 1
    );
    on_cowfs(Manner::ROOT, &lower, |fs| {
        let found: usize = fs.sh("find . -type f -size -1 | wc -l").parse().unwrap();
        assert_eq!(found, dirs * 100);
        let after = fs.mounted().memory("VmRSS");
        assert!(after < limit(n), "{after} KiB after walking {n} files");
        fs.forget();
        // Forgetting is told by messages that nobody waits for; an answer to a later request is behind them all.
        let left = (0..100).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            fs.sh("stat 1 > /dev/null");
            fs.mounted().memory("VmRSS")
        });
        let least = left.take_while(|now| *now >= 16 << 10).count();
        let now = fs.mounted().memory("VmRSS");
        assert!(now < 16 << 10, "{now} KiB after all was forgotten (looked {least} times)");
        println!("{after} KiB after walking {n} files, {now} KiB after forgetting them");
    });
}

#[test]
fn a_file_in_a_deep_tree() {
    on_both(Manner::ROOT, "p=.; for i in $(seq 300); do p=$p/d; done; mkdir -p $p; echo x > $p/f", |fs| {
        let deep = vec!["d"; 300].join("/");
        fs.sh(&format!("echo y >> {deep}/f; mv d/d/d e; mkdir d/d/d"));
        fs.remount();
        let rest = vec!["d"; 297].join("/");
        assert_eq!(fs.sh(&format!("cat e/{rest}/f; ls -A d/d/d")), "x\ny");
    });
}
