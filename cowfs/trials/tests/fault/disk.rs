//! A disk that fails.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use davit_cowfs_trials::fs::Fs;
use davit_cowfs_trials::host::{Host, sh};
use davit_cowfs_trials::mount::{Engine, Layers, Manner};
use davit_cowfs_trials::op::{hash, pattern};

const LEN: usize = 400_000;

/// The upper is an ext4 on a disk which is a sparse file on a small tmpfs: once that is full, the disk's writes fail with EIO.
#[test]
fn errors_of_the_disk_are_told_and_what_was_synced_stays() {
    Host::run(|host| {
        let lower = host.dir("lower");
        for n in 0..60 {
            std::fs::write(lower.join(n.to_string()), pattern(n, LEN)).unwrap();
        }
        let small = host.dir("small");
        sh(
            &small,
            "mount -t tmpfs -o size=10m tmpfs .; cd $PWD; truncate -s 200M disk; mkfs.ext4 -q -F -E lazy_itable_init=1,nodiscard disk",
        );
        let disk = host.dir("disk");
        let attach =
            |options: &str| sh(&disk, &format!("mount -o loop,{options} {}/disk .", small.display()));
        attach("errors=continue");
        let layers = Layers::new(host, "disk", &[lower]);
        let mut fs = Fs::mount(host, Engine::Cowfs, Manner::ROOT, layers);
        let mut synced = Vec::new();
        let mut told = None;
        for n in 0..60u8 {
            match change(&fs, n) {
                Ok(()) => synced.push(n),
                Err(e) => {
                    told = Some(e);
                    break;
                }
            }
        }
        let told = told.expect("the disk has failed").raw_os_error();
        let errors = [nix::libc::EIO, nix::libc::EROFS, nix::libc::ENOSPC];
        assert!(told.is_some_and(|e| errors.contains(&e)), "{told:?}");
        println!("{} files were synced before the disk failed with {told:?}", synced.len());
        assert!(!synced.is_empty(), "the disk failed at once");
        fs.unmount();
        // The disk is replaced: its file system is checked, and mounted again.
        sh(
            &small,
            "umount ../disk/; mount -o remount,size=300m .; e2fsck -fy disk > /dev/null || test $? -le 2",
        );
        attach("errors=continue");
        fs.remount();
        for n in 0..60 {
            let data = fs.read(&n.to_string());
            assert_eq!(data.len(), LEN, "{n}");
            let mut new = pattern(n, LEN);
            new[5000..10_000].copy_from_slice(&pattern(n + 100, 5000));
            let is_new = hash(&data) == hash(&new);
            let is_old = hash(&data) == hash(&pattern(n, LEN));
            assert!(
                is_new || (is_old && !synced.contains(&n)),
                "{n}: old {is_old}, synced {}",
                synced.contains(&n)
            );
        }
        fs.end();
    });
}

fn change(fs: &Fs<'_>, n: u8) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(fs.path(&n.to_string()))?;
    file.write_all_at(&pattern(n + 100, 5000), 5000)?;
    file.sync_all()?;
    File::open(fs.path(""))?.sync_all()
}
