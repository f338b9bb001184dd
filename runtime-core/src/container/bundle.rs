//! What a runtime is given: which namespaces, which files of /etc, and the OCI configuration in the bundle.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use davit_contracts::network::{AttachResponse, ResolvConf};
use davit_contracts::runtime::{ContainerSpec, IdMap, MountPoint, Namespaces};
use davit_wire::config::{CreateSpec, Process, UserNamespace};
use rustix::fs::{Mode as FileMode, OFlags, ResolveFlags, mkdirat, openat2};

use super::dirs::RunDir;
use super::files;
use super::record::ProcessRecord;
use super::staging;
use super::task::Task;
use crate::config::BUILT_IN_RUNTIME;
use crate::error::{RuntimeError, io_error};
use crate::spec::build::{self, Source};
use crate::spec::check::{self, Network};
use crate::spec::namespaces::{self, Mode};
use crate::spec::system::{self, Init};
use crate::spec::user::Resolved;
use crate::spec::{merge, mounts};

/// Where /dev/shm comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shm {
    /// A tmpfs of its own.
    Own,
    /// Nowhere.
    None,
    /// The host's.
    Host,
    /// That of the container with this first process; the monitor brings it as `shm` in the run directory.
    Of(ProcessRecord),
}

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
    pub shm: Shm,
    pub uts: Source,
    pub cgroup: Source,
    pub time: Source,
    /// What the monitor is to bring.
    pub userns: Option<UserNamespace>,
}

impl Task {
    /// Where this container's namespaces are to come from.
    pub(super) fn plan(&self, spec: &ContainerSpec) -> Result<Plan, RuntimeError> {
        let network = check::network(spec)?;
        let ns = spec.namespaces.clone().unwrap_or_default();
        let join = match &network {
            Network::Container(name) => {
                let (process, id, _) = self.living(name, "network")?;
                let path = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
                Some((path, self.engine.dirs.run_dir(&id)))
            }
            _ => None,
        };
        let source = |mode: Mode<'_>, kind: &str| match mode {
            Mode::Private => Ok(Source::New),
            Mode::Host => Ok(Source::Host),
            Mode::Container(name) => self
                .living(name, kind)
                .map(|(p, ..)| Source::Path(format!("/proc/{}/ns/{kind}", p.pid).into())),
        };
        Ok(Plan {
            new_netns: matches!(network, Network::Endpoints(_) | Network::None),
            network,
            join,
            pid: source(namespaces::pid(&ns), "pid")?,
            ipc: source(namespaces::ipc(&ns), "ipc")?,
            shm: self.shm(&ns)?,
            uts: source(namespaces::uts(&ns), "uts")?,
            cgroup: source(namespaces::cgroup(&ns), "cgroup")?,
            time: source(namespaces::time(&ns), "time")?,
            userns: self.userns(&ns)?,
        })
    }

    fn userns(&self, ns: &Namespaces) -> Result<Option<UserNamespace>, RuntimeError> {
        let c = &self.record.container;
        if c.uid_map.is_empty() {
            return Ok(None);
        }
        let join = match namespaces::user(ns) {
            Mode::Container(name) => {
                let (p, ..) = self.living(name, "user")?;
                Some(Process { pid: p.pid, start_time: p.start_time })
            }
            _ => None,
        };
        let lines = |map: &[IdMap]| {
            map.iter()
                .fold(String::new(), |text, m| text + &format!("{} {} {}\n", m.inside, m.outside, m.count))
        };
        Ok(Some(UserNamespace { join, uid_map: lines(&c.uid_map), gid_map: lines(&c.gid_map) }))
    }

    /// /dev/shm goes with the IPC namespace.
    fn shm(&self, ns: &Namespaces) -> Result<Shm, RuntimeError> {
        match namespaces::ipc(ns) {
            Mode::Private if ns.ipc == "none" => Ok(Shm::None),
            Mode::Private => Ok(Shm::Own),
            Mode::Host => Ok(Shm::Host),
            Mode::Container(name) => {
                let (process, id, theirs) = self.living(name, "ipc")?;
                // The host's, and what was joined from elsewhere, is shared already.
                let own = namespaces::ipc(&theirs) == Mode::Private;
                if own && theirs.ipc != "shareable" {
                    return Err(RuntimeError::WrongState(format!(
                        "can't join IPC of container {id}: non-shareable IPC (hint: use --ipc shareable for the donor container)"
                    )));
                }
                Ok(Shm::Of(process))
            }
        }
    }

    /// The first process, the id and the namespaces of another container that must run.
    fn living(&self, name: &str, what: &str) -> Result<(ProcessRecord, String, Namespaces), RuntimeError> {
        let other = self.engine.registry.find(name)?;
        let view = other.view();
        let ns = view.record.container.spec.as_ref().and_then(|s| s.namespaces.clone());
        match view.record.process {
            Some(p) if view.status().is_alive() && other.id != self.record.id() && p.as_ref().is_alive() => {
                Ok((p, other.id, ns.unwrap_or_default()))
            }
            _ => Err(RuntimeError::WrongState(format!(
                "cannot join the {what} namespace of a container that is not running: {}",
                view.record.container.name
            ))),
        }
    }

    /// What the monitor does before it calls the runtime.
    pub(super) fn create_spec(&self, spec: &ContainerSpec, plan: &Plan) -> CreateSpec {
        let c = &self.record.container;
        let foreign = c.runtime != BUILT_IN_RUNTIME && plan.network != Network::Host;
        CreateSpec {
            parts: staging::parts(&c.mount_points, plan.userns.is_some()),
            shm_of: match plan.shm {
                Shm::Of(p) => Some(Process { pid: p.pid, start_time: p.start_time }),
                _ => None,
            },
            sysctls: if foreign {
                build::net_sysctls(spec, self.engine.host.rootless)
            } else {
                BTreeMap::new()
            },
            ..CreateSpec::default()
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
            files::give(run.path(), &self.record.container)?;
            run.path().to_owned()
        };
        let monitor = self.record.monitor.map_or(0, |m| m.pid);
        let net = match plan.network {
            Network::Host => Source::Host,
            _ => Source::Path(format!("/proc/{monitor}/ns/net").into()),
        };
        let c = &mut self.record.container;
        c.etc_dir = etc.display().to_string();
        let init = Init::parse(&self.record.init);
        if init.is_some() {
            system::environment(&mut c.env, &c.id);
        }
        if !merge::has(&c.env, "HOME") {
            c.env.push(format!("HOME={}", user.home));
        }
        let points: &mut Vec<MountPoint> = &mut staging::staged(&c.mount_points, plan.userns.is_some(), run);
        let mut argv = c.argv.clone();
        if spec.init {
            argv.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
            points.push(init_mount(&self.engine.dirs.init()));
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
            time: plan.time.clone(),
            userns: plan.userns.is_some().then(|| build::Userns {
                path: run.userns(),
                uids: &c.uid_map,
                gids: &c.gid_map,
            }),
            shm: match plan.shm {
                Shm::Own => Some(mounts::Shm::Own),
                Shm::None => None,
                Shm::Host => Some(mounts::Shm::Bind("/dev/shm".into())),
                Shm::Of(_) => Some(mounts::Shm::Bind(run.shm())),
            },
            plain_sysctls: c.runtime != BUILT_IN_RUNTIME,
            init,
            runtime: &c.runtime,
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
fn init_mount(program: &std::path::Path) -> MountPoint {
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
    if path == "/" || openat2(root, path, flags, FileMode::empty(), resolve).is_ok() {
        return;
    }
    let Ok(mut parent) = openat2(root, ".", flags, FileMode::empty(), resolve) else { return };
    let mut reached = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        reached = format!("{reached}/{part}");
        parent = match openat2(root, reached.as_str(), flags, FileMode::empty(), resolve) {
            Ok(fd) => fd,
            Err(_) if mkdirat(&parent, part, FileMode::from_raw_mode(0o755)).is_ok() => {
                let Ok(fd) = openat2(root, reached.as_str(), flags, FileMode::empty(), resolve) else {
                    return;
                };
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
