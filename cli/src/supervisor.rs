//! The supervisor as a client sees it: its line protocol, and starting it when nobody answers.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use davit_contracts::layout::Layout;
use davit_contracts::{Error, Kind};

/// How often a supervisor is started that others end at the same time.
const ATTEMPTS: usize = 20;

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

/// Reads the lines of a `status` answer; unknown lines and fields are left out.
fn parse(lines: &[String]) -> Report {
    let mut report = Report::default();
    for line in lines {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap_or_default();
        let rest: Vec<&str> = fields.collect();
        let field = |key: &str| {
            rest.iter().find_map(|f| f.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default().to_owned()
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

/// Sends one request: the answer's lines, or its error. `Ok(None)`: no supervisor listens, or it ended before it answered.
fn ask(layout: &Layout, request: &str, patience: Option<Duration>) -> Result<Option<Vec<String>>, String> {
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
            Err(e) => return Err(format!("the supervisor does not answer: {}", crate::error::plain(&e))),
        }
    }
    Ok(None)
}

fn failed(why: String, layout: &Layout) -> Error {
    Error::new(Kind::Unavailable, why).with_hint(format!("its log is {}", layout.supervisor_log().display()))
}

/// The report of a running supervisor.
pub fn status(layout: &Layout) -> Result<Option<Report>, Error> {
    let lines = ask(layout, "status", Some(Duration::from_secs(5))).map_err(|why| failed(why, layout))?;
    Ok(lines.map(|lines| parse(&lines)))
}

/// Waits until all daemons serve; the error of one that does not start. False: the supervisor was just ending.
pub fn wait_ready(layout: &Layout) -> Result<bool, Error> {
    match ask(layout, "ready", Some(Duration::from_secs(60))) {
        Ok(answer) => Ok(answer.is_some()),
        Err(why) => Err(failed(why, layout)),
    }
}

/// Ends the daemons and the supervisor; false when none runs.
pub fn down(layout: &Layout) -> Result<bool, Error> {
    let pid = status(layout)?.map(|r| r.pid);
    let answer = ask(layout, "down", Some(Duration::from_secs(60))).map_err(|why| failed(why, layout))?;
    // It answers just before it ends; the next command must not meet it half gone.
    for _ in 0..1000 {
        if pid.is_none_or(|pid| !runs(pid)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(answer.is_some())
}

/// Whether the process runs; one that nobody has reaped yet does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Starts a supervisor and waits until the daemons serve. Another one that runs already is as good; one that is met while it
/// ends is followed by its successor.
pub fn start(layout: &Layout) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        launch(layout)?;
        let ready = wait_ready(layout).inspect_err(|_| {
            // What cannot serve is not left trying behind the person's back; the error at hand says why.
            let _ = down(layout);
        })?;
        if ready {
            return Ok(());
        }
        // The one that ends may still listen for a moment.
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(failed("the daemons are ended again and again while they start".into(), layout))
}

/// Starts a supervisor process, up to where its sockets accept connections.
fn launch(layout: &Layout) -> Result<(), Error> {
    let name = "davit-supervisor";
    let binary = Layout::binary(name).ok_or_else(|| {
        Error::new(Kind::NotFound, format!("{name} is neither beside davit nor in PATH"))
            .with_hint("install davit's programs into one directory, or name it with DAVIT_BIN_DIR")
    })?;
    let mut child = Command::new(&binary)
        .arg("--background")
        .env("DAVIT_STATE_DIR", &layout.state)
        .env("DAVIT_RUN_DIR", &layout.run)
        .env("DAVIT_CONFIG_DIR", &layout.config)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            failed(format!("cannot start {}: {}", binary.display(), crate::error::plain(&e)), layout)
        })?;
    let (mut said, mut complaint) = (String::new(), String::new());
    if let Some(mut out) = child.stdout.take() {
        let _ = out.read_to_string(&mut said);
    }
    if let Some(mut err) = child.stderr.take() {
        let _ = err.read_to_string(&mut complaint);
    }
    let _ = child.wait();
    if said.trim() != "ready" {
        let why = complaint.trim().strip_prefix("davit-supervisor: ").unwrap_or(complaint.trim());
        let why = if why.is_empty() { "it said nothing" } else { why };
        return Err(failed(format!("the supervisor does not start: {why}"), layout));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::layout::Overrides;

    #[test]
    fn a_report_is_read() {
        let lines = [
            "supervisor\tpid=7\tuptime_ms=1500\trootless=1",
            "daemon\tname=netd\tstate=waiting\tpid=0\tuptime_ms=0\trestarts=3\tdeaths=2\tbinary=/x\tnote=exit status 1: a=b",
            "limit\tonly one id",
            "future\tx=y",
        ];
        let report = parse(&lines.map(str::to_owned));
        assert_eq!((report.pid, report.uptime_ms), (7, 1500));
        assert_eq!(report.daemons[0].note, "exit status 1: a=b");
        assert_eq!((report.daemons[0].restarts, report.daemons[0].deaths), (3, 2));
        assert_eq!(report.limits, ["only one id"]);
    }

    #[test]
    fn a_supervisor_that_ends_instead_of_answering_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let own = |name: &str| Some(dir.path().join(name));
        let overrides = Overrides { state: own("s"), run: own("r"), config: own("c") };
        let layout = Layout::with_overrides(overrides).unwrap();
        std::fs::create_dir(dir.path().join("r")).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(layout.supervisor_socket()).unwrap();
        let ending = std::thread::spawn(move || {
            for _ in 0..4 {
                drop(listener.accept().unwrap());
            }
        });
        assert_eq!(status(&layout).unwrap(), None);
        assert!(!wait_ready(&layout).unwrap());
        assert!(!down(&layout).unwrap());
        ending.join().unwrap();
    }
}
