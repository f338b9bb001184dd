//! The configuration file, storaged.toml. Every key has a default; unknown keys are refused.
//!
//! ```toml
//! driver = "overlay"                           # or "fuse", "copy", "proxy"
//! insecure_registries = ["lab.example:5000"]   # any certificate; plain HTTP when HTTPS does not answer
//!
//! [registries."docker.io"]
//! mirrors = ["mirror.example:5000", "https://cache.example/hub"]
//!
//! [registries."mirror.example:5000"]
//! ca_file = "/etc/ssl/private-ca.pem"
//! timeout_seconds = 20
//! ```
//!
//! docs/semantics/registries.md says what each key of a registry does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// All of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// "overlay", "fuse", "copy" or "proxy"; empty: the first of overlay, fuse and copy that works.
    pub driver: String,
    /// For the driver "fuse".
    pub fuse: FuseSettings,
    /// For the driver "proxy".
    pub proxy: ProxySettings,
    /// Registries ("host:port") that are spoken to over plain HTTP when HTTPS does not answer, and whose certificates
    /// are not verified.
    pub insecure_registries: Vec<String>,
    /// Keep the archives of layers that came as plain tars. Otherwise they are made again from the layer's tree when they are
    /// wanted, which takes half the space, but then a damaged file of such a layer can only be repaired from a registry or by
    /// loading the image again.
    pub keep_layer_archives: bool,
    /// What is special about single registries. A mirror may have a table of its own.
    pub registries: BTreeMap<RegistryName, RegistrySettings>,
}

impl Settings {
    /// What is said of one registry; the defaults when nothing is.
    pub fn registry(&self, domain: &str) -> RegistrySettings {
        self.registries.get(&RegistryName(domain.to_owned())).cloned().unwrap_or_default()
    }

    /// Whether a registry is named as insecure.
    pub fn insecure(&self, domain: &str) -> bool {
        self.insecure_registries.iter().any(|r| r == domain)
    }
}

/// `[registries."host:port"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Asked in this order before the registry itself, for pulls only, and without the registry's credentials.
    pub mirrors: Vec<Mirror>,
    /// HTTP without TLS, always.
    pub plain_http: bool,
    /// HTTPS with any certificate.
    pub skip_tls_verify: bool,
    /// A PEM file of authorities to trust besides the system's and those of certs.d.
    pub ca_file: Option<PathBuf>,
    /// After so many seconds without a byte a connection is given up; 60 when it is not set or 0.
    pub timeout_seconds: u64,
}

impl RegistrySettings {
    /// How long a silence is borne.
    pub fn timeout(&self) -> Duration {
        const DEFAULT: u64 = 60;
        Duration::from_secs(if self.timeout_seconds == 0 { DEFAULT } else { self.timeout_seconds })
    }
}

/// A registry's name as references write it: "docker.io", "host:5000".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct RegistryName(String);

impl TryFrom<String> for RegistryName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Reference::parse(&format!("{text}/x/y")) {
            Ok(r) if r.domain() == text && r.path() == "x/y" => Ok(Self(text)),
            _ => Err(format!("'{text}' is no registry's name: host or host:port is expected")),
        }
    }
}

/// "host:port", with a scheme when it is to be fixed, and with a path when the repositories are below one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mirror {
    /// Host and port.
    pub domain: String,
    /// Before the repository: "" or "hub/".
    pub prefix: String,
    /// "http://" was written.
    pub plain_http: bool,
}

impl TryFrom<String> for Mirror {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (plain_http, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => (false, text.as_str()),
        };
        let (domain, path) =
            rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        let RegistryName(domain) = RegistryName::try_from(domain.to_owned())?;
        // The path is checked as a part of a repository's name.
        if !path.is_empty() && Reference::parse(&format!("localhost/{path}/x")).is_err() {
            return Err(format!("'{text}' is no mirror: [http://]host[:port][/path] is expected"));
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Ok(Self { domain, prefix, plain_http })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(text: &str) -> Result<Mirror, String> {
        Mirror::try_from(text.to_owned())
    }

    #[test]
    fn mirrors_are_hosts_with_or_without_scheme_and_path() {
        let plain = mirror("m.example:5000").unwrap();
        assert_eq!(
            (plain.domain.as_str(), plain.prefix.as_str(), plain.plain_http),
            ("m.example:5000", "", false)
        );
        let full = mirror("http://127.0.0.1:5000/team/hub/").unwrap();
        assert_eq!(
            (full.domain.as_str(), full.prefix.as_str(), full.plain_http),
            ("127.0.0.1:5000", "team/hub/", true)
        );
        for wrong in ["", "http://", "ftp://x", "a b", "m.example/UPPER", "m.example/../x"] {
            assert!(mirror(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_registries_are_checked_and_keys_too() {
        let parse = |text: &str| serde_json::from_str::<Settings>(text);
        let good = r#"{"registries":{"docker.io":{"mirrors":["m:5000"]},"m:5000":{"plain_http":true,"timeout_seconds":3}}}"#;
        let settings = parse(good).unwrap();
        assert_eq!(settings.registry("docker.io").mirrors.len(), 1);
        assert_eq!(settings.registry("m:5000").timeout(), Duration::from_secs(3));
        assert_eq!(settings.registry("other"), RegistrySettings::default());
        assert!(
            parse(r#"{"registries":{"https://docker.io":{}}}"#).unwrap_err().to_string().contains("https")
        );
        assert!(
            parse(r#"{"registries":{"m:5000":{"mirror":[]}}}"#).unwrap_err().to_string().contains("mirror")
        );
    }
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

/// The file system in user space.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FuseSettings {
    /// A program with davit-cowfs's command line, for this daemon's own mounts; unset: davit-cowfs beside this one. runtimed.toml has
    /// the same key for containers.
    pub program: Option<PathBuf>,
}
