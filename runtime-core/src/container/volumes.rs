//! Binds and volumes of a container: their sources on the host, once a snapshot is prepared.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use davit_contracts::runtime::{ContainerSpec, MountPoint, MountSpec};
use davit_contracts::storage::{
    AcquireVolumeRequest, AcquireVolumeResponse, ImageConfig, ReleaseVolumeRequest,
};

use crate::error::{RuntimeError, io_error};
use crate::peers::{Peers, volumes};
use crate::spec::merge::clean;

/// Whether storaged has to be asked for any volume.
pub fn wants_any(spec: &ContainerSpec, image: &ImageConfig) -> bool {
    spec.mounts.iter().any(|m| m.r#type == "volume") || anonymous(spec, image).next().is_some()
}

/// Makes missing sources, acquires volumes, and answers every bind with its source.
pub async fn resolve(
    peers: &Peers,
    id: &str,
    spec: &ContainerSpec,
    image: &ImageConfig,
) -> Result<Vec<MountPoint>, RuntimeError> {
    let mut points = Vec::new();
    for m in &spec.mounts {
        match m.r#type.as_str() {
            "bind" => points.push(bind(m)?),
            "volume" => points.push(volume(peers, id, m).await?),
            _ => {}
        }
    }
    let anonymous: Vec<String> = anonymous(spec, image).collect();
    for target in anonymous {
        let m = MountSpec { r#type: "volume".into(), target, ..MountSpec::default() };
        points.push(volume(peers, id, &m).await?);
    }
    Ok(points)
}

/// The image's volumes that nothing asked for covers.
fn anonymous<'a>(spec: &'a ContainerSpec, image: &'a ImageConfig) -> impl Iterator<Item = String> + 'a {
    image.volumes.iter().map(|v| clean(v)).filter(move |target| {
        let covered = spec.mounts.iter().any(|m| clean(&m.target) == *target)
            || spec.tmpfs.iter().any(|t| clean(t.split(':').next().unwrap_or("")) == *target);
        target != "/" && !covered
    })
}

fn bind(m: &MountSpec) -> Result<MountPoint, RuntimeError> {
    let source = Path::new(&m.source);
    if m.create_source && !source.exists() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(source)
            .map_err(io_error("create the bind source", source))?;
    }
    Ok(MountPoint {
        r#type: "bind".into(),
        name: String::new(),
        source: m.source.clone(),
        target: clean(&m.target),
        rw: !m.read_only,
        propagation: m.propagation.clone(),
    })
}

async fn volume(peers: &Peers, id: &str, m: &MountSpec) -> Result<MountPoint, RuntimeError> {
    let target = clean(&m.target);
    let request = AcquireVolumeRequest {
        name: m.source.clone(),
        user: id.to_owned(),
        snapshot_key: id.to_owned(),
        image_path: target.clone(),
        no_copy: m.options.contains_key("nocopy"),
        subpath: String::new(),
    };
    let answer: AcquireVolumeResponse = peers
        .storage
        .call(|channel| {
            let request = request.clone();
            async move { volumes(channel).acquire(request).await }
        })
        .await?;
    let volume = answer.volume.unwrap_or_default();
    let source = answer.mount.map(|m| m.source).filter(|s| !s.is_empty()).unwrap_or(volume.mountpoint);
    Ok(MountPoint {
        r#type: "volume".into(),
        name: volume.name,
        source,
        target,
        rw: !m.read_only,
        propagation: m.propagation.clone(),
    })
}

/// Gives up all volumes of a container.
pub async fn release(peers: &Peers, id: &str, remove_anonymous: bool) -> Result<(), RuntimeError> {
    let call = |channel| async move {
        volumes(channel).release(ReleaseVolumeRequest { user: id.to_owned(), remove_anonymous }).await
    };
    peers.storage.call(call).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_volumes_are_anonymous_unless_covered() {
        let image = ImageConfig {
            volumes: vec!["/data/".into(), "/cache".into(), "/tmpfs".into(), "/".into()],
            ..ImageConfig::default()
        };
        let mut spec = ContainerSpec { tmpfs: vec!["/tmpfs:size=1m".into()], ..ContainerSpec::default() };
        spec.mounts.push(MountSpec {
            r#type: "bind".into(),
            target: "/cache/".into(),
            ..MountSpec::default()
        });
        assert_eq!(anonymous(&spec, &image).collect::<Vec<_>>(), ["/data"]);
        assert!(wants_any(&spec, &image) && !wants_any(&spec, &ImageConfig::default()));
    }

    #[test]
    fn a_missing_bind_source_is_made_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("a/b");
        let mut m = MountSpec {
            r#type: "bind".into(),
            source: source.display().to_string(),
            target: "/x/../y".into(),
            read_only: true,
            ..MountSpec::default()
        };
        bind(&m).unwrap();
        assert!(!source.exists());
        m.create_source = true;
        let point = bind(&m).unwrap();
        assert!(source.is_dir() && !point.rw && point.target == "/y");
    }
}
