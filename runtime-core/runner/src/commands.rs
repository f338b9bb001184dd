//! The commands, one function each.

use std::io::Write;

use crate::cli::{Command, Global, Invocation};
use crate::error::{Context, Error, Result};

pub mod control;
pub mod events;
pub mod exec;
pub mod features;
pub mod foreground;
pub mod lifecycle;
pub mod show;
pub mod signals;
pub mod update;

/// Does what was asked; gives the exit code.
pub fn run(invocation: &Invocation) -> Result<i32> {
    let Global { root, systemd_cgroup, .. } = &invocation.global;
    let makes = matches!(invocation.command, Command::Create(_) | Command::Run { .. });
    if *systemd_cgroup && makes {
        return Err(Error::Usage(
            "--systemd-cgroup: this runtime writes cgroups itself; configure the engine for the cgroupfs driver".into(),
        ));
    }
    match &invocation.command {
        Command::Create(create) => lifecycle::create(root, create),
        Command::Start { id } => lifecycle::start(root, id),
        Command::Run { create, detach, keep } => return lifecycle::run(root, create, *detach, *keep),
        Command::Delete { ids, force } => ids.iter().try_for_each(|id| lifecycle::delete(root, id, *force)),
        Command::Kill { id, signal, all } => control::kill(root, id, signal, *all),
        Command::Pause { id } => control::pause(root, id),
        Command::Resume { id } => control::resume(root, id),
        Command::Update(update) => update::update(root, update),
        Command::Exec(exec) => return exec::exec(root, exec),
        Command::State { id } => show::state(root, id),
        Command::Ps { id, json, args } => show::ps(root, id, *json, args),
        Command::List { json, quiet } => show::list(root, *json, *quiet),
        Command::Spec { bundle, rootless } => show::spec(bundle, *rootless),
        Command::Events { id, once, interval } => events::events(root, id, *once, *interval),
        Command::Features => features::print(),
        Command::Print(text) => print(text),
    }
    .map(|()| 0)
}

/// Writes to stdout; a closed pipe is an error like any other.
pub fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context(|| "write to stdout")
}
