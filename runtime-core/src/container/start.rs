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
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use davit_contracts::network::{AttachResponse, EndpointSpec, ResolvConf};
use davit_contracts::runtime::{ContainerSpec, MountPoint};
use davit_contracts::storage::{MountsRequest, PrepareRequest, PrepareResponse};
use davit_wire::config::{CreateSpec, Mount as WireMount};
use davit_wire::{MonitorConfig, Reply, Request};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use tracing::Instrument as _;

use super::dirs::RunDir;
use super::record::ProcessRecord;
use super::state::{Ask, judge};
use super::task::{Flow, Task};
use super::{files, network, volumes};
use crate::clock::us;
use crate::config::BUILT_IN_RUNTIME;
use crate::engine::{Engine, make_private_dir};
use crate::error::{RuntimeError, io_error};
use crate::monitor::spawn::spawn;
use crate::peers::snapshots;
use crate::spec::build::{self, Source};
use crate::spec::check::{self, Network};
use crate::spec::user::{Database, Resolved};
use crate::spec::{merge, user};

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

/// Where the namespaces of a container come from.
struct Plan {
    network: Network,
    new_netns: bool,
    /// `container:` mode: that container's namespace and generated files.
    join: Option<(PathBuf, RunDir)>,
    pid: Source,
    ipc: Source,
    shm: Option<PathBuf>,
    uts: Source,
    cgroup: Source,
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
        judge(Ask::Start, self.status(), &self.record.container.name).map_err(RuntimeError::WrongState)?;
        if !self.teardown.is_done() {
            self.try_teardown().await;
        }
        if !self.teardown.is_done() {
            return Err(RuntimeError::WrongState(format!(
                "container {} still waits for what its last run left to be undone: see runtimed's log",
                self.record.container.name
            )));
        }
        let result = self.bring_up(hold, false).await;
        if let Err(e) = &result {
            self.abandon().await;
            self.start_failed(e);
        }
        result
    }

    /// The fast path of `davit run`: created and started in one go. A failure leaves everything to [`Task::discard`].
    pub async fn run_fresh(&mut self, hold: bool) -> Result<Started, RuntimeError> {
        self.bring_up(hold, true).await
    }

    /// Prepares the snapshot and volumes of a new container.
    pub async fn create(&mut self) -> Result<(), RuntimeError> {
        let spec = self.spec_of();
        make_private_dir(&self.directory())?;
        self.teardown.snapshot = true;
        let root = prepare(&self.engine, self.record.id(), &spec).await?;
        self.take_image(&root, &spec)?;
        self.record.volumes = volumes::wants_any(&spec, &self.record.image);
        self.record.container.mount_points =
            volumes::resolve(&self.engine.peers, self.record.id(), &spec, &self.record.image).await?;
        self.record.save(&self.directory())?;
        self.teardown.snapshot = false;
        Ok(())
    }

    async fn bring_up(&mut self, hold: bool, fresh: bool) -> Result<Started, RuntimeError> {
        let begun = Instant::now();
        let stages = Stages::default();
        let engine = Arc::clone(&self.engine);
        let spec = self.spec_of();
        let plan = self.plan(&spec)?;
        let run = engine.dirs.run_dir(self.record.id());
        let config = self.monitor_config(&spec, &plan)?;
        let program = engine.monitor_program()?;
        make_private_dir(&self.directory())?;
        make_private_dir(&run.rootfs())?;
        self.teardown.run_dir = true;
        self.teardown.snapshot = fresh;
        let id = self.record.id().to_owned();
        let (monitor, root) = tokio::join!(
            stages.time("monitor", spawn(&program, &run, &id, &config)),
            stages.time("storage", async {
                if fresh { prepare(&engine, &id, &spec).await } else { mounts(&engine, &id).await }
            }),
        );
        let root = match monitor {
            Ok(connected) => {
                self.monitor = Some(connected.into());
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
        let (user, attached) = self.wire_up(&spec, &plan, root, fresh, &stages).await?;
        let warnings = self.write_bundle(&spec, &plan, &user, attached.as_ref(), &run)?;
        stages.note("spec".into(), 0);
        let pid = self.create_and_start(hold, &stages).await?;
        self.teardown.run_dir = false;
        self.teardown.snapshot = false;
        let mut stage_us = stages.take();
        stage_us.extend(attached.into_iter().flat_map(|a| a.stage_us).map(|(k, v)| (format!("network.{k}"), v)));
        stage_us.insert("total".into(), us(begun.elapsed()));
        Ok(Started { stage_us, warnings, pid, socket: run.socket() })
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
                stages.time("network", network::attach(peers, &me.record, holder, specs, ports)).await.map(Some)
            },
            async {
                if !fresh || (spec.mounts.is_empty() && !me.record.volumes) {
                    return Ok(None);
                }
                let resolved = volumes::resolve(peers, me.record.id(), spec, &me.record.image);
                stages.time("volumes", resolved).await.map(Some)
            },
        );
        if let Ok(Some(points)) = &points {
            self.record.container.mount_points.clone_from(points);
        }
        let (user, attached, _) = (user?, attached?, points?);
        if let Some(a) = &attached {
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
        let mounts = root.mounts.into_iter().map(wire_mount).collect();
        stages.time("mount", self.request(Request::Mount(Box::new(CreateSpec { mounts })))).await?;
        let monitor = self.record.monitor.map_or(0, |m| m.pid);
        let run = self.engine.dirs.run_dir(self.record.id());
        let path = PathBuf::from(format!("/proc/{monitor}/root{}", run.rootfs().display()));
        let root = File::open(&path).map_err(io_error("open the container's root at", &path))?;
        ensure_dir(root.as_fd(), &self.record.container.working_dir);
        let add = spec.security.as_ref().map(|s| s.group_add.clone()).unwrap_or_default();
        user::resolve(&self.record.container.user, &add, &Database::read(root.as_fd()))
    }

    async fn create_and_start(&mut self, hold: bool, stages: &Stages) -> Result<i32, RuntimeError> {
        self.record.held = hold;
        let record = self.record.clone();
        let directory = self.directory();
        let saved = tokio::task::spawn_blocking(move || record.save(&directory));
        let (created, saved) = tokio::join!(
            stages.time("create", self.request(Request::Create(Box::default()))),
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
        let started = stages.time("start", self.request(Request::Start { hold_for_attach: hold })).await?;
        let Reply::Started { pid: running } = started else {
            return Err(self.out_of_turn());
        };
        if running > 0 {
            self.running(pid, 0);
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
    fn take_image(&mut self, root: &PrepareResponse, spec: &ContainerSpec) -> Result<(), RuntimeError> {
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
        self.record.prepared = true;
        Ok(())
    }

    fn monitor_config(&self, spec: &ContainerSpec, plan: &Plan) -> Result<MonitorConfig, RuntimeError> {
        let id = self.record.id();
        let (_, runtime) = self.engine.config.runtime(&spec.runtime)?;
        Ok(MonitorConfig {
            container_id: id.to_owned(),
            new_netns: plan.new_netns,
            netns: plan.join.as_ref().map(|(path, _)| path.clone()),
            state_dir: self.directory(),
            ephemeral: spec.auto_remove,
            tty: spec.tty,
            open_stdin: spec.open_stdin,
            stdin_once: spec.stdin_once,
            log: check::log_sink(spec, &self.engine.config.log, &self.engine.dirs.log(id))?,
            runtime,
        })
    }

    /// Writes /etc's files and the OCI configuration.
    fn write_bundle(
        &mut self,
        spec: &ContainerSpec,
        plan: &Plan,
        user: &Resolved,
        attached: Option<&AttachResponse>,
        run: &RunDir,
    ) -> Result<Vec<String>, RuntimeError> {
        let etc = match &plan.join {
            Some((_, other)) => other.path().to_owned(),
            None => {
                self.write_etc(spec, plan, attached, run)?;
                run.path().to_owned()
            }
        };
        let monitor = self.record.monitor.map_or(0, |m| m.pid);
        let net = match plan.network {
            Network::Host => Source::Host,
            _ => Source::Path(format!("/proc/{monitor}/ns/net").into()),
        };
        let c = &mut self.record.container;
        if !merge::has(&c.env, "HOME") {
            c.env.push(format!("HOME={}", user.home));
        }
        let program = merge::Program {
            argv: c.argv.clone(),
            env: c.env.clone(),
            cwd: c.working_dir.clone(),
            user: c.user.clone(),
        };
        let points: &[MountPoint] = &c.mount_points;
        let input = build::Input {
            id: &c.id,
            spec,
            program: &program,
            user: user.user.clone(),
            hostname: &c.hostname,
            points,
            files: &etc,
            net,
            pid: plan.pid.clone(),
            ipc: plan.ipc.clone(),
            uts: plan.uts.clone(),
            cgroup: plan.cgroup.clone(),
            shm: plan.shm.clone(),
            plain_sysctls: c.runtime != BUILT_IN_RUNTIME,
            host: &self.engine.host,
        };
        let (config, warnings) = build::config(&input)?;
        let path = run.bundle().join("config.json");
        let json = serde_json::to_vec(&config).expect("plain structs always serialise");
        std::fs::write(&path, json).map_err(io_error("write", &path))?;
        Ok(warnings)
    }

    fn write_etc(
        &self,
        spec: &ContainerSpec,
        plan: &Plan,
        attached: Option<&AttachResponse>,
        run: &RunDir,
    ) -> Result<(), RuntimeError> {
        let hostname = &self.record.container.hostname;
        let endpoints = attached.map(|a| a.endpoints.as_slice()).unwrap_or_default();
        let mut hosts = files::hosts(&files::Hosts {
            hostname,
            domainname: &spec.domainname,
            endpoints,
            extra: &spec.extra_hosts,
        });
        if plan.network == Network::Host {
            hosts = files::of_host("/etc/hosts");
            files::append_extra(&mut hosts, &spec.extra_hosts);
        }
        let resolv = match attached.and_then(|a| a.resolv_conf.clone()) {
            Some(conf) => files::resolv_conf(&conf),
            None => own_resolv_conf(spec),
        };
        files::write(run.path(), hostname, &hosts, &resolv)
    }

    fn plan(&self, spec: &ContainerSpec) -> Result<Plan, RuntimeError> {
        let network = check::network(spec)?;
        let ns = spec.namespaces.clone().unwrap_or_default();
        let simple = |mode: &str| if mode == "host" { Source::Host } else { Source::New };
        let join = match &network {
            Network::Container(name) => {
                let (pid, id) = self.living(name, "network")?;
                Some((PathBuf::from(format!("/proc/{pid}/ns/net")), self.engine.dirs.run_dir(&id)))
            }
            _ => None,
        };
        let shared = |mode: &str, kind: &str| match mode.strip_prefix("container:") {
            Some(name) => self.living(name, kind).map(|(pid, _)| (Source::Path(format!("/proc/{pid}/ns/{kind}").into()), Some(pid))),
            None => Ok((simple(mode), None)),
        };
        let (pid, _) = shared(&ns.pid, "pid")?;
        let (ipc, ipc_of) = shared(&ns.ipc, "ipc")?;
        let shm = match (&ipc, ipc_of) {
            (_, Some(pid)) => Some(PathBuf::from(format!("/proc/{pid}/root/dev/shm"))),
            (Source::Host, None) => Some(PathBuf::from("/dev/shm")),
            _ => None,
        };
        let new_netns = matches!(network, Network::Endpoints(_) | Network::None);
        Ok(Plan { network, new_netns, join, pid, ipc, shm, uts: simple(&ns.uts), cgroup: simple(&ns.cgroup) })
    }

    /// The first process and the id of another container that must run.
    fn living(&self, name: &str, what: &str) -> Result<(i32, String), RuntimeError> {
        let other = self.engine.registry.find(name)?;
        let view = other.view();
        match view.record.process {
            Some(p) if view.status().is_alive() && other.id != self.record.id() => Ok((p.pid, other.id)),
            _ => Err(RuntimeError::WrongState(format!(
                "cannot join the {what} namespace of a container that is not running: {name}"
            ))),
        }
    }

    /// Undoes a start that failed; what cannot be undone now is tried again by the task.
    pub(super) async fn abandon(&mut self) {
        self.teardown.monitor = self.monitor.take();
        self.teardown.detach |= self.record.attached;
        self.record.held = false;
        self.record.process = None;
        self.record.container.endpoints.clear();
        self.record.container.ports.clear();
        self.try_teardown().await;
    }

    /// Enters a failed start: a program that cannot be run counts as one that ended.
    fn start_failed(&mut self, error: &RuntimeError) {
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
    pub(super) async fn after_failed_start(&mut self) -> Flow {
        let failed = matches!(self.record.state().exit_code, 126 | 127) && self.monitor.is_none();
        if failed && self.record.auto_remove() && self.status() == super::state::Status::Exited {
            return if self.remove(true).await.is_ok() { Flow::End } else { Flow::On };
        }
        Flow::On
    }

    /// Ends a run that failed before anybody saw the container. True: the container stays, exited, because its program could not be run.
    pub async fn discard(&mut self, error: &RuntimeError) -> bool {
        let keep = error.command_exit_code().is_some() && !self.record.auto_remove() && self.record.prepared;
        if keep {
            self.teardown.snapshot = false;
        } else {
            self.teardown.snapshot = true;
            self.teardown.release = self.record.volumes.then_some(true);
            self.teardown.directory = Some(self.directory());
        }
        self.abandon().await;
        if keep {
            self.start_failed(error);
        }
        keep
    }
}

fn own_resolv_conf(spec: &ContainerSpec) -> String {
    let asked = spec.network.clone().unwrap_or_default();
    if asked.dns.is_empty() && asked.dns_search.is_empty() && asked.dns_options.is_empty() {
        return files::of_host("/etc/resolv.conf");
    }
    files::resolv_conf(&ResolvConf { nameservers: asked.dns, search: asked.dns_search, options: asked.dns_options })
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

fn wire_mount(m: davit_contracts::storage::Mount) -> WireMount {
    WireMount { r#type: m.r#type, source: m.source, options: m.options, target: m.target }
}

/// Makes the working directory inside the root where it is missing, as docker does. A failure shows when the program is started.
fn ensure_dir(root: BorrowedFd<'_>, path: &str) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if path == "/" || openat2(root, path, flags, Mode::empty(), resolve).is_ok() {
        return;
    }
    let Ok(mut parent) = openat2(root, ".", flags, Mode::empty(), resolve) else { return };
    let mut reached = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        reached = format!("{reached}/{part}");
        parent = match openat2(root, reached.as_str(), flags, Mode::empty(), resolve) {
            Ok(fd) => fd,
            Err(_) if mkdirat(&parent, part, Mode::from_raw_mode(0o755)).is_ok() => {
                let Ok(fd) = openat2(root, reached.as_str(), flags, Mode::empty(), resolve) else { return };
                fd
            }
            Err(_) => return,
        };
    }
}

/// The endpoints that a spec asks for, to check them before a container is created.
pub fn endpoints_of(spec: &ContainerSpec) -> Result<Vec<EndpointSpec>, RuntimeError> {
    Ok(match check::network(spec)? {
        Network::Endpoints(list) => list,
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_working_directory_is_made_beneath_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/real", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("escape")).unwrap();
        let root = File::open(dir.path()).unwrap();
        ensure_dir(root.as_fd(), "/link/a/b");
        assert!(dir.path().join("real/a/b").is_dir());
        ensure_dir(root.as_fd(), "/escape/x");
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none(), "nothing is made outside");
    }
}
