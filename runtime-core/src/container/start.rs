//! Bringing a container up, in phases that run side by side where they can.
//!
//! ```text
//!  storaged Prepare/Mounts ─┐                ┌─ monitor mounts the root, user looked up in it ─┐
//!                           ├─ image merged ─┼─ netd attaches the monitor's namespace ─────────┼─ files, spec ─ create ─ start
//!  monitor starts, listens ─┘                └─ volumes (first time only) ─────────────────────┘   (record saved beside create)
//! ```
//!
//! Whatever was made is in `self.monitor` or `self.teardown` before the next phase begins, so that a failure at any point is undone by
//! [`Task::abandon`], and a crash by the next runtimed from the run directory.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use davit_contracts::network::AttachResponse;
use davit_contracts::runtime::ContainerSpec;
use davit_contracts::storage::{MountsRequest, PrepareRequest, PrepareResponse};
use davit_wire::config::CreateSpec;
use davit_wire::{MonitorConfig, Reply, Request};
use tracing::Instrument as _;

use super::bundle::{Plan, ensure_dir};
use super::dirs::RunDir;
use super::handle::Cut;
use super::record::ProcessRecord;
use super::state::{Ask, Status, Verdict, judge};
use super::task::{Flow, Task};
use super::{network, remove, restart, staging, volumes};
use crate::clock::us;
use crate::engine::{Engine, make_private_dir};
use crate::error::{RuntimeError, io_error};
use crate::failpoint;
use crate::logs::options;
use crate::monitor::spawn::spawn;
use crate::peers::snapshots;
use crate::pod;
use crate::spec::check::{self, Network};
use crate::spec::user::{Database, Resolved};
use crate::spec::{health, merge, system, user};

/// What a start came to.
#[derive(Debug)]
pub struct Started {
    /// Microseconds a stage.
    pub stage_us: HashMap<String, u32>,
    /// For the person who asked.
    pub warnings: Vec<String>,
    /// The first process.
    pub pid: i32,
    /// Where clients attach.
    pub socket: PathBuf,
}

/// Stage times, collected from phases that run side by side.
#[derive(Debug, Default)]
pub struct Stages(Mutex<HashMap<String, u32>>);

impl Stages {
    /// Runs a phase in a span of its own and notes its time.
    pub async fn time<T>(&self, name: &'static str, phase: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let out = phase.instrument(tracing::debug_span!("stage", name)).await;
        self.note(name.to_owned(), us(begun.elapsed()));
        out
    }

    fn note(&self, name: String, us: u32) {
        tracing::debug!(stage = name, us);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, us);
    }

    fn take(&self) -> HashMap<String, u32> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Task {
    /// Starts a container that was created before.
    pub async fn start(&mut self, hold: bool) -> Result<Started, RuntimeError> {
        let run = self.engine.dirs.run_dir(self.record.id());
        if self.record.held && self.monitor.is_some() {
            // Somebody started it for a client that has yet to come.
            if !hold {
                self.request(Request::Start { hold_for_attach: false }).await?;
            }
            let pid = self.record.process.map_or(0, |p| p.pid);
            return Ok(Started { stage_us: HashMap::new(), warnings: Vec::new(), pid, socket: run.socket() });
        }
        let name = &self.record.container.name;
        if judge(Ask::Start, self.status(), name).map_err(RuntimeError::WrongState)? == Verdict::Already {
            let pid = self.record.state().pid;
            return Ok(Started { stage_us: HashMap::new(), warnings: Vec::new(), pid, socket: run.socket() });
        }
        self.asked_to_start();
        let result = Box::pin(self.start_once(hold)).await;
        if let Err(e) = &result {
            self.start_failed(e);
        }
        result
    }

    /// One attempt, by a person or a restart policy; a failure is undone, but not entered.
    pub(super) async fn start_once(&mut self, hold: bool) -> Result<Started, RuntimeError> {
        let cut = self.begin_starting();
        let result = Box::pin(self.attempt(hold, &cut)).await;
        if result.is_err() {
            self.abandon().await;
        }
        self.end_starting();
        result
    }

    async fn attempt(&mut self, hold: bool, cut: &Cut) -> Result<Started, RuntimeError> {
        if !self.teardown.is_done() {
            let errors = cut.or(async { Ok(self.try_teardown(remove::PATIENTLY).await) }).await?;
            if !self.teardown.is_done() {
                return Err(remove::in_the_way(&self.record.container.name, errors));
            }
        }
        Box::pin(self.bring_up(hold, false, cut)).await
    }

    pub(super) async fn bring_up(
        &mut self,
        hold: bool,
        fresh: bool,
        cut: &Cut,
    ) -> Result<Started, RuntimeError> {
        let begun = Instant::now();
        let stages = Stages::default();
        let engine = Arc::clone(&self.engine);
        let spec = self.spec_of();
        if !spec.pod.is_empty() {
            cut.or(Box::pin(engine.pod_up(&spec.pod))).await?;
        }
        let plan = self.plan(&spec)?;
        let run = engine.dirs.run_dir(self.record.id());
        let config = self.monitor_config(&spec, &plan)?;
        let program = Engine::monitor_program()?;
        make_private_dir(&self.directory())?;
        make_private_dir(&run.rootfs())?;
        self.teardown.run_dir = true;
        self.teardown.snapshot = fresh;
        failpoint::pass("start.directories");
        let id = self.record.id().to_owned();
        let (monitor, root) = tokio::join!(
            stages.time("monitor", spawn(&program, &run, &id, &config)),
            stages.time("storage", cut.or(self.root(fresh, &spec))),
        );
        let root = match monitor {
            Ok(connected) => {
                self.monitor = Some(connected.into());
                failpoint::pass("start.spawned");
                root?
            }
            // Of two failures the image's is the one that a person can do something about.
            Err(e) => return Err(root.err().unwrap_or(e)),
        };
        if fresh {
            self.take_image(&root, &spec)?;
            self.record.volumes = volumes::wants_any(&spec, &self.record.image);
        }
        self.record.monitor = self.monitor.as_ref().map(|m| m.process);
        let (user, attached) = cut.or(Box::pin(self.wire_up(&spec, &plan, root, fresh, &stages))).await?;
        self.settle_init(&spec, &run)?;
        failpoint::pass("start.wired");
        let writing = Instant::now();
        let warnings = self.write_bundle(&spec, &plan, &user, attached.as_ref(), &run)?;
        stages.note("spec".into(), us(writing.elapsed()));
        let create = self.create_spec(&spec, &plan);
        let pid = cut.or(Box::pin(self.create_and_start(hold, create, &stages))).await?;
        self.teardown.run_dir = false;
        self.teardown.snapshot = false;
        let mut stage_us = stages.take();
        stage_us
            .extend(attached.into_iter().flat_map(|a| a.stage_us).map(|(k, v)| (format!("network.{k}"), v)));
        stage_us.insert("total".into(), us(begun.elapsed()));
        Ok(Started { stage_us, warnings, pid, socket: run.socket() })
    }

    /// The root file system, from storaged but for the infra container of a pod.
    pub(super) async fn root(
        &self,
        fresh: bool,
        spec: &ContainerSpec,
    ) -> Result<PrepareResponse, RuntimeError> {
        match &self.record.pod {
            Some(_) => Ok(pod::root()),
            None if fresh => prepare(&self.engine, self.record.id(), spec).await,
            None => mounts(&self.engine, self.record.id()).await,
        }
    }

    /// The second row of the picture above.
    async fn wire_up(
        &mut self,
        spec: &ContainerSpec,
        plan: &Plan,
        root: PrepareResponse,
        fresh: bool,
        stages: &Stages,
    ) -> Result<(Resolved, Option<AttachResponse>), RuntimeError> {
        let ports = check::ports(spec, &self.record.image);
        let endpoints = match &plan.network {
            Network::Endpoints(list) => Some(list.clone()),
            _ => None,
        };
        self.record.attached = endpoints.is_some();
        let me = &*self;
        let peers = &me.engine.peers;
        let (user, attached, points) = tokio::join!(
            me.mount_and_look_up(spec, root, stages),
            async {
                let (Some(specs), Some(holder)) = (endpoints, me.record.monitor) else { return Ok(None) };
                stages
                    .time("network", network::attach(peers, &me.record, holder, specs, ports))
                    .await
                    .map(Some)
            },
            async {
                if !fresh || (spec.mounts.is_empty() && !me.record.volumes) {
                    return Ok(None);
                }
                let nothing = HashMap::new();
                let resolved = volumes::resolve(peers, me.record.id(), spec, &me.record.image, &nothing);
                stages.time("volumes", resolved).await.map(Some)
            },
        );
        if let Ok(Some(points)) = &points {
            self.record.container.mount_points.clone_from(points);
        }
        let (user, attached, _) = (user?, attached?, points?);
        if let Some(a) = &attached {
            let asked = self.record.container.spec.get_or_insert_default().network.get_or_insert_default();
            network::settle(asked, |text| network::name_among(&a.endpoints, text));
            self.record.container.endpoints.clone_from(&a.endpoints);
            self.record.container.ports.clone_from(&a.ports);
        }
        Ok((user, attached))
    }

    /// Mounts the root in the monitor's namespace and reads the image's user database through it.
    async fn mount_and_look_up(
        &self,
        spec: &ContainerSpec,
        root: PrepareResponse,
        stages: &Stages,
    ) -> Result<Resolved, RuntimeError> {
        let mounts = staging::root(root.mounts, &self.engine.config)?;
        let root = CreateSpec { mounts, ..CreateSpec::default() };
        stages.time("mount", self.request(Request::Mount(Box::new(root)))).await?;
        let root = self.open_root(&self.engine.dirs.run_dir(self.record.id()))?;
        ensure_dir(root.as_fd(), &self.record.container.working_dir);
        let add = spec.security.as_ref().map(|s| s.group_add.clone()).unwrap_or_default();
        user::resolve(&self.record.container.user, &add, &Database::read(root.as_fd()))
    }

    /// Finds out what the init of a system container is, in the root that its monitor has mounted.
    fn settle_init(&mut self, spec: &ContainerSpec, run: &RunDir) -> Result<(), RuntimeError> {
        self.record.init.clear();
        if system::asked(spec)?.is_none() {
            return Ok(());
        }
        let root = self.open_root(run)?;
        let program = self.record.container.argv.first().cloned().unwrap_or_default();
        if let Some(init) = system::settle(spec, root.as_fd(), &program)? {
            init.word().clone_into(&mut self.record.init);
        }
        Ok(())
    }

    fn open_root(&self, run: &RunDir) -> Result<File, RuntimeError> {
        let monitor = self.record.monitor.map_or(0, |m| m.pid);
        let path = PathBuf::from(format!("/proc/{monitor}/root{}", run.rootfs().display()));
        File::open(&path).map_err(io_error("open the container's root at", &path))
    }

    async fn create_and_start(
        &mut self,
        hold: bool,
        create: CreateSpec,
        stages: &Stages,
    ) -> Result<i32, RuntimeError> {
        self.record.held = hold;
        let health = self.health_check();
        self.health_starts(health.as_ref());
        let record = self.record.clone();
        let directory = self.directory();
        let spec = record.container.spec.clone().unwrap_or_default();
        let create = CreateSpec { log: Some(self.log_plan(&spec)?.sink), health, ..create };
        let durable = restart::is_policy(&record.policy()) && record.unseen;
        let saved = tokio::task::spawn_blocking(move || {
            if durable { record.save_durably(&directory) } else { record.save(&directory) }
        });
        let (created, saved) = tokio::join!(
            stages.time("create", self.request(Request::Create(Box::new(create)))),
            stages.time("save", saved),
        );
        let Reply::Created { pid, stage_us } = created? else {
            return Err(self.out_of_turn());
        };
        for (name, us) in stage_us {
            stages.note(format!("create.{name}"), us);
        }
        saved.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        self.record.process = ProcessRecord::of(pid);
        failpoint::pass("start.created");
        let started = stages.time("start", self.request(Request::Start { hold_for_attach: hold })).await?;
        let Reply::Started { pid: running } = started else {
            return Err(self.out_of_turn());
        };
        failpoint::pass("start.started");
        if running > 0 {
            if self.record.unseen {
                self.announce_created();
            }
            self.running(pid, 0);
            self.emit_networks("connect", &self.record.container.endpoints);
            self.emit("start", &[]);
        }
        self.publish();
        Ok(pid)
    }

    fn out_of_turn(&self) -> RuntimeError {
        RuntimeError::Link {
            id: self.record.short().to_owned(),
            source: crate::monitor::link::LinkError::Unexpected,
        }
    }

    /// Enters what the image says into the record.
    pub(super) fn take_image(
        &mut self,
        root: &PrepareResponse,
        spec: &ContainerSpec,
    ) -> Result<(), RuntimeError> {
        self.record.image = root.config.clone().unwrap_or_default();
        let program = merge::program(spec, &self.record.image, &self.record.container.hostname)?;
        let c = &mut self.record.container;
        if !root.reference.is_empty() {
            c.image.clone_from(&root.reference);
        }
        c.image_id.clone_from(&root.image_id);
        c.driver.clone_from(&root.driver);
        c.argv = program.argv;
        c.env = program.env;
        c.working_dir = program.cwd;
        c.user = program.user;
        c.exposed_ports = check::exposed_ports(spec, &self.record.image);
        let asked = c.spec.get_or_insert_default();
        asked.health = health::merged(asked.health.as_ref(), self.record.image.healthcheck.as_ref());
        self.record.prepared = true;
        Ok(())
    }

    fn monitor_config(&self, spec: &ContainerSpec, plan: &Plan) -> Result<MonitorConfig, RuntimeError> {
        let id = self.record.id();
        let (_, runtime) = self.engine.config.runtime(&spec.runtime)?;
        Ok(MonitorConfig {
            container_id: id.to_owned(),
            userns: plan.userns.clone(),
            new_netns: plan.new_netns,
            netns: plan.join.as_ref().map(|(path, _)| path.clone()),
            state_dir: self.directory(),
            ephemeral: spec.auto_remove,
            tty: spec.tty,
            system: system::asked(spec)?.is_some(),
            open_stdin: spec.open_stdin,
            stdin_once: spec.stdin_once,
            log_buffer: self.log_plan(spec)?.buffer,
            runtime,
            shared_sources: staging::shared_sources(spec),
            ..MonitorConfig::default()
        })
    }

    /// Where output goes. Labels and variables of the image are known once it is prepared.
    fn log_plan(&self, spec: &ContainerSpec) -> Result<options::Plan, RuntimeError> {
        let about =
            options::About { container: Some(&self.record.container), image: Some(&self.record.image) };
        let path = self.engine.dirs.log(self.record.id(), spec);
        options::plan(&spec.log.clone().unwrap_or_default(), &about, &path)
    }

    /// Undoes a start that failed; what cannot be undone now is tried again by the task.
    pub(super) async fn abandon(&mut self) {
        self.teardown.monitor = self.monitor.take();
        self.teardown.detach |= self.record.attached;
        self.record.held = false;
        self.record.process = None;
        self.record.container.endpoints.clear();
        self.record.container.ports.clear();
        self.record.container.etc_dir.clear();
        self.try_teardown(remove::BRIEFLY).await;
    }

    /// Enters a failed start: a program that cannot be run counts as one that ended.
    pub(super) fn start_failed(&mut self, error: &RuntimeError) {
        if self.status() == Status::Restarting {
            "exited".clone_into(&mut self.record.state_mut().status);
        }
        if let Some(code) = error.command_exit_code() {
            self.record.ended(&davit_wire::ExitRecord {
                code,
                finished_unix_ns: crate::clock::unix_ns(),
                error: error.line(),
                ..Default::default()
            });
            self.emit("die", &[("exitCode", code.to_string())]);
            self.publish_exit();
        } else {
            self.record.state_mut().error = error.line();
            self.publish();
        }
    }

    /// The automatic removal of a container whose program could not be run.
    pub(super) fn after_failed_start(&mut self) -> Flow {
        let failed = matches!(self.record.state().exit_code, 126 | 127) && self.monitor.is_none();
        if failed && self.record.auto_remove() && self.status() == Status::Exited {
            return if self.remove(true).is_ok() { Flow::End } else { Flow::On };
        }
        Flow::On
    }
}

async fn prepare(engine: &Engine, id: &str, spec: &ContainerSpec) -> Result<PrepareResponse, RuntimeError> {
    let call = |channel| async move {
        let request = PrepareRequest {
            key: id.to_owned(),
            image: spec.image.clone(),
            labels: [("davit.owner".to_owned(), "runtimed".to_owned())].into(),
            read_only: false,
        };
        snapshots(channel).prepare(request).await
    };
    engine.peers.storage.call(call).await
}

async fn mounts(engine: &Engine, id: &str) -> Result<PrepareResponse, RuntimeError> {
    let call = |channel| async move { snapshots(channel).mounts(MountsRequest { key: id.to_owned() }).await };
    engine.peers.storage.call(call).await
}
