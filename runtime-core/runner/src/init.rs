//! The container's first process, from its clone to the exec of the program. Nothing here returns to the runner's code.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use davit_sys::cgroup::Entry;
use davit_sys::fork::{self, channel::Channel};
use davit_sys::rootfs::Target;

use crate::cgroup::Placement;
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::message::{self, Message};
use crate::program::{Program, stdio::Terminal};
use crate::rootfs::{self, Plan};
use crate::seccomp::Filter;
use crate::spec::{NamespaceKind, Spec};

pub mod kernel;

/// Where the word to start comes from.
#[derive(Debug)]
pub enum Gate {
    /// `create`: from whoever connects (ROOT/ID/exec.sock).
    Socket(UnixListener),
    /// `run`: from the runner itself.
    Runner,
}

/// All that the first process needs; copied into it by the clone.
#[derive(Debug)]
pub struct Init<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The whole config.
    pub spec: &'a Spec,
    /// Its root file system.
    pub plan: &'a Plan,
    /// Its filter.
    pub filter: Option<&'a Filter>,
    /// To the runner.
    pub channel: Channel,
    /// Connected console socket.
    pub console: Option<OwnedFd>,
    /// Connected listener socket of a notifying filter.
    pub listener: Option<OwnedFd>,
    /// Where start comes from.
    pub gate: Gate,
    /// chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Descriptors from 3 that stay open.
    pub preserve_fds: u32,
    /// Share the caller's session keyring.
    pub keep_keyring: bool,
    /// For hooks.
    pub state_json: String,
}

impl Init<'_> {
    /// Becomes the container's program, or reports why not and ends.
    pub fn run(mut self) -> ! {
        let error = match self.set_up() {
            Ok((root, cgroups)) => self.enter(root, &cgroups),
            Err(e) => e,
        };
        let _ = message::send(&self.channel, &Message::Failed(error.chain()), &[]);
        std::process::exit(1)
    }

    /// Everything before the pivot, while the host's files are in sight.
    fn set_up(&mut self) -> Result<(OwnedFd, Placement)> {
        let linux = &self.spec.linux;
        if linux.makes(NamespaceKind::User) {
            message::expect(&self.channel, &Message::Mapped)?;
        }
        if linux.has(NamespaceKind::User) {
            let root = |groups| fork::set_ids(0, 0, groups);
            root(Some(&[])).or_else(|_| root(None)).context(|| "become root of the user namespace")?;
        }
        nix::unistd::setsid().context(|| "lead a session")?;
        if !self.keep_keyring {
            let name = std::ffi::CString::new(format!("_ses.{}", self.id)).expect("ids hold no NUL");
            fork::new_session_keyring(&name).context(|| "make a session keyring")?;
        }
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        let root = self.plan.enter()?;
        let cgroups = self.mount_all(&root)?;
        kernel::set(self.spec)?;
        let process = self.spec.process.as_ref().ok_or_else(|| Error::Config("process is missing".into()))?;
        if let Some(score) = process.oom_score_adj {
            kernel::set_oom_score(score)?;
        }
        if self.plan.fills_dev() {
            rootfs::devices::fill(root.as_fd(), &linux.devices, self.plan.bind_devices)?;
        }
        if let Some(socket) = self.console.take() {
            let terminal = Terminal::open(&root, process.console_size)?;
            rootfs::devices::bind_console(root.as_fd(), &terminal.slave)?;
            terminal.take(socket)?;
        }
        if let Some(personality) = &linux.personality {
            crate::program::scheduling::take_personality(personality)?;
        }
        self.run_early_hooks()?;
        // A missing working directory is made, as runc does; where it cannot be, entering it says why.
        let _ = davit_sys::rootfs::open_or_make(root.as_fd(), &process.cwd, Target::Directory);
        rootfs::hide::make_read_only(root.as_fd(), &linux.readonly_paths)?;
        rootfs::hide::mask(root.as_fd(), &linux.masked_paths)?;
        if !linux.makes(NamespaceKind::Pid) {
            // Foreign processes see this one before it is the program.
            fork::set_undumpable().context(|| "hide the runner's memory")?;
        }
        Ok((root, cgroups))
    }

    fn mount_all(&mut self, root: &OwnedFd) -> Result<Placement> {
        let mut cgroups = None;
        for planned in &self.plan.mounts {
            let kind = planned.mount.kind.as_str();
            if matches!(kind, "cgroup" | "cgroup2") && !planned.options.bind {
                if cgroups.is_none() {
                    cgroups = Some(self.join_cgroups()?);
                }
                let placement = cgroups.as_ref().expect("set just above");
                rootfs::cgroups::mount(planned, placement, root.as_fd())?;
            } else {
                rootfs::mounts::mount(self.plan, planned, root.as_fd())?;
            }
        }
        cgroups.map_or_else(|| self.join_cgroups(), Ok)
    }

    /// Waits for the cgroups that the runner makes meanwhile, and walks in: a thread that moves itself does not pay for a migration.
    fn join_cgroups(&self) -> Result<Placement> {
        let (json, doors) = match message::receive(&self.channel)? {
            Some((Message::Cgroups(json), doors)) => (json, doors),
            Some((Message::Failed(text), _)) => return Err(Error::Inside(text)),
            _ => return Err(Error::Vanished),
        };
        let placement: Placement = serde_json::from_slice(&json)
            .map_err(|source| Error::Json { path: PathBuf::from("the cgroups"), source })?;
        for (door, group) in doors.into_iter().zip(&placement.joined) {
            Entry::from_fd(door)
                .join()
                .context(|| format!("join the cgroup {}", group.directory.display()))?;
        }
        if self.spec.linux.makes(NamespaceKind::Cgroup) {
            fork::unshare(NamespaceKind::Cgroup.flag()).context(|| "make a cgroup namespace")?;
        } else if let Some(path) = self.spec.linux.joins(NamespaceKind::Cgroup) {
            let file = std::fs::File::open(path).context(|| format!("open {}", path.display()))?;
            fork::setns(file.as_fd(), NamespaceKind::Cgroup.flag())
                .context(|| format!("join {}", path.display()))?;
        }
        Ok(placement)
    }

    fn run_early_hooks(&self) -> Result<()> {
        let Some(hooks) = &self.spec.hooks else { return Ok(()) };
        if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
            message::send(&self.channel, &Message::NamespacesReady, &[])?;
            message::expect(&self.channel, &Message::GoOn)?;
        }
        hooks::run(&hooks.create_container, &self.state_json)
    }

    /// From the pivot to the exec; gives why not.
    fn enter(&mut self, root: OwnedFd, _cgroups: &Placement) -> Error {
        let Some(process) = self.spec.process.as_ref() else {
            return Error::Config("process is missing".into());
        };
        let mut program = Program::new(process, self.filter, self.preserve_fds);
        program.listener = self.listener.take().map(Into::into);
        let prepared = program.open_label().and_then(|()| {
            program.landlock = crate::program::landlock::rules(&self.spec.annotations)?;
            let read_only = self.spec.root.as_ref().is_some_and(|r| r.readonly);
            self.plan.seal(&root, read_only)?;
            rootfs::change_root(&root, self.no_pivot)?;
            self.plan.spread(&root)?;
            // No descriptor of the host's file system may be open when the program's working directory is entered.
            drop(root);
            program.assume()
        });
        let assumed =
            match prepared.and_then(|a| message::send(&self.channel, &Message::Ready, &[]).map(|()| a)) {
                Ok(assumed) => assumed,
                Err(e) => return e,
            };
        if let Err(e) = self.wait_for_start() {
            return e;
        }
        let hooks = self.spec.hooks.as_ref().map_or(&[][..], |h| &h.start_container);
        match hooks::run(hooks, &self.state_json) {
            Ok(()) => program.run(assumed),
            Err(e) => e,
        }
    }

    /// After it, `channel` leads to whoever said start.
    fn wait_for_start(&mut self) -> Result<()> {
        if let Gate::Socket(listener) = &self.gate {
            let (stream, _) = listener.accept().context(|| "wait for start")?;
            self.channel = Channel::from_fd(stream.into());
        }
        message::expect(&self.channel, &Message::Start)
    }
}
