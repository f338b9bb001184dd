//! How much is tried by tests that try at random, and with which random numbers.

/// How much is asked for: `DAVIT_STORM=10` is ten times the usual number, 0.1 a tenth.
pub fn scaled(usual: usize) -> usize {
    let factor: f64 =
        std::env::var("DAVIT_STORM").map_or(1.0, |t| t.parse().expect("DAVIT_STORM is a number"));
    let usual = u32::try_from(usual).expect("a number of tries");
    ((f64::from(usual) * factor) as usize).max(1)
}

/// The same in each run, so that a change is judged by what it changed: `DAVIT_SEED=n` takes another, `DAVIT_SEED=random` one that nobody
/// knows. Printed, so that a failure can be had again.
pub fn seed() -> u64 {
    let seed = match std::env::var("DAVIT_SEED").as_deref() {
        Err(_) => 1,
        Ok("random") => rand::random(),
        Ok(number) => number.parse().expect("DAVIT_SEED is a number or `random`"),
    };
    println!("DAVIT_SEED={seed}");
    seed
}
