//! Names for containers that were given none: what floats, and how.

use rand::Rng as _;

const ADJECTIVES: &[&str] = &[
    "able", "agile", "amber", "ample", "azure", "bold", "brave", "bright", "brisk", "calm", "candid",
    "clean", "clear", "clever", "coral", "cosy", "crisp", "daring", "deft", "dry", "eager", "early", "easy",
    "even", "fair", "fast", "fine", "firm", "fleet", "fond", "free", "fresh", "full", "gentle", "glad",
    "golden", "good", "grand", "green", "hale", "handy", "hardy", "hearty", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat", "nimble",
    "noble", "open", "patient", "plain", "polite", "proud", "quick", "quiet", "ready", "rosy", "round",
    "sage", "salty", "sharp", "silent", "silver", "sleek", "smooth", "snug", "sober", "solid", "spry",
    "stable", "steady", "still", "stout", "sunny", "swift", "tall", "tidy", "tranquil", "true", "trusty",
    "upright", "vivid", "warm", "wide", "wise", "witty", "young", "zesty",
];

const NOUNS: &[&str] = &[
    "anchor",
    "ark",
    "barge",
    "bark",
    "beacon",
    "bell",
    "binnacle",
    "boat",
    "bollard",
    "boom",
    "bow",
    "brig",
    "buoy",
    "cable",
    "canoe",
    "capstan",
    "caravel",
    "catamaran",
    "chart",
    "cleat",
    "clipper",
    "coble",
    "compass",
    "coracle",
    "corvette",
    "crane",
    "cutter",
    "davit",
    "deck",
    "dhow",
    "dinghy",
    "dock",
    "dory",
    "ferry",
    "float",
    "frigate",
    "galleon",
    "galley",
    "gig",
    "gull",
    "halyard",
    "harbour",
    "hatch",
    "hawser",
    "helm",
    "hold",
    "hull",
    "jetty",
    "jib",
    "junk",
    "kayak",
    "keel",
    "ketch",
    "launch",
    "lighter",
    "lock",
    "log",
    "lugger",
    "mast",
    "mooring",
    "oar",
    "packet",
    "paddle",
    "pennant",
    "pier",
    "pilot",
    "pinnace",
    "pontoon",
    "port",
    "prow",
    "punt",
    "quay",
    "raft",
    "rigging",
    "rudder",
    "sail",
    "sampan",
    "schooner",
    "scow",
    "sextant",
    "shallop",
    "sheet",
    "shroud",
    "skiff",
    "sloop",
    "smack",
    "spar",
    "spinnaker",
    "stay",
    "stern",
    "tender",
    "tiller",
    "trawler",
    "trimaran",
    "tug",
    "wharf",
    "wherry",
    "windlass",
    "xebec",
    "yacht",
    "yawl",
];

/// A name, `attempt` of which failed before: after some tries a number makes it unique.
pub fn generate(attempt: u32) -> String {
    let mut rng = rand::rng();
    let adjective = ADJECTIVES[rng.random_range(0..ADJECTIVES.len())];
    let noun = NOUNS[rng.random_range(0..NOUNS.len())];
    if attempt < 4 {
        format!("{adjective}_{noun}")
    } else {
        format!("{adjective}_{noun}{}", rng.random_range(1..1_000_000u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_the_lists_have_no_doubles() {
        for attempt in 0..10 {
            davit_contracts::id::check_name(&generate(attempt)).unwrap();
        }
        for list in [ADJECTIVES, NOUNS] {
            let mut sorted = list.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), list.len());
            assert!(list.iter().all(|w| w.bytes().all(|b| b.is_ascii_lowercase())));
        }
    }
}
