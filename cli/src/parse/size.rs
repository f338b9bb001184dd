//! Byte sizes (`512m`, `1.5g`, `64KiB`) and CPU counts, docker's forms.

/// Bytes. Suffixes b, k, m, g, t, p, each also with `b` or `ib`, are powers of 1024, as docker takes them.
pub fn bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is not a size: a number with b, k, m, g or t is expected, such as 512m");
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.trim_start();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit) {
        "" if unit == "ib" => return Err(bad()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let factor = 1u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(bad);
    }
    let value: f64 = number.parse().map_err(|_| bad())?;
    #[allow(clippy::cast_precision_loss)] // a power of two
    let total = value * factor as f64;
    // 2^63 is exact in a double; everything below it fits.
    if total.is_finite() && total < 9_223_372_036_854_775_808.0 { Ok(total as u64) } else { Err(bad()) }
}

/// Bytes, or -1 for "no bound" (`--memory-swap`).
pub fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text).map(|n| n as i64) }
}

/// A number of CPUs, such as `1.5`, in billionths.
pub fn nano_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("'{text}' is not a number of CPUs: a positive decimal is expected, such as 1.5");
    let value: f64 = text.parse().map_err(|_| bad())?;
    let nano = (value * 1e9).round();
    if (1.0..1e18).contains(&nano) { Ok(nano as i64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dockers_forms() {
        for (text, n) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("1KB", 1024),
            ("1kib", 1024),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("2 GB", 2 << 30),
            ("1t", 1 << 40),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text), Ok(n), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1mm", "1.2.3m", "99999999999999999999g", "nan", "1e3", "1ib"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        for bad in ["0", "-1", "x", "inf", "1e300"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,20}") {
            let _ = bytes(&text);
            let _ = nano_cpus(&text);
        }

        #[test]
        fn mebibytes_are_exact(n in 0u64..1 << 40) {
            prop_assert_eq!(bytes(&format!("{n}m")), Ok(n << 20));
        }
    }
}
