//! The configuration file, storaged.toml. Every key has a default; unknown keys are refused.

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// "overlay", "copy" or "proxy"; empty: the first of overlay and copy that works.
    pub driver: String,
    /// For the driver "proxy".
    pub proxy: ProxySettings,
    /// Registries ("host:port") that are spoken to over plain HTTP when HTTPS does not answer, and whose certificates
    /// are not verified.
    pub insecure_registries: Vec<String>,
}

/// A snapshotter of a containerd, or a proxy plugin of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxySettings {
    /// A socket that speaks containerd's snapshots service, version 1; `unix://` may precede it.
    pub address: String,
    /// Which of its snapshotters: "native", "overlayfs". A plugin that is only one ignores it.
    pub snapshotter: String,
    /// containerd's namespace in which our snapshots are.
    pub namespace: String,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            address: "/run/containerd/containerd.sock".into(),
            snapshotter: "overlayfs".into(),
            namespace: "davit".into(),
        }
    }
}
