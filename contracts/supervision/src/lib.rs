//! The supervisor as others see it: its line protocol, and its report.
//!
//! A request is one line; the answer's lines end with `ok` or `error WHY`. The supervisor keeps a dead daemon's socket open, so that
//! who calls one that does not come up hears nothing: the report tells.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use davit_layout::Layout;

/// After this long without a daemon's answer one looks whether it is alive at all.
pub const SUSPICIOUS: Duration = Duration::from_secs(2);

/// Deaths in a row after which it is not waited for any more.
const HOPELESS: u32 = 3;

/// One daemon in the supervisor's report.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DaemonReport {
    /// `storaged`, `netd` or `runtimed`.
    pub name: String,
    /// starting, running, stopping, waiting, stopped; elsewhere when a process that somebody else started serves it.
    pub state: String,
    /// 0 when there is no process.
    pub pid: i32,
    /// Starts after the first.
    pub restarts: u32,
    /// Deaths in a row.
    pub deaths: u32,
    /// How it ended last; empty while all is well.
    pub note: String,
}

/// The supervisor's report.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// The supervisor's own pid.
    pub pid: i32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// The daemons.
    pub daemons: Vec<DaemonReport>,
    /// What will not work here and why.
    pub limits: Vec<String>,
}

impl Report {
    /// Reads the lines of a `status` answer; unknown lines and fields are left out.
    pub fn parse(lines: &[String]) -> Self {
        let mut report = Self::default();
        for line in lines {
            let mut fields = line.split('\t');
            let kind = fields.next().unwrap_or_default();
            let rest: Vec<&str> = fields.collect();
            let field = |key: &str| {
                rest.iter()
                    .find_map(|f| f.strip_prefix(key)?.strip_prefix('='))
                    .unwrap_or_default()
                    .to_owned()
            };
            match kind {
                "supervisor" => {
                    report.pid = field("pid").parse().unwrap_or(0);
                    report.uptime_ms = field("uptime_ms").parse().unwrap_or(0);
                }
                "daemon" => report.daemons.push(DaemonReport {
                    name: field("name"),
                    state: field("state"),
                    pid: field("pid").parse().unwrap_or(0),
                    restarts: field("restarts").parse().unwrap_or(0),
                    deaths: field("deaths").parse().unwrap_or(0),
                    note: field("note"),
                }),
                "limit" => report.limits.push(rest.join(" ")),
                _ => {}
            }
        }
        report
    }

    /// How a daemon ended last that does not start; none while one may hope for it. One that was killed, or is slow, is not hopeless.
    pub fn hopeless(&self, daemon: &str) -> Option<&str> {
        let found = self.daemons.iter().find(|d| d.name == daemon)?;
        (found.deaths >= HOPELESS && found.state != "running").then_some(found.note.as_str())
    }
}

/// Sends one request: the answer's lines, or its error. `Ok(None)`: no supervisor listens, or it ended before it answered.
///
/// # Errors
/// The supervisor's refusal, or why it could not be heard.
pub fn ask(
    layout: &Layout,
    request: &str,
    patience: Option<Duration>,
) -> Result<Option<Vec<String>>, String> {
    let Ok(mut stream) = UnixStream::connect(layout.supervisor_socket()) else { return Ok(None) };
    let _ = stream.set_read_timeout(patience);
    if writeln!(stream, "{request}").is_err() {
        return Ok(None);
    }
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) if line == "ok" => return Ok(Some(lines)),
            Ok(line) => match line.strip_prefix("error ") {
                Some(why) => return Err(why.to_owned()),
                None => lines.push(line),
            },
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(format!("the supervisor does not answer: {e}")),
        }
    }
    Ok(None)
}

/// The report of a running supervisor.
///
/// # Errors
/// As [`ask`].
pub fn status(layout: &Layout) -> Result<Option<Report>, String> {
    let lines = ask(layout, "status", Some(Duration::from_secs(5)))?;
    Ok(lines.map(|lines| Report::parse(&lines)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let lines = [
            "supervisor\tpid=7\tuptime_ms=1500\trootless=1",
            "daemon\tname=netd\tstate=waiting\tpid=0\tuptime_ms=0\trestarts=3\tdeaths=2\tbinary=/x\tnote=exit status 1: a=b",
            "limit\tonly one id",
            "future\tx=y",
        ];
        let report = Report::parse(&lines.map(str::to_owned));
        assert_eq!((report.pid, report.uptime_ms), (7, 1500));
        assert_eq!(report.daemons[0].note, "exit status 1: a=b");
        assert_eq!((report.daemons[0].restarts, report.daemons[0].deaths), (3, 2));
        assert_eq!(report.limits, ["only one id"]);
    }

    #[test]
    fn only_what_died_again_and_again_is_hopeless() {
        for (state, deaths, hopeless) in
            [("waiting", 2, false), ("waiting", 3, true), ("starting", 4, true), ("running", 9, false)]
        {
            let lines = format!("daemon\tname=netd\tstate={state}\tdeaths={deaths}\tnote=why");
            let report = Report::parse(&[lines]);
            assert_eq!(report.hopeless("netd"), hopeless.then_some("why"), "{state} {deaths}");
            assert_eq!(report.hopeless("storaged"), None);
        }
    }
}
