//! The runner's side of a creation: from the config to a first process that waits for start.
//!
//! The clone happens as early as possible; while the child mounts, this side makes the cgroups and writes the records. Whatever fails,
//! [`Undo`] kills the child and removes cgroups and state, so that nothing is left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use davit_sys::fork::{self, Cloned, channel::Channel};
use davit_sys::process::ProcessRef;
use nix::sched::CloneFlags;

use crate::cgroup::{self, Placement};
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::init::{Gate, Init};
use crate::message::{self, Message};
use crate::rootfs;
use crate::seccomp::{self, Filter};
use crate::spec::{Hooks, NamespaceKind, Spec};
use crate::state::{State, StateDir, clock};

pub mod identity;
pub mod namespaces;
pub mod undo;

use undo::Undo;

/// A container whose first process waits.
#[derive(Debug)]
pub struct Launched {
    /// Its record, saved.
    pub state: State,
    /// Its directory.
    pub dir: StateDir,
    /// To the first process.
    pub channel: Channel,
    /// The first process.
    pub pidfd: OwnedFd,
}

/// Reads and checks a bundle's config.
pub fn load_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
    let spec: Spec = crate::error::parse_json(&path, &text)?;
    check(&spec)?;
    Ok(spec)
}

fn check(spec: &Spec) -> Result<()> {
    if !spec.oci_version.starts_with("1.") {
        return Err(Error::Config(format!(
            "ociVersion {:?}: this runtime follows version 1",
            spec.oci_version
        )));
    }
    if spec.root.is_none() {
        return Err(Error::Config("root is missing".into()));
    }
    let process = spec.process.as_ref().ok_or_else(|| Error::Config("process is missing".into()))?;
    if process.args.is_empty() {
        return Err(Error::Config("process.args must not be empty".into()));
    }
    if !process.cwd.is_absolute() {
        return Err(Error::Config(format!(
            "process.cwd \"{}\" must be an absolute path",
            process.cwd.display()
        )));
    }
    if !spec.linux.makes(NamespaceKind::Mount) {
        return Err(Error::Config("linux.namespaces needs a new mount namespace".into()));
    }
    crate::program::scheduling::check(process)?;
    spec.linux.personality.as_ref().map(crate::program::scheduling::domain).transpose()?;
    if spec.linux.makes(NamespaceKind::User) && spec.linux.uid_mappings.is_empty() {
        return Err(Error::Config("a new user namespace needs uidMappings and gidMappings".into()));
    }
    Ok(())
}

struct Prepared {
    dir: StateDir,
    spec: Spec,
    plan: rootfs::Plan,
    cgroups: Placement,
    filter: Option<Filter>,
    state: State,
    console: Option<OwnedFd>,
    listener: Option<OwnedFd>,
}

/// Creates a container. `wait_on_socket`: its program waits for the `start` command; otherwise for [`Launched::start`].
pub fn launch(root: &Path, create: &cli::Create, wait_on_socket: bool) -> Result<Launched> {
    let bundle =
        create.bundle.canonicalize().context(|| format!("find the bundle {}", create.bundle.display()))?;
    let spec = load_spec(&bundle)?;
    let dir = StateDir::create(root, &create.id)?;
    let mut undo = Undo::of(&dir);
    let launched =
        prepare(create, bundle, spec, dir).and_then(|p| start_init(p, create, wait_on_socket, &mut undo));
    match launched {
        Ok(launched) => {
            undo.disarm();
            Ok(launched)
        }
        Err(e) => Err(e),
    }
}

fn prepare(create: &cli::Create, bundle: PathBuf, spec: Spec, dir: StateDir) -> Result<Prepared> {
    let terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
    let console = match (&create.console_socket, terminal) {
        (Some(path), true) => Some(connect(path)?),
        (None, true) => {
            return Err(Error::Config(
                "process.terminal is set: name a --console-socket that gets the terminal".into(),
            ));
        }
        _ => None,
    };
    let has_userns = spec.linux.has(NamespaceKind::User);
    let mut plan = rootfs::plan(&spec, &bundle, has_userns || identity::is_nested())?;
    plan.clone_sources(&spec.linux)?;
    let (filter, listener) = match &spec.linux.seccomp {
        Some(profile) if !profile.default_action.is_empty() => {
            (Some(seccomp::compile(profile)?), profile.listener_path.as_deref().map(connect).transpose()?)
        }
        _ => (None, None),
    };
    if let Some(filter) = &filter {
        seccomp::save(filter, &dir.seccomp_file())?;
    }
    let unified = spec.mounts.iter().any(|m| m.kind == "cgroup2");
    let cgroups = cgroup::plan(&spec.linux.cgroups_path, &create.id, spec.linux.resources.as_ref(), unified)?;
    let state = State {
        oci_version: spec.oci_version.clone(),
        id: create.id.clone(),
        pid: 0,
        start_time: 0,
        bundle,
        rootfs: plan.root.clone(),
        created: clock::now(),
        owner: nix::unistd::geteuid().as_raw(),
        annotations: spec.annotations.clone(),
        cgroups: Placement::default(),
        process: spec.process.clone().unwrap_or_default(),
        hooks: spec.hooks.clone().unwrap_or_default(),
        seccomp_flags: filter.as_ref().map_or(0, |f| f.flags),
        own_pid_namespace: spec.linux.makes(NamespaceKind::Pid),
    };
    Ok(Prepared { dir, spec, plan, cgroups, filter, state, console, listener })
}

fn start_init(
    mut p: Prepared,
    create: &cli::Create,
    wait_on_socket: bool,
    undo: &mut Undo,
) -> Result<Launched> {
    let resources = p.spec.linux.resources.clone();
    let gate = if wait_on_socket { Gate::Socket(listen(&p.dir)?) } else { Gate::Runner };
    // v2: the child is born in its cgroup. v1: it walks in later, and the directories are made while it mounts.
    let only_v2 = p.cgroups.unified().is_some() && p.cgroups.joined.len() == 1;
    let mut entries = None;
    if only_v2 {
        undo.cgroups(&p.cgroups);
        entries = Some(p.cgroups.make(resources.as_ref())?);
    }
    let born_in =
        p.cgroups.unified().filter(|_| only_v2).and_then(|g| std::fs::File::open(&g.directory).ok());
    let (ours, theirs) = Channel::pair().context(|| "make a channel to the first process")?;
    if let Some(map) = p.spec.linux.uid_mappings.iter().find(|m| m.container_id == 0) {
        // Root of the container shall be able to open /dev/stdout, and to give it to its user.
        crate::program::stdio::own(map.host_id);
    }
    let before = namespaces::join_before_clone(&p.spec)?;
    let flags = namespaces::clone_flags(&p.spec);
    let (pid, pidfd) = match clone(&p.spec, flags, born_in.as_ref())? {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => {
            drop(ours);
            drop(before);
            let state_json = p.state.oci_json("creating", std::process::id() as i32);
            Init {
                id: &create.id,
                spec: &p.spec,
                plan: &p.plan,
                filter: p.filter.as_ref(),
                channel: theirs,
                console: p.console.take(),
                listener: p.listener.take(),
                gate,
                no_pivot: create.no_pivot,
                preserve_fds: create.preserve_fds,
                keep_keyring: create.no_new_keyring,
                state_json,
            }
            .run()
        }
    };
    drop((theirs, gate, p.console.take(), p.listener.take()));
    undo.process(pid, &pidfd);
    before.restore(&p.spec)?;
    if p.spec.linux.makes(NamespaceKind::User) {
        identity::map(pid, &p.spec.linux)?;
        tell(&ours, &Message::Mapped, &[])?;
    }
    let entries = if let Some(made) = entries {
        made
    } else {
        undo.cgroups(&p.cgroups);
        p.cgroups.make(resources.as_ref())?
    };
    let json = serde_json::to_vec(&p.cgroups)
        .map_err(|source| Error::Json { path: "the cgroups".into(), source })?;
    let doors: Vec<_> = entries.iter().map(AsFd::as_fd).collect();
    tell(&ours, &Message::Cgroups(json), &doors)?;
    p.state.pid = pid;
    p.state.start_time = ProcessRef::of(pid).map_err(|_| Error::Vanished)?.start_time;
    p.state.cgroups = p.cgroups;
    p.dir.save(&p.state)?;
    wait_until_ready(&ours, &p.state)?;
    if let Some(file) = &create.pid_file {
        crate::state::write_atomically(file, pid.to_string().as_bytes())?;
    }
    Ok(Launched { state: p.state, dir: p.dir, channel: ours, pidfd })
}

/// Sends to the first process; if it has given up meanwhile, what it said is the error.
fn tell(channel: &Channel, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
    message::send(channel, message, fds).or_else(|e| match message::receive(channel)? {
        Some((Message::Failed(text), _)) => Err(Error::Inside(text)),
        _ => Err(e),
    })
}

fn clone(spec: &Spec, flags: CloneFlags, cgroup: Option<&std::fs::File>) -> Result<Cloned> {
    if let Some(path) = spec.linux.joins(NamespaceKind::User) {
        return namespaces::clone_in_user_namespace(path, flags);
    }
    match fork::clone_process(flags, cgroup.map(AsFd::as_fd)) {
        // A cgroup that cannot be born into can perhaps be entered.
        Err(_) if cgroup.is_some() => Ok(fork::clone_process(flags, None)?),
        other => Ok(other?),
    }
}

fn wait_until_ready(channel: &Channel, state: &State) -> Result<()> {
    loop {
        match message::receive(channel)? {
            Some((Message::Ready, _)) => return Ok(()),
            Some((Message::NamespacesReady, _)) => {
                let json = state.oci_json("creating", state.pid);
                let Hooks { prestart, create_runtime, .. } = &state.hooks;
                hooks::run(prestart, &json)?;
                hooks::run(create_runtime, &json)?;
                tell(channel, &Message::GoOn, &[])?;
            }
            Some((Message::Failed(text), _)) => return Err(Error::Inside(text)),
            _ => return Err(Error::Vanished),
        }
    }
}

impl Launched {
    /// Lets the program of a `run` start; returns when it runs.
    pub fn start(&self) -> Result<()> {
        start_over(&self.channel)
    }
}

/// Says start and waits until the program runs: the channel closes when it is exec'd.
pub fn start_over(channel: &Channel) -> Result<()> {
    message::send(channel, &Message::Start, &[])?;
    until_exec(channel)
}

/// Waits for the close that exec makes, or the report of a failure.
pub fn until_exec(channel: &Channel) -> Result<()> {
    match message::receive(channel)? {
        None => Ok(()),
        Some((Message::Failed(text), _)) => Err(Error::Inside(text)),
        Some(_) => Err(Error::Vanished),
    }
}

/// Connects to a unix socket of any path length: through the descriptor of its directory.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let (_directory, short) = undo::short_path(path)?;
    let stream = UnixStream::connect(&short).context(|| format!("connect to {}", path.display()))?;
    Ok(stream.into())
}

fn listen(dir: &StateDir) -> Result<UnixListener> {
    let path = dir.exec_socket();
    let (_directory, short) = undo::short_path(&path)?;
    UnixListener::bind(&short).context(|| format!("listen at {}", path.display()))
}
