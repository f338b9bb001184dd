//! Containers that begin as others.
//!
//! What makes a container itself is its own: id, name, hostname, addresses. All else is as its source was asked for.

use std::sync::Arc;

use davit_contracts::runtime::{CloneRequest, Container, ContainerSpec, Resources};

use super::Engine;
use super::create::Created;
use crate::container::handle::{Command, Handle};
use crate::container::state::{Ask, judge};
use crate::container::task::Task;
use crate::error::RuntimeError;

/// How many names are tried for a clone that was given none.
const NAMES: u32 = 1000;

impl Engine {
    /// Makes a container like another one, with its files as they are now. It goes on also when the client that asked has gone.
    pub async fn clone_container(self: &Arc<Self>, request: CloneRequest) -> Result<Created, RuntimeError> {
        let source = self.registry.find(&request.container)?;
        let view = source.view();
        let old = &view.record.container;
        judge(Ask::Clone, view.status(), &old.name).map_err(RuntimeError::WrongState)?;
        Self::not_a_pod(&view.record, "cloned")?;
        let spec = like(&old.spec.clone().unwrap_or_default(), &request);
        let (task, handle, mut created) = self.begin_clone(spec, &old.name)?;
        created.warnings.extend(shared_ports(&task.spec_of(), old));
        self.registry.insert(handle.clone());
        tokio::spawn(task.run());
        let (freeze, durable) = (!request.no_freeze, request.durable);
        handle.ask(|answer| Command::MakeLike { source, freeze, durable, answer }).await?;
        Ok(created)
    }

    /// Begins it under the name that was asked for, or the first free one after its source's.
    fn begin_clone(
        self: &Arc<Self>,
        mut spec: ContainerSpec,
        source: &str,
    ) -> Result<(Task, Handle, Created), RuntimeError> {
        if !spec.name.is_empty() {
            return self.begin(spec, None);
        }
        for n in 0..NAMES {
            spec.name = if n == 0 { format!("{source}-clone") } else { format!("{source}-clone{n}") };
            match self.begin(spec.clone(), None) {
                Err(RuntimeError::NameInUse { .. }) => {}
                begun => return begun,
            }
        }
        spec.name.clear();
        self.begin(spec, None)
    }
}

/// The clone as it is asked for.
fn like(source: &ContainerSpec, request: &CloneRequest) -> ContainerSpec {
    let mut spec = source.clone();
    spec.name.clone_from(&request.name);
    spec.hostname.clone_from(&request.hostname);
    // They are among its mounts already.
    spec.volumes_from.clear();
    if let Some(network) = &mut spec.network {
        network.mac.clear();
        for endpoint in &mut network.endpoints {
            endpoint.ip.clear();
            endpoint.ip6.clear();
            endpoint.mac.clear();
        }
        if request.replace_ports {
            network.ports.clone_from(&request.ports);
        }
    } else if request.replace_ports {
        spec.network.get_or_insert_default().ports.clone_from(&request.ports);
    }
    if let Some(asked) = &request.resources {
        limit(spec.resources.get_or_insert_default(), asked);
    }
    spec
}

/// What is set replaces what was.
fn limit(of: &mut Resources, asked: &Resources) {
    let unset = Resources::default();
    macro_rules! replace {
        ($($field:ident)*) => { $(if asked.$field != unset.$field { of.$field.clone_from(&asked.$field); })* };
    }
    if asked.nano_cpus != 0 {
        (of.cpu_quota, of.cpu_period) = (0, 0);
    }
    replace!(nano_cpus cpu_shares cpu_quota cpu_period cpuset_cpus cpuset_mems memory memory_swap
        memory_reservation pids_limit blkio_weight blkio oom_score_adj oom_kill_disable);
}

/// A port of the host can be published by one of them at a time.
fn shared_ports(spec: &ContainerSpec, source: &Container) -> Option<String> {
    let published = |spec: &ContainerSpec| {
        let ports = spec.network.iter().flat_map(|n| &n.ports).filter(|p| p.host_port != 0);
        ports.map(|p| (p.host_port, p.protocol.clone())).collect::<Vec<_>>()
    };
    let theirs = source.spec.as_ref().map(published).unwrap_or_default();
    let ports = published(spec).into_iter().filter(|p| theirs.contains(p));
    let ports: Vec<String> = ports.map(|(port, _)| port.to_string()).collect();
    (!ports.is_empty()).then(|| {
        format!(
            "both {} and its clone publish port {}: only one of them can run at a time (-p gives the clone others)",
            source.name,
            ports.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::network::{EndpointSpec, PortMapping};
    use davit_contracts::runtime::{NetworkSpec, RestartPolicy};

    fn source() -> ContainerSpec {
        ContainerSpec {
            name: "db".into(),
            hostname: "db.lan".into(),
            env: vec!["A=1".into()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            restart: Some(RestartPolicy { name: "always".into(), max_retries: 0 }),
            volumes_from: vec!["other".into()],
            network: Some(NetworkSpec {
                mac: "02:00:00:00:00:01".into(),
                endpoints: vec![EndpointSpec {
                    network: "n".into(),
                    ip: "10.0.0.9".into(),
                    mac: "02:00:00:00:00:01".into(),
                    ..EndpointSpec::default()
                }],
                ports: vec![PortMapping { host_port: 8080, container_port: 80, ..PortMapping::default() }],
                ..NetworkSpec::default()
            }),
            resources: Some(Resources {
                memory: 64 << 20,
                cpu_quota: 5,
                pids_limit: 7,
                ..Resources::default()
            }),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn a_clone_is_like_its_source_but_for_what_makes_it_itself() {
        let request = CloneRequest {
            name: "copy".into(),
            resources: Some(Resources { nano_cpus: 9, memory: 1 << 30, ..Resources::default() }),
            ..CloneRequest::default()
        };
        let spec = like(&source(), &request);
        assert_eq!((spec.name.as_str(), spec.hostname.as_str()), ("copy", ""));
        assert_eq!((spec.env, spec.labels, spec.restart), (source().env, source().labels, source().restart));
        let network = spec.network.unwrap();
        let endpoint = &network.endpoints[0];
        assert_eq!((endpoint.network.as_str(), endpoint.ip.as_str()), ("n", ""));
        assert!(network.mac.is_empty() && endpoint.mac.is_empty() && spec.volumes_from.is_empty());
        let r = spec.resources.unwrap();
        assert_eq!((r.nano_cpus, r.cpu_quota, r.memory, r.pids_limit), (9, 0, 1 << 30, 7));
        let db = Container { name: "db".into(), spec: Some(source()), ..Container::default() };
        let text = shared_ports(&source(), &db).unwrap();
        assert!(text.contains("port 8080"), "{text}");
        let other = like(&source(), &CloneRequest { replace_ports: true, ..CloneRequest::default() });
        assert!(shared_ports(&other, &db).is_none());
        let quiet = Container { name: "quiet".into(), ..Container::default() };
        assert!(shared_ports(&source(), &quiet).is_none(), "a source without ports");
    }
}
