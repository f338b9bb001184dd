use std::os::fd::AsFd;

use super::*;
use crate::ledger::Unrecorded;
use crate::tarball::TarReader;
use crate::unpack::{Limits, Options, unpack};

/// Unpacks with a tape; answers the recipe's path when there is one.
fn taped(tar: &[u8], dir: &Path) -> Option<std::path::PathBuf> {
    let (tree, recipe) = (dir.join("tree"), dir.join("recipe"));
    std::fs::create_dir(&tree).unwrap();
    let root = davit_sys::beneath::open_root(&tree).unwrap();
    let writer = Writer::new(File::create(&recipe).unwrap()).unwrap();
    let options = Options {
        namespace: davit_cowfs::Namespace::User,
        rootless: true,
        whiteouts: true,
        limits: Limits::default(),
    };
    let mut reader = TarReader::new(Tape::new(tar, Some(writer)));
    unpack(&mut reader, root.as_fd(), &options, &mut Unrecorded).unwrap();
    let mut tape = reader.into_inner();
    io::copy(&mut tape, &mut io::sink()).unwrap();
    tape.finish().1.unwrap().map(|w| {
        w.finish().unwrap();
        recipe
    })
}

fn header(size: u64) -> tar::Header {
    let mut h = tar::Header::new_gnu();
    h.set_size(size);
    h.set_mode(0o644);
    h.set_uid(u64::from(rustix::process::geteuid().as_raw()));
    h.set_gid(u64::from(rustix::process::getegid().as_raw()));
    h
}

fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let large = vec![7; 100_000];
    for (path, content) in
        [("a/empty", &b""[..]), ("a/one", b"1"), ("b", &large), (&"long/".repeat(60), b"x")]
    {
        let path = if path.ends_with('/') { format!("{path}name") } else { path.to_owned() };
        builder.append_data(&mut header(content.len() as u64), path, content).unwrap();
    }
    let mut link = header(0);
    link.set_entry_type(tar::EntryType::Link);
    builder.append_link(&mut link, "c", "b").unwrap();
    let mut tar = builder.into_inner().unwrap();
    // What follows the end mark belongs to the digest, too.
    tar.extend_from_slice(&[0; 4096]);
    tar.extend_from_slice(b"rest");
    tar
}

#[test]
fn a_tar_comes_back_byte_for_byte() {
    let (tmp, tar) = (tempfile::tempdir().unwrap(), sample());
    let recipe = taped(&tar, tmp.path()).unwrap();
    let mut again = Vec::new();
    open(&recipe, &tmp.path().join("tree")).unwrap().read_to_end(&mut again).unwrap();
    assert!(again == tar);
    assert!(recipe.metadata().unwrap().len() < 2000, "contents are not in it");
}

#[test]
fn a_file_that_was_replaced_leaves_no_recipe() {
    let tmp = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for content in [&b"first"[..], b"second"] {
        builder.append_data(&mut header(content.len() as u64), "same", content).unwrap();
    }
    assert!(taped(&builder.into_inner().unwrap(), tmp.path()).is_none());
}

#[test]
fn damage_is_an_error_and_never_other_bytes_in_silence() {
    let (tmp, tar) = (tempfile::tempdir().unwrap(), sample());
    let recipe = taped(&tar, tmp.path()).unwrap();
    let tree = tmp.path().join("tree");
    std::fs::write(tree.join("b"), "short").unwrap();
    let mut again = Vec::new();
    let e = open(&recipe, &tree).unwrap().read_to_end(&mut again).unwrap_err();
    assert!(e.to_string().contains("'b' is damaged"), "{e}");
    std::fs::remove_file(tree.join("b")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("b")).unwrap();
    assert!(open(&recipe, &tree).unwrap().read_to_end(&mut again).is_err());
    let bytes = std::fs::read(&recipe).unwrap();
    for cut in [0, 5, MAGIC.len(), bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&recipe, &bytes[..cut]).unwrap();
        let read = open(&recipe, &tree).map_err(|e| e.source).and_then(|mut r| r.read_to_end(&mut again));
        assert!(read.is_err(), "{cut}");
    }
}
