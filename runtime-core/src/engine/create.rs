//! Making containers.

use std::sync::Arc;

use davit_contracts::id::ContainerId;
use davit_contracts::network::EndpointSpec;
use davit_contracts::runtime::{Container, ContainerSpec, IdMap, State};

use super::Engine;
use crate::clock::unix_ns;
use crate::config::BUILT_IN_RUNTIME;
use crate::container::handle::{Command, Handle};
use crate::container::record::Record;
use crate::container::start::Started;
use crate::container::task::Task;
use crate::container::volumes;
use crate::error::RuntimeError;
use crate::logs::options;
use crate::pod::PodRecord;
use crate::spec::check::{self, Network};
use crate::spec::namespaces::{self, Mode};
use crate::spec::{security, system, userns};

/// A container that was made.
#[derive(Debug)]
pub struct Created {
    /// 64 hex.
    pub id: String,
    /// Asked for or generated.
    pub name: String,
    /// For the person who asked.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container that does not run. Everybody sees it from here on; its task goes on also when the client has gone.
    pub async fn create(self: &Arc<Self>, spec: ContainerSpec) -> Result<Created, RuntimeError> {
        let (task, handle, created) = self.begin(spec, None)?;
        self.registry.insert(handle.clone());
        tokio::spawn(task.run());
        handle.ask(|answer| Command::Create { answer }).await?;
        Ok(created)
    }

    /// The same for the infra container of a pod; `Created::name` is the pod's.
    pub(super) async fn create_pod(
        self: &Arc<Self>,
        spec: ContainerSpec,
        pod: PodRecord,
    ) -> Result<Created, RuntimeError> {
        let (task, handle, mut created) = self.begin(spec, Some(pod))?;
        self.registry.insert(handle.clone());
        tokio::spawn(task.run());
        handle.ask(|answer| Command::Create { answer }).await?;
        created.name = handle.view().record.pod.clone().unwrap_or_default().name;
        Ok(created)
    }

    /// Makes a container and starts it.
    pub async fn run(
        self: &Arc<Self>,
        spec: ContainerSpec,
        hold: bool,
    ) -> Result<(Created, Started), RuntimeError> {
        let (task, handle, mut created) = self.begin(spec, None)?;
        self.registry.insert(handle.clone());
        tokio::spawn(task.run());
        let started = handle.ask(|answer| Command::Run { hold, answer }).await?;
        // The configuration says again what the checks have said.
        let more = started.warnings.iter().filter(|w| !created.warnings.contains(w)).cloned();
        let more: Vec<String> = more.collect();
        created.warnings.extend(more);
        Ok((created, started))
    }

    /// Everything that needs no other daemon: checks, id, name, record.
    pub(super) fn begin(
        self: &Arc<Self>,
        mut spec: ContainerSpec,
        mut pod: Option<PodRecord>,
    ) -> Result<(Task, Handle, Created), RuntimeError> {
        self.join_pod(&mut spec)?;
        self.volumes_from(&mut spec)?;
        system::complete(&mut spec);
        for endpoint in spec.network.iter_mut().flat_map(|n| &mut n.endpoints) {
            self.links(endpoint)?;
        }
        for text in namespaces::references(&mut spec) {
            let name = text.strip_prefix("container:").unwrap_or_default();
            *text = format!("container:{}", self.registry.find(name)?.id);
        }
        options::settle(spec.log.get_or_insert_default(), &self.config.log);
        let warnings = check::spec(&spec, &self.host)?;
        let (runtime, _) = self.config.runtime(&spec.runtime)?;
        let ns = spec.namespaces.clone().unwrap_or_default();
        if runtime != BUILT_IN_RUNTIME && namespaces::user(&ns) != Mode::Host {
            return Err(RuntimeError::Unsupported(format!(
                "--userns is supported with the runtime {BUILT_IN_RUNTIME} only, not with {runtime}: \
                 root of a user namespace cannot walk to the root file system by itself"
            )));
        }
        let options = security::options(&spec.security.clone().unwrap_or_default())?;
        security::possible(&options, self.host.modules, Some(&runtime))?;
        Self::monitor_program()?;
        let id = ContainerId::from_random(rand::random()).to_string();
        let mut hostname = self.hostname(&spec, &id)?;
        if let Some(pod) = &mut pod {
            pod.name = self.registry.reserve_pod(&pod.name, &id)?;
            spec.name = format!("{}-infra", &id[..12]);
            if spec.hostname.is_empty() {
                spec.hostname.clone_from(&pod.name);
                hostname.clone_from(&pod.name);
            }
        }
        let name = self.registry.reserve(&spec.name, &id)?;
        let log_path = match options::driver(Some(&spec)) {
            options::JSON_FILE | options::LOCAL => self.dirs.log(&id, &spec).display().to_string(),
            _ => String::new(),
        };
        let (uid_map, gid_map) = self.id_maps(&spec, &id).inspect_err(|_| self.registry.remove(&id))?;
        let container = Container {
            id: id.clone(),
            name: name.clone(),
            image: spec.image.clone(),
            created_unix_ns: unix_ns(),
            state: Some(State { status: "created".into(), ..State::default() }),
            log_path,
            runtime,
            hostname,
            uid_map,
            gid_map,
            spec: Some(spec),
            ..Container::default()
        };
        let (task, handle) = Task::new(Arc::clone(self), Record { container, pod, ..Record::default() });
        Ok((task, handle, Created { id, name, warnings }))
    }

    /// The ids of a new container: a range that is nobody else's, those of the container whose namespace it joins, or what was asked for.
    fn id_maps(&self, spec: &ContainerSpec, id: &str) -> Result<(Vec<IdMap>, Vec<IdMap>), RuntimeError> {
        let ns = spec.namespaces.clone().unwrap_or_default();
        let (uids, gids) = match namespaces::user(&ns) {
            Mode::Host => return Ok((Vec::new(), Vec::new())),
            Mode::Container(other) => {
                let other = self.registry.find(other)?.view().record.container.clone();
                (other.uid_map, other.gid_map)
            }
            Mode::Private if !ns.uid_map.is_empty() => {
                let gids = if ns.gid_map.is_empty() { ns.uid_map.clone() } else { ns.gid_map };
                (ns.uid_map, gids)
            }
            Mode::Private => {
                let size = userns::size(if ns.user.is_empty() { "auto" } else { &ns.user });
                let size = size.unwrap_or_else(|| userns::size("auto").expect("a mode that has a size"))?;
                let range = self.registry.allocate_ids(id, self.config.userns.pool()?, size)?;
                return Ok((userns::map_of(range), userns::map_of(range)));
            }
        };
        self.registry.hold_ids(id, userns::ranges(&uids, &gids));
        Ok((uids, gids))
    }

    /// Resolves `--volumes-from` to mounts.
    fn volumes_from(&self, spec: &mut ContainerSpec) -> Result<(), RuntimeError> {
        let own = spec.mounts.len();
        for text in spec.volumes_from.clone() {
            let (name, read_only) = text.strip_suffix(":ro").map_or((text.as_str(), false), |n| (n, true));
            let other = self.registry.find(name.strip_suffix(":rw").unwrap_or(name))?;
            volumes::inherit(spec, own, &other.view().record.container.mount_points, read_only);
        }
        Ok(())
    }

    /// Finds the containers that an endpoint's links name. Later they may be stopped or removed, as docker has it.
    pub(crate) fn links(&self, endpoint: &mut EndpointSpec) -> Result<(), RuntimeError> {
        for link in &mut endpoint.links {
            *link = self.registry.link(link)?;
        }
        Ok(())
    }

    pub(crate) fn hostname(&self, spec: &ContainerSpec, id: &str) -> Result<String, RuntimeError> {
        let ns = spec.namespaces.clone().unwrap_or_default();
        match namespaces::uts(&ns) {
            Mode::Private => {}
            Mode::Host => return Ok(self.host.hostname.clone()),
            Mode::Container(other) => {
                return Ok(self.registry.find(other)?.view().record.container.hostname.clone());
            }
        }
        Ok(match check::network(spec)? {
            _ if !spec.hostname.is_empty() => spec.hostname.clone(),
            Network::Host => self.host.hostname.clone(),
            Network::Container(other) => self.registry.find(&other)?.view().record.container.hostname.clone(),
            _ => id[..12].to_owned(),
        })
    }
}
