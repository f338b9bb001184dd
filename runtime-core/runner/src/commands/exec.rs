//! exec: another process in a running container.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use davit_sys::cgroup::Entry;
use davit_sys::fork::{self, Cloned, channel::Channel};
use davit_sys::process::ProcessRef;
use nix::sched::CloneFlags;

use super::foreground::{Foreground, Terminal};
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::init::kernel;
use crate::launch::{self, identity};
use crate::message::{self, Message};
use crate::program::{Program, scheduling, scheduling::bind, stdio};
use crate::seccomp::{self, Filter};
use crate::spec::{NamespaceKind, Process};
use crate::state::{State, StateDir, Status};

/// Runs it; gives its exit code (0 when detached).
pub fn exec(root: &Path, exec: &cli::Exec) -> Result<i32> {
    let dir = StateDir::at(root, &exec.id);
    let state = dir.load()?;
    match dir.status(&state) {
        Status::Running | Status::Created => {}
        status => {
            return Err(Error::Status { operation: "exec in", id: exec.id.clone(), status: status.as_str() });
        }
    }
    let process = process(exec, &state)?;
    let filter = seccomp::load(&dir.seccomp_file(), state.seccomp_flags)?;
    if exec.detach {
        return enter(exec, &state, &process, filter.as_ref(), exec.console_socket.as_deref()).map(|_| 0);
    }
    let foreground = Foreground::block_signals()?;
    let own_terminal =
        if process.terminal && exec.console_socket.is_none() { Some(Terminal::new()?) } else { None };
    let socket = own_terminal.as_ref().map(|t| t.socket.as_path()).or(exec.console_socket.as_deref());
    let (pid, pidfd) = enter(exec, &state, &process, filter.as_ref(), socket)?;
    foreground.wait(pid, &pidfd, own_terminal)
}

/// From the file, or the container's own with what the options change.
fn process(exec: &cli::Exec, state: &State) -> Result<Process> {
    let mut p = match &exec.process {
        Some(path) => {
            let text = fs::read(path).context(|| format!("read {}", path.display()))?;
            crate::error::parse_json(path, &text)?
        }
        None => Process { args: exec.args.clone(), terminal: exec.tty, ..state.process.clone() },
    };
    if exec.process.is_some() {
        p.terminal |= exec.tty;
        scheduling::check(&p)?;
        return if p.args.is_empty() {
            Err(Error::Config("process.args must not be empty".into()))
        } else {
            Ok(p)
        };
    }
    if let Some(user) = &exec.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        p.user.uid = cli::options::number("user", uid)?;
        p.user.gid = if gid.is_empty() { p.user.gid } else { cli::options::number("user", gid)? };
        p.env.retain(|e| !e.starts_with("HOME="));
    }
    p.user.additional_gids.extend(&exec.additional_gids);
    p.env.extend(exec.env.iter().cloned());
    if let Some(cwd) = &exec.cwd {
        p.cwd.clone_from(cwd);
    }
    if !exec.caps.is_empty() {
        let caps = p.capabilities.get_or_insert_default();
        for list in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            list.extend(exec.caps.iter().cloned());
        }
    }
    p.no_new_privileges |= exec.no_new_privs;
    if let Some(profile) = &exec.apparmor {
        p.apparmor_profile.clone_from(profile);
    }
    Ok(p)
}

/// Which namespaces of the container are not ours.
fn foreign_namespaces(pid: i32) -> CloneFlags {
    let inode = |who: &str, kind: NamespaceKind| {
        fs::metadata(format!("/proc/{who}/ns/{}", kind.file())).map(|m| m.ino()).ok()
    };
    let target = pid.to_string();
    NamespaceKind::ALL
        .into_iter()
        .filter(|k| inode("self", *k) != inode(&target, *k))
        .map(NamespaceKind::flag)
        .collect()
}

fn enter(
    exec: &cli::Exec,
    state: &State,
    process: &Process,
    filter: Option<&Filter>,
    console: Option<&Path>,
) -> Result<(i32, OwnedFd)> {
    let first = ProcessRef { pid: state.pid, start_time: state.start_time };
    let gone = |_| Error::Status { operation: "exec in", id: exec.id.clone(), status: "stopped" };
    let target = first.pidfd().map_err(gone)?;
    let flags = foreign_namespaces(state.pid);
    let landlock = crate::program::landlock::rules(&state.annotations)?;
    let console = match (process.terminal, console) {
        (true, Some(path)) => Some(launch::connect(path)?),
        (true, None) => {
            return Err(Error::Usage("exec --detach with a terminal needs --console-socket".into()));
        }
        _ => None,
    };
    let doors = state
        .cgroups
        .joined
        .iter()
        .map(|g| Entry::open(&g.directory, g.version()))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(score) = process.oom_score_adj {
        kernel::set_oom_score(score)?;
    }
    // Processes of the container see the child from its first moment on: nothing of the runner may be reached through it.
    fork::set_undumpable().context(|| "hide the runner's memory")?;
    let (ours, theirs) = Channel::pair().context(|| "make a channel")?;
    let pid_flag = flags & CloneFlags::CLONE_NEWPID;
    if !pid_flag.is_empty() && !flags.contains(CloneFlags::CLONE_NEWUSER) {
        fork::setns(target.as_fd(), pid_flag).context(|| "join the container's pid namespace")?;
    }
    let user = flags.contains(CloneFlags::CLONE_NEWUSER);
    if user {
        stdio::own(identity::root_of(state.pid));
    }
    let (pid, pidfd) = match clone_into(&target, flags, user)? {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => {
            drop(ours);
            let rest = if user { CloneFlags::empty() } else { flags - CloneFlags::CLONE_NEWPID };
            let mut program = Program::new(process, filter, exec.preserve_fds);
            program.landlock = landlock;
            let error = become_member(&target, rest, doors, &exec.id, program, console);
            let _ = message::send(&theirs, &Message::Failed(error.chain()), &[]);
            std::process::exit(1)
        }
    };
    drop((theirs, doors, console));
    if let Some(file) = &exec.pid_file {
        crate::state::write_atomically(file, pid.to_string().as_bytes())?;
    }
    if let Err(e) = launch::until_exec(&ours) {
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        return Err(e);
    }
    Ok((pid, pidfd))
}

/// With a user namespace all namespaces are joined by a middle process, whose child (a sibling of its own) is then inside all of them.
fn clone_into(target: &OwnedFd, flags: CloneFlags, user: bool) -> Result<Cloned> {
    if !user {
        return Ok(fork::clone_process(CloneFlags::empty(), None)?);
    }
    launch::namespaces::clone_through(
        || fork::setns(target.as_fd(), flags).context(|| "join the container's namespaces"),
        CloneFlags::empty(),
    )
}

fn become_member(
    target: &OwnedFd,
    flags: CloneFlags,
    doors: Vec<Entry>,
    id: &str,
    mut program: Program<'_>,
    console: Option<OwnedFd>,
) -> Error {
    let process = program.process;
    let prepared = (|| {
        for door in doors {
            door.join().context(|| "join the container's cgroup")?;
        }
        if let Some(affinity) = &process.exec_cpu_affinity {
            bind("process.execCPUAffinity.initial", &affinity.initial)?;
        }
        if !flags.is_empty() {
            fork::setns(target.as_fd(), flags).context(|| "join the container's namespaces")?;
        }
        nix::unistd::setsid().context(|| "lead a session")?;
        // The keyring of the runner's session is the engine's: it must not come along. Who may not make one gets none of ours either.
        let name = std::ffi::CString::new(format!("_ses.{id}")).expect("ids hold no NUL");
        fork::new_session_keyring(&name).context(|| "make a session keyring")?;
        if let Some(socket) = console {
            let root: OwnedFd = File::open("/").context(|| "open the container's root")?.into();
            stdio::Terminal::open(&root, process.console_size)?.take(socket)?;
        }
        program.open_label()?;
        let assumed = program.assume()?;
        if let Some(affinity) = &process.exec_cpu_affinity {
            bind("process.execCPUAffinity.final", &affinity.last)?;
        }
        Ok(assumed)
    })();
    match prepared {
        Ok(assumed) => program.run(assumed),
        Err(e) => e,
    }
}
