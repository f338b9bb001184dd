//! What the monitor mounts: the root, and binds whose source the OCI runtime is not given as it is on the host: the monitor attaches them below the run directory (see
//! [`davit_wire::MonitorConfig::shared_sources`] and [`davit_wire::config::Part`]).

use std::path::PathBuf;

use davit_contracts::runtime::{ContainerSpec, MountPoint};
use davit_sys::served::is_served;
use davit_wire::config::{Mount, Part};

use super::dirs::RunDir;
use crate::config::Config;
use crate::error::RuntimeError;

/// The root's mounts as storaged describes them. What a program serves comes with the program, which is ours to choose and not storaged's.
pub fn root(
    mounts: Vec<davit_contracts::storage::Mount>,
    config: &Config,
) -> Result<Vec<Mount>, RuntimeError> {
    let one = |m: davit_contracts::storage::Mount| {
        let server = is_served(&m.r#type).then(|| config.cowfs()).transpose()?;
        Ok(Mount { r#type: m.r#type, source: m.source, options: m.options, target: m.target, server })
    };
    mounts.into_iter().map(one).collect()
}

fn is_shared(propagation: &str) -> bool {
    matches!(propagation, "shared" | "rshared")
}

/// Sources of binds that stay peers of the host's mounts, in the order of the spec.
pub fn shared_sources(spec: &ContainerSpec) -> Vec<PathBuf> {
    let shared = spec.mounts.iter().filter(|m| m.r#type == "bind" && is_shared(&m.propagation));
    shared.map(|m| PathBuf::from(&m.source)).collect()
}

/// Parts of volumes, in the order of the mount points.
pub fn parts(points: &[MountPoint], userns: bool) -> Vec<Part> {
    let idmap = |p: &MountPoint| userns && is_mapped(p);
    let parts = points.iter().filter(|p| !p.subpath.is_empty() || idmap(p));
    parts
        .map(|p| Part { directory: PathBuf::from(&p.source), subpath: p.subpath.clone(), idmap: idmap(p) })
        .collect()
}

/// Whether root of a user namespace shall be root of its files: always of a volume, of a bind where that was asked for.
fn is_mapped(point: &MountPoint) -> bool {
    point.fs_type.is_empty() && (point.r#type == "volume" || point.options.iter().any(|o| o == IDMAP))
}

/// The option of a bind.
pub const IDMAP: &str = "idmap";

/// The mount points as the runtime is to see them. Binds are resolved in the order of the spec, so that counting finds them.
pub fn staged(points: &[MountPoint], userns: bool, run: &RunDir) -> Vec<MountPoint> {
    let (mut shared, mut parts) = (0, 0);
    let place = |kind: &str, n: &mut usize| {
        let path = run.path().join(kind).join(n.to_string());
        *n += 1;
        path.display().to_string()
    };
    let one = |point: &MountPoint| {
        let mut point = point.clone();
        if point.r#type == "bind" && is_shared(&point.propagation) {
            point.source = place("shared", &mut shared);
        } else if !point.subpath.is_empty() || (userns && is_mapped(&point)) {
            point.source = place("parts", &mut parts);
        }
        point.options.retain(|o| o != IDMAP);
        point
    };
    points.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::runtime::MountSpec;

    #[test]
    fn the_monitor_and_the_runtime_count_alike() {
        let mount = |source: &str, propagation: &str| MountSpec {
            r#type: "bind".into(),
            source: source.into(),
            propagation: propagation.into(),
            ..MountSpec::default()
        };
        let mounts =
            vec![mount("/a", ""), mount("/b", "rshared"), mount("/c", "slave"), mount("/d", "shared")];
        let point = |m: &MountSpec| MountPoint {
            r#type: m.r#type.clone(),
            source: m.source.clone(),
            propagation: m.propagation.clone(),
            ..MountPoint::default()
        };
        let mut points: Vec<MountPoint> = mounts.iter().map(point).collect();
        points.push(MountPoint { source: "/v".into(), subpath: "x/y".into(), ..MountPoint::default() });
        let spec = ContainerSpec { mounts, ..ContainerSpec::default() };
        assert_eq!(shared_sources(&spec), ["/b", "/d"].map(PathBuf::from));
        let part = Part { directory: "/v".into(), subpath: "x/y".into(), idmap: false };
        assert_eq!(parts(&points, false), [part]);
        let sources: Vec<String> =
            staged(&points, false, &RunDir("/r".into())).into_iter().map(|p| p.source).collect();
        assert_eq!(sources, ["/a", "/r/shared/0", "/c", "/r/shared/1", "/r/parts/0"]);
        // With a user namespace volumes are mapped, and binds that ask for it.
        points[4].subpath.clear();
        points[4].r#type = "volume".into();
        points[0].options.push(IDMAP.into());
        let idmapped: Vec<bool> = parts(&points, true).iter().map(|p| p.idmap).collect();
        assert_eq!(idmapped, [true, true]);
        let staged = staged(&points, true, &RunDir("/r".into()));
        assert_eq!((staged[0].source.as_str(), staged[4].source.as_str()), ("/r/parts/0", "/r/parts/1"));
        assert!(staged[0].options.is_empty() && parts(&points, false).is_empty());
    }
}
