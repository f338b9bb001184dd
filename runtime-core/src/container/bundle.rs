//! What a runtime is given: which namespaces, which files of /etc, and the OCI configuration in the bundle.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use davit_contracts::network::{AttachResponse, ResolvConf};
use davit_contracts::runtime::{ContainerSpec, MountPoint};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};

use super::dirs::RunDir;
use super::files;
use super::staging;
use super::task::Task;
use crate::config::BUILT_IN_RUNTIME;
use crate::error::{RuntimeError, io_error};
use crate::spec::build::{self, Source};
use crate::spec::check::{self, Network};
use crate::spec::merge;
use crate::spec::user::Resolved;

/// docker's place for the first process of `--init`.
const INIT: &str = "/sbin/docker-init";

/// Where the namespaces of a container come from.
pub struct Plan {
    pub network: Network,
    pub new_netns: bool,
    /// `container:` mode: that container's namespace and generated files.
    pub join: Option<(PathBuf, RunDir)>,
    pub pid: Source,
    pub ipc: Source,
    pub shm: Option<PathBuf>,
    pub uts: Source,
    pub cgroup: Source,
}

impl Task {
    /// Where this container's namespaces are to come from.
    pub(super) fn plan(&self, spec: &ContainerSpec) -> Result<Plan, RuntimeError> {
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
            Some(name) => self
                .living(name, kind)
                .map(|(pid, _)| (Source::Path(format!("/proc/{pid}/ns/{kind}").into()), Some(pid))),
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

    /// Writes /etc's files and the OCI configuration.
    pub(super) fn write_bundle(
        &mut self,
        spec: &ContainerSpec,
        plan: &Plan,
        user: &Resolved,
        attached: Option<&AttachResponse>,
        run: &RunDir,
    ) -> Result<Vec<String>, RuntimeError> {
        let etc = if let Some((_, other)) = &plan.join {
            other.path().to_owned()
        } else {
            self.write_etc(spec, plan, attached, run)?;
            run.path().to_owned()
        };
        let monitor = self.record.monitor.map_or(0, |m| m.pid);
        let net = match plan.network {
            Network::Host => Source::Host,
            _ => Source::Path(format!("/proc/{monitor}/ns/net").into()),
        };
        let c = &mut self.record.container;
        c.etc_dir = etc.display().to_string();
        if !merge::has(&c.env, "HOME") {
            c.env.push(format!("HOME={}", user.home));
        }
        let points: &mut Vec<MountPoint> = &mut staging::staged(&c.mount_points, run);
        let mut argv = c.argv.clone();
        if spec.init {
            argv.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
            points.push(init(&self.engine.dirs.init()));
        }
        let program =
            merge::Program { argv, env: c.env.clone(), cwd: c.working_dir.clone(), user: c.user.clone() };
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
        let own = files::Own { hostname: &self.record.container.hostname, domainname: &spec.domainname };
        let mut hosts = files::hosts(&files::Hosts {
            own,
            endpoints: attached.map(|a| a.endpoints.as_slice()).unwrap_or_default(),
            extra: &spec.extra_hosts,
            host_gateway: attached.map(|a| a.host_gateway.as_slice()).unwrap_or_default(),
        });
        if plan.network == Network::Host {
            hosts = files::of_host("/etc/hosts");
            files::append_extra(&mut hosts, &spec.extra_hosts);
        }
        let resolv = match attached.and_then(|a| a.resolv_conf.clone()) {
            Some(conf) => files::resolv_conf(&conf),
            None => own_resolv_conf(spec),
        };
        files::write(run.path(), own.hostname, &hosts, &resolv)
    }
}

/// The program that comes before the container's own.
fn init(program: &std::path::Path) -> MountPoint {
    MountPoint {
        r#type: "bind".into(),
        source: program.display().to_string(),
        target: INIT.into(),
        rw: false,
        ..MountPoint::default()
    }
}

fn own_resolv_conf(spec: &ContainerSpec) -> String {
    let asked = spec.network.clone().unwrap_or_default();
    let own = ResolvConf { nameservers: asked.dns, search: asked.dns_search, options: asked.dns_options };
    files::resolv_conf_like(&files::of_host("/etc/resolv.conf"), &own)
}

/// Makes the working directory inside the root where it is missing, as docker does. A failure shows when the program is started.
pub fn ensure_dir(root: BorrowedFd<'_>, path: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd as _;

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
