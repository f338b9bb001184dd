//! How much is tried by tests that try at random, and with which random numbers.

/// How much is asked for: `DAVIT_STORM=10` is ten times the usual number, 0.1 a tenth.
pub fn scaled(usual: usize) -> usize {
    let factor: f64 =
        std::env::var("DAVIT_STORM").map_or(1.0, |t| t.parse().expect("DAVIT_STORM is a number"));
    let usual = u32::try_from(usual).expect("a number of tries");
    ((f64::from(usual) * factor) as usize).max(1)
}

/// Printed, so that a failure can be had again: `DAVIT_SEED`.
pub fn seed() -> u64 {
    let seed = std::env::var("DAVIT_SEED")
        .map_or_else(|_| rand::random(), |t| t.parse().expect("DAVIT_SEED is a number"));
    println!("DAVIT_SEED={seed}");
    seed
}
