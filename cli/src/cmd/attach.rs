//! `davit attach` and `davit start`.

use std::path::Path;

use davit_contracts::Kind;
use davit_contracts::runtime::{AttachRequest, InspectRequest, StartRequest};

use super::create::warn;
use super::run::finish;
use crate::app::{App, each};
use crate::args::container::{AttachArgs, StartArgs};
use crate::attach::{self, Options, Signals};
use crate::error::{Failure, Outcome};

/// `davit attach`: the exit code is the program's.
pub async fn attach(app: &App, args: &AttachArgs) -> Outcome<i32> {
    let container = inspect(app, &args.container).await?;
    let spec = container.spec.unwrap_or_default();
    let answer = app
        .runtime(app.containers().await?.attach(AttachRequest { container: args.container.clone() }))
        .await?;
    let stdin = spec.open_stdin && !args.no_stdin;
    attach::check_tty(stdin, answer.tty)?;
    let options = Options {
        exec_id: None,
        stdin,
        tty: answer.tty,
        sig_proxy: args.sig_proxy,
        detach_keys: attach::detach_keys(args.detach_keys.as_deref(), answer.tty)?,
        ..Options::default()
    };
    let signals = Signals::take(args.sig_proxy)?;
    let ended = attach::attach(Path::new(&answer.attach_socket), &options, &signals);
    finish(app, &answer.id, spec.auto_remove, ended).await
}

/// `davit start`: with -a or -i one container, whose program's exit code is ours.
pub async fn start(app: &App, args: &StartArgs) -> Outcome<i32> {
    if args.attach || args.interactive {
        return start_attached(app, args).await;
    }
    each(&args.containers, |container| async {
        let request = StartRequest { container: container.clone(), hold_for_attach: false };
        let answer = app.runtime(app.containers().await?.start(request)).await?;
        warn(&answer.warnings);
        Ok(container)
    })
    .await?;
    Ok(0)
}

async fn start_attached(app: &App, args: &StartArgs) -> Outcome<i32> {
    let [name] = args.containers.as_slice() else {
        return Err(Failure::Usage("only one container can be started with -a or -i".into()));
    };
    let container = inspect(app, name).await?;
    let status = container.state.map(|s| s.status).unwrap_or_default();
    let spec = container.spec.unwrap_or_default();
    let stdin = args.interactive && spec.open_stdin;
    attach::check_tty(stdin, spec.tty)?;
    let options = Options {
        exec_id: None,
        stdin,
        tty: spec.tty,
        sig_proxy: args.sig_proxy,
        detach_keys: attach::detach_keys(args.detach_keys.as_deref(), spec.tty)?,
        ..Options::default()
    };
    let socket = if matches!(status.as_str(), "running" | "paused") {
        let request = AttachRequest { container: name.clone() };
        app.runtime(app.containers().await?.attach(request)).await?.attach_socket
    } else {
        let request = StartRequest { container: name.clone(), hold_for_attach: true };
        let answer = app.runtime(app.containers().await?.start(request)).await?;
        warn(&answer.warnings);
        answer.attach_socket
    };
    let signals = Signals::take(args.sig_proxy)?;
    let ended = attach::attach(Path::new(&socket), &options, &signals);
    finish(app, &container.id, spec.auto_remove, ended).await
}

async fn inspect(app: &App, name: &str) -> Outcome<davit_contracts::runtime::Container> {
    let answer =
        app.runtime(app.containers().await?.inspect(InspectRequest { container: name.to_owned() })).await?;
    answer
        .container
        .ok_or_else(|| Failure::new(Kind::Internal, "davit-runtimed answered without a container"))
}
