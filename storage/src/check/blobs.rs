//! Blobs against their digests, and their repair from a registry.

use std::fs::File;
use std::io::{self, Write as _};

use sha2::{Digest as _, Sha256};

use super::pace::Pace;
use super::{Check, CheckError, Finding, Problem};
use crate::digest::Digest;
use crate::failure::At as _;
use crate::metadata::ImageRecord;

impl Check<'_> {
    /// One blob.
    pub(super) fn blob(&self, digest: &Digest, size: u64, pace: &mut Pace<'_>) -> Result<(), CheckError> {
        let Some(detail) = self.blob_damage(digest, size, pace)? else { return Ok(()) };
        // It may have been removed while we looked.
        if let Ok(None) = self.store.metadata.blob(digest) {
            return Ok(());
        }
        let (what, needs) = self.role(digest);
        let mut finding = Finding {
            problem: Problem::Blob,
            path: String::new(),
            diff_id: self.contents.layers.values().find(|l| l.blob == *digest).map(|l| l.diff_id.clone()),
            images: self.images(|i| needs.contains(&i.id)),
            detail: format!("the {what} {}: {detail}", digest.short()),
            repaired: false,
            why_not: String::new(),
        };
        if self.options.repair {
            match self.restore_blob(digest, size, what == "manifest", pace) {
                Ok(()) => finding.repaired = true,
                Err(why) => finding.why_not = why,
            }
        }
        self.found(finding);
        Ok(())
    }

    fn blob_damage(
        &self,
        digest: &Digest,
        size: u64,
        pace: &mut Pace<'_>,
    ) -> Result<Option<String>, CheckError> {
        let path = self.store.content.path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some("its file is missing".into())),
            Err(e) => return Ok(Some(format!("its file cannot be opened: {e}"))),
        };
        let length = file.metadata().at("look at", &path)?.len();
        if length != size {
            return Ok(Some(format!("its file has {length} bytes, not {size}")));
        }
        if self.options.quick {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        if let Err(e) = pace.read_all(&mut file, |bytes| hasher.update(bytes)) {
            pace.go_on().map_err(|_| CheckError::Cancelled)?;
            return Ok(Some(format!("its file cannot be read: {e}")));
        }
        let found = Digest::of_hasher(hasher);
        Ok((found != *digest).then(|| format!("its content differs: the digest is {}", found.short())))
    }

    /// What a blob is, and the images that need it.
    fn role(&self, digest: &Digest) -> (&'static str, Vec<Digest>) {
        let of = |needs: &dyn Fn(&ImageRecord) -> bool| -> Vec<Digest> {
            self.contents.images.values().filter(|i| needs(i)).map(|i| i.id.clone()).collect()
        };
        if self.contents.images.contains_key(digest) {
            return ("config", of(&|i| i.id == *digest));
        }
        let manifests = of(&|i| i.manifest.as_ref() == Some(digest));
        if !manifests.is_empty() {
            return ("manifest", manifests);
        }
        let layers: Vec<&Digest> =
            self.contents.layers.values().filter(|l| l.blob == *digest).map(|l| &l.diff_id).collect();
        ("archive", of(&|i| i.diff_ids.iter().any(|d| layers.contains(&d))))
    }

    /// Fetches it again; the new file takes the old one's place when it is whole and on the disk.
    fn restore_blob(
        &self,
        digest: &Digest,
        size: u64,
        manifest: bool,
        pace: &mut Pace<'_>,
    ) -> Result<(), String> {
        let images = self.role(digest).1;
        self.fetched(&images, digest, size, manifest, |mut bytes| {
            let mut ingest = self.store.content.ingest().map_err(|e| e.to_string())?;
            let mut failed = None;
            pace.read_all(&mut bytes, |chunk| {
                failed = failed.take().or(ingest.write_all(chunk).err());
            })
            .map_err(|e| format!("cannot fetch it: {e}"))?;
            if let Some(e) = failed {
                return Err(format!("cannot write it: {e}"));
            }
            let (file, scratch, found, length) = ingest.into_scratch();
            if (&found, length) != (digest, size) {
                return Err("other bytes came than were asked for".into());
            }
            file.sync_all().map_err(|e| format!("cannot write it: {e}"))?;
            std::fs::rename(&scratch.0, self.store.content.path(digest))
                .map_err(|e| format!("cannot store it: {e}"))
        })
    }
}
