//! A layer's archive going out again: to a registry, into a saved archive, to a repair.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::compression::{Compression, detect};
use crate::digest::Digest;
use crate::error::Error;
use crate::failure::At;
use crate::metadata::LayerRecord;
use crate::recipe;
use crate::store::Store;

/// A layer's archive as it is kept: its bytes have this digest and size, but are verified by who reads them.
#[derive(Debug, Clone)]
pub struct LayerArchive {
    /// Of the bytes that [`LayerArchive::reader`] gives.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// How they are compressed.
    pub compression: Compression,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Blob(PathBuf),
    Recipe { recipe: PathBuf, tree: PathBuf },
}

impl LayerArchive {
    /// The bytes, from the start. May be called several times.
    pub fn reader(&self) -> Result<Box<dyn Read + Send>, Error> {
        match &self.place {
            Place::Blob(path) => Ok(Box::new(File::open(path).at("open", path)?)),
            Place::Recipe { recipe, tree } => Ok(Box::new(recipe::open(recipe, tree)?)),
        }
    }

    /// Whether the bytes are kept on their own, so that they can repair the layer's tree.
    pub fn is_stored(&self) -> bool {
        matches!(self.place, Place::Blob(_))
    }
}

impl Store {
    /// The archive of a committed layer. Hold a lease on the layer while using it.
    pub fn layer_archive(&self, layer: &LayerRecord) -> Result<LayerArchive, Error> {
        let digest = layer.blob.clone();
        if layer.recipe {
            let (recipe, tree) = (self.layers.recipe(&layer.diff_id), self.layers.path(&layer.diff_id));
            let place = Place::Recipe { recipe, tree };
            return Ok(LayerArchive {
                digest,
                size: layer.archive_size,
                compression: Compression::Plain,
                place,
            });
        }
        let path = self.content.path(&layer.blob);
        let file = File::open(&path).at("open", &path)?;
        let size = file.metadata().at("look at", &path)?.len();
        let mut start = Vec::with_capacity(6);
        file.take(6).read_to_end(&mut start).at("read", &path)?;
        let compression = detect(&start)?;
        Ok(LayerArchive { digest, size, compression, place: Place::Blob(path) })
    }
}
