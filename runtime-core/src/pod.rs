//! Pods: containers that share namespaces which an infra container holds.
//!
//! A pod has no record of its own: it is its infra container, whose record says so ([`PodRecord`]), and its members are the containers
//! whose spec names its id. So a pod lives through whatever a container lives through, and no record can contradict another.
//!
//! ```text
//! pod create ──> infra container (created): network, ports, host name, /etc/hosts are the pod's
//! create --pod, pod add ──> the spec says "container:INFRA" for each shared namespace
//! start of a member ──> the infra container is started first, if it does not run
//! ```
//!
//! The infra container has no image: its root is an empty file system in memory, its program davit-init, which sleeps and reaps.

use davit_contracts::runtime::{Container, ContainerSpec, CreatePodRequest, Namespaces};
use davit_contracts::storage::{ImageConfig, Mount, PrepareResponse};
use serde::{Deserialize, Serialize};

use crate::container::record::Record;
use crate::error::RuntimeError;

/// What lists show as the infra container's image.
pub const IMAGE: &str = "davit/pause";

/// What makes a container's record a pod's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodRecord {
    /// The pod's name, apart from the names of containers.
    pub name: String,
    /// What its members share.
    pub shared: Shared,
}

/// Namespaces that the members of a pod share with its infra container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "one for each namespace")]
pub struct Shared {
    /// Network: addresses, ports, localhost, /etc/hosts, /etc/resolv.conf.
    pub net: bool,
    /// System V IPC, POSIX queues, /dev/shm.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
    /// Processes.
    pub pid: bool,
}

impl Default for Shared {
    /// podman's.
    fn default() -> Self {
        Self { net: true, ipc: true, uts: true, pid: false }
    }
}

impl Shared {
    /// Reads the words of `--share`.
    pub fn parse(words: &[String]) -> Result<Self, RuntimeError> {
        if words.is_empty() {
            return Ok(Self::default());
        }
        let mut shared = Self { net: false, ipc: false, uts: false, pid: false };
        for word in words {
            match word.as_str() {
                "net" => shared.net = true,
                "ipc" => shared.ipc = true,
                "uts" => shared.uts = true,
                "pid" => shared.pid = true,
                "none" if words.len() == 1 => {}
                _ => {
                    return Err(RuntimeError::Invalid(format!(
                        "invalid namespace to share: '{word}' (net, ipc, uts, pid, or none alone)"
                    )));
                }
            }
        }
        Ok(shared)
    }

    /// The same words.
    pub fn words(self) -> Vec<String> {
        let all = [("ipc", self.ipc), ("net", self.net), ("pid", self.pid), ("uts", self.uts)];
        all.into_iter().filter(|(_, on)| *on).map(|(word, _)| word.to_owned()).collect()
    }
}

/// The infra container of a new pod; its host name is the pod's unless another was asked for.
pub fn infra(request: CreatePodRequest) -> ContainerSpec {
    ContainerSpec {
        image: IMAGE.to_owned(),
        init: true,
        hostname: request.hostname,
        namespaces: Some(Namespaces { ipc: "shareable".into(), ..Namespaces::default() }),
        labels: request.labels,
        network: request.network,
        extra_hosts: request.extra_hosts,
        sysctls: request.sysctls,
        read_only: true,
        stop_timeout_s: Some(0),
        ..ContainerSpec::default()
    }
}

/// The root of an infra container, as storaged would answer for an image.
pub fn root() -> PrepareResponse {
    let options = ["mode=755", "size=64k", "nosuid", "nodev"].map(str::to_owned);
    let mount =
        Mount { r#type: "tmpfs".into(), source: "tmpfs".into(), options: options.into(), ..Mount::default() };
    PrepareResponse {
        mounts: vec![mount],
        config: Some(ImageConfig { cmd: vec!["pause".into()], ..ImageConfig::default() }),
        ..PrepareResponse::default()
    }
}

/// Makes a spec one of a member: what is shared comes from the infra container. What the person asked for beside it is refused, since it
/// would be passed over in silence.
pub fn join(spec: &mut ContainerSpec, pod: &str, record: &PodRecord) -> Result<(), RuntimeError> {
    let shared = record.shared;
    let infra = format!("container:{pod}");
    let own = |what: &str, flag: &str| {
        Err(RuntimeError::Invalid(format!(
            "conflicting options: --pod and {flag}: {what} is the pod's ('davit pod create {flag}')"
        )))
    };
    let network = spec.network.get_or_insert_default();
    let joined = network.mode == infra;
    if shared.net && !joined {
        if !network.ports.is_empty() || network.publish_all {
            return own("the network with its ports", "--publish");
        }
        if !network.mode.is_empty() || !network.endpoints.is_empty() || !network.mac.is_empty() {
            return own("the network", "--network");
        }
        if !network.dns.is_empty() || !network.dns_search.is_empty() || !network.dns_options.is_empty() {
            return own("name resolution", "--dns");
        }
        if !spec.extra_hosts.is_empty() {
            return own("/etc/hosts", "--add-host");
        }
        *network = davit_contracts::runtime::NetworkSpec { mode: infra.clone(), ..Default::default() };
    }
    if shared.uts && !spec.hostname.is_empty() {
        return own("the host name", "--hostname");
    }
    let namespaces = spec.namespaces.get_or_insert_default();
    let Namespaces { pid, ipc, uts, .. } = namespaces;
    for (on, mode, flag) in
        [(shared.pid, pid, "--pid"), (shared.ipc, ipc, "--ipc"), (shared.uts, uts, "--uts")]
    {
        if !on {
            continue;
        }
        if !mode.is_empty() && *mode != infra {
            return Err(RuntimeError::Invalid(format!(
                "conflicting options: --pod and {flag}: the pod shares this namespace"
            )));
        }
        mode.clone_from(&infra);
    }
    pod.clone_into(&mut spec.pod);
    Ok(())
}

/// podman's word for a pod, from the states of its members and of its infra container.
pub fn status(infra: &Record, members: &[Container]) -> &'static str {
    let of = |c: &Container| c.state.as_ref().map_or(String::new(), |s| s.status.clone());
    let states: Vec<String> = std::iter::once(of(&infra.container)).chain(members.iter().map(of)).collect();
    let count = |word: &str| states.iter().filter(|s| *s == word).count();
    let all = states.len();
    match () {
        () if count("dead") > 0 => "Dead",
        () if count("created") == all => "Created",
        () if count("running") == all => "Running",
        () if count("paused") == all => "Paused",
        () if count("exited") == all => "Exited",
        () if count("running") + count("restarting") > 0 && all > 1 => "Degraded",
        () if count("running") > 0 => "Running",
        () if count("paused") > 0 => "Paused",
        () => "Stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::network::PortMapping;
    use davit_contracts::runtime::{NetworkSpec, State};

    fn pod() -> PodRecord {
        PodRecord { name: "p".into(), shared: Shared::default() }
    }

    #[test]
    fn words_of_share() {
        let parse =
            |words: &[&str]| Shared::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap(), Shared::default());
        assert_eq!(parse(&["pid", "net"]).unwrap().words(), ["net", "pid"]);
        assert!(parse(&["none"]).unwrap().words().is_empty());
        assert!(parse(&["none", "net"]).is_err() && parse(&["mount"]).is_err());
    }

    #[test]
    fn a_member_shares_what_the_pod_shares_and_nothing_else() {
        let mut spec = ContainerSpec::default();
        join(&mut spec, "abc", &pod()).unwrap();
        assert_eq!(spec.network.as_ref().unwrap().mode, "container:abc");
        let n = spec.namespaces.clone().unwrap();
        assert_eq!((n.ipc.as_str(), n.uts.as_str(), n.pid.as_str()), ("container:abc", "container:abc", ""));
        join(&mut spec, "abc", &pod()).unwrap();
    }

    #[test]
    fn what_is_the_pods_is_refused() {
        let refused = |spec: ContainerSpec| join(&mut spec.clone(), "abc", &pod()).unwrap_err().to_string();
        let network = |n: NetworkSpec| ContainerSpec { network: Some(n), ..ContainerSpec::default() };
        let ports = NetworkSpec { ports: vec![PortMapping::default()], ..NetworkSpec::default() };
        assert!(refused(network(ports)).contains("--publish"));
        assert!(
            refused(network(NetworkSpec { mode: "n".into(), ..Default::default() })).contains("--network")
        );
        assert!(refused(ContainerSpec { hostname: "h".into(), ..Default::default() }).contains("--hostname"));
        let n = Namespaces { ipc: "host".into(), ..Namespaces::default() };
        assert!(refused(ContainerSpec { namespaces: Some(n), ..Default::default() }).contains("--ipc"));
    }

    #[test]
    fn states_of_pods_are_podmans() {
        let c = |word: &str| Container {
            state: Some(State { status: word.into(), ..State::default() }),
            ..Container::default()
        };
        let of = |infra: &str, members: &[&str]| {
            let record = Record { container: c(infra), ..Record::default() };
            status(&record, &members.iter().map(|w| c(w)).collect::<Vec<_>>())
        };
        assert_eq!(of("created", &["created"]), "Created");
        assert_eq!(of("running", &["running"]), "Running");
        assert_eq!(of("running", &[]), "Running");
        assert_eq!(of("running", &["exited"]), "Degraded");
        assert_eq!(of("exited", &["exited"]), "Exited");
        assert_eq!(of("exited", &["created"]), "Stopped");
        assert_eq!(of("paused", &["paused"]), "Paused");
    }
}
