//! stress-ng's file-system class, one stressor after the other, with its own checks.

use davit_cowfs_trials::host::sh;
use davit_tests::scale::scaled;

use crate::Load;

/// Those of the class that work in the directory they are given and need nothing else of the kernel.
const STRESSORS: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "fallocate",
    "fcntl",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "hdd",
    "inotify",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

#[test]
fn the_file_system_class_of_stress_ng_finds_nothing() {
    Load {
        prepare: &|lower| {
            sh(lower, "mkdir work; echo below > work/below");
        },
        work: &|root| {
            let seconds = scaled(1);
            for stressor in STRESSORS {
                let command =
                    format!("stress-ng --{stressor} 1 --timeout {seconds} --temp-path work --verify 2>&1 || echo failed: $?");
                let out = sh(root, &command);
                let bad = ["fail:", "failed:", "error:", "skipp", "not supported"];
                assert!(!bad.iter().any(|word| out.contains(word)), "{stressor}: {out}");
            }
        },
        // Each stressor has removed what it made.
        verify: &|root| assert_eq!(sh(root, "find work; cat work/below"), "work\nwork/below\nbelow"),
    }
    .run();
}
