//! Which interface is whose, where several endpoints may have a claim to one.
//!
//! A container that may administer its network can fake the signs by which its interfaces are known: names, macs and marks
//! inside. An endpoint that is looked at alone would take a neighbour's interface that was made to look like its own. So all
//! endpoints of a namespace claim together.

use std::cmp::Reverse;

/// Gives each claimant one link at most, and each link to one claimant: the strongest claim first, of equal ones the first
/// claimant's. `strength` of a claimant's claim to a link is 0 where there is none.
pub fn give(claimants: usize, links: usize, strength: impl Fn(usize, usize) -> u8) -> Vec<Option<usize>> {
    let pairs = (0..claimants).flat_map(|claimant| (0..links).map(move |link| (claimant, link)));
    let mut claims: Vec<_> =
        pairs.map(|(claimant, link)| (strength(claimant, link), claimant, link)).collect();
    claims.retain(|(strength, ..)| *strength > 0);
    claims.sort_by_key(|(strength, ..)| Reverse(*strength));
    let mut given = vec![None; claimants];
    for (_, claimant, link) in claims {
        if given[claimant].is_none() && !given.contains(&Some(link)) {
            given[claimant] = Some(link);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::give;

    #[test]
    fn the_strongest_claim_comes_first_and_each_link_is_given_once() {
        let of = |table: [[u8; 2]; 2]| give(2, 2, |claimant, link| table[claimant][link]);
        assert_eq!(of([[1, 0], [2, 0]]), [None, Some(0)], "the other's is stronger");
        assert_eq!(of([[2, 1], [3, 0]]), [Some(1), Some(0)], "what is left goes to the weaker");
        assert_eq!(of([[1, 0], [1, 0]]), [Some(0), None], "the first of equals");
        assert_eq!(give(1, 0, |_, _| 1), [None]);
    }
}
