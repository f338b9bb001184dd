//! `davit run`.

use std::path::Path;
use std::time::{Duration, Instant};

use davit_contracts::runtime::wait_request::Condition;
use davit_contracts::runtime::{InspectRequest, RunRequest, RunResponse, WaitRequest};
use davit_contracts::{Error, Kind};
use davit_wire::ExitRecord;
use nix::sys::signal::Signal;

use super::create::{CidFile, warn, with_image};
use crate::app::App;
use crate::args::run::RunArgs;
use crate::attach::{self, Ended, Options, Signals, terminal};
use crate::error::{Failure, Outcome};
use crate::{output, spec};

/// How long we wait for the removal of a `--rm` container whose program has ended.
const REMOVAL: Duration = Duration::from_secs(10);

/// Makes and starts a container; attached, the exit code is the program's.
pub async fn run(app: &App, args: &RunArgs) -> Outcome<i32> {
    let begun = Instant::now();
    let mut spec = spec::build(&args.create)?;
    let attached = !args.detach;
    if attached {
        attach::check_tty(spec.open_stdin, spec.tty)?;
        // Docker's: the program's input ends with ours, unless nobody is attached from the start.
        spec.stdin_once = spec.open_stdin && spec.system.is_empty();
    }
    if let Some((rows, cols)) = terminal::size().filter(|_| spec.tty) {
        spec.console_size = vec![rows.into(), cols.into()];
    }
    let options = Options {
        exec_id: None,
        stdin: spec.open_stdin,
        tty: spec.tty,
        sig_proxy: args.sig_proxy,
        detach_keys: attach::detach_keys(args.detach_keys.as_deref(), spec.tty)?,
        ..Options::default()
    };
    let cid = CidFile::reserve(args.create.cidfile.as_deref())?;
    let answer = with_image(app, &args.create, &spec, || {
        Box::pin(async {
            let request = RunRequest { spec: Some(spec.clone()), hold_for_attach: attached };
            let mut containers = app.containers().await?;
            Box::pin(app.runtime(containers.run(request))).await
        })
    })
    .await?;
    let answered = begun.elapsed();
    warn(&answer.warnings);
    cid.write(&answer.id)?;
    if !attached {
        output::line(&answer.id);
        timings(args, &answer, answered, begun);
        return Ok(0);
    }
    let signals = Signals::take(args.sig_proxy)?;
    let ended = attach::attach(Path::new(&answer.attach_socket), &options, &signals);
    let code = finish(app, &answer.id, spec.auto_remove, ended).await;
    timings(args, &answer, answered, begun);
    code
}

/// From the end of an attachment to the exit code.
pub async fn finish(app: &App, id: &str, auto_remove: bool, ended: Outcome<Ended>) -> Outcome<i32> {
    let record = match ended? {
        Ended::Detached => return Ok(0),
        Ended::Unread => return Ok(128 + Signal::SIGPIPE as i32),
        Ended::Exited(record) => record,
        Ended::Lost => lost(app, id).await?,
    };
    if auto_remove {
        removed(app, id).await;
    }
    if !record.error.is_empty() && matches!(record.code, 125..=127) {
        let kind = match record.code {
            126 => Kind::CommandNotRunnable,
            127 => Kind::CommandNotFound,
            _ => Kind::Internal,
        };
        return Err(Failure::new(kind, record.error));
    }
    if !record.error.is_empty() {
        // Such as which process was killed for want of memory.
        output::complain!("davit: {}", record.error);
    }
    Ok(record.code)
}

/// The monitor is gone without a word: runtimed may know how the program ended.
async fn lost(app: &App, id: &str) -> Outcome<ExitRecord> {
    let request = InspectRequest { container: id.to_owned() };
    let answer = app.runtime(app.containers().await?.inspect(request)).await;
    let state = answer.ok().and_then(|a| a.container).and_then(|c| c.state);
    match state {
        Some(state) if matches!(state.status.as_str(), "exited" | "dead") => {
            Ok(ExitRecord { code: state.exit_code, error: state.error, ..ExitRecord::default() })
        }
        _ => Err(Error::new(
            Kind::Internal,
            "the container's monitor ended without saying how the program did",
        )
        .with_hint("'davit ps -a' shows what is known of the container")
        .into()),
    }
}

/// Waits until the container's name is free again. That the daemon is away meanwhile costs the person nothing: the program has ended.
async fn removed(app: &App, id: &str) {
    let request =
        WaitRequest { container: id.to_owned(), condition: Condition::Removed as i32, states: Vec::new() };
    let wait = async { app.runtime(app.containers().await?.wait(request)).await };
    let _ = tokio::time::timeout(REMOVAL, wait).await;
}

fn timings(args: &RunArgs, answer: &RunResponse, answered: Duration, begun: Instant) {
    if !args.timings {
        return;
    }
    let mut stages: Vec<(&str, u32)> = answer.stage_us.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    stages.sort_unstable();
    // The daemon's own sum goes to the end, beside ours.
    stages.sort_by_key(|(name, _)| *name == "total");
    let ms = |took: Duration| format!("{:.2} ms", took.as_secs_f64() * 1000.0);
    let mut rows: Vec<Vec<String>> = vec![vec!["STAGE".into(), "TOOK".into()]];
    rows.extend(stages.into_iter().map(|(name, us)| {
        let name = if name == "total" { "= in davit-runtimed" } else { name };
        vec![name.to_owned(), ms(Duration::from_micros(us.into()))]
    }));
    rows.push(vec!["= as the client saw it".into(), ms(answered)]);
    rows.push(vec!["= with the program".into(), ms(begun.elapsed())]);
    output::complain!("{}", output::table::layout(&rows).trim_end());
}
