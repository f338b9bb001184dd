//! `-e` and `--env-file`, and labels in the same shape.

/// One `-e`: `KEY=value` as it is; a bare `KEY` takes the value from our environment, or is left out when it has none there.
pub fn variable(text: &str, own: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let key = text.split('=').next().unwrap_or_default();
    if key.is_empty() {
        return Err(format!("'{text}' is not an environment variable: KEY=value or KEY is expected"));
    }
    if text.contains('\0') {
        return Err(format!("the environment variable {key} holds a NUL byte"));
    }
    if text.contains('=') {
        Ok(Some(text.to_owned()))
    } else {
        Ok(own(key).map(|value| format!("{key}={value}")))
    }
}

/// An env-file: a variable a line; empty lines and lines that begin with `#` are skipped.
pub fn file(text: &str, own: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split('=').next().unwrap_or_default();
        if key.contains(char::is_whitespace) {
            return Err(format!("line {}: '{key}' has white space, which a variable's name cannot", n + 1));
        }
        out.extend(variable(line, &own).map_err(|e| format!("line {}: {e}", n + 1))?);
    }
    Ok(out)
}

/// A label: `key=value`, or `key` for an empty value.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("'{text}' is not a label: key=value is expected"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value` where the value is required, such as `--opt` and `--filter`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not of the form key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(key: &str) -> Option<String> {
        (key == "HOME").then(|| "/h".to_owned())
    }

    #[test]
    fn a_bare_key_is_resolved_here() {
        assert_eq!(variable("A=b=c", own), Ok(Some("A=b=c".into())));
        assert_eq!(variable("A=", own), Ok(Some("A=".into())));
        assert_eq!(variable("HOME", own), Ok(Some("HOME=/h".into())));
        assert_eq!(variable("UNSET", own), Ok(None));
        assert!(variable("=x", own).is_err());
        assert!(variable("", own).is_err());
    }

    #[test]
    fn a_file_has_comments_and_keeps_values_as_they_are() {
        let text = "\u{feff}# c\n\nA=1 # no comment\n  B=\"q\"\nHOME\nUNSET\n";
        assert_eq!(file(text, own).unwrap(), ["A=1 # no comment", "B=\"q\"", "HOME=/h"]);
        assert!(file("A B=1\n", own).unwrap_err().starts_with("line 1"));
        assert!(file("ok=1\n=2\n", own).unwrap_err().starts_with("line 2"));
    }

    #[test]
    fn labels_may_be_empty_and_pairs_may_not() {
        assert_eq!(label("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert_eq!(label("a"), Ok(("a".into(), String::new())));
        assert!(label("=x").is_err());
        assert!(pair("a").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s).{0,40}") {
            let _ = variable(&text, own);
            let _ = file(&text, own);
        }

        #[test]
        fn a_pair_is_kept(key in "[A-Z_]{1,8}", value in "[^\0]{0,20}") {
            let text = format!("{key}={value}");
            prop_assert_eq!(variable(&text, own), Ok(Some(text.clone())));
        }
    }
}
