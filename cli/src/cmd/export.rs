//! `davit export`, and how a container's files are named to storaged.

use davit_contracts::runtime::{Container, InspectRequest};
use davit_contracts::storage::{ExportRequest, Mount, Tree};
use davit_contracts::{Error, Kind};

use super::save;
use crate::app::App;
use crate::args::tree::ExportArgs;
use crate::error::{Failure, Outcome};

/// `davit export`
pub async fn export(app: &App, args: &ExportArgs) -> Outcome {
    save::refuse_terminal(args.output.as_deref())?;
    let container = find(app, &args.container).await?;
    let (pid, pid_start_ticks) = process(app, &container).await?;
    let tree = Tree { snapshot_key: container.id, pid, pid_start_ticks, ..Tree::default() };
    let stream = app.storage(app.snapshots().await?.export(ExportRequest { tree: Some(tree) })).await?;
    save::to_output(app, stream, args.output.as_deref()).await
}

/// The container of a name or id.
pub async fn find(app: &App, name: &str) -> Outcome<Container> {
    let request = InspectRequest { container: name.to_owned() };
    let answer = app.runtime(app.containers().await?.inspect(request)).await?;
    answer.container.ok_or_else(|| Failure::new(Kind::Internal, "davit-runtimed answered no container"))
}

/// A container's files as its program sees them, with what is mounted in them.
pub async fn tree(app: &App, container: &Container) -> Outcome<Tree> {
    let (pid, pid_start_ticks) = process(app, container).await?;
    let mut tree = Tree { snapshot_key: container.id.clone(), pid, pid_start_ticks, ..Tree::default() };
    if pid > 0 {
        return Ok(tree);
    }
    let read_only = |ro: bool| if ro { vec!["ro".to_owned()] } else { Vec::new() };
    let mounted = |point: &&davit_contracts::runtime::MountPoint| point.r#type != "tmpfs";
    tree.mounts = container
        .mount_points
        .iter()
        .filter(mounted)
        .map(|point| Mount {
            r#type: "bind".into(),
            source: point.source.clone(),
            options: read_only(!point.rw),
            target: point.target.clone(),
        })
        .collect();
    if container.spec.as_ref().is_some_and(|s| s.read_only) {
        tree.mounts.push(Mount { target: "/".into(), options: read_only(true), ..Mount::default() });
    }
    Ok(tree)
}

/// The container's first process and its start time; zeros when it does not run.
pub async fn process(app: &App, container: &Container) -> Outcome<(i32, u64)> {
    let pid = pid_of(container);
    if pid > 0 {
        let ticks = start_ticks(pid);
        // The same process before and after: its start time is that of no other.
        let again = find(app, &container.id).await?;
        if pid_of(&again) == pid {
            return Ok((pid, ticks));
        }
    }
    Ok((0, 0))
}

fn pid_of(container: &Container) -> i32 {
    container.state.as_ref().map_or(0, |s| s.pid)
}

/// Field 22 of /proc/PID/stat; 0 when it cannot be read. The name in field 2 may hold anything.
fn start_ticks(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = text.rfind(')').map_or("", |at| &text[at + 1..]);
    rest.split_whitespace().nth(19).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A daemon knows a container by its id; the person by the name that was typed.
pub fn named(failure: Failure, container: &Container, typed: &str) -> Failure {
    match failure {
        Failure::Told(e) if e.message().contains(&container.id) => {
            Error::new(e.kind(), e.message().replace(&container.id, typed)).with_hint(e.hint()).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_a_start_time() {
        assert!(super::start_ticks(std::process::id() as i32) > 0);
        assert_eq!(super::start_ticks(-1), 0);
    }
}
