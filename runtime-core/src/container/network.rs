//! What runtimed asks of netd for a container.

use davit_contracts::network::{
    AttachRequest, AttachResponse, ConnectRequest, DetachRequest, DisconnectRequest, Endpoint, EndpointSpec,
    Holder, InspectNetworkRequest, PortMapping, RenameSandboxRequest,
};

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
