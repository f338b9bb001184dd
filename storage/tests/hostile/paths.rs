//! Names that lead elsewhere, or are too long, too many, or mean something.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use crate::case::{Canary, Case, harmless, layer, paths, refused, text};
use crate::hand::{Entry, Tar};

pub fn cases(canary: &Canary) -> Vec<Case> {
    let mut all = escapes(canary);
    all.extend(odd_names());
    all.extend(whiteouts(canary));
    all.extend(duplicates());
    all
}

fn escapes(canary: &Canary) -> Vec<Case> {
    let outside = canary.path();
    let inside = format!("{}/secret", outside.trim_start_matches('/'));
    let unsafe_path = |name: &str, path: &str| {
        refused(name, layer(&Tar::new().file(path, "evil").end()), &["unsafe path", path])
    };
    vec![
        harmless(
            "an absolute path",
            layer(&Tar::new().long(b'L', format!("{outside}/secret").as_bytes()).file("x", "evil").end()),
            move |l| assert_eq!(text(l, &inside), "evil"),
        ),
        unsafe_path("a path that begins with dotdot", "../evil"),
        unsafe_path("many dotdots", "../../../../../../../../tmp/evil"),
        unsafe_path("dotdot after a directory", "a/../../evil"),
        unsafe_path("dotdot that would stay inside", "a/../b"),
        unsafe_path("an absolute dotdot", "/../evil"),
        unsafe_path("dotdot at the end", "a/.."),
        refused("a directory called dotdot", layer(&Tar::new().dir("../").end()), &["unsafe path"]),
        refused(
            "dotdot in a long name",
            layer(
                &Tar::new()
                    .long(b'L', format!("{}/../../evil", "d/".repeat(100)).as_bytes())
                    .file("x", "")
                    .end(),
            ),
            &["unsafe path"],
        ),
        refused(
            "dotdot in a PAX record",
            layer(&Tar::new().pax(&[("path", b"../evil")]).file("good", "").end()),
            &["unsafe path '../evil'"],
        ),
        refused(
            "a file in place of the root",
            layer(&Tar::new().file(".", "evil").end()),
            &["unsafe path '.'"],
        ),
        refused(
            "a link in place of the root",
            layer(&Tar::new().symlink("./", "/").end()),
            &["unsafe path './'"],
        ),
        refused("no name at all", layer(&Tar::new().file("", "evil").end()), &["unsafe path ''"]),
        refused(
            "only slashes",
            layer(&Tar::new().file("///", "").symlink("//", "/").end()),
            &["unsafe path '//'"],
        ),
        refused(
            "a zero byte in a PAX path",
            layer(&Tar::new().pax(&[("path", b"a\0/../../evil")]).file("x", "").end()),
            &["a name with a zero byte"],
        ),
    ]
}

fn odd_names() -> Vec<Case> {
    let long = |length: usize| {
        let mut name = "d/".repeat(length / 2);
        name.truncate(length - 1);
        name.push('f');
        layer(&Tar::new().long(b'L', name.as_bytes()).file("x", "deep").end())
    };
    vec![
        harmless("a path of 4096 bytes", long(4096), |_| ()),
        refused("a path of 4097 bytes", long(4097), &["unsafe path"]),
        refused("a path of 500,000 bytes", long(500_000), &["unsafe path"]),
        harmless(
            "a name of 255 bytes",
            layer(&Tar::new().long(b'L', "n".repeat(255).as_bytes()).file("x", "long").end()),
            |l| assert_eq!(text(l, &"n".repeat(255)), "long"),
        ),
        refused(
            "a name of 256 bytes",
            layer(&Tar::new().long(b'L', "n".repeat(256).as_bytes()).file("x", "").end()),
            &["unsafe path 'nnnn"],
        ),
        refused(
            "a directory's name of 256 bytes",
            layer(&Tar::new().long(b'L', format!("{}/f", "n".repeat(256)).as_bytes()).file("x", "").end()),
            &["unsafe path 'nnnn"],
        ),
        harmless(
            "line breaks and escapes in a name",
            layer(&Tar::new().file("a\n\x1b[2Jb", "odd").end()),
            |l| assert_eq!(text(l, "a\n\x1b[2Jb"), "odd"),
        ),
        refused(
            "escapes in a name that is refused",
            layer(&Tar::new().file("../\x1b[2J", "").end()),
            &["unsafe path '../\\u{1b}[2J'"],
        ),
        harmless(
            "bytes that are no text",
            layer(&Tar::new().long(b'L', b"\xff\xfe\x80").file("x", "b").end()),
            |l| {
                assert_eq!(std::fs::read_dir(l).unwrap().count(), 1);
            },
        ),
        harmless("names that look like ours", layer(&Tar::new().file(".davit-doomed-0", "x").end()), |l| {
            assert_eq!(paths(l), [".davit-doomed-0"]);
        }),
        harmless(
            "a directory that nobody may enter",
            layer(&Tar::new().entry(&Entry::new("d", b'5').mode(0)).file("d/f", "in").end()),
            |l| assert_eq!(text(l, "d/f"), "in"),
        ),
    ]
}

#[allow(clippy::too_many_lines)] // a table
fn whiteouts(canary: &Canary) -> Vec<Case> {
    let invalid = |name: &str, path: &str| {
        refused(name, layer(&Tar::new().file(path, "").end()), &["unsafe path", path])
    };
    let outside = canary.path();
    vec![
        invalid("a whiteout of nothing", ".wh."),
        invalid("a whiteout of the root", ".wh.."),
        invalid("a whiteout of what is above the root", ".wh..."),
        invalid("a whiteout of nothing in a directory", "a/.wh."),
        invalid("a whiteout of a directory by its dot", "a/.wh.."),
        harmless("an opaque root", layer(&Tar::new().file(".wh..wh..opq", "").file("a", "a").end()), |l| {
            assert_eq!(paths(l), ["a"]);
        }),
        harmless(
            "a whiteout through a link",
            layer(&Tar::new().symlink("l", &outside).file("l/.wh.secret", "").end()),
            {
                let inside = format!("{}/secret", outside.trim_start_matches('/'));
                move |l| assert!(l.join(&inside).symlink_metadata().unwrap().file_type().is_char_device())
            },
        ),
        harmless(
            "an opaque mark through a link",
            layer(&Tar::new().symlink("l", &outside).file("l/.wh..wh..opq", "").end()),
            |_| (),
        ),
        harmless(
            "aufs's own names",
            layer(&Tar::new().file(".wh..wh.plnk/1.2", "").file(".wh..wh.aufs", "").end()),
            |_| (),
        ),
        harmless(
            "overlayfs's own attributes",
            layer(
                &Tar::new()
                    .pax(&[
                        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                        ("SCHILY.xattr.user.overlay.whiteout", b""),
                        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
                    ])
                    .dir("d")
                    .end(),
            ),
            |l| {
                assert!(
                    !crate::tree::listing(l)["d"].contains("overlay"),
                    "{}",
                    crate::tree::listing(l)["d"]
                );
            },
        ),
        harmless(
            "a device that would be a whiteout",
            layer(&Tar::new().entry(&Entry::new("etc", b'3').device(0, 0)).file("b", "").end()),
            |l| assert_eq!(paths(l), ["b"]),
        ),
        harmless(
            "the disk's own device",
            layer(
                &Tar::new()
                    .entry(&Entry::new("disk", b'4').device(8, 0).mode(0o666))
                    .file("disk2", "x")
                    .end(),
            ),
            |l| assert!(l.join("disk").symlink_metadata().unwrap().file_type().is_block_device()),
        ),
        harmless(
            "data written into a device, a fifo and a link by a second entry",
            layer(
                &Tar::new()
                    .entry(&Entry::new("dev", b'4').device(8, 0))
                    .entry(&Entry::new("fifo", b'6'))
                    .symlink("link", &format!("{outside}/secret"))
                    .file("dev", "evil")
                    .file("fifo", "evil")
                    .file("link", "evil")
                    .end(),
            ),
            |l| {
                for name in ["dev", "fifo", "link"] {
                    assert!(l.join(name).symlink_metadata().unwrap().is_file());
                    assert_eq!(text(l, name), "evil");
                }
            },
        ),
        harmless(
            "a kind that nobody knows",
            layer(&Tar::new().entry(&Entry::new("s", b'Z').data("data")).file("b", "b").end()),
            |l| {
                assert_eq!(paths(l), ["b"]);
            },
        ),
    ]
}

fn duplicates() -> Vec<Case> {
    let many = (0..1000).fold(Tar::new(), |tar, n| tar.file("same", &n.to_string())).end();
    let flip = (0..200)
        .fold(Tar::new(), |tar, _| {
            tar.dir("x").file("x/y", "1").file("x", "2").symlink("x", "/").dir("x").file("x/y", "3")
        })
        .end();
    vec![
        harmless("one name a thousand times", layer(&many), |l| assert_eq!(text(l, "same"), "999")),
        harmless("a name that changes its kind all the time", layer(&flip), |l| {
            assert_eq!(paths(l), ["x", "x/y"]);
            assert_eq!(text(l, "x/y"), "3");
        }),
        harmless(
            "a directory over a whiteout over a file",
            layer(
                &Tar::new()
                    .file("a", "1")
                    .file(".wh.a", "")
                    .dir("a")
                    .file("a/.wh.b", "")
                    .file("a/b", "2")
                    .end(),
            ),
            |l| assert_eq!(text(l, "a/b"), "2"),
        ),
        harmless(
            "the root's mode and owner, twice",
            layer(
                &Tar::new()
                    .entry(&Entry::new("./", b'5').mode(0o777))
                    .entry(&Entry::new("./", b'5').mode(0o711).owner(3, 4))
                    .end(),
            ),
            |l| {
                let root = l.metadata().unwrap();
                assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o711, 3, 4));
            },
        ),
    ]
}
