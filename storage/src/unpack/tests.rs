//! Hostile and ordinary archives. Everything here works without privileges but for what it says.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tar::EntryType;

use super::*;
use crate::ledger::Unrecorded;

/// Entries as an attacker writes them: nothing is checked on the way.
struct Archive(Vec<u8>);

impl Archive {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn header(path: &str, kind: EntryType, link: &str, size: u64) -> tar::Header {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(kind);
        h.set_size(size);
        h.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        h.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        h.set_gid(u64::from(rustix::process::getegid().as_raw()));
        h.set_mtime(1_000_000);
        let old = h.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        h.set_cksum();
        h
    }

    fn entry(mut self, path: &str, kind: EntryType, link: &str, data: &[u8]) -> Self {
        self.0.extend(Self::header(path, kind, link, data.len() as u64).as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        self.entry(path, EntryType::Regular, "", text.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, "", b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(path, EntryType::Symlink, to, b"")
    }

    fn link(self, path: &str, to: &str) -> Self {
        self.entry(path, EntryType::Link, to, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (k, v) in records {
            let rest = format!(" {k}={v}\n");
            let length =
                (1..10).map(|d| d + rest.len()).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
            text += &length.to_string();
            text += &rest;
        }
        self.entry("pax", EntryType::XHeader, "", text.as_bytes())
    }

    fn unpack_with(mut self, into: &Path, limits: Limits) -> Result<Stats, UnpackError> {
        self.0.extend([0; 1024]);
        let options = Options { namespace: Namespace::User, rootless: true, whiteouts: true, limits };
        let root = davit_sys::beneath::open_root(into).unwrap();
        unpack(&mut TarReader::new(self.0.as_slice()), root.as_fd(), &options, &mut Unrecorded)
    }

    fn unpack(self, into: &Path) -> Result<Stats, UnpackError> {
        self.unpack_with(into, Limits::default())
    }
}

/// A victim directory beside the layer: `outer/victim/secret` and `outer/layer`.
struct Place {
    outer: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outer.path().join("victim")).unwrap();
        std::fs::create_dir(outer.path().join("layer")).unwrap();
        std::fs::write(outer.path().join("victim/secret"), "untouched").unwrap();
        Self { outer }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.outer.path().join("layer")
    }

    fn victim(&self) -> String {
        self.outer.path().join("victim").display().to_string()
    }

    fn assert_untouched(&self) {
        let names: Vec<_> =
            std::fs::read_dir(self.victim()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let secret = Path::new(&self.victim()).join("secret");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched");
        assert_eq!(secret.metadata().unwrap().nlink(), 1);
        assert_eq!(std::fs::read_dir(self.outer.path()).unwrap().count(), 2);
    }
}

#[test]
fn no_archive_reaches_outside() {
    let place = Place::new();
    let v = place.victim();
    let v = v.as_str();
    let archives = [
        Archive::new().file("../victim/x", "x"),
        Archive::new().file("a/../../victim/x", "x"),
        Archive::new().file("..", "x"),
        Archive::new().dir("../victim/d"),
        Archive::new().symlink("l", v).file("l/x", "x"),
        Archive::new().symlink("l", "../victim").file("l/x", "x"),
        Archive::new().symlink("l", "../victim").file("l/secret", "x"),
        Archive::new().symlink("l", "..").symlink("m", "l/..").file("m/victim/x", "x"),
        Archive::new().symlink("secret", &format!("{v}/secret")).file("secret", "x"),
        Archive::new().link("h", &format!("{v}/secret")),
        Archive::new().link("h", "../victim/secret"),
        Archive::new().symlink("l", v).link("h", "l/secret"),
        Archive::new().symlink("l", "../victim").link("h", "l/secret").file("h", "x"),
        Archive::new().symlink("l", &format!("{v}/secret")).link("h", "l").file("h", "x"),
        Archive::new().symlink("l", v).dir("l"),
        Archive::new().symlink("l", v).dir("l/").file("l/x", "x"),
        Archive::new().dir("d").symlink("d", v).file("d/x", "x"),
        Archive::new().file("d/x", "x").symlink("d", v).file("d/x", "x"),
        Archive::new().symlink("l", v).file("l/.wh.secret", ""),
        Archive::new().file("../victim/.wh.secret", ""),
        Archive::new().symlink("l", v).file("l/.wh..wh..opq", ""),
        Archive::new().pax(&[("path", "../victim/x")]).file("ok", "x"),
        Archive::new().pax(&[("linkpath", "../victim/secret")]).link("h", "ok"),
        Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "x"),
        Archive::new().symlink("self", ".").file("self/self/self/x", "x"),
        Archive::new().symlink("proc", "/proc/self/root").file("proc/tmp/davit-hostile", "x"),
        Archive::new().symlink("cwd", "/proc/self/cwd").file("cwd/davit-hostile", "x"),
    ];
    for (n, archive) in archives.into_iter().enumerate() {
        let result = archive.unpack(&place.layer());
        place.assert_untouched();
        assert!(
            !Path::new("/tmp/davit-hostile").exists() && !Path::new("davit-hostile").exists(),
            "archive {n}"
        );
        // Refused or harmless; never an odd system error.
        if let Err(e) = result {
            let known = matches!(e, UnpackError::UnsafePath(_) | UnpackError::HardLink { .. });
            assert!(known, "archive {n}: {e}");
        }
        crate::trash::delete_tree(&place.layer()).unwrap();
        std::fs::create_dir(place.layer()).unwrap();
    }
}

#[test]
fn absolute_paths_and_links_mean_the_layers_root() {
    let place = Place::new();
    Archive::new()
        .dir("usr/lib")
        .symlink("lib", "/usr/lib")
        .file("/lib/x", "1")
        .file("//etc//./y", "2")
        .unpack(&place.layer())
        .unwrap();
    assert_eq!(std::fs::read_to_string(place.layer().join("usr/lib/x")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(place.layer().join("etc/y")).unwrap(), "2");
    assert_eq!(place.layer().join("etc").metadata().unwrap().mode() & 0o777, 0o755);
}

#[test]
fn whiteouts_and_opaque_directories_become_overlays_own() {
    let place = Place::new();
    let stats = Archive::new()
        .file("dir/.wh.gone", "")
        .file("full/.wh..wh..opq", "")
        .file("full/new", "x")
        .dir("both")
        .file(".wh.both", "")
        .file(".wh.later", "")
        .dir("later")
        .file("kept", "x")
        .file(".wh.kept", "")
        .file(".wh..wh.plnk", "")
        .unpack(&place.layer())
        .unwrap();
    assert!(!stats.opaque_root);
    let at = |p: &str| place.layer().join(p);
    let gone = at("dir/gone").symlink_metadata().unwrap();
    assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0));
    let opaque = |p: &str| {
        let dir = std::fs::File::open(at(p)).unwrap();
        davit_sys::xattr::get(dir.as_fd(), OsStr::new("user.overlay.opaque")).unwrap().is_some()
    };
    assert!(opaque("full") && opaque("both") && opaque("later") && !opaque("dir"));
    assert!(at("full/new").exists() && at("kept").exists());
    assert!(!at(".wh..wh.plnk").exists());
    assert!(Archive::new().file(".wh..wh..opq", "").unpack(&place.layer()).unwrap().opaque_root);
    for bad in [".wh.", ".wh..", "a/.wh..."] {
        assert!(
            matches!(Archive::new().file(bad, "").unpack(&place.layer()), Err(UnpackError::UnsafePath(_))),
            "{bad}"
        );
    }
}

#[test]
fn modes_times_links_and_attributes_stay() {
    let place = Place::new();
    let mut setuid = Archive::header("su", EntryType::Regular, "", 1);
    setuid.set_mode(0o4755);
    setuid.set_cksum();
    let mut archive = Archive::new();
    archive.0.extend(setuid.as_bytes());
    archive.0.extend([b'x']);
    archive.0.resize(archive.0.len().next_multiple_of(512), 0);
    archive
        .pax(&[
            ("mtime", "12345.123456789"),
            ("SCHILY.xattr.user.note", "hi"),
            ("SCHILY.xattr.user.overlay.opaque", "y"),
            ("SCHILY.xattr.trusted.overlay.redirect", "/x"),
        ])
        .dir("d")
        .file("d/f", "text")
        .link("hard", "d/f")
        .entry("fifo", EntryType::Fifo, "", b"")
        .entry("dev", EntryType::Char, "", b"")
        .unpack(&place.layer())
        .unwrap();
    let at = |p: &str| place.layer().join(p);
    assert_eq!(at("su").metadata().unwrap().permissions().mode() & 0o7777, 0o4755);
    let d = at("d").metadata().unwrap();
    assert_eq!((d.mtime(), d.mtime_nsec()), (12345, 123_456_789));
    let dir = std::fs::File::open(at("d")).unwrap();
    let names = davit_sys::xattr::list(dir.as_fd()).unwrap();
    assert_eq!(names, ["user.note"]);
    assert_eq!(at("hard").metadata().unwrap().ino(), at("d/f").metadata().unwrap().ino());
    assert!(!at("dev").exists());
}

#[test]
fn bounds_hold() {
    let place = Place::new();
    let few = Limits { entries: 2, bytes: 100 };
    let three = Archive::new().file("a", "").file("b", "").file("c", "");
    assert!(matches!(three.unpack_with(&place.layer(), few), Err(UnpackError::TooLarge(_))));
    let large = Archive::new().file("a", &"x".repeat(101));
    assert!(matches!(large.unpack_with(&place.layer(), few), Err(UnpackError::TooLarge(_))));
    let deep = "d/".repeat(2200);
    let too_long = Archive::new().pax(&[("path", &deep)]).file("x", "");
    assert!(matches!(too_long.unpack(&place.layer()), Err(UnpackError::UnsafePath(_))));
    // As deep as a path may be, then replaced by a file: the tree is deeper than there are descriptors.
    let deep = "d/".repeat(2000) + "f";
    Archive::new()
        .pax(&[("path", &deep)])
        .file("x", "")
        .file("d", "now a file")
        .unpack(&place.layer())
        .unwrap();
    assert!(place.layer().join("d").is_file());
    assert_eq!(std::fs::read_dir(place.layer()).unwrap().count(), 3);
}
