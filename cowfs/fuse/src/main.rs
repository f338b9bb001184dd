//! `davit-cowfs`: mounts layers as one writable tree, with fuse-overlayfs's command line.

use std::process::ExitCode;

use davit_cowfs_fuse::options::{self, Command};
use davit_cowfs_fuse::serve;

const HELP: &str = "\
usage: davit-cowfs [options] [SOURCE] MOUNTPOINT

Shows directories, one over the other, as one tree. What is changed goes to the upper one.

    -f                    stays in the foreground
    -d, --debug           logs every request; implies -f
    -s                    serves with one thread
    -V, --version         prints the version
    -h, --help            prints this
    -o OPTION[,OPTION...]
  layers:
    lowerdir=DIR[:DIR...] the lower layers, topmost first (\\: and \\, for : and , in a name); lowerdir+=DIR adds one
    upperdir=DIR          the layer that is written; without it nothing can be
    workdir=DIR           an empty directory on the upper layer's file system
    userxattr             overlay's attributes are user.overlay.*; the default where trusted.* is not allowed
    redirect_dir=on|follow|nofollow
                          whether directories of lower layers are renamed or copied, and renamed ones found (follow; off is the
                          same); the kernel finds none with userxattr
    aufs_whiteouts=0|1    whether .wh.NAME in a layer hides NAME (1)
  owners:
    uidmapping=DISK:SHOWN:COUNT[:...], gidmapping=DISK:SHOWN:COUNT[:...]
    squash_to_root, squash_to_uid=UID, squash_to_gid=GID
  serving:
    noxattrs, noacl       without extended attributes; without POSIX ACLs
    volatile, fsync=0     nothing needs to survive a crash: syncs are not passed on
    writeback=0|1         whether the kernel collects writes (0)
    timeout=SECONDS       how long the kernel may keep names and attributes (for ever)
    threaded=0|1, max_threads=N, clone_fd
  mount:
    ro, nodev, nosuid, noexec, noatime, ..., allow_other, allow_root, fsname=NAME, subtype=NAME, context=LABEL,
    auto_unmount          unmounts when the process dies
";

fn main() -> ExitCode {
    match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("davit-cowfs: version {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Mount(options)) => ended(serve::run(*options)),
        Err(e) => ended(Err(e.into())),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("davit-cowfs: {e:#}");
            ExitCode::FAILURE
        }
    }
}
