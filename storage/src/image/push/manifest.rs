//! Manifests that go out: the original's type, or one that is made.

use std::collections::BTreeMap;

use crate::compression::Compression;
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Manifest};

/// A manifest to be sent.
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
}

/// A layer as a made manifest names it.
pub(super) fn layer_descriptor(digest: Digest, size: u64, compression: Compression) -> Descriptor {
    let media_type = match compression {
        Compression::Zstd => format!("{}+zstd", oci::MEDIA_LAYER),
        Compression::Gzip | Compression::Plain => oci::MEDIA_DOCKER_LAYER.to_owned(),
    };
    Descriptor { media_type, digest, size, platform: None, annotations: BTreeMap::new() }
}

/// What a manifest is to be called when it does not say.
pub(super) fn media_type_of(manifest: &Manifest) -> String {
    if !manifest.media_type.is_empty() {
        return manifest.media_type.clone();
    }
    let docker = manifest.config.media_type == oci::MEDIA_DOCKER_CONFIG;
    if docker { oci::MEDIA_DOCKER_MANIFEST } else { oci::MEDIA_MANIFEST }.to_owned()
}

/// A manifest for layers as they were sent.
pub(super) fn made(config: &Digest, config_size: u64, mut layers: Vec<Descriptor>) -> Outgoing {
    let docker = layers.iter().all(|l| l.media_type == oci::MEDIA_DOCKER_LAYER);
    let (media_type, config_type) = if docker {
        (oci::MEDIA_DOCKER_MANIFEST, oci::MEDIA_DOCKER_CONFIG)
    } else {
        for layer in layers.iter_mut().filter(|l| l.media_type == oci::MEDIA_DOCKER_LAYER) {
            layer.media_type = format!("{}+gzip", oci::MEDIA_LAYER);
        }
        (oci::MEDIA_MANIFEST, oci::MEDIA_CONFIG)
    };
    let config = Descriptor {
        media_type: config_type.to_owned(),
        digest: config.clone(),
        size: config_size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let manifest = Manifest { schema_version: 2, media_type: media_type.to_owned(), config, layers };
    let bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest of strings and numbers is JSON");
    Outgoing { bytes, media_type: media_type.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Document;

    #[test]
    fn a_made_manifest_is_dockers_unless_a_layer_is_zstd() {
        let layer = |c| layer_descriptor(Digest::of(b"x"), 3, c);
        let docker = made(&Digest::of(b"c"), 1, vec![layer(Compression::Gzip)]);
        assert_eq!(docker.media_type, oci::MEDIA_DOCKER_MANIFEST);
        let text = String::from_utf8(docker.bytes).unwrap();
        assert!(text.contains(oci::MEDIA_DOCKER_LAYER) && !text.contains("oci"), "{text}");
        let mixed = made(&Digest::of(b"c"), 1, vec![layer(Compression::Gzip), layer(Compression::Zstd)]);
        let text = String::from_utf8(mixed.bytes.clone()).unwrap();
        assert!(text.contains("tar+gzip") && text.contains("tar+zstd") && !text.contains("docker"), "{text}");
        let Ok(Document::Manifest(read)) = Document::parse(&mixed.bytes) else { panic!("{text}") };
        assert_eq!(media_type_of(&read), oci::MEDIA_MANIFEST);
    }
}
