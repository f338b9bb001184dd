//! A layer's archive going out again: to a registry, into a saved archive, to a repair.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::compression::{Compression, detect};
use crate::digest::Digest;
use crate::error::Error;
use crate::failure::At;
use crate::metadata::LayerRecord;
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
    path: PathBuf,
}

impl LayerArchive {
    /// The bytes, from the start. May be called several times.
    pub fn reader(&self) -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(File::open(&self.path).at("open", &self.path)?))
    }
}

impl Store {
    /// The archive of a committed layer. Hold a lease on the layer while using it.
    pub fn layer_archive(&self, layer: &LayerRecord) -> Result<LayerArchive, Error> {
        let path = self.content.path(&layer.blob);
        let file = File::open(&path).at("open", &path)?;
        let size = file.metadata().at("look at", &path)?.len();
        let mut start = Vec::with_capacity(6);
        file.take(6).read_to_end(&mut start).at("read", &path)?;
        let compression = detect(&start)?;
        Ok(LayerArchive { digest: layer.blob.clone(), size, compression, path })
    }
}
