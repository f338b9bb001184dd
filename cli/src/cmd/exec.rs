//! `davit exec`.

use std::path::Path;

use davit_contracts::runtime::{ExecCreateRequest, ExecInspectRequest, ExecStartRequest};
use davit_wire::ExitRecord;

use crate::app::App;
use crate::args::container::ExecArgs;
use crate::args::flags;
use crate::attach::{self, Ended, Options, Signals, terminal};
use crate::error::{Failure, Outcome};
use crate::spec;

/// Runs one more program inside; the exit code is its.
pub async fn exec(app: &App, args: &ExecArgs) -> Outcome<i32> {
    let (container, command) = args
        .container_and_command
        .split_first()
        .filter(|(_, command)| !command.is_empty())
        .ok_or_else(|| Failure::Usage("the command is missing".into()))?;
    flags::refuse_unknown("exec", container)?;
    let attached = !args.detach;
    let stdin = args.interactive && attached;
    attach::check_tty(stdin, args.tty)?;
    let size = terminal::size().filter(|_| args.tty);
    let request = ExecCreateRequest {
        container: container.clone(),
        command: command.to_vec(),
        env: spec::environment(&args.env, &args.env_file)?,
        working_dir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        tty: args.tty,
        attach_stdin: stdin,
        privileged: args.privileged,
        console_size: size.map(|(rows, cols)| vec![rows.into(), cols.into()]).unwrap_or_default(),
        detach: args.detach,
    };
    let mut execs = app.execs().await?;
    let exec_id = app.runtime(execs.create(request)).await?.exec_id;
    let request = ExecStartRequest { exec_id: exec_id.clone(), hold_for_attach: attached };
    let answer = app.runtime(execs.start(request)).await?;
    if !attached {
        return Ok(0);
    }
    let options = Options {
        exec_id: Some(exec_id.clone()),
        stdin,
        tty: args.tty,
        sig_proxy: true,
        detach_keys: attach::detach_keys(args.detach_keys.as_deref(), args.tty)?,
        ..Options::default()
    };
    let signals = Signals::take(true)?;
    let ended = attach::attach(Path::new(&answer.attach_socket), &options, &signals)?;
    let ended = match ended {
        Ended::Lost => lost(app, &exec_id).await,
        other => Ok(other),
    };
    super::run::finish(app, "", false, ended).await
}

/// The monitor is gone without a word: runtimed may know how the program ended.
async fn lost(app: &App, exec_id: &str) -> Outcome<Ended> {
    let request = ExecInspectRequest { exec_id: exec_id.to_owned() };
    let answer = app.runtime(app.execs().await?.inspect(request)).await?;
    if answer.running {
        return Ok(Ended::Lost);
    }
    Ok(Ended::Exited(ExitRecord { code: answer.exit_code, ..ExitRecord::default() }))
}
