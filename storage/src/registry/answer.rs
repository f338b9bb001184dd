//! What a registry says beside the data: errors, when to ask again, ranges, links. Pure, and lenient: all of it is
//! written by strangers.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// A person reads it in one line.
const MAX_WORDS: usize = 300;

/// The words of an error's body: `errors[].code` and `message` of the distribution specification, or what token servers
/// write. Empty when there are none.
pub(super) fn says(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(alias = "details", alias = "error_description", default)]
        message: String,
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else { return String::new() };
    let one = |e: &One| {
        // docker's way to show a code: "MANIFEST_UNKNOWN" is "manifest unknown".
        let code = e.code.to_lowercase().replace('_', " ");
        if e.message.is_empty() || code.is_empty() {
            format!("{code}{}", e.message)
        } else {
            format!("{code}: {}", e.message)
        }
    };
    let all: Vec<String> = body.errors.iter().take(4).map(one).filter(|w| !w.is_empty()).collect();
    let words = if all.is_empty() { body.message } else { all.join("; ") };
    // Nothing that a terminal would take for a command.
    words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// RFC 9110, 10.2.3: seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    use time::format_description::well_known::Rfc2822;
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = time::OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(Duration::try_from(at - time::OffsetDateTime::now_utc()).unwrap_or_default())
}

/// Where the bytes of a partial answer begin: "bytes 10-99/100".
pub(super) fn range_start(value: &str) -> Option<u64> {
    value.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

/// How many bytes of an upload have come: "0-99". Registries write "0-0" when there is none.
pub(super) fn received(value: &str) -> Option<u64> {
    let last: u64 = value.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// The next page of a list: `</v2/x/tags/list?last=b&n=2>; rel="next"`.
pub(super) fn next_page(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|p| matches!(p.trim(), r#"rel="next""# | "rel=next"));
    next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_registrys_words_are_found() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}},{"code":"DENIED"}]}"#;
        assert_eq!(says(body), "manifest unknown: manifest unknown; denied");
        assert_eq!(
            says(br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(says(b"{\"errors\":[{\"message\":\"\\u001b[2J\\nhi\"}]}"), "[2J hi");
        assert_eq!(says(b"<html>"), "");
        let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(4000));
        assert_eq!(says(long.as_bytes()).chars().count(), MAX_WORDS);
    }

    #[test]
    fn ranges_and_links() {
        assert_eq!(range_start("bytes 10-99/100"), Some(10));
        assert_eq!(range_start("items 10-99/100"), None);
        assert_eq!((received("0-99"), received("0-0"), received("5-9")), (Some(100), Some(0), None));
        assert_eq!(received(&format!("0-{}", u64::MAX)), None);
        assert_eq!(
            next_page(r#"</v2/a/tags/list?last=x&n=1>; rel="next""#),
            Some("/v2/a/tags/list?last=x&n=1")
        );
        assert_eq!(next_page(r#"</v2/a>; rel="prev""#), None);
    }

    #[test]
    fn the_time_to_wait_is_given_in_seconds_or_as_a_date() {
        let of = |text: &str| retry_after(&[(RETRY_AFTER, text.parse().unwrap())].into_iter().collect());
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(of("Fri, 01 Jan 2100 00:00:00 GMT").unwrap() > Duration::from_secs(3600));
        assert_eq!(of("soon"), None);
    }

    proptest! {
        #[test]
        fn no_words_are_too_strange(body in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,60}") {
            says(&body);
            says(text.as_bytes());
            range_start(&text);
            received(&text);
            next_page(&text);
        }
    }
}
