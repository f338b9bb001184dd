//! What a command may end with, and how it is told: one line, and a line of advice.

use std::fmt;

use davit_contracts::{Error, Kind};

use crate::args::flags::named_command;

/// A command's failure.
#[derive(Debug)]
pub enum Failure {
    /// Something to tell.
    Told(Error),
    /// The command line is wrong.
    Usage(String),
    /// All is told already, or nothing is to be: only the exit code is left.
    Code(i32),
}

/// What commands return.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of `kind` with one line.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::Told(Error::new(kind, message))
    }

    /// An operation of ours that the system refused.
    pub fn io(what: impl fmt::Display, e: &std::io::Error) -> Self {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            _ => Kind::Internal,
        };
        Self::new(kind, format!("{what}: {}", plain(e)))
    }

    /// Tells it on stderr.
    pub fn tell(&self) {
        match self {
            Self::Told(e) => tell(e),
            Self::Usage(text) => {
                let command = named_command(std::env::args().skip(1));
                let space = if command.is_empty() { "" } else { " " };
                crate::output::complain!("davit: {text}\nhint: see 'davit {command}{space}--help'");
            }
            Self::Code(_) => {}
        }
    }

    /// The process's exit code. `runs` is true for the commands whose exit code is the program's (run, exec, start -a, create).
    pub fn exit_code(&self, runs: bool) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Told(e) if runs => i32::from(e.run_exit_code()),
            Self::Usage(_) if runs => 125,
            Self::Told(_) | Self::Usage(_) => 1,
        }
    }
}

/// One line with its causes, and one of advice.
pub fn tell(e: &Error) {
    crate::output::complain!("davit: {}", one_line(&e.to_string()));
    if !e.hint().is_empty() {
        crate::output::complain!("hint: {}", e.hint().replace('\n', " "));
    }
}

/// Whether a call was cut by the daemon's end rather than answered: tonic words that as a broken transport.
pub fn connection_broke(e: &Error) -> bool {
    const WORDS: [&str; 7] = [
        "transport error",
        "error trying to connect",
        "broken pipe",
        "connection reset",
        "connection refused",
        "h2 protocol error",
        "operation was canceled",
    ];
    let own = !e.hint().is_empty() || !e.subject().is_empty();
    let kind = matches!(e.kind(), Kind::Unavailable | Kind::Internal | Kind::Cancelled);
    let text = e.to_string().to_lowercase();
    !own && kind && WORDS.iter().any(|w| text.contains(w))
}

/// Without line breaks, and without the numbers that the standard library puts after the system's words.
pub fn one_line(text: &str) -> String {
    let mut out = text.trim().replace('\n', " ");
    while let Some(start) = out.find(" (os error ") {
        let Some(length) = out[start..].find(')') else { break };
        out.replace_range(start..=start + length, "");
    }
    out
}

/// "No such file or directory", without "(os error 2)".
pub fn plain(e: &std::io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_lowercase_first(),
        None => text,
    }
}

trait LowercaseFirst {
    fn to_lowercase_first(&self) -> String;
}

impl LowercaseFirst for str {
    fn to_lowercase_first(&self) -> String {
        let mut chars = self.chars();
        chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Told(e)
    }
}

/// Formats and parsers complain in plain text: the command line is at fault.
impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Usage(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_dockers() {
        let not_found = Failure::new(Kind::CommandNotFound, "x");
        assert_eq!((not_found.exit_code(true), not_found.exit_code(false)), (127, 1));
        assert_eq!(Failure::new(Kind::CommandNotRunnable, "x").exit_code(true), 126);
        assert_eq!(Failure::new(Kind::NotFound, "x").exit_code(true), 125);
        assert_eq!(Failure::Usage("x".into()).exit_code(true), 125);
        assert_eq!(Failure::Code(7).exit_code(false), 7);
    }

    #[test]
    fn system_errors_read_as_text() {
        let e = std::io::Error::from_raw_os_error(2);
        assert_eq!(plain(&e), "no such file or directory");
        assert_eq!(one_line("a: No (os error 2): b (os error 13)\nc\n"), "a: No: b c");
    }
}
