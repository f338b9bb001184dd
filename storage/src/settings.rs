//! The configuration file, storaged.toml. Every key has a default; unknown keys are refused.

use serde::Deserialize;

/// All of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// "overlay" or "copy"; empty: the first that works, in this order.
    pub driver: String,
    /// Registries ("host:port") that are spoken to over plain HTTP when HTTPS does not answer, and whose certificates
    /// are not verified.
    pub insecure_registries: Vec<String>,
    /// Keep the archives of layers that came as plain tars. Otherwise they are made again from the layer's tree when they are
    /// wanted, which takes half the space, but then a damaged file of such a layer can only be repaired from a registry or by
    /// loading the image again.
    pub keep_layer_archives: bool,
}
