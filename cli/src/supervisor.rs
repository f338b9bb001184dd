//! The supervisor as the command line sees it, which starts it when nobody answers.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use davit_contracts::layout::Layout;
use davit_contracts::{Error, Kind};
use davit_supervision::ask;
pub use davit_supervision::{DaemonReport, Report, SUSPICIOUS};

/// How often a supervisor is started that others end at the same time.
const ATTEMPTS: usize = 20;

fn failed(why: &str, layout: &Layout) -> Error {
    Error::new(Kind::Unavailable, crate::error::one_line(why))
        .with_hint(format!("its log is {}", layout.supervisor_log().display()))
}

/// The report of a running supervisor.
pub fn status(layout: &Layout) -> Result<Option<Report>, Error> {
    davit_supervision::status(layout).map_err(|why| failed(&why, layout))
}

/// Waits until all daemons serve, or the one that is named, however the others do; the error of one that does not start. False: the
/// supervisor was just ending.
pub fn wait_ready(layout: &Layout, daemon: Option<&str>) -> Result<bool, Error> {
    let request = daemon.map_or_else(|| "ready".to_owned(), |name| format!("ready {name}"));
    match ask(layout, &request, Some(Duration::from_secs(60))) {
        Ok(answer) => Ok(answer.is_some()),
        Err(why) => Err(failed(&why, layout)),
    }
}

/// Ends the daemons and the supervisor; false when none runs.
pub fn down(layout: &Layout) -> Result<bool, Error> {
    let pid = status(layout)?.map(|r| r.pid);
    let answer = ask(layout, "down", Some(Duration::from_secs(60))).map_err(|why| failed(&why, layout))?;
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

/// Starts a supervisor and waits until the daemons serve, or the one that a command needs. Another one that runs already is as good; one that is met while it
/// ends is followed by its successor.
pub fn start(layout: &Layout, daemon: Option<&str>) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        launch(layout)?;
        let ready = wait_ready(layout, daemon).inspect_err(|_| {
            // What cannot serve is not left trying behind the person's back; the error at hand says why.
            let _ = down(layout);
        })?;
        if ready {
            return Ok(());
        }
        // The one that ends may still listen for a moment.
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(failed("the daemons are ended again and again while they start", layout))
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
            failed(&format!("cannot start {}: {}", binary.display(), crate::error::plain(&e)), layout)
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
        return Err(failed(&format!("the supervisor does not start: {why}"), layout));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::layout::Overrides;

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
        assert!(!wait_ready(&layout, None).unwrap());
        assert!(!down(&layout).unwrap());
        ending.join().unwrap();
    }
}
