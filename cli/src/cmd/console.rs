//! `davit console`: the terminal of a container, as one sits down at a machine's.

use std::path::Path;
use std::time::{Duration, Instant};

use davit_contracts::Kind;
use davit_contracts::runtime::{AttachRequest, AttachResponse, Container, InspectRequest};

use super::run::finish;
use crate::app::App;
use crate::args::clone::ConsoleArgs;
use crate::attach::{self, Ended, Options, Signals};
use crate::error::{Failure, Outcome};
use crate::output;

/// `ctrl-]`, as of telnet(1) and virsh(1).
const ESCAPE: u8 = 0x1d;
/// How long we wait for a container that is being booted again.
const REBOOT: Duration = Duration::from_secs(90);

/// Shows the console until the container has ended or the person leaves. A reboot is sat through.
pub async fn console(app: &App, args: &ConsoleArgs) -> Outcome<i32> {
    let mut boots = find(app, &args.container).await?;
    let mut place = attach_to(app, &args.container).await?;
    let stdin = !args.no_stdin;
    attach::check_tty(stdin, true)?;
    let options = Options {
        stdin,
        tty: true,
        // Signals that are typed go through the terminal; those that are sent to us are ours.
        sig_proxy: false,
        detach_keys: attach::detach_keys(args.detach_keys.as_deref(), true)?,
        escape: args.detach_keys.is_none().then_some(ESCAPE),
        replay: !args.no_replay,
        ..Options::default()
    };
    if stdin && args.detach_keys.is_none() {
        output::complain!("Connected to the console of {}; ctrl-] leaves it.", args.container);
    }
    let signals = Signals::take(false)?;
    loop {
        let ended = attach::attach(Path::new(&place.attach_socket), &options, &signals);
        match ended {
            Ok(Ended::Exited(record)) if record.reboot => {
                let Some(now) = booted_again(app, &place.id, boots).await? else { return Ok(record.code) };
                boots = now;
                place = attach_to(app, &place.id).await?;
            }
            Ok(Ended::Detached) => {
                output::complain!();
                return Ok(0);
            }
            ended => return finish(app, &place.id, false, ended).await,
        }
    }
}

async fn attach_to(app: &App, name: &str) -> Outcome<AttachResponse> {
    app.runtime(app.containers().await?.attach(AttachRequest { container: name.to_owned() })).await
}

async fn inspect(app: &App, name: &str) -> Outcome<Container> {
    let request = InspectRequest { container: name.to_owned() };
    let answer = app.runtime(app.containers().await?.inspect(request)).await?;
    Ok(answer.container.unwrap_or_default())
}

/// How often it was booted again so far.
async fn find(app: &App, name: &str) -> Outcome<u32> {
    let container = inspect(app, name).await?;
    if !container.spec.is_some_and(|spec| spec.tty) {
        let text = format!("container {name} has no console: it was made without --system and without -t");
        return Err(Failure::new(Kind::WrongState, text));
    }
    Ok(container.restart_count)
}

/// Waits for a container whose init has asked to be booted again. None: it is not, because its end had been asked for.
async fn booted_again(app: &App, id: &str, before: u32) -> Outcome<Option<u32>> {
    let since = Instant::now();
    loop {
        match inspect(app, id).await {
            Ok(container) => {
                let status = container.state.map(|s| s.status).unwrap_or_default();
                let (again, patient) = (container.restart_count != before, since.elapsed() < REBOOT);
                match status.as_str() {
                    "running" if again => return Ok(Some(container.restart_count)),
                    // runtimed has not looked yet, or is at it.
                    "running" | "restarting" if patient => {}
                    "exited" if again && patient => {}
                    _ => return Ok(None),
                }
            }
            Err(Failure::Told(e)) if e.kind() == Kind::Unavailable && since.elapsed() < REBOOT => {}
            Err(Failure::Told(e)) if e.kind() == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
