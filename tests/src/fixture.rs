//! Images for tests, made of Debian's packages by third-party tools and kept between runs.
//!
//! ```text
//! target/fixtures/busybox-<key>/      layout/ layout.tar archive.tar rootfs.tar rootfs.tar.gz   (umoci, skopeo, tar)
//! target/fixtures/layered-<key>/      the same, of three layers with whiteouts
//! target/fixtures/debian-<key>/       rootfs.tar archive.tar                                     (mmdebstrap, umoci, skopeo)
//! target/fixtures/machine-<key>/      archive.tar                                                (apt-get, dpkg, umoci, skopeo)
//! target/fixtures/systemd-<key>/      the same
//! target/fixtures/servers-<key>/      archive.tar                                                (mmdebstrap, umoci, skopeo)
//! target/fixtures/packages-<key>/    *.deb                                                        (apt-get)
//! target/fixtures/registry-<key>/     what docker-registry serves: all of the above              (skopeo)
//! ```
//!
//! Each is made once, under a lock, in a directory that gets its name when it is complete. The key changes when the recipe or
//! the program that the image is made of changes.

mod recipe;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::host::{binaries, lock};

/// Changes when a recipe does.
const VERSION: u32 = 1;

/// The files of one image.
#[derive(Debug, Clone)]
pub struct Fixture {
    dir: PathBuf,
}

impl Fixture {
    /// An OCI layout directory with the tag `1`.
    pub fn layout(&self) -> String {
        self.file("layout")
    }

    /// The OCI layout as a tar.
    pub fn layout_tar(&self) -> String {
        self.file("layout.tar")
    }

    /// A docker-archive that names the image, such as `busybox:1`.
    pub fn archive(&self) -> String {
        self.file("archive.tar")
    }

    /// The root file system as a tar.
    pub fn rootfs_tar(&self) -> String {
        self.file("rootfs.tar")
    }

    /// The root file system as a gzipped tar.
    pub fn rootfs_tar_gz(&self) -> String {
        self.file("rootfs.tar.gz")
    }

    /// The directory of Debian packages.
    pub fn debs(&self) -> String {
        self.dir.to_string_lossy().into_owned()
    }

    /// The storage directory of a docker-registry.
    pub fn registry(&self) -> String {
        self.file("storage")
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }
}

/// BusyBox with all its applets, users `root` and `web` (uid 1000), CMD `sh`; `busybox:1`.
#[track_caller]
pub fn busybox() -> Fixture {
    made("busybox", recipe::busybox)
}

/// Three layers over BusyBox with whiteouts, links and a full config; `layered:1`.
#[track_caller]
pub fn layered() -> Fixture {
    made("layered", recipe::layered)
}

/// Debian's essential packages; `debian:1`.
#[track_caller]
pub fn debian() -> Fixture {
    made("debian", recipe::debian)
}

/// Debian's essential packages with sysvinit as /sbin/init and runit beside it, a login on the console; `machine:1`.
#[track_caller]
pub fn machine() -> Fixture {
    made("machine", recipe::machine)
}

/// Debian's essential packages with systemd as /sbin/init; `systemd:1`.
#[track_caller]
pub fn systemd() -> Fixture {
    made("systemd", recipe::systemd)
}

/// nginx, PostgreSQL and iperf3 as Debian has them; `servers:1`.
#[track_caller]
pub fn servers() -> Fixture {
    made("servers", recipe::servers)
}

/// Archives of some of the packages that [`debian`] has installed.
#[track_caller]
pub fn packages() -> Fixture {
    made("packages", recipe::packages)
}

/// What the registry serves: `busybox:1`, `layered:1`.
#[track_caller]
pub fn registry() -> Fixture {
    made("registry", recipe::registry)
}

/// Makes all that are missing, for those who want to wait for it once.
pub fn make_all() {
    busybox();
    layered();
    debian();
    machine();
    systemd();
    servers();
    packages();
    registry();
}

/// Where fixtures are kept: `DAVIT_FIXTURES`, else `fixtures` in the target directory.
fn store() -> PathBuf {
    std::env::var_os("DAVIT_FIXTURES").map_or_else(
        || binaries().parent().expect("a profile directory has a parent").join("fixtures"),
        PathBuf::from,
    )
}

#[track_caller]
fn made(name: &str, recipe: fn(&Path) -> anyhow::Result<()>) -> Fixture {
    make(name, recipe).unwrap_or_else(|e| panic!("cannot make the {name} image: {e:#}"))
}

fn make(name: &str, recipe: fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<Fixture> {
    let store = store();
    fs::create_dir_all(&store)?;
    let dir = store.join(format!("{name}-{}", key()?));
    if !dir.exists() {
        let _lock = lock(&store.join(format!(".{name}.lock")))?;
        if !dir.exists() {
            let draft = store.join(format!(".{name}.draft"));
            if draft.exists() {
                fs::remove_dir_all(&draft)?;
            }
            fs::create_dir(&draft)?;
            recipe(&draft)?;
            fs::rename(&draft, &dir)?;
        }
    }
    Ok(Fixture { dir })
}

/// Names the recipe's version and the busybox that images are made of.
fn key() -> anyhow::Result<String> {
    let busybox = fs::metadata(BUSYBOX).with_context(|| format!("no {BUSYBOX} (package busybox-static)"))?;
    Ok(format!("{VERSION}-{:x}-{:x}", busybox.len(), busybox.mtime()))
}

const BUSYBOX: &str = "/bin/busybox";

/// Runs one of the tools that images are made with.
fn tool(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {}` failed: {stderr}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
