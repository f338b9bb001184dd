//! davit-cni: davit's networks for whoever calls CNI plugins (containerd, CRI-O, podman, Kubernetes).
//!
//! A plugin of the Container Network Interface, specification 1.1 and back to 0.3.1: the caller runs it once for each
//! verb, with parameters in the environment and a configuration on stdin. It keeps nothing itself; netd does, and
//! everything here is a translation to its contract.
//!
//! ```text
//! call      who, where, which verb: the environment      (pure)
//! config    the network's configuration: stdin           (pure)
//! version   which versions there are, what each knows    (pure)
//! result    what ADD answers, in each version's shape    (pure)
//! failure   error codes, JSON on stdout
//! verbs     ADD, DEL, CHECK, GC, STATUS, VERSION
//! netd      the daemon, over its socket
//! ```

pub mod call;
pub mod config;
pub mod expected;
pub mod failure;
pub mod netd;
pub mod result;
pub mod verbs;
pub mod version;

/// The largest configuration that is read; a kubelet's are a few kilobytes.
pub const LARGEST_CONFIG: u64 = 1 << 20;
