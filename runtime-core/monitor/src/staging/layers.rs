//! The root of a container with a user namespace: its layers are mounted once more with owners as that namespace shows them (id-mapped
//! mounts), so that files keep their owners on disk and commit, diff and export see what an image is to have.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use davit_sys::rootfs::{ATTR_IDMAP, MountAttributes, clone_tree_at, set_attributes};
use davit_wire::config::Mount;

use super::{USERNS, place_one};

const KEYS: [&str; 4] = ["lowerdir+", "lowerdir", "upperdir", "workdir"];

/// Maps a detached mount, and nothing of what is mounted below.
pub fn map(tree: BorrowedFd<'_>, run_dir: &Path) -> io::Result<()> {
    let userns = File::open(run_dir.join(USERNS))?;
    let attributes = MountAttributes {
        set: ATTR_IDMAP,
        userns_fd: userns.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    set_attributes(tree, attributes, false)
}

/// Mounts the directory that holds all of the root's as `layers`, id-mapped; answers the mount over those, and where it is.
pub fn mapped(mount: &Mount, run_dir: &Path) -> io::Result<(Mount, PathBuf)> {
    let place = run_dir.join("layers");
    let all = directories(mount);
    let common = common(&all).ok_or_else(|| {
        io::Error::other(format!("a root of type {} cannot show files with other owners", mount.r#type))
    })?;
    let tree = clone_tree_at(&common, false)?;
    map(tree.as_fd(), run_dir)?;
    place_one(&place, tree.as_fd())?;
    let moved = |path: &str| match Path::new(path).strip_prefix(&common) {
        Ok(rest) if !path.is_empty() => place.join(rest).display().to_string(),
        _ => path.to_owned(),
    };
    let mut out = mount.clone();
    if is_bind(mount) {
        out.source = moved(&mount.source);
    }
    for option in &mut out.options {
        if let Some((key, value)) = option.split_once('=').filter(|(key, _)| KEYS.contains(key)) {
            let paths: Vec<String> = value.split(':').map(moved).collect();
            *option = format!("{key}={}", paths.join(":"));
        }
    }
    Ok((out, place))
}

fn is_bind(mount: &Mount) -> bool {
    matches!(mount.r#type.as_str(), "bind" | "rbind")
}

fn directories(mount: &Mount) -> Vec<PathBuf> {
    if is_bind(mount) {
        return vec![PathBuf::from(&mount.source)];
    }
    let options =
        mount.options.iter().filter_map(|o| o.split_once('=')).filter(|(key, _)| KEYS.contains(key));
    options.flat_map(|(_, value)| value.split(':')).filter(|p| !p.is_empty()).map(PathBuf::from).collect()
}

/// The deepest directory that holds them all: upper and work directory must lie on one mount.
fn common(paths: &[PathBuf]) -> Option<PathBuf> {
    let mut common = paths.first()?.clone();
    while !paths.iter().all(|p| p.starts_with(&common)) {
        common.pop();
    }
    Some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_that_holds_all_is_found() {
        let of = |list: &[&str]| common(&list.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["/s/layers/a", "/s/layers/ab", "/s/snap/u"]), Some("/s".into()));
        assert_eq!(of(&["/s/a"]), Some("/s/a".into()));
        assert_eq!(of(&["/s/a", "/t"]), Some("/".into()));
        assert_eq!(of(&[]), None);
    }
}
