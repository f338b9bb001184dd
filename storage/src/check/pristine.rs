//! A layer's tree anew from its archive, aside: what damaged files are taken from.

use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use crate::compression::Plain;
use crate::digest::{Digest, Hashing};
use crate::layer::StagedTree;
use crate::ledger::Unrecorded;
use crate::metadata::LayerRecord;
use crate::store::Store;
use crate::tarball::TarReader;
use crate::unpack::{Limits, Options, unpack};

/// Where the tree of a staged layer is.
pub(super) fn tree_of(staged: &StagedTree) -> PathBuf {
    staged.tree()
}

/// Where the ledger of a layer is.
pub(super) fn ledger_of(store: &Store, diff_id: &Digest) -> PathBuf {
    store.layers.ledger(diff_id)
}

/// A verified tree.
pub(super) struct Pristine {
    /// Thrown away in the end.
    pub(super) tree: StagedTree,
    /// Its root.
    pub(super) root: OwnedFd,
    /// When unpacking began: seconds since 1970.
    pub(super) since: i64,
}

/// Unpacks `stored`, which must be the bytes of `blob`, and must unpack to the layer.
pub(super) fn unpack_verified(
    store: &Store,
    layer: &LayerRecord,
    blob: &Digest,
    stored: Box<dyn Read + Send>,
    whiteouts: bool,
) -> Result<Pristine, String> {
    let text = |e: &dyn std::error::Error| match e.source() {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    };
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let tree = store.layers.stage().map_err(|e| text(&e))?;
    let root = davit_sys::beneath::open_root(&tree_of(&tree)).map_err(|e| text(&e))?;
    let options = Options {
        namespace: store.namespace,
        rootless: store.rootless,
        whiteouts,
        limits: Limits::default(),
    };
    let plain = Plain::new(Hashing::new(stored)).map_err(|e| text(&e))?;
    let mut tar = TarReader::new(Hashing::new(plain));
    let unpacked = unpack(&mut tar, root.as_fd(), &options, &mut Unrecorded);
    let mut hashing = tar.into_inner();
    let drained = io::copy(&mut hashing, &mut io::sink());
    let (plain, diff_id, _) = hashing.finish();
    let mut rest = plain.into_stored();
    let drained = drained.and_then(|_| io::copy(&mut rest, &mut io::sink()));
    let (_, found, _) = rest.into_inner().finish();
    if found != *blob {
        return Err(match drained {
            // Not the decompressor's: the bytes did not come.
            Err(e) if e.raw_os_error().is_some() || e.kind() == io::ErrorKind::ConnectionAborted => {
                format!("the layer's archive cannot be read: {e}")
            }
            _ => "the layer's archive is damaged, too".into(),
        });
    }
    unpacked.map_err(|e| text(&e))?;
    if diff_id != layer.diff_id {
        return Err(format!("the layer's archive unpacks to {}", diff_id.short()));
    }
    Ok(Pristine { tree, root, since })
}
