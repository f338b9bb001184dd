//! Rates of networks, such as `10mbit`.

/// Bits a second. Suffixes are powers of 1000, as tc(8) takes them: bit, kbit, mbit, gbit; and bps, kbps, mbps, gbps of bytes.
pub fn bits(text: &str) -> Result<u64, String> {
    let bad = || {
        format!("'{text}' is not a rate: a number with bit, kbit, mbit or gbit is expected, such as 10mbit")
    };
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let (prefix, bits) = match unit.strip_suffix("bit") {
        Some(prefix) => (prefix, 1),
        None => match unit.strip_suffix("bps") {
            Some(prefix) => (prefix, 8),
            None if unit.is_empty() => ("", 1),
            None => return Err(bad()),
        },
    };
    let factor: u64 = match prefix {
        "" => bits,
        "k" => 1_000 * bits,
        "m" => 1_000_000 * bits,
        "g" => 1_000_000_000 * bits,
        _ => return Err(bad()),
    };
    let rate = if let Ok(whole) = number.parse::<u64>() {
        whole.checked_mul(factor).ok_or_else(bad)?
    } else {
        let value: f64 = number.parse().map_err(|_| bad())?;
        #[allow(clippy::cast_precision_loss)] // a round number of less than 2^34
        let total = value * factor as f64;
        if !(total.is_finite() && total < 1e18) {
            return Err(bad());
        }
        total as u64
    };
    if rate == 0 { Err(bad()) } else { Ok(rate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_powers_of_a_thousand() {
        for (text, wanted) in [
            ("10mbit", 10_000_000),
            ("1.5Gbit", 1_500_000_000),
            ("64000", 64_000),
            ("100bit", 100),
            ("2kbps", 16_000),
        ] {
            assert_eq!(bits(text), Ok(wanted), "{text}");
        }
        for bad in ["", "mbit", "-1mbit", "10mb", "10 apples", "0", "0kbit", "99999999999gbit", "1.2.3mbit"] {
            assert!(bits(bad).is_err(), "{bad}");
        }
    }
}
