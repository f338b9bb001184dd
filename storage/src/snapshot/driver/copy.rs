//! A full copy of the image for each snapshot: slow and large, but it works on every file system.

use std::path::Path;

use davit_cowfs::Namespace;

use super::{Driver, Mount, Stack};
use crate::copytree::{Source, copy_tree};
use crate::failure::At;
use crate::snapshot::SnapshotError;

pub(super) struct Copy {
    namespace: Namespace,
    reason: String,
}

impl Copy {
    #[allow(clippy::unnecessary_wraps)] // the constructors of drivers are alike
    pub(super) fn new(_state: &Path, namespace: Namespace, reason: String) -> Result<Self, SnapshotError> {
        Ok(Self { namespace, reason })
    }
}

impl Driver for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn create(&self, dir: &Path, stack: &Stack, _read_only: bool) -> Result<(), SnapshotError> {
        let top = dir.join("fs");
        std::fs::create_dir(&top).at("create", &top)?;
        for layer in stack.layers.iter().rev() {
            copy_tree(layer, &top, Source::Layer(self.namespace)).map_err(SnapshotError::Copy)?;
        }
        Ok(())
    }

    fn mounts(&self, dir: &Path, _stack: &Stack, read_only: bool) -> Vec<Mount> {
        let mut options = vec!["rbind".to_owned()];
        options.extend(read_only.then(|| "ro".to_owned()));
        vec![Mount { kind: "bind", source: dir.join("fs").display().to_string(), options }]
    }
}
