//! Binds and volumes of a container: their sources on the host, once a snapshot is prepared.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use davit_contracts::runtime::{ContainerSpec, MountPoint, MountSpec};
use davit_contracts::storage::{
    AcquireVolumeRequest, AcquireVolumeResponse, ImageConfig, ReleaseVolumeRequest,
};

use super::staging::IDMAP;
use crate::error::{RuntimeError, io_error};
use crate::peers::{Peers, volumes};
use crate::spec::merge::clean;

/// Whether storaged has to be asked for any volume.
pub fn wants_any(spec: &ContainerSpec, image: &ImageConfig) -> bool {
    spec.mounts.iter().any(|m| m.r#type == "volume") || anonymous(spec, image).next().is_some()
}

/// Makes missing sources, acquires volumes, and answers every bind with its source. An anonymous volume at a place that is in `from` begins
/// as a copy of the volume that is named there.
pub async fn resolve(
    peers: &Peers,
    id: &str,
    spec: &ContainerSpec,
    image: &ImageConfig,
    from: &HashMap<String, String>,
) -> Result<Vec<MountPoint>, RuntimeError> {
    let mut points = Vec::new();
    for m in &spec.mounts {
        match m.r#type.as_str() {
            "bind" => points.push(bind(m)?),
            "volume" => points.push(volume(peers, id, m, from).await?),
            _ => {}
        }
    }
    let anonymous: Vec<String> = anonymous(spec, image).collect();
    for target in anonymous {
        let m = MountSpec { r#type: "volume".into(), target, ..MountSpec::default() };
        points.push(volume(peers, id, &m, from).await?);
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
        options: [
            (m.non_recursive, "bind"),
            (m.read_only_recursive, "rro"),
            (m.options.contains_key(IDMAP), IDMAP),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, option)| option.to_owned())
        .collect(),
        ..MountPoint::default()
    })
}

/// The option by which storaged names a part of a volume.
const SUBPATH: &str = "X-davit.subpath=";

async fn volume(
    peers: &Peers,
    id: &str,
    m: &MountSpec,
    from: &HashMap<String, String>,
) -> Result<MountPoint, RuntimeError> {
    let target = clean(&m.target);
    let request = AcquireVolumeRequest {
        name: m.source.clone(),
        user: id.to_owned(),
        snapshot_key: id.to_owned(),
        image_path: target.clone(),
        no_copy: m.options.contains_key("nocopy"),
        subpath: m.subpath.clone(),
        labels: m.volume_labels.clone(),
        options: m.volume_options.clone(),
        copy_from: from.get(&target).filter(|_| m.source.is_empty()).cloned().unwrap_or_default(),
    };
    let answer: AcquireVolumeResponse = peers
        .storage
        .call(|channel| {
            let request = request.clone();
            async move { volumes(channel).acquire(request).await }
        })
        .await?;
    let volume = answer.volume.unwrap_or_default();
    let mount = answer.mount.unwrap_or_default();
    let is_bind = matches!(mount.r#type.as_str(), "" | "bind");
    let subpath = mount.options.iter().find_map(|o| o.strip_prefix(SUBPATH)).unwrap_or_default().to_owned();
    let read_only = m.read_only || mount.options.iter().any(|o| o == "ro");
    Ok(MountPoint {
        r#type: "volume".into(),
        name: volume.name,
        source: if is_bind && !mount.source.is_empty() { mount.source } else { volume.mountpoint },
        target,
        rw: !read_only,
        propagation: String::new(),
        options: mount.options.into_iter().filter(|o| !o.starts_with(SUBPATH)).collect(),
        fs_type: if is_bind { String::new() } else { mount.r#type },
        subpath,
    })
}

/// Adds what another container mounts, at the same places; what the container itself asks for there wins, and so does a later one. Only storaged
/// makes volumes empty or full: nothing is copied in here.
pub fn inherit(spec: &mut ContainerSpec, own: usize, from: &[MountPoint], read_only: bool) {
    for point in from {
        let at = |m: &MountSpec| clean(&m.target) == clean(&point.target);
        let tmpfs = |t: &String| clean(t.split(':').next().unwrap_or("")) == clean(&point.target);
        if spec.mounts[..own].iter().any(at) || spec.tmpfs.iter().any(tmpfs) {
            continue;
        }
        let earlier = spec.mounts[own..].iter().position(at);
        if let Some(earlier) = earlier {
            spec.mounts.remove(own + earlier);
        }
        let is_volume = point.r#type == "volume";
        spec.mounts.push(MountSpec {
            r#type: point.r#type.clone(),
            source: if is_volume { point.name.clone() } else { point.source.clone() },
            target: point.target.clone(),
            read_only: read_only || !point.rw,
            propagation: point.propagation.clone(),
            options: if is_volume { [("nocopy".to_owned(), "true".to_owned())].into() } else { [].into() },
            non_recursive: !is_volume && point.options.iter().any(|o| o == "bind"),
            read_only_recursive: !is_volume && point.options.iter().any(|o| o == "rro"),
            subpath: point.subpath.clone(),
            ..MountSpec::default()
        });
    }
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
    fn own_mounts_win_over_inherited_ones_and_later_over_earlier() {
        let point = |kind: &str, name: &str, target: &str, rw| MountPoint {
            r#type: kind.into(),
            name: name.into(),
            source: "/src".into(),
            target: target.into(),
            rw,
            ..MountPoint::default()
        };
        let own = MountSpec { r#type: "bind".into(), target: "/own".into(), ..MountSpec::default() };
        let mut spec = ContainerSpec { mounts: vec![own], tmpfs: vec!["/t".into()], ..Default::default() };
        let first = [point("volume", "v", "/data", true), point("volume", "x", "/own/", true)];
        inherit(&mut spec, 1, &first, false);
        let second = [point("bind", "", "/data/", false), point("volume", "w", "/t", true)];
        inherit(&mut spec, 1, &second, true);
        assert_eq!(spec.mounts.len(), 2);
        let m = &spec.mounts[1];
        assert_eq!((m.r#type.as_str(), m.source.as_str(), m.read_only), ("bind", "/src", true));
        inherit(&mut spec, 1, &first, true);
        let m = &spec.mounts[1];
        assert_eq!((m.source.as_str(), m.read_only, m.options.len()), ("v", true, 1));
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
