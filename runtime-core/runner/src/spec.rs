//! The OCI runtime configuration (config.json), as far as this runtime acts on it.
//!
//! Own structs instead of a crate: unknown members are skipped without being built, absent ones cost nothing, and parsing docker's
//! 30 KB config takes microseconds. Names and meanings are the OCI runtime specification's, config.md and config-linux.md.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod linux;
pub mod process;
pub mod resources;
pub mod seccomp;
pub mod template;

pub use linux::{Device, IdMapping, Linux, NamespaceKind};
pub use process::{Capabilities, Process, User};
pub use resources::Resources;

/// Version of the specification that this runtime follows.
pub const OCI_VERSION: &str = "1.2.0";

/// config.json.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Semantic version of the specification.
    pub oci_version: String,
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Its hostname; needs an own UTS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its NIS domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts, in order.
    #[serde(deserialize_with = "null_is_default")]
    pub mounts: Vec<Mount>,
    /// Programs run at certain moments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free-form.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is particular to Linux.
    #[serde(deserialize_with = "null_is_default")]
    pub linux: Linux,
}

/// Go programs write `null` for an empty list or object.
pub fn null_is_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// The root file system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: PathBuf,
    /// Mounted read-only.
    pub readonly: bool,
}

/// One mount.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Path in the container.
    pub destination: PathBuf,
    /// File system; empty or `none` with `bind` among the options: a bind mount.
    #[serde(rename = "type")]
    pub kind: String,
    /// Device, or path on the host for bind mounts (relative: to the bundle).
    pub source: PathBuf,
    /// mount(8)-like options.
    #[serde(deserialize_with = "null_is_default")]
    pub options: Vec<String>,
    /// Owners are shown through this map; empty with `idmap` among the options: through the container's.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// The same of groups.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs run at certain moments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated: after the namespaces exist, before pivot, in the runtime's namespaces.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// As prestart, after it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// After createRuntime, in the container's namespaces, before pivot.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// In the container, just before the program.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// After start, in the runtime's namespaces.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// After delete, in the runtime's namespaces.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// argv, its first the name.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment, whole.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds until it is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_members_are_no_error() {
        let text = r#"{"ociVersion":"1.0.2","mounts":null,"linux":{"namespaces":null,"intelRdt":{"x":1}},"vm":{},
            "process":{"args":["a"],"cwd":"/","env":null,"user":{"uid":1,"gid":2,"additionalGids":null}},"annotations":null}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.process.unwrap().user.uid, 1);
    }

    #[test]
    fn the_template_survives_a_round_trip() {
        let text = serde_json::to_string(&template::spec(false)).unwrap();
        let again: Spec = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}
