//! Wall-clock time: nanoseconds since 1970, and RFC 3339 as Go's `time.RFC3339Nano` writes it.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since 1970.
pub fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// Appends `2024-02-29T12:00:00.0123Z`: UTC, trailing zeros of the fraction cut, as docker's log files have it.
pub fn write_rfc3339(unix_ns: i64, out: &mut Vec<u8>) {
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let nanos = unix_ns.rem_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if nanos > 0 {
        let _ = write!(out, ".{nanos:09}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// Year, month and day of a day number since 1970, in the Gregorian calendar. Years are counted from March, so that the leap day is last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ns: i64) -> String {
        let mut out = Vec::new();
        write_rfc3339(ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_are_right_also_around_leap_days() {
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(text(1_709_251_199_999_999_999), "2024-02-29T23:59:59.999999999Z");
        assert_eq!(text(1_709_251_200_120_000_000), "2024-03-01T00:00:00.12Z");
        assert_eq!(text(4_107_542_400_000_000_000), "2100-03-01T00:00:00Z");
    }
}
