//! stop, restart, kill, rm, wait, pause, unpause, rename.

use std::time::Duration;

use davit_contracts::runtime::{
    KillRequest, PauseRequest, RemoveRequest, RenameRequest, RestartRequest, StopRequest, UnpauseRequest,
    WaitRequest,
};
use davit_contracts::{Kind, id};

use crate::app::{App, each};
use crate::args::container::{KillArgs, RemoveArgs, RenameArgs, RestartArgs, StopArgs};
use crate::error::{Failure, Outcome};
use crate::output;

/// `davit stop`: several at once, because each may take its whole time.
pub async fn stop(app: &App, args: &StopArgs) -> Outcome {
    at_once(&args.containers, |container| async {
        let request = StopRequest {
            container: container.clone(),
            timeout_s: args.time,
            signal: args.signal.clone().unwrap_or_default(),
        };
        app.runtime(app.containers().await?.stop(request)).await.map(|_| container)
    })
    .await
}

/// `davit restart`
pub async fn restart(app: &App, args: &RestartArgs) -> Outcome {
    at_once(&args.containers, |container| async {
        let request = RestartRequest { container: container.clone(), timeout_s: args.time };
        app.runtime(app.containers().await?.restart(request)).await.map(|_| container)
    })
    .await
}

/// Like [`each`], but all are begun before the first is awaited; told in the order of the names.
async fn at_once<F>(names: &[String], one: impl Fn(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<String>>,
{
    let mut waiting: Vec<_> = names.iter().map(|name| Box::pin(one(name.clone()))).collect();
    let mut results: Vec<Option<Outcome<String>>> = names.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (call, result) in waiting.iter_mut().zip(&mut results) {
            if result.is_none() {
                match call.as_mut().poll(context) {
                    std::task::Poll::Ready(answer) => *result = Some(answer),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    let mut failed = false;
    for result in results.into_iter().flatten() {
        match result {
            Ok(name) => output::line(name),
            Err(e) => {
                e.tell();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Code(1)) } else { Ok(()) }
}

/// `davit kill`
pub async fn kill(app: &App, args: &KillArgs) -> Outcome {
    each(&args.containers, |container| async {
        let request = KillRequest { container: container.clone(), signal: args.signal.clone() };
        app.runtime(app.containers().await?.kill(request)).await.map(|_| container)
    })
    .await
}

/// `davit rm`; with -f a container that does not exist is said but no failure.
pub async fn remove(app: &App, args: &RemoveArgs) -> Outcome {
    each(&args.containers, |container| async {
        let request =
            RemoveRequest { container: container.clone(), force: args.force, volumes: args.volumes };
        match app.runtime(app.containers().await?.remove(request)).await {
            Ok(_) => Ok(container),
            Err(Failure::Told(e)) if args.force && e.kind() == Kind::NotFound => {
                crate::error::tell(&e);
                Ok(String::new())
            }
            Err(e) => Err(e),
        }
    })
    .await
}

/// `davit wait`: a daemon that is replaced meanwhile is asked again.
pub async fn wait(app: &App, containers: &[String]) -> Outcome {
    at_once(containers, |container| async move {
        let mut tries = 0;
        loop {
            let request = WaitRequest { container: container.clone(), condition: 0 };
            match app.runtime(app.containers().await?.wait(request)).await {
                Ok(answer) => return Ok(answer.exit_code.to_string()),
                Err(Failure::Told(e)) if is_interruption(&e) && tries < 100 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(e) => return Err(e),
            }
        }
    })
    .await
}

/// Whether asking again makes sense: the daemon ended meanwhile, or is being started.
pub fn is_interruption(e: &davit_contracts::Error) -> bool {
    e.kind() == Kind::Unavailable
}

/// `davit pause`
pub async fn pause(app: &App, containers: &[String]) -> Outcome {
    each(containers, |container| async {
        let request = PauseRequest { container: container.clone() };
        app.runtime(app.containers().await?.pause(request)).await.map(|_| container)
    })
    .await
}

/// `davit unpause`
pub async fn unpause(app: &App, containers: &[String]) -> Outcome {
    each(containers, |container| async {
        let request = UnpauseRequest { container: container.clone() };
        app.runtime(app.containers().await?.unpause(request)).await.map(|_| container)
    })
    .await
}

/// `davit rename`
pub async fn rename(app: &App, args: &RenameArgs) -> Outcome {
    id::check_name(&args.name).map_err(|e| e.to_string())?;
    let request = RenameRequest { container: args.container.clone(), name: args.name.clone() };
    app.runtime(app.containers().await?.rename(request)).await.map(drop)
}
