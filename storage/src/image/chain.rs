//! Chain ids: what a layer is together with all below it (OCI image-spec, config.md, "Layer ChainID").

use std::path::PathBuf;

use crate::digest::Digest;
use crate::snapshot::driver::Link;

/// The chain of an image's layers, given bottom first and answered topmost first.
pub(super) fn chain_of(diff_ids: &[Digest], layer: impl Fn(&Digest) -> PathBuf) -> Vec<Link> {
    let mut links = Vec::with_capacity(diff_ids.len());
    let mut below: Option<Digest> = None;
    for diff_id in diff_ids {
        let id = match below {
            None => diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        links.push(Link { id: id.to_string(), layer: layer(diff_id) });
        below = Some(id);
    }
    links.reverse();
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottom_is_its_diff_id_and_each_above_hashes_what_is_below() {
        let ids = [b"a", b"b"].map(|b| Digest::of(b));
        let chain = chain_of(&ids, |d| d.hex().into());
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1].id, ids[0].to_string());
        assert_eq!(chain[0].id, Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes()).to_string());
        assert_eq!(chain[0].layer, PathBuf::from(ids[1].hex()));
        // The same layer twice is two different links.
        let twice = chain_of(&[ids[0].clone(), ids[0].clone()], |d| d.hex().into());
        assert_ne!(twice[0].id, twice[1].id);
    }
}
