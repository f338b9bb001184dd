//! The task that owns a container.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use davit_contracts::network::Endpoint;
use davit_contracts::runtime::ContainerSpec;
use davit_wire::{Event, Reply, Request};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::handle::{Answer, Command, Cut, Handle, View};
use super::record::{ProcessRecord, Record};
use super::remove::{self, Teardown};
use super::state::Status;
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::failpoint;
use crate::monitor::link::{Connected, Link};

/// How long a program is held for a client that said it would attach: it does so within milliseconds, or it has died.
const HOLD_PATIENCE: Duration = Duration::from_secs(30);

/// A living monitor.
#[derive(Debug)]
pub struct Monitor {
    /// For requests.
    pub link: Link,
    /// What happens.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Its process.
    pub process: ProcessRecord,
    /// What it can beyond the first monitors.
    pub features: Vec<String>,
}

impl From<Connected> for Monitor {
    fn from(c: Connected) -> Self {
        let state = &c.welcome.state;
        let process = ProcessRecord { pid: state.monitor_pid, start_time: state.monitor_start_time };
        Self { link: c.link, events: c.events, process, features: c.welcome.state.features }
    }
}

/// Whether the task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// With the next command or event.
    On,
    /// The container is gone; only teardown remains.
    End,
}

/// The owner.
#[derive(Debug)]
pub struct Task {
    /// Shared half.
    pub(super) engine: Arc<Engine>,
    /// Owned state.
    pub(super) record: Record,
    /// While there is one.
    pub(super) monitor: Option<Monitor>,
    /// What a past run left to undo.
    pub(super) teardown: Teardown,
    /// When it is tried again.
    retry: Option<(Instant, Duration)>,
    /// Since when the program waits for a client to attach.
    held_since: Option<Instant>,
    /// When its restart policy starts it again.
    pub(super) restart_at: Option<Instant>,
    /// Who asked for the removal that is under way.
    removed: Option<Answer<()>>,
    /// Its creation was told.
    announced: bool,
    /// The record differs from its file.
    pub(super) dirty: bool,
    pub(super) exits: u64,
    starting: bool,
    view: watch::Sender<View>,
    cuts: watch::Receiver<u64>,
    queue: mpsc::Receiver<Command>,
}

impl Task {
    /// A task that does not run yet, and the handle to it.
    pub fn new(engine: Arc<Engine>, record: Record) -> (Self, Handle) {
        let id = record.id().to_owned();
        let (queue_tx, queue) = mpsc::channel(32);
        let (view, view_rx) = watch::channel(View { record: Arc::new(record.clone()), ..View::default() });
        let (cuts, cuts_rx) = watch::channel(0);
        let cgroup_parent =
            record.container.spec.as_ref().map(|s| s.cgroup_parent.clone()).unwrap_or_default();
        let teardown = Teardown { id: id.clone(), cgroup_parent, ..Teardown::default() };
        let task = Self {
            engine,
            record,
            monitor: None,
            teardown,
            retry: None,
            held_since: None,
            restart_at: None,
            removed: None,
            announced: false,
            dirty: false,
            exits: 0,
            starting: false,
            view,
            cuts: cuts_rx,
            queue,
        };
        (task, Handle { id, queue: queue_tx, view: view_rx, cuts })
    }

    /// Serves until the container is gone.
    pub async fn run(mut self) {
        loop {
            if self.dirty {
                self.save();
            }
            if !self.teardown.is_done() && self.retry.is_none() {
                self.retry = Some((Instant::now(), Duration::from_millis(100)));
            }
            self.held_since = self.record.held.then(|| self.held_since.unwrap_or_else(Instant::now));
            let flow = tokio::select! {
                biased;
                event = next_event(self.monitor.as_mut()) => match event {
                    Some(event) => self.happened(event),
                    None => self.monitor_died().await,
                },
                () = held_too_long(self.held_since) => self.nobody_came().await,
                () = due(self.restart_at) => { Box::pin(self.start_again()).await; Flow::On }
                () = due(self.retry.map(|(at, _)| at)) => { self.try_teardown(remove::BRIEFLY).await; Flow::On }
                command = self.queue.recv() => match command {
                    Some(command) => self.obey(command).await,
                    // The registry let go of us: runtimed ends, and the container goes on without it.
                    None => return,
                },
            };
            if flow == Flow::End {
                break;
            }
        }
        let engine = Arc::clone(&self.engine);
        // Before anybody hears that it is gone: its networks, image and volumes may be removed at once.
        self.teardown.free(&engine).await;
        self.publish_gone();
        if let Some(answer) = self.removed.take() {
            let _ = answer.send(Ok(()));
        }
        let Self { teardown, record, queue, .. } = self;
        // Whoever still waits for an answer hears that it is gone, and not when the teardown is through.
        drop(queue);
        teardown.finish(&engine).await;
        tracing::debug!(container.id = record.short(), "nothing is left of it");
    }

    /// Undoes what is left of a container that nobody sees any more.
    pub async fn into_teardown(self) {
        let Self { engine, teardown, .. } = self;
        teardown.finish(&engine).await;
    }

    /// What was asked for.
    pub fn spec_of(&self) -> ContainerSpec {
        self.record.container.spec.clone().unwrap_or_default()
    }

    /// Tells everybody of a new container, once.
    pub fn announce_created(&mut self) {
        if !std::mem::replace(&mut self.announced, true) {
            self.emit("create", &[]);
        }
        self.publish();
    }

    async fn obey(&mut self, command: Command) -> Flow {
        match command {
            Command::Create { answer } => return self.make(answer).await,
            Command::Run { hold, answer } => return self.make_and_start(hold, answer).await,
            Command::MakeLike { source, freeze, durable, answer } => {
                return self.make_like(&source, freeze, durable, answer).await;
            }
            Command::Start { hold, answer } => {
                let started = Box::pin(self.start(hold)).await;
                let _ = answer.send(started);
                return self.after_failed_start();
            }
            Command::Stopping { answer } => {
                let _ = answer.send(self.stopping());
            }
            Command::Update { resources, restart, answer } => {
                let _ = answer.send(self.update(resources, restart).await);
            }
            Command::Signal { signal, action, answer } => {
                let _ = answer.send(self.signal(signal, action).await);
            }
            Command::Pause { answer } => {
                let _ = answer.send(self.freeze(true).await);
            }
            Command::Unpause { answer } => {
                let _ = answer.send(self.freeze(false).await);
            }
            Command::Copy { wish, answer } => {
                let _ = answer.send(Box::pin(self.copy_files(*wish)).await);
            }
            Command::Remove { volumes, answer } => match self.remove(volumes) {
                Ok(()) => {
                    self.removed = Some(answer);
                    return Flow::End;
                }
                Err(e) => {
                    let _ = answer.send(Err(e));
                }
            },
            Command::Rename { name, answer } => {
                let _ = answer.send(self.rename(&name).await);
            }
            Command::JoinPod { pod, record, answer } => {
                let _ = answer.send(self.join_pod(&pod, &record));
            }
            Command::Connect { endpoint, answer } => {
                let _ = answer.send(self.connect(*endpoint).await);
            }
            Command::Disconnect { network, force, answer } => {
                let _ = answer.send(self.disconnect(&network, force).await);
            }
            Command::CheckNetworks { repair, answer } => {
                let _ = answer.send(self.check_networks(repair).await);
            }
            Command::Probe { answer } => self.probe(answer),
            Command::Exec { spec, answer } => {
                let pid = match self.request(Request::Exec(spec)).await {
                    Ok(Reply::Started { pid }) => Ok(pid),
                    Ok(_) => Ok(0),
                    Err(e) => Err(e),
                };
                let _ = answer.send(pid);
            }
        }
        Flow::On
    }

    /// Asks the monitor.
    pub(super) async fn request(&self, request: Request) -> Result<Reply, RuntimeError> {
        let name = &self.record.container.name;
        let Some(monitor) = &self.monitor else {
            return Err(RuntimeError::WrongState(format!("container {name} is not running")));
        };
        match monitor.link.request(request).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => Err(RuntimeError::Monitor { kind: failure.kind, message: failure.message }),
            Err(source) => Err(RuntimeError::Link { id: self.record.short().to_owned(), source }),
        }
    }

    /// Tries to undo what a past run left.
    pub(super) async fn try_teardown(&mut self, patience: Duration) -> Vec<RuntimeError> {
        let engine = Arc::clone(&self.engine);
        let errors = self.teardown.attempt(&engine, patience).await;
        if self.teardown.is_done() {
            self.retry = None;
            self.record.attached = false;
            self.record.monitor = None;
            self.publish();
        } else {
            remove::log(&self.teardown.id, &errors);
            let wait = self.retry.map_or(Duration::from_millis(100), |(_, wait)| wait);
            self.retry = Some((Instant::now() + wait, (wait * 2).min(Duration::from_secs(30))));
        }
        errors
    }

    /// Shows the record to everybody; it is saved before the next command.
    pub(super) fn publish(&mut self) {
        self.dirty = true;
        self.show();
    }

    /// The same for what need not be saved now: the monitor knows it, too.
    pub(super) fn show(&mut self) {
        let record = Arc::new(self.record.clone());
        let (exits, starting) = (self.exits, self.starting);
        self.view.send_modify(|v| *v = View { record, exits, starting, gone: v.gone });
    }

    /// A start begins: others see that, and may cut it short.
    pub(super) fn begin_starting(&mut self) -> Cut {
        let cut = Cut::new(self.cuts.clone());
        self.starting = true;
        self.view.send_modify(|v| v.starting = true);
        cut
    }

    /// It is over, whatever came of it.
    pub(super) fn end_starting(&mut self) {
        self.starting = false;
        self.view.send_modify(|v| v.starting = false);
    }

    /// The same after the program has ended.
    pub(super) fn publish_exit(&mut self) {
        self.exits += 1;
        self.publish();
    }

    /// The same after the removal was journaled.
    pub(super) fn publish_gone(&mut self) {
        self.publish();
        self.dirty = false;
        self.view.send_modify(|v| v.gone = true);
    }

    /// Writes the record; a failure is an operator's business and tried again with the next change.
    pub(super) fn save(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if let Err(e) = self.record.save(&self.directory()) {
            tracing::error!(
                container.id = self.record.short(),
                error = e.line(),
                "the record cannot be saved"
            );
        }
        failpoint::pass("record.saved");
    }

    /// Its durable directory.
    pub(super) fn directory(&self) -> PathBuf {
        self.engine.dirs.container(self.record.id())
    }

    /// The state as the table knows it.
    pub(super) fn status(&self) -> Status {
        Status::parse(self.record.status())
    }

    /// Records that it came to networks, or left them.
    pub(super) fn emit_networks(&self, action: &str, endpoints: &[Endpoint]) {
        for e in endpoints {
            let attributes = [("container", self.record.id()), ("name", &e.network)];
            let attributes = attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            self.engine.events.emit("network", action, &e.network_id, attributes);
        }
    }

    /// Records an event with docker's attributes.
    pub(super) fn emit(&self, action: &str, extra: &[(&str, String)]) {
        let c = &self.record.container;
        let mut attributes = c.spec.as_ref().map(|s| s.labels.clone()).unwrap_or_default();
        attributes.insert("name".into(), c.name.clone());
        attributes.insert("image".into(), c.image.clone());
        attributes.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.engine.events.emit("container", action, self.record.id(), attributes);
    }
}

async fn next_event(monitor: Option<&mut Monitor>) -> Option<Event> {
    match monitor {
        Some(monitor) => monitor.events.recv().await,
        None => pending().await,
    }
}

async fn held_too_long(since: Option<Instant>) {
    match since {
        Some(since) => tokio::time::sleep_until(since + HOLD_PATIENCE).await,
        None => pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
