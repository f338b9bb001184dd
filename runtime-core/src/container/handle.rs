//! A container as the rest of runtimed holds it: the queue of its task, and what the task last published.

use std::sync::Arc;
use std::time::Duration;

use davit_contracts::network::{Drift, EndpointSpec};
use davit_contracts::runtime::{Resources, RestartPolicy};
use davit_wire::{ExecSpec, ProbeResult};
use tokio::sync::{mpsc, oneshot, watch};

use super::copy::{Copied, Copying};
use super::record::Record;
use super::start::Started;
use super::state::Status;
use crate::error::RuntimeError;

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T, RuntimeError>>;

/// What may be asked of a container's task.
#[derive(Debug)]
pub enum Command {
    /// Prepare the snapshot and volumes of a new container.
    Create { answer: Answer<()> },
    /// The fast path of `davit run`: the same and a start in one go.
    Run { hold: bool, answer: Answer<Started> },
    /// Start the program.
    Start { hold: bool, answer: Answer<Started> },
    /// A person wants it ended: no restart follows. Answers how often it had ended before, if there is a program to end.
    Stopping { answer: Answer<Option<u64>> },
    /// Other limits, another restart policy; answers warnings.
    Update { resources: Option<Box<Resources>>, restart: Option<RestartPolicy>, answer: Answer<Vec<String>> },
    /// Send a signal to the program.
    Signal { signal: i32, action: &'static str, answer: Answer<()> },
    /// Freeze.
    Pause { answer: Answer<()> },
    /// Thaw.
    Unpause { answer: Answer<()> },
    /// Make a copy of its files, and of its anonymous volumes.
    Copy { wish: Box<Copying>, answer: Answer<Copied> },
    /// Journal the removal; the task ends.
    Remove { volumes: bool, answer: Answer<()> },
    /// Another name.
    Rename { name: String, answer: Answer<()> },
    /// One more network.
    Connect { endpoint: Box<EndpointSpec>, answer: Answer<()> },
    /// One network less.
    Disconnect { network: String, force: bool, answer: Answer<()> },
    /// Networks that netd lost it on.
    CheckNetworks { repair: bool, answer: Answer<Vec<Drift>> },
    /// Try whether it is healthy.
    Probe { answer: Answer<ProbeResult> },
    /// One more program inside.
    Exec { spec: Box<ExecSpec>, answer: Answer<i32> },
}

/// What everybody may see of a container.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// As last published.
    pub record: Arc<Record>,
    /// How many times its program has ended since this runtimed started.
    pub exits: u64,
    /// It is being started, by whomever.
    pub starting: bool,
    /// Its removal is journaled.
    pub gone: bool,
}

impl View {
    /// The state as the table knows it.
    pub fn status(&self) -> Status {
        if self.gone { Status::Removing } else { Status::parse(self.record.status()) }
    }
}

/// A container as the rest of runtimed holds it.
#[derive(Debug, Clone)]
pub struct Handle {
    /// 64 hex.
    pub id: String,
    pub(super) queue: mpsc::Sender<Command>,
    pub(super) view: watch::Receiver<View>,
    pub(super) cuts: watch::Sender<u64>,
}

impl Handle {
    /// What it is now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// To wait for changes.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Asks the task and waits for its answer.
    pub async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, RuntimeError> {
        let (tx, rx) = oneshot::channel();
        let gone = || RuntimeError::Removing(self.view.borrow().record.container.name.clone());
        self.queue.send(command(tx)).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())?
    }

    /// The same for what ends a container: a start that is under way is cut short when it takes longer than `patience`.
    pub async fn insist<T>(
        &self,
        patience: Duration,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, RuntimeError> {
        let asked = self.ask(command);
        tokio::pin!(asked);
        if let Ok(answer) = tokio::time::timeout(patience, &mut asked).await {
            return answer;
        }
        let mut watch = self.view.clone();
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                Ok(_) = watch.wait_for(|v| v.starting) => self.cuts.send_modify(|n| *n += 1),
            }
            // More starts may be in the queue before us.
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                Ok(_) = watch.wait_for(|v| !v.starting) => {}
            }
        }
    }

    /// A handle without a task, for tests of what only looks at ids.
    #[cfg(test)]
    pub fn detached(id: &str) -> Self {
        let (queue, _) = mpsc::channel(1);
        let (_, view) = watch::channel(View::default());
        Self { id: id.to_owned(), queue, view, cuts: watch::channel(0).0 }
    }
}

/// What tells a start that it is not wanted any more.
#[derive(Debug)]
pub struct Cut(pub(super) watch::Receiver<u64>);

impl Cut {
    /// From now on: what was cut before does not count.
    pub fn new(mut cuts: watch::Receiver<u64>) -> Self {
        cuts.borrow_and_update();
        Self(cuts)
    }

    /// Waits for a step of a start, unless the start is cut short.
    pub async fn or<T>(
        &self,
        step: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        let mut cuts = self.0.clone();
        tokio::select! {
            biased;
            done = step => done,
            Ok(()) = cuts.changed() => Err(RuntimeError::Cut),
        }
    }
}
