use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn header(name: &str, kind: EntryType, size: u64) -> Vec<u8> {
    let mut h = tar::Header::new_ustar();
    h.set_path(name).unwrap();
    h.set_entry_type(kind);
    h.set_size(size);
    h.set_mode(0o644);
    h.set_cksum();
    h.as_bytes().to_vec()
}

fn names(bytes: &[u8]) -> Result<Vec<String>, TarError> {
    let mut reader = TarReader::new(bytes);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    Ok(names)
}

#[test]
fn nothing_and_nonsense_are_no_tars() {
    assert!(matches!(names(b""), Err(TarError::NotTar)));
    assert!(matches!(names(&[7; 2000]), Err(TarError::NotTar)));
    assert!(matches!(names(b"short"), Err(TarError::NotTar)));
    assert_eq!(names(&[0; 1024]).unwrap(), Vec::<String>::new());
}

#[test]
fn an_archive_cut_anywhere_within_an_entry_is_truncated() {
    let mut tar = header("a", EntryType::Regular, 700);
    tar.extend([1; 700]);
    tar.extend([0; 324]);
    tar.extend(header("b", EntryType::Regular, 0));
    assert_eq!(names(&tar).unwrap(), ["a", "b"]);
    for cut in [513, 1000, 1211, 1537, 2047] {
        assert!(matches!(names(&tar[..cut]), Err(TarError::Truncated)), "cut at {cut}");
    }
}

#[test]
fn the_last_entrys_padding_and_the_end_mark_may_be_missing() {
    let mut tar = header("a", EntryType::Regular, 700);
    tar.extend([1; 700]);
    assert_eq!(names(&tar).unwrap(), ["a"]);
    tar.extend([0; 324]);
    assert_eq!(names(&tar).unwrap(), ["a"]);
}

#[test]
fn a_huge_extension_is_refused_before_it_is_read() {
    let tar = header("././@LongLink", EntryType::GNULongName, 1 << 40);
    assert!(matches!(names(&tar), Err(TarError::ExtensionTooLarge(_))));
    let tar = header("x", EntryType::XHeader, 5 << 20);
    assert!(matches!(names(&tar), Err(TarError::ExtensionTooLarge(_))));
}

#[test]
fn gnu_tars_sparse_and_long_names_are_read_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(180);
    std::fs::create_dir(dir.path().join(&long)).unwrap();
    let file = std::fs::File::create(dir.path().join(&long).join("sparse")).unwrap();
    file.set_len(40 << 20).unwrap();
    let mut expected = Vec::new();
    for i in 0..30u64 {
        let piece = vec![i as u8 + 1; 4096];
        std::os::unix::fs::FileExt::write_all_at(&file, &piece, (i + 1) << 20).unwrap();
        expected.extend(piece);
    }
    for format in
        ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"]
    {
        let out = Command::new("sh")
            .arg("-c")
            .arg(format!("tar -S -cf - --format={format} -C {} {long}", dir.path().display()))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let mut reader = TarReader::new(out.stdout.as_slice());
        assert_eq!(reader.next_entry().unwrap().unwrap().kind, Kind::Directory);
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, format!("{long}/sparse").into_bytes(), "{format}");
        assert_eq!(entry.real_size(), 40 << 20, "{format}");
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).unwrap();
        let map = entry.sparse.unwrap();
        assert_eq!(map.parts.iter().filter(|p| p.1 > 0).count(), 30, "{format}");
        assert_eq!(data, expected, "{format}");
        assert!(reader.next_entry().unwrap().is_none(), "{format}");
    }
}

proptest! {
    #[test]
    fn random_blocks_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = names(&bytes);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..4096, value: u8) {
        let mut builder = tar::Builder::new(Vec::new());
        let mut h = tar::Header::new_gnu();
        h.set_size(10);
        h.set_mode(0o644);
        builder.append_data(&mut h, "d".repeat(300), &[5u8; 10][..]).unwrap();
        let mut tar = builder.into_inner().unwrap();
        let at = at % tar.len();
        tar[at] = value;
        let _ = names(&tar);
    }
}
