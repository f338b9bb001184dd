//! Signals by name or number.

use nix::sys::signal::Signal;

/// `KILL`, `SIGKILL`, `kill` or `9`. Real-time signals only by number.
pub fn signal(text: &str) -> Result<i32, String> {
    let bad =
        || format!("'{text}' is not a signal: a name such as TERM, or a number of 1 to 64, is expected");
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<Signal>().map(|s| s as i32).map_err(|_| bad())
}

/// Checks that it is one and gives it back as typed.
pub fn checked(text: &str) -> Result<String, String> {
    signal(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, n) in [("KILL", 9), ("sigterm", 15), ("Hup", 1), ("9", 9), ("64", 64)] {
            assert_eq!(signal(text), Ok(n), "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIG", "FOO", "SIGSIGTERM"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }
}
