//! Contents of files.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use davit_cowfs_trials::fs::{Fs, on_both};
use davit_cowfs_trials::mount::Manner;
use davit_cowfs_trials::op::{Op, Outcome, Sharing as MapAs};
use davit_cowfs_trials::tree::extents;
use davit_sys::mapping::{Mapping, Sharing};
use rustix::fs::{FallocateFlags, OFlags};

const TREE: &str = "mkdir d; printf %08192d 7 > file; echo other > other";

fn open(fs: &Fs<'_>, name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(fs.path(name)).unwrap()
}

fn at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    let n = file.read_at(&mut data, offset).unwrap();
    data.truncate(n);
    data
}

#[test]
fn open_files_outlive_their_names() {
    on_both(Manner::ROOT, TREE, |fs| {
        let (mut gone, kept) = (open(fs, "file"), File::open(fs.path("other")).unwrap());
        fs.sh("rm file; echo new > new; mv new other");
        gone.seek(SeekFrom::End(0)).unwrap();
        gone.write_all(b"end").unwrap();
        assert_eq!((gone.metadata().unwrap().len(), gone.metadata().unwrap().nlink()), (8195, 0));
        assert_eq!(at(&gone, 8190, 9), b"07end");
        assert_eq!(at(&kept, 0, 9), b"other\n");
        fs.forget();
        assert_eq!(at(&gone, 8190, 9), b"07end");
        gone.set_len(2).unwrap();
        assert_eq!(at(&gone, 0, 9), b"00");
        let mut made = File::options().read(true).write(true).create_new(true).open(fs.path("made")).unwrap();
        fs.sh("rm made; echo another > made");
        made.write_all(b"mine").unwrap();
        assert_eq!((at(&made, 0, 9), fs.read("made")), (b"mine".to_vec(), b"another\n".to_vec()));
        assert_eq!(made.metadata().unwrap().nlink(), 0);
    });
}

#[test]
fn an_open_directory_outlives_its_name() {
    on_both(Manner::ROOT, "mkdir -p d/e; echo x > d/f", |fs| {
        let dir = File::open(fs.path("d/e")).unwrap();
        fs.sh("rmdir d/e; mkdir d/e; echo y > d/e/in");
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let made = rustix::fs::openat(&dir, "new", flags, rustix::fs::Mode::from_raw_mode(0o600));
        assert_eq!(made.err(), Some(rustix::io::Errno::NOENT));
        assert_eq!(rustix::fs::Dir::read_from(&dir).unwrap().count(), 0);
    });
}

#[test]
fn two_that_append_lose_nothing() {
    on_both(Manner::ROOT, TREE, |fs| {
        let mut actors = [fs.actor(0), fs.actor(0)];
        for actor in &mut actors {
            let open = Op::Open { path: "other".into(), slot: 0, flags: 0o2001, mode: 0 };
            assert_eq!(actor.one(&open), Outcome::Done);
        }
        std::thread::scope(|scope| {
            for (n, actor) in actors.iter_mut().enumerate() {
                scope.spawn(move || {
                    for _ in 0..500 {
                        let write = Op::Write { slot: 0, len: 16, seed: n as u8 * 2 };
                        assert_eq!(actor.one(&write), Outcome::Count(16));
                    }
                });
            }
        });
        let check = |fs: &Fs<'_>| {
            let data = fs.read("other");
            assert_eq!(data.len(), 6 + 1000 * 16);
            let of = |seed| davit_cowfs_trials::op::pattern(seed, 16);
            let count = |seed| data[6..].chunks(16).filter(|c| *c == of(seed)).count();
            assert_eq!((count(0), count(2)), (500, 500));
        };
        check(fs);
        drop(actors);
        fs.remount();
        check(fs);
    });
}

#[test]
fn what_is_truncated_at_open_is_not_copied() {
    on_both(Manner::ROOT, TREE, |fs| {
        let file = File::options().write(true).truncate(true).open(fs.path("file")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert_eq!(std::fs::metadata(fs.upper("file")).unwrap().blocks(), 0);
        // A descriptor that was there before sees it too.
        let reader = File::open(fs.path("other")).unwrap();
        assert_eq!(at(&reader, 0, 9), b"other\n");
        fs.write("other", b"o");
        assert_eq!(at(&reader, 0, 9), b"o");
    });
}

#[test]
fn direct_io_and_cached_io_see_each_other() {
    on_both(Manner::ROOT, TREE, |fs| {
        let flags = OFlags::DIRECT.bits() as i32;
        let direct =
            File::options().read(true).write(true).custom_flags(flags).open(fs.path("file")).unwrap();
        let cached = open(fs, "file");
        assert_eq!(at(&cached, 8190, 9), b"07");
        let mut memory = vec![0u8; 8192];
        let skip = memory.as_ptr().align_offset(4096);
        let block = &mut memory[skip..skip + 4096];
        block.fill(b'd');
        assert_eq!(direct.write_at(block, 4096).unwrap(), 4096);
        assert_eq!(at(&cached, 4094, 4), b"00dd");
        cached.write_at(b"cached", 4096).unwrap();
        block.fill(0);
        assert_eq!(direct.read_at(block, 4096).unwrap(), 4096);
        assert_eq!(&block[..8], b"cacheddd");
    });
}

#[test]
fn holes_are_punched_and_found() {
    on_both(Manner::ROOT, "printf %040960d 7 > file", |fs| {
        let file = open(fs, "file");
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 8192, 12_288).unwrap();
        assert_eq!((at(&file, 8191, 3), file.metadata().unwrap().len()), (b"0\0\0".to_vec(), 40_960));
        assert_eq!(extents(&file), [(0, 8192), (20_480, 40_960)]);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(9000)), Ok(20_480));
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(8192));
        let past = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(40_960));
        assert_eq!(past, Err(rustix::io::Errno::NXIO));
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 40_960, 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 45_056);
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 45_056, 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 45_056);
        drop(file);
        fs.remount();
        assert_eq!(
            (fs.stat("file").st_size, fs.read("file")[8191..8194].to_vec()),
            (45_056, b"0\0\0".to_vec())
        );
    });
}

#[test]
fn what_was_just_written_is_data_to_lseek() {
    on_both(Manner::ROOT, TREE, |fs| {
        let file = File::create_new(fs.path("new")).unwrap();
        file.write_at(b"x", 40_960).unwrap();
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(40_960));
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(40_960)), Ok(40_961));
    });
}

#[test]
fn a_sparse_file_stays_sparse_when_it_is_copied_up() {
    let lower = "truncate -s 1G file; printf data | dd of=file bs=4096 seek=1000 conv=notrunc status=none";
    on_both(Manner::ROOT, lower, |fs| {
        fs.sh("chmod 600 file; printf end | dd of=file bs=1 seek=1000000000 conv=notrunc status=none");
        fs.unmount();
        let upper = std::fs::metadata(fs.upper("file")).unwrap();
        assert_eq!(upper.len(), 1 << 30);
        // Overlayfs copies a megabyte around what there is.
        assert!(upper.blocks() * 512 < 4 << 20, "{} blocks", upper.blocks());
        let file = File::open(fs.upper("file")).unwrap();
        assert_eq!(
            (at(&file, 4_096_000, 5), at(&file, 1_000_000_000, 3)),
            (b"data\0".to_vec(), b"end".to_vec())
        );
    });
}

#[test]
fn files_of_more_than_four_gigabytes() {
    on_both(
        Manner::ROOT,
        "truncate -s 5G file; printf x | dd of=file bs=1 seek=4800000000 conv=notrunc status=none",
        |fs| {
            let file = open(fs, "file");
            assert_eq!(
                (file.metadata().unwrap().len(), at(&file, 4_800_000_000, 1)),
                (5 << 30, b"x".to_vec())
            );
            file.write_at(b"yy", (6 << 30) - 1).unwrap();
            assert_eq!(at(&file, 4_799_999_999, 3), b"\0x\0");
            drop(file);
            fs.remount();
            let file = open(fs, "file");
            assert_eq!(at(&file, (6 << 30) - 2, 9), b"\0yy");
            assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)), Ok((6 << 30) + 1));
        },
    );
}

#[test]
fn ranges_are_copied_between_layers() {
    on_both(Manner::ROOT, TREE, |fs| {
        let (from, to) = (File::open(fs.path("file")).unwrap(), open(fs, "other"));
        let copy = |from_at, to_at, len| {
            let (mut from_at, mut to_at) = (from_at, to_at);
            rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), len)
        };
        assert_eq!(copy(8190, 3, 100), Ok(2));
        assert_eq!(fs.read("other"), b"oth07\n");
        assert_eq!(copy(9000, 0, 100), Ok(0));
        let whole = open(fs, "file");
        whole.write_at(b"fresh", 0).unwrap();
        assert_eq!(copy(0, 10, 8192), Ok(8192));
        assert_eq!(&fs.read("other")[..17], b"oth07\n\0\0\0\0fresh00");
        assert_eq!(fs.sh("cp --reflink=auto file copy; cmp file copy && echo same"), "same");
    });
}

#[test]
fn mappings_and_descriptors_see_the_same() {
    on_both(Manner::ROOT, TREE, |fs| {
        let (file, other) = (open(fs, "file"), open(fs, "file"));
        let len = NonZeroUsize::new(8192).unwrap();
        let shared = Mapping::new(file.as_fd(), 0, len, Sharing::SharedWrite).unwrap();
        let private = Mapping::new(file.as_fd(), 0, len, Sharing::Private).unwrap();
        let mapped = |map: &Mapping, at: usize| {
            let mut data = [0; 4];
            map.read(at, &mut data).unwrap();
            data
        };
        other.write_at(b"disk", 100).unwrap();
        assert_eq!((&mapped(&shared, 100), &mapped(&private, 100)), (b"disk", b"disk"));
        shared.write(4096, b"page").unwrap();
        assert_eq!(at(&other, 4096, 4), b"page");
        private.write(4096, b"mine").unwrap();
        assert_eq!((at(&other, 4096, 4), &mapped(&private, 4096)), (b"page".to_vec(), b"mine"));
        // Another process.
        let mut actor = fs.actor(0);
        actor.one(&Op::Open { path: "file".into(), slot: 0, flags: 2, mode: 0 });
        let map = Op::Map { slot: 0, map: 0, page: 0, pages: 2, sharing: MapAs::SharedWrite };
        assert_eq!(actor.one(&map), Outcome::Done);
        assert_eq!(actor.one(&Op::MapWrite { map: 0, at: 8000, len: 4, seed: 4 }), Outcome::Count(4));
        assert_eq!(mapped(&shared, 8000).to_vec(), davit_cowfs_trials::op::pattern(4, 4));
        shared.sync().unwrap();
        drop((shared, private, file, other, actor));
        fs.remount();
        assert_eq!(&fs.read("file")[4096..4100], b"page");
        assert_eq!(&fs.read("file")[100..104], b"disk");
        assert_eq!(fs.read("file")[8000..8004], davit_cowfs_trials::op::pattern(4, 4));
    });
}

#[test]
fn what_a_mapping_writes_moves_the_time() {
    on_both(Manner::ROOT, &format!("{TREE}; touch -d @1 file"), |fs| {
        let file = open(fs, "file");
        let len = NonZeroUsize::new(4096).unwrap();
        let map = Mapping::new(file.as_fd(), 0, len, Sharing::SharedWrite).unwrap();
        assert_eq!(fs.stat("file").st_mtime, 1);
        map.write(10, b"x").unwrap();
        map.sync().unwrap();
        assert!(fs.stat("file").st_mtime > 1);
    });
}

#[test]
fn a_mapping_outlives_its_descriptor_and_its_name() {
    on_both(Manner::ROOT, TREE, |fs| {
        let file = open(fs, "file");
        let len = NonZeroUsize::new(8192).unwrap();
        let map = Mapping::new(file.as_fd(), 0, len, Sharing::SharedWrite).unwrap();
        let again = File::open(fs.path("file")).unwrap();
        drop(file);
        fs.sh("rm file");
        fs.forget();
        map.write(5000, b"still").unwrap();
        map.sync().unwrap();
        assert_eq!(at(&again, 5000, 5), b"still");
    });
}

#[test]
fn a_file_held_open_for_reading_sees_what_others_write_and_the_lower_does_not() {
    on_both(Manner::ROOT, TREE, |fs| {
        let mut reader = File::open(fs.path("file")).unwrap();
        let mut start = [0; 4];
        reader.read_exact(&mut start).unwrap();
        let writer = open(fs, "file");
        writer.write_at(b"written", 4).unwrap();
        let mut next = [0; 7];
        reader.read_exact(&mut next).unwrap();
        assert_eq!(&next, b"written");
        fs.forget();
        writer.write_at(b"again", 8187).unwrap();
        assert_eq!(at(&reader, 8187, 9), b"again");
        assert_eq!(&std::fs::read(fs.lower("file")).unwrap()[8187..], b"00007");
    });
}

#[test]
fn what_is_synced_is_in_the_upper_layer() {
    for writeback in [false, true] {
        on_both(Manner { writeback, ..Manner::ROOT }, TREE, synced);
    }
}

fn synced(fs: &mut Fs<'_>) {
    let file = open(fs, "file");
    file.write_at(b"synced", 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(&std::fs::read(fs.upper("file")).unwrap()[..6], b"synced");
    file.write_at(b"data", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(&std::fs::read(fs.upper("file")).unwrap()[..6], b"dataed");
    file.write_at(b"all", 0).unwrap();
    rustix::fs::syncfs(&file).unwrap();
    assert_eq!(&std::fs::read(fs.upper("file")).unwrap()[..6], b"allaed");
    File::open(fs.path("d")).unwrap().sync_all().unwrap();
    File::open(fs.path("other")).unwrap().sync_all().unwrap();
}

#[test]
fn a_program_runs_from_a_layer_and_cannot_be_written_meanwhile() {
    on_both(Manner::ROOT, "cp /bin/sleep program; cp /bin/true other", |fs| {
        fs.sh("./other; chmod 755 other; ./other");
        let mut child = std::process::Command::new(fs.path("program")).arg("60").spawn().unwrap();
        // exec(2) is done once the child is no longer this program.
        let busy = loop {
            match File::options().write(true).open(fs.path("program")) {
                Err(e) => break e.raw_os_error(),
                Ok(_) => std::thread::yield_now(),
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(busy, Some(rustix::io::Errno::TXTBSY.raw_os_error()));
    });
}
