//! manifest.json of a docker-archive: a list of images, each with its config and layers by name. Pure.

use serde::Deserialize;

use crate::oci::DocumentError;

/// One image of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// Reads the list.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<DockerImage>, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what: "manifest", source })
}
