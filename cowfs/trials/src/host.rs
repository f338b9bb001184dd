//! A mount namespace of a test's own.

use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

/// A directory on a tmpfs that only the test sees. What is mounted below it is gone when the test ends, however it ends.
#[derive(Debug)]
pub struct Host {
    dir: PathBuf,
}

impl Host {
    /// Runs a test in a fresh one.
    pub fn run<T: Send>(work: impl FnOnce(&Self) -> T + Send) -> T {
        Self::run_sized("4g", work)
    }

    /// Runs a test whose tmpfs is of this size.
    pub fn run_sized<T: Send>(size: &str, work: impl FnOnce(&Self) -> T + Send) -> T {
        let dir = tempfile::Builder::new().prefix("davit-trial").tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=755,nr_inodes=0")).unwrap();
        davit_sys::private_mounts::run(|| {
            rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
                .unwrap();
            work(&Self { dir: dir.path().to_owned() })
        })
        .unwrap()
    }

    /// Runs a test on another file system: `ext4` or `btrfs`, on a loop device whose disk is a sparse file on the tmpfs.
    pub fn run_on<T: Send>(fstype: &str, work: impl FnOnce(&Self) -> T + Send) -> T {
        Self::run(|host| {
            let at = host.dir("mounted");
            let force = if fstype == "btrfs" { "-f" } else { "-F" };
            let image = host.path("disk");
            let image = image.display();
            sh(
                &at,
                &format!(
                    "truncate -s 1G {image}; mkfs.{fstype} -q {force} {image}; mount -o loop {image} {}",
                    at.display()
                ),
            );
            let outcome = work(&Self { dir: at.clone() });
            sh(&host.dir, "umount mounted");
            outcome
        })
    }

    /// A path below the tmpfs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes an empty directory, with those above it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

/// A program of this workspace.
pub fn binary(name: &str) -> PathBuf {
    let program = davit_tests::host::binaries().join(name);
    assert!(program.exists(), "no {}: run `cargo build --workspace` first", program.display());
    program
}

/// Runs a shell script, which must succeed, and answers what it prints.
#[track_caller]
pub fn sh(dir: &Path, script: &str) -> String {
    let out = std::process::Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "`{script}` in {}: {}\n{stdout}{stderr}", dir.display(), out.status);
    stdout.trim_end().to_owned()
}
