//! Options of the local driver: what a volume is when it is not a directory of ours. docker's words: `type`, `device` and `o`.
//!
//! Nothing is mounted by this daemon: a container's own mount namespace gets the tmpfs or the bind when it uses the volume.
//! So a tmpfs volume is each container's own, where docker's is shared by those that run at one time.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::VolumeError;

/// What stands behind a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// Its `_data`.
    Directory,
    /// A tmpfs with these mount options.
    Tmpfs(Vec<String>),
    /// A directory of the host.
    Bind {
        /// Absolute.
        device: PathBuf,
        /// Mount options: `bind` or `rbind`, and perhaps `ro`.
        options: Vec<String>,
    },
}

/// What a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// "bind" or "tmpfs".
    pub kind: &'static str,
    /// Of a bind.
    pub source: PathBuf,
    /// For mount(8), and `X-davit.subpath=`.
    pub options: Vec<String>,
}

/// Reads the options of a volume.
pub fn backing(options: &BTreeMap<String, String>) -> Result<Backing, VolumeError> {
    let known = ["type", "device", "o"];
    if let Some(option) = options.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(VolumeError::UnknownOption(option.clone()));
    }
    if options.is_empty() {
        return Ok(Backing::Directory);
    }
    let text = |key: &str| options.get(key).map_or("", String::as_str);
    let words: Vec<String> = text("o").split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    let is_bind = words.iter().any(|w| matches!(w.as_str(), "bind" | "rbind"));
    match text("type") {
        "" => Err(VolumeError::MissingOption("type")),
        "tmpfs" => Ok(Backing::Tmpfs(words)),
        "none" | "bind" if is_bind => {
            let device = PathBuf::from(text("device"));
            if text("device").is_empty() {
                return Err(VolumeError::MissingOption("device"));
            }
            let plain = device.components().all(|c| !matches!(c, std::path::Component::ParentDir));
            if !device.is_absolute() || !plain {
                return Err(VolumeError::Device(device));
            }
            Ok(Backing::Bind { device, options: words })
        }
        other => Err(VolumeError::UnsupportedType(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Backing, VolumeError> {
        backing(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn dockers_examples_are_understood() {
        assert_eq!(parse(&[]).unwrap(), Backing::Directory);
        let tmpfs = parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=100m,uid=1000")]).unwrap();
        assert_eq!(tmpfs, Backing::Tmpfs(vec!["size=100m".into(), "uid=1000".into()]));
        let bind = parse(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")]).unwrap();
        assert_eq!(bind, Backing::Bind { device: "/srv".into(), options: vec!["bind".into(), "ro".into()] });
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_when_the_volume_is_made() {
        for bad in [
            &[("size", "10G")][..],
            &[("device", "/srv")],
            &[("type", "none"), ("o", "bind")],
            &[("type", "none"), ("device", "srv"), ("o", "bind")],
            &[("type", "none"), ("device", "/a/../b"), ("o", "bind")],
            &[("type", "none"), ("device", "/srv")],
            &[("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1")],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let nfs = parse(&[("type", "nfs"), ("device", ":/x")]).unwrap_err();
        assert_eq!(nfs.kind(), davit_contracts::Kind::Unsupported);
        assert!(nfs.to_string().contains("'nfs'"));
    }
}
