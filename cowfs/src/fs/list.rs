//! Reading which names the lower layers of a directory have, once it is worth it ([`crate::listing`]).

use std::mem::MaybeUninit;

use rustix::fs::RawDir;
use rustix::io::Errno;

use super::CowFs;
use crate::listing::{Layers, Listing};
use crate::table::{Real, UPPER};
use crate::types::Ino;

impl CowFs {
    /// The layers of a directory that may have a name.
    pub(super) fn layers_with(
        &self,
        dir: Ino,
        reals: &[Real],
        name: &std::ffi::CStr,
    ) -> Result<Layers, Errno> {
        if reals.len() == 1 {
            return Ok(Layers::ANY);
        }
        let hash = self.names.hash(name.to_bytes());
        let (layers, due) = self.table().ask(dir, hash)?;
        let Some(most) = due else { return Ok(layers) };
        // A directory that may be searched but not read (or that is full of names) is asked name by name.
        let Some(listing) = self.list(dir, reals, most).ok().flatten() else { return Ok(Layers::ANY) };
        let layers = listing.layers(hash);
        self.table().listed(dir, listing);
        Ok(layers)
    }

    /// What the lower layers of a directory hold. `None`: more than `most` names, or whiteouts that have other names than what they hide.
    fn list(&self, dir: Ino, reals: &[Real], most: usize) -> Result<Option<Listing>, Errno> {
        let mut listing = Listing::default();
        let mut buf = [MaybeUninit::<u8>::uninit(); 16384];
        for real in reals.iter().filter(|r| r.layer != UPPER) {
            let own = self.open_child_dir(&self.dir_fd(dir, real.layer)?, c".")?;
            let mut entries = RawDir::new(&own, &mut buf);
            while let Some(entry) = entries.next() {
                let entry = entry?;
                if self.is_aufs(entry.file_name()) || listing.len() >= most {
                    return Ok(None);
                }
                listing.add(self.names.hash(entry.file_name().to_bytes()), real.layer);
            }
        }
        listing.shrink();
        Ok(Some(listing))
    }
}
