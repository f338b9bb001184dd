//! Words for people: how long ago, how large, which moment. docker's wording.

use time::OffsetDateTime;
use time::macros::format_description;

/// `About a minute`, `5 hours`, from nanoseconds.
pub fn duration(ns: i64) -> String {
    let seconds = ns.max(0) / 1_000_000_000;
    let minutes = (seconds + 30) / 60;
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3570 if minutes < 60 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `5 hours ago`.
pub fn ago(then_ns: i64, now_ns: i64) -> String {
    if then_ns == 0 { "N/A".into() } else { format!("{} ago", duration(now_ns - then_ns)) }
}

/// `1.23MB`: powers of 1000 and four digits at most, as docker shows sizes.
#[allow(clippy::cast_precision_loss)] // four digits are shown
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

fn moment(ns: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Seconds since 1970 with nanoseconds, as the contracts' filters take moments.
pub fn unix(ns: i64) -> String {
    format!("{}.{:09}", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
}

/// RFC 3339 with nanoseconds, always UTC. Zero is docker's "never".
pub fn rfc3339(ns: i64) -> String {
    if ns == 0 {
        return "0001-01-01T00:00:00Z".into();
    }
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
    moment(ns).format(format).unwrap_or_default()
}

/// `2026-01-31 12:00:00 +0000 UTC`, the form of docker's lists.
pub fn listed(ns: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    moment(ns).format(format).unwrap_or_default()
}

/// Nanoseconds since 1970, now.
pub fn now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// The first `n` characters, with an ellipsis in place of the last when there were more.
pub fn cut(text: &str, n: usize) -> String {
    if text.chars().count() <= n {
        return text.to_owned();
    }
    text.chars().take(n.saturating_sub(1)).chain(['…']).collect()
}

/// The 12 digits that people see of an id, with or without `sha256:`.
pub fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_dockers_words() {
        let s = |n: i64| duration(n * 1_000_000_000);
        for (n, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3569, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3600 * 47, "47 hours"),
            (3600 * 48, "2 days"),
            (3600 * 24 * 14, "2 weeks"),
            (3600 * 24 * 60, "2 months"),
            (3600 * 24 * 365 * 2, "2 years"),
        ] {
            assert_eq!(s(n), text, "{n}");
        }
        assert_eq!(s(-5), "Less than a second");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (n, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (4_500_000, "4.5MB"),
            (123_456_789, "123MB"),
        ] {
            assert_eq!(size(n), text);
        }
        assert!(size(u64::MAX).ends_with("EB"));
    }

    #[test]
    fn moments_ids_and_cuts() {
        assert_eq!(rfc3339(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(rfc3339(0), "0001-01-01T00:00:00Z");
        assert_eq!(listed(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("abc"), "abc");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("äö", 2), "äö");
    }
}
