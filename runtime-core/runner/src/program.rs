//! The last steps of a process that becomes the user's program: limits, identity, capabilities, filter, exec. Shared by `create` and `exec`.
//!
//! Two halves, because a created container waits in between: [`Program::assume`] does all that can fail for a reason of the config,
//! with the program's own rights in force (so a program that its user may not run is refused at create time), and [`Program::run`]
//! what must come last. After the filter is loaded only capset, prctl and execve happen.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use davit_sys::caps::{self, CapSet, Capability};
use davit_sys::fork;
use davit_sys::landlock::Ruleset;
use nix::errno::Errno;

use crate::error::{Context, Error, Result, describe};
use crate::seccomp::Filter;
use crate::spec::Process;
use crate::spec::process::CapabilitySets;

pub mod landlock;
pub mod lookup;
pub mod rlimits;
pub mod scheduling;
pub mod stdio;

/// A program on its way.
#[derive(Debug)]
pub struct Program<'a> {
    /// What to run, as whom.
    pub process: &'a Process,
    /// System call filter.
    pub filter: Option<&'a Filter>,
    /// Where a notification descriptor of the filter goes.
    pub listener: Option<File>,
    /// Descriptors from 3 that stay open.
    pub preserve_fds: u32,
    /// The open `attr/exec` file and what to write: an AppArmor profile or SELinux label.
    pub label: Option<(File, String)>,
    /// Which paths it may reach; none: no Landlock.
    pub landlock: Vec<landlock::Rule>,
}

/// What [`Program::assume`] leaves for [`Program::run`].
#[derive(Debug)]
pub struct Assumed {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    sets: CapabilitySets,
    landlock: Option<Ruleset>,
}

impl<'a> Program<'a> {
    /// A program without a label yet.
    pub fn new(process: &'a Process, filter: Option<&'a Filter>, preserve_fds: u32) -> Self {
        Self { process, filter, listener: None, preserve_fds, label: None, landlock: Vec::new() }
    }

    /// Opens the label file; /proc must be one that shows us.
    pub fn open_label(&mut self) -> Result<()> {
        let (text, name) = if !self.process.apparmor_profile.is_empty() {
            (format!("exec {}", self.process.apparmor_profile), "AppArmor profile")
        } else if !self.process.selinux_label.is_empty() {
            (self.process.selinux_label.clone(), "SELinux label")
        } else {
            return Ok(());
        };
        let candidates = ["/proc/thread-self/attr/apparmor/exec", "/proc/thread-self/attr/exec"];
        let skip = usize::from(name != "AppArmor profile");
        let opened = candidates[skip..].iter().find_map(|p| File::options().write(true).open(p).ok());
        let file = opened.ok_or_else(|| Error::Limit {
            what: format!("the program by an {name}"),
            reason: "this kernel has no such security module enabled".into(),
        })?;
        self.label = Some((file, text));
        Ok(())
    }

    /// Takes on limits, ids and capabilities, enters the working directory and finds the executable.
    pub fn assume(&self) -> Result<Assumed> {
        let p = self.process;
        rlimits::apply(&p.rlimits)?;
        scheduling::apply(p)?;
        stdio::own(p.user.uid);
        let entered = self.enter_cwd();
        let sets = self.take_identity()?;
        match entered {
            // A directory that root cannot enter (NFS, user namespaces) may be the user's.
            Err(Errno::EACCES | Errno::EPERM) => self.enter_cwd(),
            other => other,
        }
        .map_err(|e| {
            Error::Program(format!(
                "chdir to cwd (\"{}\") set in config.json failed: {}",
                p.cwd.display(),
                describe(e as i32)
            ))
        })?;
        check_cwd()?;
        let landlock = landlock::prepare(&self.landlock)?;
        let env = self.environment();
        let path = lookup::find(&p.args, &p.env)?;
        let text = |s: &str| CString::new(s).map_err(|_| Error::Config(format!("{s:?} contains a NUL byte")));
        Ok(Assumed {
            path: text(&path)?,
            args: p.args.iter().map(|a| text(a)).collect::<Result<_>>()?,
            env: env.iter().map(|e| text(e)).collect::<Result<_>>()?,
            sets,
            landlock,
        })
    }

    fn enter_cwd(&self) -> nix::Result<()> {
        let cwd = if self.process.cwd.as_os_str().is_empty() {
            PathBuf::from("/")
        } else {
            self.process.cwd.clone()
        };
        nix::unistd::chdir(&cwd)
    }

    fn take_identity(&self) -> Result<CapabilitySets> {
        let p = self.process;
        let (_, held, _) = caps::get()?;
        let asked = p.capabilities.as_ref().map(crate::spec::Capabilities::sets).unwrap_or_default();
        // Nobody can give what he lacks: a runner without all capabilities runs programs with what is left.
        let (permitted, inheritable) = (asked.permitted.and(held), asked.inheritable.and(held));
        let sets = CapabilitySets {
            bounding: asked.bounding,
            permitted,
            inheritable,
            effective: asked.effective.and(held),
            ambient: asked.ambient.and(permitted).and(inheritable),
        };
        if held.has(Capability::SETPCAP) {
            caps::limit_bounding(sets.bounding)?;
        } else if caps::bounding().and(sets.bounding) != caps::bounding() {
            return Err(Error::Config(
                "the bounding set cannot be limited: the runner lacks CAP_SETPCAP".into(),
            ));
        }
        let user = &p.user;
        fork::keep_capabilities(true).context(|| "keep capabilities over the change of user")?;
        let ids = |groups| fork::set_ids(user.uid, user.gid, groups);
        let done = match ids(Some(&user.additional_gids)) {
            // setgroups(2) is denied in a user namespace that an unprivileged user made; nothing is lost when only the
            // primary group was asked for.
            Err(e)
                if e.raw_os_error() == Some(libc::EPERM)
                    && user.additional_gids.iter().all(|gid| *gid == user.gid) =>
            {
                ids(None)
            }
            other => other,
        };
        done.context(|| {
            format!("become uid {}, gid {}, groups {:?}", user.uid, user.gid, user.additional_gids)
        })?;
        fork::keep_capabilities(false).context(|| "stop keeping capabilities")?;
        let until_filter = if self.filter_needs_admin() {
            CapSet::default().with(Capability::SYS_ADMIN).and(held)
        } else {
            CapSet::default()
        };
        caps::set(sets.effective, sets.permitted.or(until_filter), sets.inheritable)?;
        let mask = user.umask.unwrap_or(0o022);
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
        Ok(sets)
    }

    /// A filter may only be loaded with no_new_privs or CAP_SYS_ADMIN.
    fn filter_needs_admin(&self) -> bool {
        self.filter.is_some() && !self.process.no_new_privileges
    }

    fn environment(&self) -> Vec<String> {
        let mut env = self.process.env.clone();
        if !env.iter().any(|e| e.starts_with("HOME=")) {
            env.push(format!("HOME={}", lookup::home(self.process.user.uid)));
        }
        env
    }

    /// Loads the filter, takes the final capabilities and becomes the program. Returns only with an error.
    pub fn run(self, assumed: Assumed) -> Error {
        match self.become_program(assumed) {
            Err(e) => e,
            Ok(never) => match never {},
        }
    }

    fn become_program(self, assumed: Assumed) -> Result<std::convert::Infallible> {
        fork::reset_signals().context(|| "reset signals")?;
        fork::close_on_exec_from(3 + self.preserve_fds).context(|| "mark descriptors close-on-exec")?;
        if let Some((mut file, text)) = self.label {
            file.write_all(text.as_bytes()).context(|| format!("take on the label {text:?}"))?;
        }
        if self.process.no_new_privileges {
            rustix::thread::set_no_new_privs(true).context(|| "set no_new_privs")?;
        }
        if let Some(rules) = assumed.landlock {
            rules
                .restrict_self()
                .context(|| "put the Landlock rules in force (they need noNewPrivileges)")?;
        }
        let sets = assumed.sets;
        if let Some(filter) = self.filter {
            if !self.process.no_new_privileges {
                let admin = CapSet::default().with(Capability::SYS_ADMIN).and(caps::get()?.1);
                caps::set(sets.effective.or(admin), sets.permitted.or(admin), sets.inheritable)?;
            }
            let descriptor = davit_sys::seccomp::load(&filter.program, filter.flags)
                .context(|| "load the seccomp filter")?;
            if let (Some(descriptor), Some(listener)) = (descriptor, self.listener) {
                let channel = davit_sys::fork::channel::Channel::from_fd(listener.into());
                channel
                    .send(b"{}", &[std::os::fd::AsFd::as_fd(&descriptor)])
                    .context(|| "hand over the seccomp listener")?;
            }
            if !self.process.no_new_privileges {
                caps::set(sets.effective, sets.permitted, sets.inheritable)?;
            }
        }
        caps::set_ambient(sets.ambient)?;
        let Err(errno) = nix::unistd::execve(&assumed.path, &assumed.args, &assumed.env);
        Err(Error::Program(format!("exec {}: {}", assumed.path.to_string_lossy(), describe(errno as i32))))
    }
}

/// A working directory named through a leaked descriptor (/proc/self/fd/N) would lie outside the container's root: the kernel then
/// cannot give its path.
fn check_cwd() -> Result<()> {
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(Error::Program(
            "the working directory lies outside of the container's root file system".into(),
        )),
    }
}
