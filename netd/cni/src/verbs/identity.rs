//! What an attachment is called at netd.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Labels of sandboxes and networks that were made here: by them GC knows its own.
pub(super) const CONFIGURATION: &str = "cni.configuration";
pub(super) const CONTAINER: &str = "cni.container";
pub(super) const INTERFACE: &str = "cni.interface";

/// The longest id that netd takes, with some room.
const LONGEST: usize = 120;

/// The sandbox of an attachment. It begins as the container's id does, so that the short id resolves; what is behind
/// keeps apart what differs in configuration or interface only.
pub fn sandbox_id(configuration: &str, container: &str, interface: &str) -> String {
    let mut hash = Sha256::new();
    for part in [configuration, container, interface] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut tail = String::new();
    for byte in &hash.finalize()[..8] {
        let _ = write!(tail, "{byte:02x}");
    }
    let head: String = container.chars().take(LONGEST - tail.len() - 1).collect();
    format!("{head}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_tells_attachments_apart_and_no_id_is_too_long() {
        let id = sandbox_id("net", "c0ffee", "eth0");
        assert!(id.starts_with("c0ffee-"), "{id}");
        assert_eq!(id, sandbox_id("net", "c0ffee", "eth0"));
        for other in [("net2", "c0ffee", "eth0"), ("net", "c0ffee1", "eth0"), ("net", "c0ffee", "eth1")] {
            assert_ne!(sandbox_id(other.0, other.1, other.2), id);
        }
        let long = "a".repeat(500);
        assert_eq!(sandbox_id("n", &long, "eth0").len(), LONGEST);
        assert_ne!(sandbox_id("n", &long, "eth0"), sandbox_id("n", &format!("{long}b"), "eth0"));
    }
}
