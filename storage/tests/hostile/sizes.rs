//! Lies about sizes, bombs, and damage.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;

use crate::case::{Case, Input, harmless, layer, paths, refused, stored, text};
use crate::hand::{Entry, Tar, gzip, image, one_layer, seal};

pub fn cases() -> Vec<Case> {
    let mut all = lies();
    all.extend(extensions());
    all.extend(sparse());
    all.extend(compressed());
    all
}

/// A header whose field at `at` is `bytes`, with a right checksum.
fn patched(entry: &Entry, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut block = entry.header();
    block[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut block);
    Tar::new().raw(&block).end()
}

fn lies() -> Vec<Case> {
    let file = Entry::new("f", b'0');
    vec![
        refused(
            "a file that claims 8 GiB",
            layer(&Tar::new().entry(&file.clone().claims(8 << 30)).end()),
            &["truncated"],
        ),
        refused(
            "a file that claims 2 TiB",
            layer(&Tar::new().entry(&file.clone().claims(2 << 40)).end()),
            &["larger than allowed"],
        ),
        refused(
            "a file that claims all there can be",
            layer(&Tar::new().pax(&[("size", b"18446744073709551615")]).entry(&file).end()),
            &["larger than allowed"],
        ),
        refused("a negative size", layer(&patched(&file, 124, &[0xff; 12])), &["larger than allowed"]),
        refused("a size of letters", layer(&patched(&file, 124, b"abcdefghijk\0")), &["damaged: a size"]),
        refused("a mode of letters", layer(&patched(&file, 100, b"rwxrwxr\0")), &["damaged: a mode"]),
        refused(
            "an owner beyond 32 bits",
            layer(&Tar::new().pax(&[("uid", b"4294967296")]).entry(&file).end()),
            &["damaged: an owner"],
        ),
        refused(
            "a wrong checksum",
            layer(&Tar::new().file("a", "").raw(&[b'x'; 512]).end()),
            &["checksum is wrong after 1"],
        ),
        refused("a layer that is no tar", layer(&[7u8; 4096]), &["not a tar"]),
        refused("an empty layer", layer(b""), &["not a tar"]),
        harmless("an end mark and nothing else", layer(&Tar::new().end()), |l| assert!(paths(l).is_empty())),
        harmless(
            "entries behind the end mark",
            layer(&Tar::new().file("a", "a").raw(&[0; 1024]).file("evil", "x").end()),
            |l| assert_eq!(paths(l), ["a"]),
        ),
        harmless(
            "a directory that claims a size",
            layer(&Tar::new().entry(&Entry::new("d", b'5').claims(1 << 20)).file("d/f", "f").end()),
            |l| assert_eq!(text(l, "d/f"), "f"),
        ),
        harmless("times before and after all time", layer(&extreme_times()), |l| {
            assert_eq!(paths(l), ["future", "past"]);
        }),
    ]
}

fn extreme_times() -> Vec<u8> {
    Tar::new()
        .pax(&[("mtime", b"-9223372036854775807.5")])
        .file("past", "")
        .pax(&[("mtime", b"9223372036854775807")])
        .file("future", "")
        .end()
}

fn extensions() -> Vec<Case> {
    let huge = vec![b'x'; 2 << 20];
    let attributes: Vec<(String, Vec<u8>)> =
        (0..20_000).map(|n| (format!("SCHILY.xattr.user.a{n}"), b"1".to_vec())).collect();
    let many: Vec<(&str, &[u8])> = attributes.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
    let comment = vec![b'c'; 1_000_000];
    let headers = (0..20_000).fold(Tar::new(), |tar, _| tar.pax(&[("comment", b"x")]));
    let globals = (0..40).fold(Tar::new(), |tar, _| tar.extended(b'g', &[("comment", &comment)]));
    vec![
        refused(
            "a PAX header of two megabytes",
            layer(&Tar::new().pax(&[("comment", &huge)]).file("f", "").end()),
            &["extended header of", "too large"],
        ),
        refused(
            "a long name of two megabytes",
            layer(&Tar::new().long(b'L', &huge).file("f", "").end()),
            &["extended header of", "too large"],
        ),
        refused(
            "a long name that claims a terabyte",
            layer(&Tar::new().entry(&Entry::new("x", b'L').claims(1 << 40)).end()),
            &["extended header of", "too large"],
        ),
        refused(
            "a PAX record with a wrong length",
            layer(&Tar::new().entry(&Entry::new("x", b'x').data("99 path=x\n")).file("f", "").end()),
            &["a PAX record's length"],
        ),
        refused(
            "a PAX record without an end",
            layer(
                &Tar::new()
                    .entry(&Entry::new("x", b'x').data("18446744073709551616 a=b\n"))
                    .file("f", "")
                    .end(),
            ),
            &["a PAX record"],
        ),
        refused(
            "twenty thousand attributes",
            layer(&Tar::new().pax(&many).file("f", "").end()),
            &["larger than allowed", "names of attributes"],
        ),
        harmless("forty megabyte-sized global headers", layer(&globals.file("f", "f").end()), |l| {
            assert_eq!(text(l, "f"), "f");
        }),
        harmless("twenty thousand headers without an entry", layer(&headers.end()), |l| {
            assert!(paths(l).is_empty());
        }),
        harmless(
            "an attribute of a security module of another host",
            layer(
                &Tar::new()
                    .pax(&[("SCHILY.xattr.security.selinux", b"evil"), ("SCHILY.xattr.security.ima", b"x")])
                    .file("f", "")
                    .end(),
            ),
            |l| assert!(!crate::tree::listing(l)["f"].contains("security")),
        ),
    ]
}

fn sparse() -> Vec<Case> {
    let one = |map: &str, real: &str, data: &str| {
        let records: Vec<(&str, &[u8])> = vec![
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.size", real.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ];
        layer(&Tar::new().pax(&records).file("s", data).end())
    };
    let claims = |text: &str| {
        let mut data = text.as_bytes().to_vec();
        data.resize(1024, 0);
        let records: Vec<(&str, &[u8])> =
            vec![("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"100")];
        layer(&Tar::new().pax(&records).entry(&Entry::new("f", b'0').data(data)).end())
    };
    let map = "the archive is damaged: a sparse map";
    let mut parts = String::new();
    for n in 0..70_000 {
        let _ = write!(parts, "{},1,", n * 2);
    }
    vec![
        refused("a sparse map of ten million parts", claims("10000000\n0\n1\n"), &[map]),
        refused("a sparse map of 2^64 parts", claims("18446744073709551615\n"), &[map]),
        refused("a sparse map that never ends", claims(&"1".repeat(600)), &[map]),
        refused(
            "a sparse map of 70,000 parts in a record",
            one(&parts, "140000", &"x".repeat(70_000)),
            &[map],
        ),
        refused("sparse parts on top of one another", one("0,4,2,2", "6", "123456"), &[map]),
        refused("a sparse part beyond the end", one("0,2,100,2", "50", "1234"), &[map]),
        refused(
            "a sparse part that overflows",
            one("18446744073709551615,4", "18446744073709551615", "1234"),
            &[map],
        ),
        refused("an odd sparse map", one("0,4,8", "8", "1234"), &[map]),
        refused(
            "a sparse file of 2^62 bytes",
            one("0,4", "4611686018427387904", "1234"),
            &["larger than allowed"],
        ),
        harmless("a sparse file of 100 GiB", one("0,4", "107374182400", "1234"), |l| {
            let meta = l.join("f").metadata().unwrap();
            assert_eq!(meta.size(), 100 << 30);
            assert!(meta.blocks() < 64);
        }),
    ]
}

fn compressed() -> Vec<Case> {
    let tar = Tar::new().file("a", "a").end();
    let zeros = Tar::new().entry(&Entry::new("zeros", b'0').data(vec![0; 40 << 20])).end();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let mut twice = image("evil", &[(gzip(&gzip(&tar)), tar.as_slice())]).tar();
    let xz = || stored([b"\xfd7zXZ\0".to_vec(), vec![0; 600]].concat(), &tar);
    // A frame that asks for a window of 2^41 bytes (RFC 8878, 3.1.1.1.2).
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00];
    let mut cut = gzip(&zeros);
    cut.truncate(cut.len() / 2);
    let mut tail = gzip(&tar);
    tail.extend_from_slice(b"garbage behind the end");
    let flipped = {
        let mut bytes = gzip(&Tar::new().file("a", &"text ".repeat(1000)).end());
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        bytes
    };
    vec![
        refused("gzip in gzip", Input::Archive(std::mem::take(&mut twice)), &["not a tar"]),
        harmless("40 MB of zeros by gzip", stored(gzip(&zeros), &zeros), |l| {
            assert_eq!(l.join("zeros").metadata().unwrap().len(), 40 << 20);
        }),
        harmless("40 MB of zeros by zstd", stored(zstd(&zeros), &zeros), |l| {
            assert_eq!(l.join("zeros").metadata().unwrap().len(), 40 << 20);
        }),
        refused("a zstd window of two terabytes", stored(window.to_vec(), &tar), &["too much memory"]),
        refused("a gzip stream that stops early", stored(cut, &zeros), &["truncated"]),
        refused("a flipped bit in a gzip stream", stored(flipped, &tar), &["layer"]),
        refused("garbage behind a gzip stream", stored(tail, &tar), &["layer"]),
        refused("an xz layer", xz(), &["xz-compressed archives are not supported"]),
        refused("a bzip2 archive", Input::Archive(b"BZh91AY&SY and so on".to_vec()), &["bzip2-compressed"]),
        refused(
            "an archive that is a bomb of one document",
            Input::Archive(gzip(
                &Tar::new().entry(&Entry::new("manifest.json", b'0').data(vec![b' '; 40 << 20])).end(),
            )),
            &["manifest.json is larger than"],
        ),
        refused(
            "an image in an image",
            Input::Archive(
                Tar::new().entry(&Entry::new("image.tar", b'0').data(one_layer("x", &tar).tar())).end(),
            ),
            &["no image archive"],
        ),
    ]
}
