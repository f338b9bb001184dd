//! Making containers.

use std::sync::Arc;

use davit_contracts::id::ContainerId;
use davit_contracts::network::EndpointSpec;
use davit_contracts::runtime::{Container, ContainerSpec, State};

use super::Engine;
use crate::clock::unix_ns;
use crate::container::handle::{Command, Handle};
use crate::container::record::Record;
use crate::container::start::Started;
use crate::container::task::Task;
use crate::container::volumes;
use crate::error::RuntimeError;
use crate::spec::check::{self, Network};

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
        let (task, handle, created) = self.begin(spec)?;
        self.registry.insert(handle.clone());
        tokio::spawn(task.run());
        handle.ask(|answer| Command::Create { answer }).await?;
        Ok(created)
    }

    /// Makes a container and starts it.
    pub async fn run(
        self: &Arc<Self>,
        spec: ContainerSpec,
        hold: bool,
    ) -> Result<(Created, Started), RuntimeError> {
        let (task, handle, mut created) = self.begin(spec)?;
        self.registry.insert(handle.clone());
        tokio::spawn(task.run());
        let mut started = handle.ask(|answer| Command::Run { hold, answer }).await?;
        created.warnings.append(&mut started.warnings);
        Ok((created, started))
    }

    /// Everything that needs no other daemon: checks, id, name, record.
    fn begin(self: &Arc<Self>, mut spec: ContainerSpec) -> Result<(Task, Handle, Created), RuntimeError> {
        self.volumes_from(&mut spec)?;
        for endpoint in spec.network.iter_mut().flat_map(|n| &mut n.endpoints) {
            self.links(endpoint)?;
        }
        let warnings = check::spec(&spec, &self.host)?;
        let (runtime, _) = self.config.runtime(&spec.runtime)?;
        Self::monitor_program()?;
        let id = ContainerId::from_random(rand::random()).to_string();
        let hostname = self.hostname(&spec, &id)?;
        let name = self.registry.reserve(&spec.name, &id)?;
        let container = Container {
            id: id.clone(),
            name: name.clone(),
            image: spec.image.clone(),
            created_unix_ns: unix_ns(),
            state: Some(State { status: "created".into(), ..State::default() }),
            log_path: self.dirs.log(&id).display().to_string(),
            runtime,
            hostname,
            spec: Some(spec),
            ..Container::default()
        };
        let (task, handle) = Task::new(Arc::clone(self), Record { container, ..Record::default() });
        Ok((task, handle, Created { id, name, warnings }))
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

    fn hostname(&self, spec: &ContainerSpec, id: &str) -> Result<String, RuntimeError> {
        let shares_uts = spec.namespaces.as_ref().is_some_and(|n| n.uts == "host");
        Ok(match check::network(spec)? {
            _ if shares_uts => self.host.hostname.clone(),
            _ if !spec.hostname.is_empty() => spec.hostname.clone(),
            Network::Host => self.host.hostname.clone(),
            Network::Container(other) => self.registry.find(&other)?.view().record.container.hostname.clone(),
            _ => id[..12].to_owned(),
        })
    }
}
