//! The question before something is pruned.

use std::io::{BufRead as _, stdin};

use crate::error::{Failure, Outcome};
use crate::output;

/// Asks on standard output; anything but yes, and the end of input, mean no.
pub fn confirm(warning: &str) -> Outcome<bool> {
    output::print(&format!("{warning}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).map_err(|e| Failure::io("cannot read the answer", &e))?;
    Ok(agrees(&answer))
}

fn agrees(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::agrees;

    #[test]
    fn only_yes_is_yes() {
        assert!(agrees("y\n") && agrees(" YES "));
        assert!(!agrees("") && !agrees("n\n") && !agrees("yesterday"));
    }
}
