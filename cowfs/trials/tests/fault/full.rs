//! No room.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::op::pattern;
use rustix::io::Errno;

const FULL: Option<i32> = Some(Errno::NOSPC.raw_os_error());

/// With an upper layer on a tmpfs with these options.
fn on_small(options: &str, lower: &str, test: impl Fn(&mut Fs<'_>) + Sync) {
    for engine in [Engine::Kernel, Engine::Cowfs] {
        println!("on {engine:?}");
        Host::run(|host| {
            sh(&host.dir("lower"), lower);
            sh(&host.dir("small"), &format!("mount -t tmpfs -o {options} tmpfs ."));
            let layers = Layers::new(host, "small", &[host.path("lower")]);
            let mut fs = Fs::mount(host, engine, Manner::ROOT, layers);
            test(&mut fs);
            fs.end();
        });
    }
}

fn work_is_empty(fs: &Fs<'_>) {
    assert_eq!(sh(&fs.layers.work().join("work"), "find . -type f -size +0"), "");
}

#[test]
fn a_copy_up_that_does_not_fit_leaves_the_old_file() {
    let lower = "for i in 1 2 3; do head -c 1500000 /dev/urandom > $i; done; md5sum 1 2 3 > sums";
    on_small("size=2m", lower, |fs| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::chmod(fs.path("1"), mode).unwrap();
        assert_eq!(rustix::fs::chmod(fs.path("2"), mode), Err(Errno::NOSPC));
        assert_eq!(
            File::options()
                .append(true)
                .open(fs.path("3"))
                .and_then(|mut f| {
                    f.write_all(b"more")?;
                    f.sync_all()
                })
                .unwrap_err()
                .raw_os_error(),
            FULL
        );
        assert_eq!(fs.sh("md5sum -c --quiet sums; stat -c %a 1 2"), "600\n644");
        work_is_empty(fs);
        // Removing makes room, and the next try succeeds.
        fs.sh("rm 1; chmod 600 2; md5sum 2 3 > /dev/null");
        fs.remount();
        assert_eq!(
            fs.sh("grep -v 1$ sums | md5sum -c --quiet; stat -c %a 2; ls | tr '\\n' ' '").trim(),
            "600\n2 3 sums"
        );
    });
}

#[test]
fn who_writes_too_much_is_told() {
    on_small("size=2m", "echo x > low", |fs| {
        let file = File::create(fs.path("big")).unwrap();
        let (mut written, mut told) = (0, None);
        while told.is_none() && written < 4 << 20 {
            match file.write_at(&pattern(1, 65_536), written) {
                Ok(n) => written += n as u64,
                Err(e) => told = Some(e),
            }
        }
        let told = told.or_else(|| file.sync_all().err());
        assert_eq!(told.and_then(|e| e.raw_os_error()), FULL);
        assert!(written >= 1 << 20);
        drop(file);
        // Its room is free once the kernel has told that nobody uses the file any more.
        fs.sh("rm big; i=0; while [ $(stat -f -c %f .) -lt 300 ] && [ $i -lt 500 ]; do i=$((i+1)); sleep 0.02; done");
        fs.sh("echo y >> low; head -c 1M /dev/zero > fits");
        fs.remount();
        assert_eq!(fs.sh("cat low; stat -c %s fits; ls | wc -l"), "x\ny\n1048576\n2");
    });
}

#[test]
fn without_an_inode_for_a_whiteout_nothing_is_lost() {
    on_small("size=8m,nr_inodes=100", "mkdir d; for i in $(seq 150); do echo $i > d/$i; done", |fs| {
        let mut refused = 0;
        for n in 1..=150 {
            let name = format!("d/{n}");
            let errno = match n % 3 {
                0 => std::fs::remove_file(fs.path(&name)).err(),
                1 => std::fs::rename(fs.path(&name), fs.path(&format!("d/n{n}"))).err(),
                _ => std::fs::OpenOptions::new()
                    .append(true)
                    .open(fs.path(&name))
                    .and_then(|mut f| f.write_all(b"+\n"))
                    .err(),
            };
            if let Some(e) = errno {
                assert_eq!(e.raw_os_error(), FULL, "{name}");
                refused += 1;
            }
            let there = [name.clone(), format!("d/n{n}")].map(|n| fs.path(&n).exists());
            assert!(!(there[0] && there[1]), "{name} is twice there");
            assert!(there[0] || there[1] || n % 3 == 0, "{name} is lost");
        }
        assert!(refused > 0, "there was room for all");
        let before = fs.sh("cd d; grep . *");
        // Mounting makes directories.
        sh(&fs.host.path("small"), "mount -o remount,nr_inodes=1000 .");
        fs.remount();
        assert_eq!(fs.sh("cd d; grep . *"), before);
        fs.sh("rm -r d; mkdir d");
        fs.remount();
        assert_eq!(fs.sh("ls d"), "");
    });
}
