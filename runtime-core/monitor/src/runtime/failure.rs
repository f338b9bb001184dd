//! What a runtime's error text means.
//!
//! OCI runtimes have no error codes. docker decides between 127, 126 and 125 by words in the message, and every runtime that wants to work
//! below docker keeps to those words; so does this.

use davit_wire::{Failure, FailureKind};

use crate::stdio::Status;

/// Makes one line out of a failed call: the log's last error, else what it wrote to standard error, else its status.
pub fn explain(log: &[u8], stderr: &[u8], status: Status, program: Option<&str>) -> Failure {
    let message = logged(log)
        .or_else(|| last_line(log))
        .or_else(|| last_line(stderr))
        .unwrap_or_else(|| format!("the OCI runtime ended with {status} and said nothing"));
    let kind = classify(&message, program);
    // crun does not say what could not be run.
    let message = match program.filter(|p| kind != FailureKind::Internal && !message.contains(p)) {
        Some(program) => format!("exec: \"{program}\": {message}"),
        None => message,
    };
    Failure { kind, message: one_line(&message) }
}

/// The message of the last line with level error or fatal in a `--log-format json` log.
fn logged(log: &[u8]) -> Option<String> {
    log.split(|b| *b == b'\n').rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_slice(line).ok()?;
        matches!(value.get("level")?.as_str()?, "error" | "fatal" | "panic")
            .then(|| value.get("msg")?.as_str().map(str::to_owned))?
    })
}

fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().find(|l| !l.trim().is_empty()).map(str::to_owned)
}

fn one_line(message: &str) -> String {
    let mut line: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > 2000 {
        let cut = (0..=2000).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(cut);
    }
    line
}

fn classify(message: &str, program: Option<&str>) -> FailureKind {
    let text = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if has(&["executable file"]) && has(&["not found"]) {
        return FailureKind::CommandNotFound;
    }
    // The same words about a mount or the working directory do not blame the command.
    let about_program = program.is_some_and(|p| message.contains(p)) && !has(&["mount", "chdir", "cwd"]);
    let about_exec = has(&["exec format error", "exec: \"", "executable"]);
    if !about_program && !about_exec {
        return FailureKind::Internal;
    }
    if has(&["no such file or directory"]) {
        FailureKind::CommandNotFound
    } else if has(&["permission denied", "is a directory", "not a directory", "exec format error"]) {
        FailureKind::CommandNotRunnable
    } else {
        FailureKind::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::{CommandNotFound, CommandNotRunnable, Internal};

    #[test]
    fn messages_of_real_runtimes_are_understood() {
        for (program, message, kind) in [
            (
                "nope",
                "runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
                CommandNotFound,
            ),
            (
                "/nope",
                "unable to start container process: exec: \"/nope\": stat /nope: no such file or directory",
                CommandNotFound,
            ),
            ("nope", "executable file `nope` not found in $PATH: No such file or directory", CommandNotFound),
            ("/nope", "open `/nope`: No such file or directory", CommandNotFound),
            (
                "/etc/passwd",
                "unable to start container process: exec: \"/etc/passwd\": permission denied",
                CommandNotRunnable,
            ),
            ("/etc", "exec: \"/etc\": is a directory", CommandNotRunnable),
            ("/bin/x", "exec /bin/x: exec format error", CommandNotRunnable),
            ("sh", "error mounting \"/share\" to rootfs at \"/sh\": no such file or directory", Internal),
            ("/x", "chdir to cwd (\"/x\") set in config.json failed: no such file or directory", Internal),
            ("sh", "container with given ID already exists", Internal),
        ] {
            assert_eq!(classify(message, Some(program)), kind, "{message}");
        }
    }

    #[test]
    fn the_last_logged_error_is_the_message() {
        let log = b"{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"bad\\nthing\"}\n\
                    {\"level\":\"info\",\"msg\":\"i\"}\n";
        assert_eq!(explain(log, b"", Status::Exited(1), None).message, "bad thing");
        assert_eq!(explain(b"", b"x\nplain words\n", Status::Exited(1), None).message, "plain words");
        let silent = explain(b"", b"", Status::Signaled(9), None).message;
        assert!(silent.contains("signal 9"), "{silent}");
    }
}
