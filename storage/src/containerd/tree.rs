//! The trees of containerd's snapshots: made, and described as mounts in the shapes that containerd's own snapshotters use.
//!
//! A mount that davit-cowfs serves is described as `fuse3.davit-cowfs`: containerd (1.5 and later) then runs mount.fuse3(8), which runs the
//! program `davit-cowfs` of its PATH. The program stays until it is unmounted.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Form, Kind, Record, Snapshotter, SnapshotterError, disk};
use crate::copytree::{Source, copy_tree};
use crate::failure::At;
use crate::snapshot::driver::{Mount, Works};

impl Snapshotter {
    /// Makes the directory of a new snapshot on `parents`, nearest first: whole or not at all.
    pub(super) fn make(&self, record: &Record, parents: &[Record]) -> Result<(), SnapshotterError> {
        let staged = self.dir.join(format!("new-{}", record.number));
        let made = self.fill(&staged, record, parents).and_then(|()| {
            disk::write(&staged, record)?;
            Ok(std::fs::rename(&staged, self.path(record)).at("rename", &staged)?)
        });
        if made.is_err() {
            let _ = self.trash.discard(&staged);
        }
        made
    }

    fn fill(&self, dir: &Path, record: &Record, parents: &[Record]) -> Result<(), SnapshotterError> {
        let top = dir.join("fs");
        std::fs::create_dir_all(&top).at("create", &top)?;
        let mode = |bits| std::fs::set_permissions(&top, std::fs::Permissions::from_mode(bits));
        mode(0o755).at("set the mode of", &top)?;
        let Some(parent) = parents.first() else { return work(dir, record) };
        match record.form {
            Form::Overlay => {
                // The root of an overlay takes its owner and mode from the upper directory.
                let below = self.path(parent).join("fs");
                let meta = std::fs::metadata(&below).at("look at", &below)?;
                std::os::unix::fs::chown(&top, Some(meta.uid()), Some(meta.gid()))
                    .at("set the owner of", &top)?;
                mode(meta.mode() & 0o7777).at("set the mode of", &top)?;
            }
            Form::Copy => {
                // Views are of what does not change any more, and need no copy of a whole tree.
                if record.kind == Kind::View && parent.form == Form::Copy {
                    return Ok(());
                }
                for layer in self.trees(parents).iter().rev() {
                    copy_tree(&layer.0, &top, layer.1).map_err(SnapshotterError::Copy)?;
                }
            }
        }
        work(dir, record)
    }

    /// What the tree of the first of `records` is made of, topmost first. A whole copy hides all below it.
    fn trees(&self, records: &[Record]) -> Vec<(PathBuf, Source)> {
        let mut trees = Vec::with_capacity(records.len());
        for record in records {
            let source = match record.form {
                Form::Overlay => Source::Layer(self.namespace),
                Form::Copy => Source::Plain,
            };
            trees.push((self.path(record).join("fs"), source));
            if record.form == Form::Copy {
                break;
            }
        }
        trees
    }

    /// How to mount the first of `records`, which is followed by those it is based on.
    pub(super) fn describe(&self, records: &[Record]) -> Vec<Mount> {
        let (record, parents) = (&records[0], &records[1..]);
        let own = self.path(record);
        let access = if record.kind == Kind::View { "ro" } else { "rw" };
        let bind = |dir: PathBuf| {
            let options = vec![access.to_owned(), "rbind".to_owned()];
            vec![Mount { kind: "bind".into(), source: dir.display().to_string(), options, server: None }]
        };
        let lower: Vec<String> =
            self.trees(parents).iter().map(|(path, _)| path.display().to_string()).collect();
        match (record.form, record.kind, parents.first()) {
            (Form::Copy, Kind::View, Some(parent)) if parent.form == Form::Copy => {
                bind(self.path(parent).join("fs"))
            }
            (Form::Copy, ..) | (_, _, None) => bind(own.join("fs")),
            (Form::Overlay, Kind::View, Some(parent)) if lower.len() == 1 => {
                bind(self.path(parent).join("fs"))
            }
            (Form::Overlay, kind, Some(_)) => {
                let mut options: Vec<String> =
                    self.namespace.mount_option().map(str::to_owned).into_iter().collect();
                if kind == Kind::Active {
                    options.push(format!("workdir={}", own.join("work").display()));
                    options.push(format!("upperdir={}", own.join("fs").display()));
                }
                options.push(format!("lowerdir={}", lower.join(":")));
                let (kind, source) = match self.mounts_by {
                    Works::Overlay => ("overlay", "overlay"),
                    Works::Fuse => ("fuse3.davit-cowfs", "davit-cowfs"),
                };
                vec![Mount { kind: kind.into(), source: source.into(), options, server: None }]
            }
        }
    }
}

/// overlayfs's own directory.
fn work(dir: &Path, record: &Record) -> Result<(), SnapshotterError> {
    if record.form == Form::Overlay && record.kind == Kind::Active {
        let work = dir.join("work");
        std::fs::create_dir(&work).at("create", &work)?;
    }
    Ok(())
}
