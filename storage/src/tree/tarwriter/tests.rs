//! What is written is read back the same by our own reader, and the names of the members by GNU tar.

use proptest::prelude::*;

use super::*;
use crate::tarball::TarReader;

pub(in crate::tree) fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        link: Vec::new(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        size: 0,
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}

fn read_back(tar: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = TarReader::new(tar);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).unwrap();
        all.push((entry, data));
    }
    all
}

fn same(a: &Entry, b: &Entry) -> bool {
    let key = |e: &Entry| {
        (e.path.clone(), e.link.clone(), e.kind, e.mode, e.uid, e.gid, e.mtime, e.device, e.xattrs.clone())
    };
    key(a) == key(b)
}

proptest! {
    #[test]
    fn every_member_is_read_back(
        name in "[a-z/é]{1,300}[a-z]", link in "[a-z]{0,150}", seconds in any::<i32>(), nanoseconds in 0u32..1_000_000_000,
        uid in any::<u32>(), mode in 0u32..0o10000, data in proptest::collection::vec(any::<u8>(), 0..2000),
        value in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut file = entry(&name, Kind::File);
        file.mtime = Time { seconds: i64::from(seconds), nanoseconds };
        (file.uid, file.gid, file.mode, file.size) = (uid, uid / 3, mode, data.len() as u64);
        file.xattrs = vec![(b"user.a".to_vec(), value)];
        let mut symlink = entry("link", Kind::Symlink);
        symlink.link = format!("x{link}").into_bytes();
        let mut device = entry("dev", Kind::CharDevice);
        device.device = (5, 1);
        let mut tar = TarWriter::new(Vec::new());
        tar.append_data(&file, data.as_slice()).unwrap();
        tar.append(&symlink).unwrap();
        tar.append(&device).unwrap();
        let read = read_back(&tar.finish().unwrap());
        prop_assert_eq!(read.len(), 3);
        prop_assert!(same(&read[0].0, &file), "{:?} {:?}", read[0].0, file);
        prop_assert_eq!(&read[0].1, &data);
        prop_assert!(same(&read[1].0, &symlink) && same(&read[2].0, &device));
    }
}

#[test]
fn a_file_that_changes_its_size_meanwhile_keeps_the_archive_whole() {
    let mut tar = TarWriter::new(Vec::new());
    let mut file = entry("shrinks", Kind::File);
    file.size = 1000;
    tar.append_data(&file, &b"abc"[..]).unwrap();
    file.path = b"grows".to_vec();
    file.size = 2;
    tar.append_data(&file, &b"abc"[..]).unwrap();
    let read = read_back(&tar.finish().unwrap());
    assert_eq!((read[0].1.len(), &read[0].1[..4]), (1000, &b"abc\0"[..]));
    assert_eq!(read[1].1, b"ab");
}

#[test]
fn a_sparse_file_has_its_parts_only() {
    use std::os::unix::fs::FileExt;
    let file = tempfile::tempfile().unwrap();
    file.write_at(b"start", 0).unwrap();
    file.write_at(b"end", 50_000_000).unwrap();
    let map = SparseMap { parts: vec![(0, 5), (50_000_000, 3)], real_size: 60_000_000 };
    let mut sparse = entry("sparse", Kind::File);
    sparse.sparse = Some(map.clone());
    let mut tar = TarWriter::new(Vec::new());
    tar.append_sparse(&sparse, &map, &file).unwrap();
    let bytes = tar.finish().unwrap();
    assert!(bytes.len() < 10_000);
    let read = read_back(&bytes);
    assert_eq!(read[0].0.path, b"sparse");
    assert_eq!(read[0].0.sparse, Some(map));
    assert_eq!(read[0].1, b"startend");
}

#[test]
fn gnu_tar_reads_it_and_the_same_members_give_the_same_bytes() {
    let write = || {
        let mut tar = TarWriter::new(Vec::new());
        let mut dir = entry("dir/", Kind::Directory);
        dir.mode = 0o1777;
        tar.append(&dir).unwrap();
        let mut file = entry(&format!("dir/{}", "n".repeat(180)), Kind::File);
        (file.size, file.mtime) = (3, Time { seconds: -5, nanoseconds: 7 });
        tar.append_data(&file, &b"abc"[..]).unwrap();
        let mut link = entry("dir/again", Kind::HardLink);
        link.link = file.path.clone();
        tar.append(&link).unwrap();
        tar.finish().unwrap()
    };
    let bytes = write();
    assert_eq!(bytes, write());
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("x.tar"), bytes).unwrap();
    let out = std::process::Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(tmp.path().join("x.tar"))
        .env("TZ", "UTC")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("drwxrwxrwt 0/0") && text.contains(&"n".repeat(180)), "{text}");
    assert!(text.contains("link to dir/nnn") && text.contains("1969-12-31"), "{text}");
}
