//! The `linux.seccomp` object.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::null_is_default;

/// A system call filter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {
    /// What happens to a call that no rule names.
    pub default_action: String,
    /// errno of a default action SCMP_ACT_ERRNO or _TRACE; EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_X86_64`, ...; the native one always counts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_*`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Where the notification descriptor of SCMP_ACT_NOTIFY goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<PathBuf>,
    /// Opaque data for the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// Rules.
    #[serde(deserialize_with = "null_is_default")]
    pub syscalls: Vec<Rule>,
}

/// What happens to some calls.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Which calls; names that an architecture lacks are skipped.
    #[serde(deserialize_with = "null_is_default")]
    pub names: Vec<String>,
    /// `SCMP_ACT_*`.
    pub action: String,
    /// errno of SCMP_ACT_ERRNO or _TRACE; EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// All must hold.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
}

/// A condition on an argument.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arg {
    /// 0..=5.
    pub index: u32,
    /// Compared with this; the mask for SCMP_CMP_MASKED_EQ.
    pub value: u64,
    /// The value for SCMP_CMP_MASKED_EQ.
    pub value_two: u64,
    /// `SCMP_CMP_*`.
    pub op: String,
}
