//! Exec sessions: more programs inside a running container.
//!
//! Sessions live in memory; the monitor runs them, so a session goes on without us and is found again by its id when a new runtimed adopts
//! the container. Ended sessions are remembered until their container ends or a thousand newer ones exist.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use davit_contracts::id::ExecId;
use davit_contracts::runtime::{ExecCreateRequest, ExecInspectResponse};
use davit_wire::ExecSpec;

use crate::container::handle::Command;
use crate::container::record::Record;
use crate::container::state::{Ask, judge};
use crate::engine::Engine;
use crate::error::{RuntimeError, io_error};
use crate::spec::oci::{ConsoleSize, Process};
use crate::spec::user::{Database, resolve};
use crate::spec::{build, caps, merge, resources, security};

const KEPT: usize = 1000;

/// All sessions.
#[derive(Debug, Default)]
pub struct Execs {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: BTreeMap<String, Session>,
    ended: VecDeque<String>,
}

#[derive(Debug, Clone, Default)]
struct Session {
    container: String,
    request: ExecCreateRequest,
    phase: Phase,
    pid: i32,
    exit_code: i32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Created,
    Running,
    Ended,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, id: &str) -> Result<Session, RuntimeError> {
        self.lock().sessions.get(id).cloned().ok_or_else(|| RuntimeError::NoExec(id.to_owned()))
    }

    /// The sessions of a container that have not ended.
    pub fn running(&self, container: &str) -> Vec<String> {
        let inner = self.lock();
        let of = inner.sessions.iter().filter(|(_, s)| s.container == container && s.phase != Phase::Ended);
        of.map(|(id, _)| id.clone()).collect()
    }

    /// What a session runs, as one line; empty when an earlier runtimed made it.
    pub fn command(&self, id: &str) -> String {
        self.lock().sessions.get(id).map(|s| s.request.command.join(" ")).unwrap_or_default()
    }

    /// A session runs.
    pub fn started(&self, id: &str, pid: i32) {
        if let Some(s) = self.lock().sessions.get_mut(id)
            && s.phase != Phase::Ended
        {
            s.phase = Phase::Running;
            s.pid = pid;
        }
    }

    /// A session ended.
    pub fn ended(&self, id: &str, exit_code: i32) {
        let mut inner = self.lock();
        let Some(s) = inner.sessions.get_mut(id) else { return };
        s.phase = Phase::Ended;
        s.pid = 0;
        s.exit_code = exit_code;
        inner.ended.push_back(id.to_owned());
        if inner.ended.len() > KEPT
            && let Some(old) = inner.ended.pop_front()
        {
            inner.sessions.remove(&old);
        }
    }

    /// Sessions that a monitor runs and that an earlier runtimed made.
    pub fn adopt(&self, container: &str, running: &[String]) {
        let mut inner = self.lock();
        for id in running {
            let session =
                Session { container: container.to_owned(), phase: Phase::Running, ..Session::default() };
            inner.sessions.insert(id.clone(), session);
        }
    }

    /// A session that ended while no runtimed was there.
    pub fn adopt_ended(&self, container: &str, id: &str, exit_code: i32) {
        let session = Session { container: container.to_owned(), ..Session::default() };
        self.lock().sessions.insert(id.to_owned(), session);
        self.ended(id, exit_code);
    }

    /// Forgets the sessions of a container that ended, but for their results.
    pub fn container_ended(&self, container: &str) {
        let mut inner = self.lock();
        inner.sessions.retain(|_, s| s.container != container || s.phase == Phase::Ended);
    }
}

impl Engine {
    /// Notes a session; nothing runs.
    pub fn exec_create(&self, request: ExecCreateRequest) -> Result<String, RuntimeError> {
        let handle = self.registry.find(&request.container)?;
        let view = handle.view();
        judge(Ask::Exec, view.status(), &view.record.container.name).map_err(RuntimeError::WrongState)?;
        if request.command.first().is_none_or(String::is_empty) {
            return Err(RuntimeError::Invalid("no exec command specified".into()));
        }
        let id = ExecId::from_random(rand::random()).to_string();
        let action = format!("exec_create: {}", request.command.join(" "));
        self.emit_for(&view, &action, &[("execID", id.clone())]);
        let session = Session { container: handle.id.clone(), request, ..Session::default() };
        self.execs.lock().sessions.insert(id.clone(), session);
        Ok(id)
    }

    /// Runs a session; answers where to attach and its pid.
    pub async fn exec_start(&self, id: &str, hold: bool) -> Result<(PathBuf, i32), RuntimeError> {
        let session = self.execs.session(id)?;
        if session.phase != Phase::Created {
            return Err(RuntimeError::WrongState(format!(
                "exec {} has been started already",
                &id[..12.min(id.len())]
            )));
        }
        let handle = self.registry.find(&session.container)?;
        let view = handle.view();
        judge(Ask::Exec, view.status(), &view.record.container.name).map_err(RuntimeError::WrongState)?;
        let process = self.exec_process(&view.record, &session.request)?;
        let spec = ExecSpec {
            exec_id: id.to_owned(),
            process: serde_json::to_string(&process).expect("plain structs always serialise"),
            tty: session.request.tty,
            stdin: session.request.attach_stdin,
            hold_for_attach: hold,
        };
        let pid = handle.ask(|answer| Command::Exec { spec: Box::new(spec), answer }).await?;
        if pid > 0 {
            self.execs.started(id, pid);
        }
        Ok((self.dirs.run_dir(&handle.id).socket(), pid))
    }

    /// Where a session stands.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecInspectResponse, RuntimeError> {
        let s = self.execs.session(id)?;
        Ok(ExecInspectResponse {
            exec_id: id.to_owned(),
            container_id: s.container,
            running: s.phase == Phase::Running,
            exit_code: s.exit_code,
            pid: s.pid,
            command: s.request.command,
        })
    }

    /// The OCI process of a session: the container's own environment, directory, user and rights unless it asks otherwise.
    fn exec_process(&self, record: &Arc<Record>, asked: &ExecCreateRequest) -> Result<Process, RuntimeError> {
        let c = &record.container;
        let spec = c.spec.clone().unwrap_or_default();
        let pid = record.process.map_or(0, |p| p.pid);
        let path = PathBuf::from(format!("/proc/{pid}/root"));
        let root = File::open(&path).map_err(io_error("open the container's root at", &path))?;
        let user_text = if asked.user.is_empty() { &c.user } else { &asked.user };
        let add = spec.security.as_ref().map(|s| s.group_add.clone()).unwrap_or_default();
        let user = resolve(user_text, &add, &Database::read(root.as_fd()))?;
        let mut env: Vec<String> = c.env.clone();
        if !asked.user.is_empty() && !merge::has(&spec.env, "HOME") && !merge::has(&record.image.env, "HOME")
        {
            merge::set(&mut env, &format!("HOME={}", user.home));
        }
        if asked.tty && !merge::has(&env, "TERM") {
            env.push("TERM=xterm".into());
        }
        for entry in &asked.env {
            merge::set(&mut env, entry);
        }
        let security = spec.security.clone().unwrap_or_default();
        let bounding = if asked.privileged {
            caps::every(self.host.capabilities)
        } else {
            caps::bounding(&security, self.host.capabilities)?
        };
        let (rlimits, _) = resources::rlimits(&spec.ulimits, &self.host)?;
        let cwd = if asked.working_dir.is_empty() { &c.working_dir } else { &asked.working_dir };
        let size = asked
            .console_size
            .first_chunk::<2>()
            .map(|[height, width]| ConsoleSize { height: *height, width: *width });
        let options = security::options(&security)?;
        Ok(Process {
            terminal: asked.tty,
            console_size: size.filter(|_| asked.tty),
            capabilities: Some(build::capabilities(bounding, &user.user)),
            user: user.user,
            args: asked.command.clone(),
            env,
            cwd: merge::working_dir(cwd)?,
            rlimits,
            no_new_privileges: build::no_new_privileges(&options),
            apparmor_profile: if asked.privileged || options.apparmor == "unconfined" {
                String::new()
            } else {
                options.apparmor.clone()
            },
            selinux_label: security::process_label(&options, &self.host),
            oom_score_adj: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_heard_before_the_start_is_not_forgotten() {
        let execs = Execs::default();
        execs.lock().sessions.insert("e".into(), Session { container: "c".into(), ..Session::default() });
        execs.ended("e", 3);
        execs.started("e", 77);
        let s = execs.session("e").unwrap();
        assert_eq!((s.phase, s.exit_code, s.pid), (Phase::Ended, 3, 0));
        execs.container_ended("c");
        assert!(execs.session("e").is_ok(), "its result can still be asked for");
    }

    #[test]
    fn old_results_are_forgotten_in_the_end() {
        let execs = Execs::default();
        for n in 0..KEPT + 5 {
            let id = n.to_string();
            execs.lock().sessions.insert(id.clone(), Session::default());
            execs.ended(&id, 0);
        }
        assert!(execs.session("0").is_err());
        assert_eq!(execs.lock().sessions.len(), KEPT);
    }
}
