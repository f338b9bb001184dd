//! Signals by name or number.

use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// `15`, `TERM`, `SIGTERM`, `RTMIN+3`, in any case.
pub fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.parse().map_err(|_| unknown())? };
        return if (0..=30).contains(&offset) { Ok(34 + offset) } else { Err(unknown()) };
    }
    Signal::from_str(&format!("SIG{name}")).map(|s| s as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        for (text, number) in
            [("15", 15), ("TERM", 15), ("sigterm", 15), ("KILL", 9), ("RTMIN+1", 35), ("0", 0)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["FROB", "65", "-1", "", "RTMIN+31"] {
            parse(text).unwrap_err();
        }
    }
}
