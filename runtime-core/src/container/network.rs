//! What runtimed asks of netd for a container.

use davit_contracts::network::{
    AttachRequest, AttachResponse, ConnectRequest, DetachRequest, DisconnectRequest, Endpoint, EndpointSpec,
    Holder, InspectNetworkRequest, PortMapping, RenameSandboxRequest,
};
use davit_contracts::runtime::{ContainerSpec, NetworkSpec};

use super::record::{ProcessRecord, Record};
use crate::error::RuntimeError;
use crate::peers::{Peers, endpoints, networks};

/// Wires a container's namespace.
pub async fn attach(
    peers: &Peers,
    record: &Record,
    holder: ProcessRecord,
    specs: Vec<EndpointSpec>,
    ports: Vec<PortMapping>,
) -> Result<AttachResponse, RuntimeError> {
    let asked = record.container.spec.as_ref().and_then(|s| s.network.clone()).unwrap_or_default();
    let without_ipv6 = record.container.spec.as_ref().is_some_and(is_without_ipv6);
    let request = AttachRequest {
        sandbox_id: record.id().to_owned(),
        holder: Some(Holder { pid: holder.pid, start_time: holder.start_time, ..Holder::default() }),
        name: record.container.name.clone(),
        hostname: record.container.hostname.clone(),
        endpoints: specs,
        ports,
        dns_servers: asked.dns,
        dns_search: asked.dns_search,
        dns_options: asked.dns_options,
        labels: labels(record),
        without_ipv6,
        ..AttachRequest::default()
    };
    peers
        .network
        .call(|channel| {
            let request = request.clone();
            async move { endpoints(channel).attach(request).await }
        })
        .await
}

/// Whether its settings turn IPv6 off for all its interfaces. The OCI runtime makes them after the networks.
fn is_without_ipv6(spec: &ContainerSpec) -> bool {
    spec.sysctls.iter().any(|(name, value)| {
        name.replace('/', ".") == "net.ipv6.conf.all.disable_ipv6" && value.trim() != "0"
    })
}

/// The container's own, by which policies of networks know it, and whose it is.
fn labels(record: &Record) -> std::collections::HashMap<String, String> {
    let mut labels = record.container.spec.as_ref().map(|s| s.labels.clone()).unwrap_or_default();
    labels.insert("davit.owner".to_owned(), "runtimed".to_owned());
    labels
}

/// Undoes it; unknown is success.
pub async fn detach(peers: &Peers, id: &str) -> Result<(), RuntimeError> {
    let call =
        |channel| async move { endpoints(channel).detach(DetachRequest { sandbox_id: id.to_owned() }).await };
    peers.network.call(call).await.map(|_| ())
}

/// One more network for a running container.
pub async fn connect(peers: &Peers, id: &str, spec: &EndpointSpec) -> Result<Endpoint, RuntimeError> {
    let call = |channel| async move {
        let request = ConnectRequest { sandbox_id: id.to_owned(), endpoint: Some(spec.clone()) };
        endpoints(channel).connect(request).await
    };
    peers.network.call(call).await
}

/// One network less.
pub async fn disconnect(peers: &Peers, id: &str, network: &str, force: bool) -> Result<(), RuntimeError> {
    let call = |channel| async move {
        let request = DisconnectRequest { sandbox_id: id.to_owned(), network: network.to_owned(), force };
        endpoints(channel).disconnect(request).await
    };
    peers.network.call(call).await.map(|_| ())
}

/// Another name to resolve by; the endpoints as they are called now, none when netd does not know the container.
pub async fn rename(peers: &Peers, id: &str, name: &str) -> Result<Vec<Endpoint>, RuntimeError> {
    let call = |channel| async move {
        let request = RenameSandboxRequest { sandbox_id: id.to_owned(), name: name.to_owned() };
        endpoints(channel).rename(request).await
    };
    peers.network.call(call).await.map(|r| r.endpoints)
}

/// The id and name of a network that must exist.
pub async fn lookup(peers: &Peers, name: &str) -> Result<(String, String), RuntimeError> {
    let call = |channel| async move {
        networks(channel).inspect(InspectNetworkRequest { name: name.to_owned() }).await
    };
    peers.network.call(call).await.map(|n| (n.id, n.name))
}

/// Writes the names of networks into a spec that was given their ids or beginnings of them, so that they are known again when
/// netd is not asked, or does not know them any more. `none` and `host` are modes when they are named, and nothing else.
pub fn settle(asked: &mut NetworkSpec, name_of: impl Fn(&str) -> Option<String>) {
    let texts = asked.endpoints.iter_mut().map(|e| &mut e.network).chain([&mut asked.mode]);
    for text in texts.filter(|text| !text.is_empty()) {
        if let Some(name) = name_of(text).filter(|name| !matches!(name.as_str(), "none" | "host")) {
            *text = name;
        }
    }
}

/// The name of the network that a text meant when these connections were made: netd takes a name before the beginning of an id.
pub fn name_among(made: &[Endpoint], text: &str) -> Option<String> {
    let named = made.iter().find(|e| e.network == text);
    named.or_else(|| made.iter().find(|e| e.network_id.starts_with(text))).map(|e| e.network.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(mode: &str, networks: &[&str]) -> NetworkSpec {
        let endpoint = |n: &&str| EndpointSpec { network: (*n).into(), ..EndpointSpec::default() };
        NetworkSpec {
            mode: mode.into(),
            endpoints: networks.iter().map(endpoint).collect(),
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn ipv6_may_be_off_for_all() {
        for (name, value, off) in [
            ("net.ipv6.conf.all.disable_ipv6", "1", true),
            ("net/ipv6/conf/all/disable_ipv6", "1", true),
            ("net.ipv6.conf.all.disable_ipv6", "0", false),
            ("net.ipv6.conf.default.disable_ipv6", "1", false),
        ] {
            let sysctls = [(name.to_owned(), value.to_owned())].into();
            let spec = ContainerSpec { sysctls, ..ContainerSpec::default() };
            assert_eq!(is_without_ipv6(&spec), off, "{name}={value}");
        }
    }

    #[test]
    fn ids_become_names() {
        let endpoint = |id: &str, name: &str| Endpoint {
            network_id: id.into(),
            network: name.into(),
            ..Endpoint::default()
        };
        // The second is called as the first's id begins.
        let made = [endpoint("beef01", "front"), endpoint("cafe02", "beef"), endpoint("dada03", "host")];
        let settled = |mode: &str, networks: &[&str]| {
            let mut spec = asked(mode, networks);
            settle(&mut spec, |text| name_among(&made, text));
            (spec.mode, spec.endpoints.into_iter().map(|e| e.network).collect::<Vec<_>>())
        };
        assert_eq!(
            settled("beef0", &["beef0", "beef"]),
            ("front".into(), vec!["front".into(), "beef".into()])
        );
        assert_eq!(settled("", &["cafe02"]), (String::new(), vec!["beef".into()]));
        assert_eq!(settled("dada03", &[]).0, "dada03");
        assert_eq!(settled("container:beef", &[]).0, "container:beef");
    }
}
