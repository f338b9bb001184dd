//! What a command said and how it ended, with the assertions that tests make about it.

use std::fmt;

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// As a person would type it.
    pub line: String,
    /// 128+n when a signal ended it.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

#[allow(clippy::return_self_not_must_use, reason = "an assertion is the end of most lines of a test")]
impl Ran {
    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "expected success of {self}");
        self
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code} of {self}");
        self
    }

    /// Asserts that standard output is `expected`, but for white space at its ends.
    #[track_caller]
    pub fn prints(self, expected: &str) -> Self {
        assert!(self.stdout.trim() == expected.trim(), "expected {expected:?} from {self}");
        self
    }

    /// Asserts that standard output contains `part`.
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "expected {part:?} on stdout of {self}");
        self
    }

    /// Asserts that standard output does not contain `part`.
    #[track_caller]
    pub fn says_not(self, part: &str) -> Self {
        assert!(!self.stdout.contains(part), "expected no {part:?} on stdout of {self}");
        self
    }

    /// Asserts that standard error contains `part`.
    #[track_caller]
    pub fn complains(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "expected {part:?} in the standard error of {self}");
        self
    }

    /// Asserts a refusal that a person can use: non-zero, and on stderr exactly one line (besides one of advice, which
    /// begins with `hint:`). The two together contain every one of `words`, in any case.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        assert!(self.code != 0, "expected a refusal of {self}");
        let lines = self.stderr.lines().filter(|l| !l.trim().is_empty());
        let (hints, errors): (Vec<&str>, Vec<&str>) = lines.partition(|l| l.starts_with("hint:"));
        assert!(errors.len() == 1 && hints.len() <= 1, "expected one clear line on stderr of {self}");
        assert!(!errors[0].contains("panicked"), "a panic: {self}");
        let text = [errors, hints].concat().join(" ").to_lowercase();
        for word in words {
            assert!(text.contains(&word.to_lowercase()), "expected {word:?} in the error of {self}");
        }
        self
    }

    /// Asserts a failure, however it is told (a wrong command line prints its usage).
    #[track_caller]
    pub fn code_is_not_zero(self) -> Self {
        assert!(self.code != 0 && !self.stderr.is_empty(), "expected a told failure of {self}");
        assert!(!self.stderr.contains("panicked"), "a panic: {self}");
        self
    }

    /// Standard output without white space at its ends.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}) from {self}"))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}`\n--- exit code {}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

/// Joins arguments as a person would type them, quoting where a shell would need it.
pub fn typed<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|w| quoted(w.as_ref())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_what_a_shell_would_split() {
        assert_eq!(
            typed(&["run", "-p", "8080:80", "sh", "-c", "it's $X"]),
            r"run -p 8080:80 sh -c 'it'\''s $X'"
        );
        assert_eq!(typed(&[""]), "''");
    }

    #[test]
    #[should_panic(expected = "one clear line")]
    fn two_lines_are_no_clear_error() {
        let ran = Ran { line: String::new(), code: 1, stdout: String::new(), stderr: "a\nb\n".into() };
        ran.refused(&[]);
    }
}
