//! Moments for `--since` and `--until`: RFC 3339, a Unix time, or how long ago.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const SECOND: i64 = 1_000_000_000;

/// Nanoseconds of a duration such as `1h30m`, `10s`, `1.5h`, `200ms`.
pub fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: f64 = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 86400e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    (total < 9e18).then_some(total as i64)
}

/// A length of time on the command line, in nanoseconds.
pub fn length(text: &str) -> Result<i64, String> {
    duration(text).ok_or_else(|| format!("'{text}' is not a length of time such as 30s, 1m30s or 500ms"))
}

/// Seconds that `stop` waits: -1 is for as long as it takes, as docker has it.
pub fn patience(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(seconds) if seconds < 0 => Ok(u32::MAX),
        Ok(seconds) => {
            u32::try_from(seconds).map_err(|_| format!("'{text}' is more seconds than can be waited"))
        }
        Err(_) => Err(format!("'{text}' is no number of seconds")),
    }
}

/// `--time-offset`: a clock, and by how many nanoseconds it is moved. Whether there is such a clock is runtimed's business.
pub fn clock_offset(text: &str) -> Result<(String, i64), String> {
    let bad = || format!("'{text}' is no clock's offset: monotonic=SECONDS or boottime=SECONDS is expected");
    let (clock, by) = text.split_once('=').ok_or_else(bad)?;
    let (sign, size) = by.strip_prefix('-').map_or((1, by), |size| (-1, size));
    let with_unit =
        if size.ends_with(|c: char| c.is_ascii_digit()) { format!("{size}s") } else { size.into() };
    let ns = duration(&with_unit).ok_or_else(bad)?;
    Ok((clock.to_owned(), sign * ns))
}

/// Nanoseconds since 1970.
pub fn moment(text: &str, now_ns: i64) -> Result<i64, String> {
    let bad = || {
        format!(
            "'{text}' is not a time: 2026-01-31T12:00:00Z, a Unix time, or a duration such as 10m is expected"
        )
    };
    if let Some(ago) = duration(text) {
        return Ok(now_ns.saturating_sub(ago));
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty() {
        return unix(text).ok_or_else(bad);
    }
    // The date alone, and a time without a zone, are taken as UTC.
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    let time = OffsetDateTime::parse(&full, &Rfc3339).map_err(|_| bad())?;
    i64::try_from(time.unix_timestamp_nanos()).map_err(|_| bad())
}

fn unix(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    seconds.checked_mul(SECOND)?.checked_add(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clocks_are_moved_by_seconds_or_with_a_unit() {
        assert_eq!(clock_offset("monotonic=86400"), Ok(("monotonic".into(), 86_400 * SECOND)));
        assert_eq!(clock_offset("boottime=-1.5"), Ok(("boottime".into(), -1_500_000_000)));
        assert_eq!(clock_offset("boottime=2h"), Ok(("boottime".into(), 7200 * SECOND)));
        for bad in ["monotonic", "monotonic=", "monotonic=x", "monotonic=--1"] {
            assert!(clock_offset(bad).unwrap_err().contains("no clock's offset"), "{bad}");
        }
    }

    #[test]
    fn the_three_forms() {
        let now = 1_000_000 * SECOND;
        assert_eq!(moment("10s", now), Ok(now - 10 * SECOND));
        assert_eq!(moment("1h30m", now), Ok(now - 5400 * SECOND));
        assert_eq!(moment("1.5", now), Ok(1_500_000_000));
        assert_eq!(moment("7", now), Ok(7 * SECOND));
        assert_eq!(moment("1970-01-01T00:00:01Z", now), Ok(SECOND));
        assert_eq!(moment("1970-01-02", now), Ok(86400 * SECOND));
        assert_eq!(moment("1970-01-01T00:00:01", now), Ok(SECOND));
        assert_eq!(moment("1970-01-01T01:00:01.5+01:00", now), Ok(SECOND + SECOND / 2));
        for bad in ["", "x", "10x", "1970-13-01", ".", "1.2.3", "99999999999999"] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = moment(&text, 0);
        }
    }
}
