//! The plain user of a private host, and what ordinary distributions have ready for one.

use crate::command::Ran;
use crate::fixture;
use crate::host::{Host, SAILOR};

/// Where [`Host::share_busybox`] puts the archive of `busybox:1`.
pub const BUSYBOX: &str = "/run/busybox.tar";

/// A host on which its plain user works.
#[derive(Debug)]
pub struct Sailor {
    /// The host, for what root does there.
    pub host: Host,
}

impl Sailor {
    /// On a host of the user's own, with an archive of `busybox:1` at [`BUSYBOX`].
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "making a machine is no default value")]
    pub fn new() -> Self {
        let host = Host::builder().unchecked().create();
        let sailor = Self::on(host.unwrap_or_else(|e| panic!("cannot make a private host: {e:#}")));
        sailor.host.share_busybox();
        sailor
    }

    /// On this host, logged in.
    #[track_caller]
    pub fn on(host: Host) -> Self {
        host.log_sailor_in();
        Self { host }
    }

    /// Runs `davit` with these arguments to its end.
    #[track_caller]
    pub fn davit(&self, words: &[&str]) -> Ran {
        self.host.command("davit").args(words).as_sailor().start().wait()
    }
}

impl Host {
    /// Makes the plain user's runtime directory, as logging in does.
    #[track_caller]
    pub fn log_sailor_in(&self) {
        let dir = format!("/run/user/{SAILOR}");
        self.sh(&format!("mkdir -p {dir} && chown {SAILOR}:{SAILOR} {dir} && chmod 700 {dir}")).ok();
    }

    /// Lets everybody use /dev/fuse, as most distributions do.
    #[track_caller]
    pub fn share_fuse(&self) {
        self.sh("cp -a /dev/fuse /run/fuse && chmod 666 /run/fuse && mount --bind /run/fuse /dev/fuse").ok();
    }

    /// Puts an archive of `busybox:1` where everybody can read it, at [`BUSYBOX`].
    #[track_caller]
    pub fn share_busybox(&self) {
        self.sh(&format!("cp {} {BUSYBOX} && chmod 644 {BUSYBOX}", fixture::busybox().archive())).ok();
    }
}
