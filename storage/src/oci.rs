//! Manifests, indexes and image configs, read leniently: OCI image-spec 1.1 and docker schema 2 differ in media types
//! and in fields that one of them writes as null. Pure: bytes in, types out. Everything here is written by strangers.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;

/// Bounds on what is read into memory: a manifest or index, and a config.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// docker's configs stay below some hundred kilobytes; 8 MiB leaves room for long histories.
pub const MAX_CONFIG: u64 = 8 << 20;
/// More layers than overlayfs can stack (OVL_MAX_STACK is 500).
pub const MAX_LAYERS: usize = 500;

/// Media types that davit writes.
pub const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image config.
pub const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed layer.
pub const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// docker's manifest, schema 2.
pub const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// docker's config.
pub const MEDIA_DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// docker's layer, compressed with gzip.
pub const MEDIA_DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// What a registry is told that we understand.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A document is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// No JSON, or a field of a wrong type.
    #[error("the {what} cannot be read")]
    Json {
        /// "manifest", "config", "index".
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// docker's schema 1 has been obsolete since 2017.
    #[error("the manifest is of docker's obsolete schema 1")]
    Schema1,
    /// The number of layers differs between manifest and config.
    #[error("the manifest names {manifest} layers, but the config {config}")]
    LayerCount {
        /// In the manifest.
        manifest: usize,
        /// In the config.
        config: usize,
    },
    /// More than [`MAX_LAYERS`].
    #[error("the image has {0} layers; at most {MAX_LAYERS} are possible")]
    TooManyLayers(usize),
    /// Not an image: an artifact such as a helm chart or a signature.
    #[error("it is not a container image but '{0}'")]
    NotAnImage(String),
    /// An index without an image for the platform.
    #[error("there is no image for platform {wanted}; offered are: {offered}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What is there.
        offered: String,
    },
}

/// Takes JSON's null for the default, as Go's decoder does.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Something stored elsewhere by digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default, deserialize_with = "nullable")]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Of an index's entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form; names in an OCI layout's index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// What an image runs on, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Platform {
    /// "linux".
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    /// "amd64", "arm64".
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    /// "v7", "v8"; often empty.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// This host's.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: String::new() }
    }

    /// Whether an image for `self` serves a wish for `wanted`: an unnamed variant matches any.
    pub fn serves(&self, wanted: &Self) -> bool {
        let variant = self.variant.is_empty() || wanted.variant.is_empty() || self.variant == wanted.variant;
        self.os == wanted.os && self.architecture == wanted.architecture && variant
    }

    /// "linux/arm/v7".
    pub fn text(&self) -> String {
        let mut text = format!("{}/{}", self.os, self.architecture);
        if !self.variant.is_empty() {
            text.push('/');
            text.push_str(&self.variant);
        }
        text
    }
}

/// A manifest or an index: what a tag may name.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// A choice of images.
    Index(Index),
}

/// One image: its config and layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// OCI's or docker's.
    #[serde(default, deserialize_with = "nullable")]
    pub media_type: String,
    /// The config.
    pub config: Descriptor,
    /// Bottom first.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
}

/// Images to choose from.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// In order of preference.
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
}

impl Document {
    /// Reads either. Which one it is shows in its fields: the media type may be missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: Option<u32>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
        }
        let json = |source| DocumentError::Json { what: "manifest", source };
        let probe: Probe = serde_json::from_slice(bytes).map_err(json)?;
        if probe.schema_version == Some(1) {
            return Err(DocumentError::Schema1);
        }
        if probe.manifests.is_some() {
            return Ok(Self::Index(serde_json::from_slice(bytes).map_err(json)?));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        manifest.check()?;
        Ok(Self::Manifest(manifest))
    }
}

impl Manifest {
    fn check(&self) -> Result<(), DocumentError> {
        let kind = &self.config.media_type;
        let image = kind.is_empty()
            || kind == "application/octet-stream"
            || kind.contains("image.config")
            || kind.contains("container.image");
        if !image {
            return Err(DocumentError::NotAnImage(kind.clone()));
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers(self.layers.len()));
        }
        Ok(())
    }
}

impl Index {
    /// The entry for a platform. Attestations (os "unknown") never match; an entry without a platform is taken when
    /// it is the only one.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor, DocumentError> {
        let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.serves(wanted));
        if let Some(found) = self.manifests.iter().find(fits) {
            return Ok(found);
        }
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let offered: Vec<String> =
            self.manifests.iter().filter_map(|d| d.platform.as_ref()).map(Platform::text).collect();
        Err(DocumentError::NoPlatform {
            wanted: wanted.text(),
            offered: if offered.is_empty() { "none".into() } else { offered.join(", ") },
        })
    }
}

/// An image config file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImageFile {
    /// RFC 3339.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Who.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// For what.
    #[serde(flatten)]
    pub platform: Platform,
    /// How it runs by default.
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    /// The layers.
    #[serde(default, deserialize_with = "nullable")]
    pub rootfs: RootFs,
    /// How it came to be, oldest first.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
}

/// The layers by diff id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// "layers".
    #[serde(rename = "type", default, deserialize_with = "nullable")]
    pub kind: String,
    /// Bottom first.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// RFC 3339.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// The command.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Free text.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

type Set = BTreeMap<String, serde_json::Value>;

/// Execution defaults, in docker's field names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// "KEY=value".
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Always run.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments or the command.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Who it runs as.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// "80/tcp" to {}.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Set::is_empty")]
    pub exposed_ports: Set,
    /// Paths to {}.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Set::is_empty")]
    pub volumes: Set,
    /// Free-form.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// "SIGTERM" or a number.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// For the shell forms.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// docker's addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
}

/// docker's health check; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthCheck {
    /// `["CMD", ...]`, `["CMD-SHELL", "..."]`, `["NONE"]`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between probes.
    #[serde(default, deserialize_with = "nullable")]
    pub interval: i64,
    /// Of one probe.
    #[serde(default, deserialize_with = "nullable")]
    pub timeout: i64,
    /// Failures that do not count yet.
    #[serde(default, deserialize_with = "nullable")]
    pub start_period: i64,
    /// Failures in a row.
    #[serde(default, deserialize_with = "nullable")]
    pub retries: u32,
    /// Between probes within the start period.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl ImageFile {
    /// Reads a config.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let file: Self =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what: "config", source })?;
        if file.rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers(file.rootfs.diff_ids.len()));
        }
        Ok(file)
    }

    /// Refuses an image made for another platform. One that does not say for what it is made is taken.
    pub fn check_platform(&self, wanted: &Platform) -> Result<(), DocumentError> {
        let silent = self.platform.os.is_empty() && self.platform.architecture.is_empty();
        if silent || self.platform.serves(wanted) {
            return Ok(());
        }
        Err(DocumentError::NoPlatform { wanted: wanted.text(), offered: self.platform.text() })
    }
}

/// An RFC 3339 time as nanoseconds since 1970; 0 when it is missing or none.
pub fn unix_ns(time: &str) -> i64 {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(time, &Rfc3339)
        .ok()
        .and_then(|t| i64::try_from(t.unix_timestamp_nanos()).ok())
        .unwrap_or(0)
}

/// Now, as configs write it.
pub fn now_rfc3339() -> String {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::now_utc().format(&Rfc3339).expect("the present has a four-digit year")
}

#[cfg(test)]
mod tests;
