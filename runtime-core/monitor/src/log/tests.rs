//! The log as the loop uses it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use davit_wire::config::FileLog;
use flate2::read::GzDecoder;

use super::*;

fn directory(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("davit-log-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn sink(path: &Path, max_size: u64, max_files: u32) -> LogSink {
    LogSink::JsonFile(FileLog { path: path.into(), max_size, max_files, ..FileLog::default() })
}

fn finish(log: &mut Log) {
    let end = Instant::now() + Duration::from_secs(30);
    while !log.finish(0) {
        assert!(Instant::now() < end, "the log is never complete");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn content(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = |l: &str| {
        let v: serde_json::Value = serde_json::from_str(l).unwrap();
        v["log"].as_str().unwrap().to_owned()
    };
    text.lines().map(line).collect()
}

#[test]
fn what_is_written_reads_back_the_same() {
    let dir = directory("same");
    let path = dir.join("a.log");
    let mut log = Log::open(&sink(&path, 0, 1), 0).unwrap();
    log.write(true, b"one\ntw", 1);
    log.write(false, b"err\n", 2);
    log.write(true, b"o\nrest", 3);
    // The thread ends meanwhile, and begins again.
    std::thread::sleep(Duration::from_millis(300));
    assert!(log.shared.as_ref().unwrap().lock().pending() == 0);
    log.write(true, b" of it", 4);
    finish(&mut log);
    assert_eq!(content(&path), "one\nerr\ntwo\nrest of it");
    assert_eq!(log.dropped(), (0, ""));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn rotation_keeps_the_newest_files_and_loses_nothing_between_them() {
    let dir = directory("rotate");
    let path = dir.join("a.log");
    let mut log = Log::open(&sink(&path, 1000, 3), 0).unwrap();
    let mut all = String::new();
    for n in 0..100 {
        let line = format!("line {n}\n");
        log.write(true, line.as_bytes(), 0);
        all += &line;
    }
    finish(&mut log);
    let files = [path.with_extension("log.2"), path.with_extension("log.1"), path.clone()];
    let kept: String = files.iter().map(|p| content(p)).collect();
    assert!(all.ends_with(&kept) && kept.len() > 200, "{kept}");
    assert!(!path.with_extension("log.3").exists());
    for f in &files {
        assert!(std::fs::metadata(f).unwrap().len() < 1100);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn half_an_entry_at_the_end_of_a_file_goes() {
    let dir = directory("torn");
    for (name, format) in [("json", LogSink::JsonFile as fn(FileLog) -> LogSink), ("local", LogSink::Local)] {
        let path = dir.join(name);
        let file = || format(FileLog { path: path.clone(), max_files: 1, ..FileLog::default() });
        let write = |text: &[u8]| {
            let mut log = Log::open(&file(), 0).unwrap();
            log.write(true, text, 1);
            finish(&mut log);
        };
        write(b"one\ntwo\n");
        let two = std::fs::read(&path).unwrap();
        write(b"three\n");
        let three = std::fs::read(&path).unwrap();
        for cut in [two.len() + 1, two.len() + 9, three.len() - 1] {
            std::fs::write(&path, &three[..cut]).unwrap();
            write(b"three\n");
            assert_eq!(std::fs::read(&path).unwrap(), three, "{name} cut at {cut}");
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn compressing_keeps_every_byte() {
    let dir = directory("gz");
    let path = dir.join("x");
    std::fs::write(&path, "line\n".repeat(100_000)).unwrap();
    compress(&path).unwrap();
    let mut text = String::new();
    GzDecoder::new(File::open(dir.join("x.gz")).unwrap()).read_to_string(&mut text).unwrap();
    assert!(text == "line\n".repeat(100_000));
    let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["x.gz"]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_full_disk_is_counted_and_said_why() {
    // Every write to /dev/full fails with ENOSPC (full(4)).
    let mut log = Log::open(&sink(Path::new("/dev/full"), 0, 1), 0).unwrap();
    log.write(true, b"12345\n", 0);
    finish(&mut log);
    assert_eq!(log.dropped(), (6, "the disk was full"));
}

#[test]
fn a_stuck_log_is_dropped_from_and_says_so_when_it_goes_on() {
    let dir = directory("stuck");
    let path = dir.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let mut reader = File::options().read(true).write(true).open(&path).unwrap();
    let mut log = Log::open(&sink(&path, 0, 1), 0).unwrap();
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    let mut written = 0;
    loop {
        if log.is_full() {
            assert_eq!(log.dropped().0, 0, "the program waits for now");
            std::thread::sleep(Duration::from_millis(10));
        } else if log.shared.as_ref().unwrap().lock().is_stuck() {
            break;
        } else {
            log.write(true, &line, 0);
            written += 1;
        }
    }
    log.write(true, &line, 0);
    log.write(true, b"half a li", 0);
    assert_eq!(log.dropped(), (1024 + 9, "its disk was too slow"));
    let drained = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        // What is said of the rest of the cut line may follow at once.
        while !String::from_utf8_lossy(&text).contains("\"end\\n") {
            let n = reader.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(text).unwrap()
    });
    while log.shared.as_ref().unwrap().lock().pending() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    log.write(true, b"ne\nend\n", 0);
    finish(&mut log);
    let text = drained.join().unwrap();
    assert_eq!(text.matches("xxx\\n").count(), written);
    assert!(text.contains("davit: 1033 bytes of output were not logged: its disk was too slow\\n"), "{text}");
    assert!(!text.contains("half") && !text.contains("\"ne\\n"), "a line is whole or absent");
    assert_eq!(log.dropped().0, 1033 + 3);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_configured_buffer_drops_at_once() {
    let dir = directory("buffer");
    let path = dir.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let _reader = File::options().read(true).write(true).open(&path).unwrap();
    let attrs = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let file = FileLog { path, attrs, max_files: 1, ..FileLog::default() };
    let mut log = Log::open(&LogSink::JsonFile(file), 8192).unwrap();
    for _ in 0..300 {
        log.write(true, &[b'x'; 1024], 0);
        std::thread::sleep(Duration::from_micros(50));
        assert!(!log.is_full());
    }
    assert_eq!(log.dropped().1, "its buffer was full");
    std::fs::remove_dir_all(dir).unwrap();
}
