//! Records that name what is not there.

use std::collections::BTreeSet;

use super::{Check, Finding, Problem};
use crate::digest::Digest;
use crate::image::familiar;

impl Check<'_> {
    /// Tags without an image, images without a layer, config or manifest. Files are looked for elsewhere.
    pub(super) fn records(&self) {
        let record = |images: Vec<String>, diff_id: Option<&Digest>, detail: String| Finding {
            problem: Problem::Record,
            path: String::new(),
            diff_id: diff_id.cloned(),
            images,
            detail,
            repaired: false,
            why_not: if self.options.repair { super::layer::AGAIN.into() } else { String::new() },
        };
        for (tag, id) in self.contents.tags.iter().filter(|(_, id)| !self.contents.images.contains_key(*id)) {
            let detail = format!("the name stands for image {}, which is not there", id.short());
            self.found(record(vec![familiar(tag)], None, detail));
        }
        let mut lacking: BTreeSet<&Digest> = BTreeSet::new();
        for image in self.contents.images.values() {
            lacking.extend(image.diff_ids.iter().filter(|d| !self.contents.layers.contains_key(*d)));
            for (what, digest) in [("config", Some(&image.id)), ("manifest", image.manifest.as_ref())] {
                if let Some(digest) = digest.filter(|d| !self.contents.blobs.contains_key(*d)) {
                    let detail = format!("its {what} {} is not recorded as stored", digest.short());
                    self.found(record(self.images(|i| i.id == image.id), None, detail));
                }
            }
        }
        for layer in lacking {
            let images = self.images(|i| i.diff_ids.contains(layer));
            self.found(record(images, Some(layer), "the layer is not recorded as stored".into()));
        }
    }
}
