//! `davit console`: the terminal of a container, as one sits down at a machine's.

use std::path::Path;
use std::time::{Duration, Instant};

use davit_contracts::Kind;
use davit_contracts::runtime::{AttachRequest, AttachResponse, InspectRequest};

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
    let mut place = find(app, &args.container).await?;
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
            Ok(Ended::Exited(record)) if record.reboot => place = again(app, &place.id).await?,
            Ok(Ended::Detached) => {
                output::complain!();
                return Ok(0);
            }
            ended => return finish(app, &place.id, false, ended).await,
        }
    }
}

async fn find(app: &App, name: &str) -> Outcome<AttachResponse> {
    let request = InspectRequest { container: name.to_owned() };
    let container = app.runtime(app.containers().await?.inspect(request)).await?.container;
    if !container.and_then(|c| c.spec).is_some_and(|spec| spec.tty) {
        let text = format!("container {name} has no console: it was made without --system and without -t");
        return Err(Failure::new(Kind::WrongState, text));
    }
    app.runtime(app.containers().await?.attach(AttachRequest { container: name.to_owned() })).await
}

/// Waits for a container that its init has asked to be booted again.
async fn again(app: &App, id: &str) -> Outcome<AttachResponse> {
    let since = Instant::now();
    loop {
        let request = AttachRequest { container: id.to_owned() };
        match app.runtime(app.containers().await?.attach(request)).await {
            Err(Failure::Told(e)) if is_passing(e.kind()) && since.elapsed() < REBOOT => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            found => return found,
        }
    }
}

fn is_passing(kind: Kind) -> bool {
    matches!(kind, Kind::WrongState | Kind::Unavailable)
}
