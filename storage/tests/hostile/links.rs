//! Links that lead elsewhere.

use std::os::unix::fs::MetadataExt as _;

use crate::case::{Canary, Case, harmless, layer, paths, refused, text};
use crate::hand::{Entry, Tar};

pub fn cases(canary: &Canary) -> Vec<Case> {
    let mut all = symbolic(canary);
    all.extend(hard(canary));
    all
}

#[allow(clippy::too_many_lines)] // a table
fn symbolic(canary: &Canary) -> Vec<Case> {
    let outside = canary.path();
    let below = outside.trim_start_matches('/').to_owned();
    let chain = (0..60).fold(Tar::new(), |tar, n| tar.symlink(&format!("l{n}"), &format!("l{}", n + 1)));
    let inside = |path: &str| {
        let path = path.to_owned();
        move |l: &std::path::Path| assert_eq!(text(l, &path), "evil")
    };
    vec![
        harmless(
            "a file through an absolute link",
            layer(&Tar::new().symlink("l", &outside).file("l/secret", "evil").end()),
            inside(&format!("{below}/secret")),
        ),
        harmless(
            "a file through a relative link upwards",
            layer(&Tar::new().symlink("l", "../../../../../../../../../../etc").file("l/evil", "evil").end()),
            inside("etc/evil"),
        ),
        harmless(
            "a link through a link",
            layer(&Tar::new().symlink("a", "b").symlink("b", &outside).file("a/sub/other", "evil").end()),
            inside(&format!("{below}/sub/other")),
        ),
        harmless(
            "a link to what /proc calls our directories",
            layer(&Tar::new().symlink("l", "/proc/self/cwd").file("l/evil", "evil").end()),
            inside("proc/self/cwd/evil"),
        ),
        harmless(
            "a directory entry over a link",
            layer(
                &Tar::new()
                    .symlink("d", &outside)
                    .entry(&Entry::new("d", b'5').mode(0o777))
                    .file("d/f", "evil")
                    .end(),
            ),
            inside("d/f"),
        ),
        harmless(
            "a directory that becomes a link in the middle",
            layer(
                &Tar::new()
                    .dir("d")
                    .file("d/secret", "good")
                    .symlink("d", &outside)
                    .file("d/secret", "evil")
                    .end(),
            ),
            inside(&format!("{below}/secret")),
        ),
        harmless(
            "a remembered directory that becomes a link",
            layer(
                &Tar::new()
                    .dir("a/b")
                    .file("a/b/one", "1")
                    .symlink("a", "/etc")
                    .file("a/b/evil", "evil")
                    .end(),
            ),
            inside("etc/b/evil"),
        ),
        harmless(
            "a file over a link to a file outside",
            layer(&Tar::new().symlink("f", &format!("{outside}/secret")).file("f", "evil").end()),
            inside("f"),
        ),
        harmless(
            "mode and owner through a link",
            layer(
                &Tar::new()
                    .symlink("f", &format!("{outside}/secret"))
                    .entry(&Entry::new("f", b'2').link(&format!("{outside}/secret")).mode(0o777).owner(9, 9))
                    .end(),
            ),
            |l| assert_eq!(l.join("f").symlink_metadata().unwrap().uid(), 9),
        ),
        refused(
            "links in a circle",
            layer(&Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "").end()),
            &["unsafe path 'a/x'"],
        ),
        refused(
            "a link to itself",
            layer(&Tar::new().symlink("a", "a").file("a/x", "").end()),
            &["unsafe path 'a/x'"],
        ),
        refused("a chain of sixty links", layer(&chain.file("l0/x", "").end()), &["unsafe path 'l0/x'"]),
        refused(
            "a link that doubles itself",
            layer(&Tar::new().symlink("a", "a/a/a/a/a/a/a/a").file("a/x", "").end()),
            &["unsafe path 'a/x'"],
        ),
        refused("a link to nothing", layer(&Tar::new().symlink("a", "").end()), &["unsafe path 'a'"]),
        refused(
            "a link's target of 5000 bytes",
            layer(&Tar::new().long(b'K', "t/".repeat(2500).as_bytes()).symlink("a", "x").end()),
            &["unsafe path 'a'"],
        ),
    ]
}

fn hard(canary: &Canary) -> Vec<Case> {
    let outside = canary.path();
    let target = |name: &str, to: &str| {
        refused(name, layer(&Tar::new().long(b'K', to.as_bytes()).hard("x", "x").end()), &["hard link to"])
    };
    vec![
        target("a hard link to a file outside", &format!("{outside}/secret")),
        target("a hard link to a file of the host", "/etc/passwd"),
        target("a hard link to itself", "x"),
        target("a hard link to what is not there", "never"),
        refused(
            "a hard link upwards",
            layer(&Tar::new().hard("x", "../../../etc/passwd").end()),
            &["unsafe path"],
        ),
        refused("a hard link to the root", layer(&Tar::new().hard("x", "/").end()), &["unsafe path"]),
        refused(
            "a hard link through a link",
            layer(&Tar::new().symlink("l", &outside).hard("x", "l/secret").end()),
            &["'x' is a hard link to 'l/secret'"],
        ),
        refused(
            "a hard link to a directory",
            layer(&Tar::new().dir("d").hard("x", "d").end()),
            &["'x' is a hard link to 'd'"],
        ),
        refused(
            "a hard link to a whiteout",
            layer(&Tar::new().file(".wh.gone", "").hard("x", "gone").end()),
            &["'x' is a hard link to 'gone'"],
        ),
        harmless(
            "a hard link to a link that leads outside, written over",
            layer(
                &Tar::new().symlink("l", &format!("{outside}/secret")).hard("x", "l").file("x", "evil").end(),
            ),
            |l| {
                assert_eq!(text(l, "x"), "evil");
                assert!(l.join("l").symlink_metadata().unwrap().is_symlink());
            },
        ),
        harmless(
            "a file with two names, one of them written over",
            layer(&Tar::new().file("a", "good").hard("b", "a").file("b", "evil").end()),
            |l| assert_eq!(text(l, "a"), "good"),
        ),
        harmless(
            "a hard link that carries data",
            layer(
                &Tar::new()
                    .file("a", "good")
                    .entry(&Entry::new("b", b'1').link("a").claims(512))
                    .file("c", "c")
                    .end(),
            ),
            |l| assert_eq!(paths(l), ["a", "b", "c"]),
        ),
    ]
}
