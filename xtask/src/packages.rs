//! What the tests need from the operating system.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Debian's package and a program of it.
const NEEDED: &[(&str, &str)] = &[
    ("acl", "setfacl"),
    ("apache2-utils", "htpasswd"),
    ("attr", "setfattr"),
    ("bind9-dnsutils", "dig"),
    ("btrfs-progs", "mkfs.btrfs"),
    ("busybox-static", "busybox"),
    ("ca-certificates", "update-ca-certificates"),
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("crun", "crun"),
    ("curl", "curl"),
    ("dnsmasq-base", "dnsmasq"),
    ("docker-registry", "docker-registry"),
    ("e2fsprogs", "mkfs.ext4"),
    ("fio", "fio"),
    ("fuse-overlayfs", "fuse-overlayfs"),
    ("fuse3", "fusermount3"),
    ("g++", "g++"),
    ("git", "git"),
    ("graphviz", "dot"),
    ("gzip", "gzip"),
    ("iperf3", "iperf3"),
    ("iproute2", "ip"),
    ("iptables", "iptables"),
    ("iputils-ping", "ping"),
    ("jq", "jq"),
    ("mmdebstrap", "mmdebstrap"),
    ("netcat-openbsd", "nc"),
    ("nftables", "nft"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("procps", "ps"),
    ("runc", "runc"),
    ("skopeo", "skopeo"),
    ("sqlite3", "sqlite3"),
    ("stress-ng", "stress-ng"),
    ("systemd", "/lib/systemd/systemd-journald"),
    ("tar", "tar"),
    ("uidmap", "newuidmap"),
    ("umoci", "umoci"),
    ("util-linux", "unshare"),
    ("xz-utils", "xz"),
    ("zstd", "zstd"),
];

/// Installs what is missing (root on Debian or Ubuntu), or says with which command to.
pub fn ensure_installed() -> anyhow::Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let debian = Path::new("/etc/debian_version").exists() && which("apt-get");
    let missing = if debian { missing_packages()? } else { missing_programs() };
    if !missing.is_empty() {
        let list = missing.join(" ");
        match (debian, root) {
            (true, true) => install(&missing)?,
            (true, false) => {
                bail!("packages are missing; run: sudo apt-get install --no-install-recommends {list}")
            }
            (false, _) => {
                bail!("programs are missing; run: {} {list}   (package names may differ)", installer())
            }
        }
    }
    ensure!(
        root,
        "the tests make private hosts (namespaces, cgroups), which needs root; run: sudo -E env \"PATH=$PATH\" cargo xtask test"
    );
    Ok(())
}

fn missing_packages() -> anyhow::Result<Vec<&'static str>> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(NEEDED.iter().map(|(package, _)| package));
    let output = query.output().context("cannot run dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed: HashSet<&str> = text.lines().filter_map(|l| l.strip_prefix("installed ")).collect();
    Ok(NEEDED.iter().map(|(package, _)| *package).filter(|p| !installed.contains(p)).collect())
}

fn missing_programs() -> Vec<&'static str> {
    NEEDED.iter().map(|(_, program)| *program).filter(|p| !which(p)).collect()
}

/// Whether PATH, or a directory of root's programs, has `program`.
pub fn which(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    path.split(':').any(|dir| Path::new(dir).join(program).is_file())
}

fn installer() -> &'static str {
    let known =
        [("dnf", "sudo dnf install"), ("zypper", "sudo zypper install"), ("pacman", "sudo pacman -S")];
    known.iter().find(|(program, _)| which(program)).map_or("install", |(_, line)| line)
}

fn install(missing: &[&str]) -> anyhow::Result<()> {
    println!("installing Debian packages that the tests need: {}", missing.join(" "));
    let mut options = vec!["-q", "-y", "-o", "Dpkg::Use-Pty=0"];
    apt(&["update", "-q"]).or_else(|error| {
        // One broken third-party source must not stop us when the distribution's own lists are there.
        println!("{error:#}; going on with the package lists there are");
        Ok::<(), anyhow::Error>(())
    })?;
    options.extend(["install", "--no-install-recommends"]);
    options.extend(missing);
    apt(&options)
}

fn apt(args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    // A freshly installed service must not be started: the tests start their own, on private hosts.
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command.stdin(std::process::Stdio::null());
    crate::cargo::run(&mut command)
}
