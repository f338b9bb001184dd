//! Measures ways of making freshly written layers durable: `cargo run -p davit-storage --example flush -- DIR`.
//!
//! Each way writes the same trees (4 of 100 files of 4 KiB to 32 KiB) below DIR, in turn with the others, and is timed from
//! the first write to the end of its last flush. Then: four commits at a time, each flushing for itself or sharing one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

const TREES: usize = 4;
const FILES: usize = 100;
const ROUNDS: usize = 9;

#[derive(Clone, Copy)]
enum Way {
    /// Nothing: what a power cut would take.
    None,
    /// fsync of every file, then of every directory.
    Each,
    /// One syncfs at the end.
    Whole,
    /// Write-back begins with each file (sync_file_range), one syncfs at the end.
    Early,
}

fn write_tree(dir: &Path, way: Way) {
    std::fs::create_dir_all(dir).unwrap();
    let bytes = vec![0x5a; 32 << 10];
    let mut files = Vec::new();
    for n in 0..FILES {
        let mut file = File::create(dir.join(n.to_string())).unwrap();
        file.write_all(&bytes[..4096 + (n * 7919) % (28 << 10)]).unwrap();
        match way {
            Way::Early => begin_write_back(&file),
            Way::Each => files.push(file),
            _ => {}
        }
    }
    for file in files {
        file.sync_all().unwrap();
    }
    if matches!(way, Way::Each) {
        File::open(dir).unwrap().sync_all().unwrap();
    }
}

/// Without waiting, by the one call for it that needs no unsafe code: POSIX_FADV_DONTNEED starts write-back of dirty pages.
fn begin_write_back(file: &File) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn flush(dir: &Path) {
    rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
}

fn timed(dir: &Path, way: Way) -> f64 {
    flush(dir);
    let started = Instant::now();
    let trees: Vec<PathBuf> = (0..TREES).map(|t| dir.join(format!("tree{t}"))).collect();
    for tree in &trees {
        write_tree(tree, way);
    }
    match way {
        Way::Whole | Way::Early => flush(dir),
        _ => {}
    }
    let took = started.elapsed().as_secs_f64();
    for tree in &trees {
        std::fs::remove_dir_all(tree).unwrap();
    }
    took
}

/// Four threads, each with a tree and a small record that is fsynced after the flush.
fn commits(dir: &Path, shared: bool) -> f64 {
    flush(dir);
    let barrier = std::sync::Barrier::new(4);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (dir, barrier) = (dir.to_path_buf(), &barrier);
            scope.spawn(move || {
                write_tree(&dir.join(format!("commit{t}")), Way::None);
                let leads = barrier.wait().is_leader();
                if leads || !shared {
                    flush(&dir);
                    let mut record = File::create(dir.join(format!("record{t}"))).unwrap();
                    record.write_all(&[1; 4096]).unwrap();
                    record.sync_all().unwrap();
                }
                barrier.wait();
            });
        }
    });
    let took = started.elapsed().as_secs_f64();
    (0..4).for_each(|t| std::fs::remove_dir_all(dir.join(format!("commit{t}"))).unwrap());
    took
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let base = PathBuf::from(std::env::args().nth(1).expect("a directory on the disk to be measured"));
    let dir = base.join(format!("flush-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let ways = [
        ("no flush", Way::None),
        ("fsync each", Way::Each),
        ("syncfs", Way::Whole),
        ("early write-back, syncfs", Way::Early),
    ];
    let mut times = vec![Vec::new(); ways.len()];
    let mut four = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((_, way), times) in ways.iter().zip(&mut times) {
            times.push(timed(&dir, *way));
        }
        four[0].push(commits(&dir, false));
        four[1].push(commits(&dir, true));
    }
    for ((name, _), times) in ways.iter().zip(times) {
        println!("{name:<26} {:.3} s", median(times));
    }
    let [alone, shared] = four;
    println!("4 commits, flushing alone  {:.3} s", median(alone));
    println!("4 commits, sharing a flush {:.3} s", median(shared));
    std::fs::remove_dir_all(&dir).unwrap();
}
