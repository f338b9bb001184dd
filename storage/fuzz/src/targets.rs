//! What is done with an input, and what must hold whatever it is.

use std::io::Read as _;
use std::os::fd::AsFd as _;

use parsers::ledger::{self, Recorder as _, Unrecorded};
use parsers::oci::{Document, ImageFile, Index, Platform};
use parsers::reference::Reference;
use parsers::tarball::TarReader;
use parsers::unpack::{Limits, Options, unpack};

/// Every target by name.
pub const ALL: &[(&str, fn(&[u8]))] = &[
    ("tar", tar),
    ("unpack", unpacked),
    ("manifest", manifest),
    ("index", index),
    ("config", config),
    ("reference", reference),
    ("ledger", ledger),
    ("docker_manifest", docker_manifest),
];

/// Reading ends, with no more data than there are bytes, and sparse maps that hold what they promise.
fn tar(data: &[u8]) {
    let mut reader = TarReader::new(data);
    let mut total = 0u64;
    while let Ok(Some(entry)) = reader.next_entry() {
        if let Some(map) = &entry.sparse {
            let mut end = 0;
            for (offset, length) in &map.parts {
                assert!(*offset >= end);
                end = offset + length;
            }
            assert!(end <= map.real_size);
        }
        assert!(entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000);
        let mut taken = Vec::new();
        let _ = reader.data().take(1 << 20).read_to_end(&mut taken);
        total += taken.len() as u64;
        assert!(total <= data.len() as u64);
    }
}

/// Nothing but what is in the layer's directory changes.
fn unpacked(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let (root, canary) = (dir.path().join("layer"), dir.path().join("canary"));
    if std::fs::create_dir(&root).is_err() || std::fs::write(&canary, "alive").is_err() {
        return;
    }
    let Ok(fd) = davit_sys::beneath::open_root(&root) else { return };
    let options = Options {
        namespace: davit_cowfs::Namespace::User,
        // Device nodes of the host are not wanted here.
        rootless: true,
        whiteouts: data.len() % 2 == 0,
        limits: Limits { entries: 200, bytes: 1 << 20 },
    };
    let _ = unpack(&mut TarReader::new(data), fd.as_fd(), &options, &mut Unrecorded);
    assert_eq!(std::fs::read(&canary).expect("the canary is there"), b"alive");
    assert_eq!(std::fs::read_dir(dir.path()).expect("the directory is there").count(), 2);
    drop(fd);
    let _ = parsers::trash::delete_tree(&root);
}

fn manifest(data: &[u8]) {
    if let Ok(Document::Manifest(manifest)) = Document::parse(data) {
        assert!(manifest.layers.len() <= parsers::oci::MAX_LAYERS);
        // What is read is written and read again as the same.
        let again = serde_json::to_vec(&manifest).expect("a manifest of strings is JSON");
        assert!(matches!(Document::parse(&again), Ok(Document::Manifest(m)) if m.layers.len() == manifest.layers.len()));
    }
}

fn index(data: &[u8]) {
    if let Ok(index) = serde_json::from_slice::<Index>(data) {
        let _ = index.choose(&Platform::host()).map(|d| d.digest.short().len());
    }
    if let Ok(Document::Index(index)) = Document::parse(data) {
        let _ = index.choose(&Platform::default());
    }
}

fn config(data: &[u8]) {
    if let Ok(file) = ImageFile::parse(data) {
        let _ = file.check_platform(&Platform::host());
        let _ = parsers::oci::unix_ns(&file.created);
        let again = serde_json::to_vec(&file).expect("a config of strings is JSON");
        let same = ImageFile::parse(&again).expect("what we write we can read");
        assert_eq!(same.config, file.config);
        assert_eq!(same.rootfs.diff_ids, file.rootfs.diff_ids);
    }
}

/// The canonical form means the same, and is its own canonical form.
fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        let canonical = reference.canonical();
        let again = Reference::parse(&canonical).expect("a canonical reference is a reference");
        assert_eq!(again.canonical(), canonical);
        let familiar = Reference::parse(&reference.familiar()).expect("a familiar reference is a reference");
        assert_eq!(familiar.canonical(), canonical);
    }
}

/// A ledger that is read to its end is written again as the same bytes.
fn ledger(data: &[u8]) {
    let Ok(mut reader) = ledger::Reader::new(data) else { return };
    let mut writer = ledger::Writer::new(Vec::new()).expect("a vector takes everything");
    loop {
        match reader.next_event() {
            Ok(Some((event, at))) => {
                let _ = ledger::node_at(&data[(at as usize).min(data.len())..], |_| ());
                writer.record(event).expect("what is read can be written");
            }
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let _ = writer.finish().expect("a vector takes everything");
}

fn docker_manifest(data: &[u8]) {
    let _ = parsers::docker_manifest(data);
}
