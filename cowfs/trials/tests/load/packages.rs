//! dpkg installs packages in a Debian root whose files are all in the lower layer.

use std::path::Path;

use davit_cowfs_trials::host::sh;
use davit_tests::fixture;
use davit_tests::scale::scaled;

use crate::Load;

const CHROOT: &str = "export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C\n";

/// Runs a script with the tree as its root.
fn inside(root: &Path, script: &str) -> String {
    let script = format!(
        "{CHROOT}mount -t proc proc proc; exec </dev/null; chroot . sh -ec '{script}' 2>&1; umount proc"
    );
    sh(root, &script)
}

/// Two versions of a package with many files, a file that a person may edit, and scripts.
fn make_package(root: &Path, files: usize) {
    let script = format!(
        "for v in 1 2; do
           d=/build/$v; mkdir -p $d/DEBIAN $d/etc $d/usr/share/many
           printf \"Package: many\\nVersion: $v\\nArchitecture: all\\nMaintainer: a <a@example.com>\\nDescription: many files\\n\" > $d/DEBIAN/control
           echo /etc/many.conf > $d/DEBIAN/conffiles; echo version $v > $d/etc/many.conf
           printf \"#!/bin/sh\\nset -e\\necho \\$1 >> /var/log/many\\n\" > $d/DEBIAN/postinst; chmod 755 $d/DEBIAN/postinst
           i=0; while [ $i -lt {files} ]; do echo $v $i > $d/usr/share/many/f$((i + v * 10)); i=$((i + 1)); done
           (cd $d; find usr -type f | xargs md5sum > DEBIAN/md5sums)
           dpkg-deb -b $d /build/many_$v.deb > /dev/null
         done"
    );
    inside(root, &script);
}

#[test]
fn dpkg_replaces_the_essential_packages_and_adds_and_removes_others() {
    let files = scaled(1500);
    Load {
        prepare: &|lower| {
            sh(lower, &format!("tar -xpf {} --numeric-owner; mkdir -p proc debs", fixture::debian().rootfs_tar()));
            sh(lower, &format!("cp {}/*.deb debs", fixture::packages().debs()));
            make_package(lower, files);
        },
        work: &|root| {
            inside(root, "dpkg --force-confold -i debs/*.deb");
            inside(root, "dpkg -i build/many_1.deb; echo mine > /etc/many.conf; dpkg --force-confold -i build/many_2.deb");
            inside(
                root,
                "dpkg-divert --local --rename --add /usr/share/many/f20; echo kept > /usr/share/many/f20;
                 dpkg --force-confold -i build/many_2.deb",
            );
        },
        verify: &|root| {
            assert_eq!(inside(root, "dpkg --audit"), "");
            // Only the file that was edited differs; documentation may be left out of an image.
            let differs = inside(root, "dpkg --verify || true");
            let differs = differs.lines().filter(|l| !l.contains("/usr/share/") && !l.starts_with("missing"));
            assert_eq!(differs.collect::<Vec<_>>(), ["??5?????? c /etc/many.conf"]);
            assert_eq!(inside(root, "ls /usr/share/many | wc -l"), (files + 1).to_string());
            assert_eq!(inside(root, "cat /etc/many.conf /usr/share/many/f20 /usr/share/many/f20.distrib"), "mine\nkept\n2 0");
            assert_eq!(inside(root, "cat /var/log/many"), "configure\nconfigure\nconfigure");
            assert_eq!(inside(root, "find / -xdev -name \"*.dpkg-new\" -o -xdev -name \"*.dpkg-tmp\""), "");
        },
    }
    .run();
}
