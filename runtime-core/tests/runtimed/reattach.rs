//! netd lost its record of a container that runs.

use davit_contracts::network::EndpointSpec;
use davit_contracts::runtime::{
    CheckNetworksRequest, CheckNetworksResponse, ConnectNetworkRequest, DisconnectNetworkRequest, NetworkSpec,
};
use davit_contracts::{Error, Kind};

use super::world::{World, world};

async fn check(w: &World, repair: bool) -> CheckNetworksResponse {
    w.client().check_networks(CheckNetworksRequest { repair }).await.unwrap().into_inner()
}

/// A container on two networks, with an address that it would not get of itself.
async fn start(w: &World) -> String {
    let endpoint = |network: &str, ip: &str| EndpointSpec {
        network: network.into(),
        ip: ip.into(),
        ..EndpointSpec::default()
    };
    let mut spec = w.spec("db", &["sleep", "100"]);
    spec.network = Some(NetworkSpec {
        endpoints: vec![endpoint("blue", "10.89.0.77"), endpoint("green", "")],
        ..NetworkSpec::default()
    });
    w.run(spec, false).await.unwrap().id
}

fn connect(network: &str) -> ConnectNetworkRequest {
    let endpoint = Some(EndpointSpec { network: network.into(), ..EndpointSpec::default() });
    ConnectNetworkRequest { container: "db".into(), endpoint }
}

#[test]
fn a_container_that_netd_does_not_know_is_told_and_attached_again() {
    world(async |w| {
        let id = start(w).await;
        assert_eq!(check(w, true).await, CheckNetworksResponse::default());
        let before = w.peers.held().sandboxes.remove(&id).unwrap();
        let told = check(w, false).await;
        let objects: Vec<_> = told.drifts.iter().map(|d| d.object.as_str()).collect();
        assert_eq!(objects, ["endpoint of db on blue", "endpoint of db on green"]);
        assert!(told.drifts.iter().all(|d| d.kind == "missing" && !d.repaired && d.error.is_empty()));
        assert_eq!(told.detached, [id.as_str()]);
        assert!(w.peers.held().sandboxes.is_empty(), "a check changes nothing");

        w.peers.held().refuse_attach = Some(Error::new(Kind::Internal, "told to refuse"));
        let refused = check(w, true).await;
        let error = &refused.drifts[0].error;
        assert!(error.contains("told to refuse") && error.contains("davit restart db"), "{error}");
        assert_eq!(refused.detached, [id.as_str()]);

        w.peers.held().refuse_attach = None;
        let mended = check(w, true).await;
        assert!(mended.drifts.len() == 2 && mended.drifts.iter().all(|d| d.repaired), "{mended:?}");
        assert!(mended.detached.is_empty());
        assert_eq!(w.peers.held().sandboxes[&id], before, "as it was");
        assert_eq!(check(w, false).await, CheckNetworksResponse::default());

        w.peers.held().sandboxes.get_mut(&id).unwrap().endpoints.remove(0);
        let told = check(w, true).await;
        assert!(told.drifts.len() == 1 && told.drifts[0].repaired, "{told:?}");
        assert!(w.peers.held().sandboxes[&id].endpoints.iter().any(|e| e.ip == "10.89.0.77/24"));
        assert_eq!(check(w, false).await, CheckNetworksResponse::default());
    });
}

#[test]
fn a_container_that_netd_does_not_know_can_be_connected_and_disconnected() {
    world(async |w| {
        let id = start(w).await;
        w.peers.held().sandboxes.remove(&id).unwrap();
        w.client().connect_network(connect("blue")).await.unwrap();
        assert_eq!(w.peers.held().sandboxes[&id].endpoints.len(), 2);
        let e = Error::from(w.client().connect_network(connect("blue")).await.unwrap_err());
        assert_eq!(e.kind(), Kind::AlreadyExists, "{e}");

        w.peers.held().sandboxes.remove(&id).unwrap();
        let disconnect =
            DisconnectNetworkRequest { container: "db".into(), network: "blue".into(), force: false };
        w.client().disconnect_network(disconnect).await.unwrap();
        let left = w.inspect("db").await.unwrap().endpoints;
        assert_eq!(left.iter().map(|e| e.network.as_str()).collect::<Vec<_>>(), ["green"]);
        w.client().connect_network(connect("bridge")).await.unwrap();
        let there: Vec<_> =
            w.peers.held().sandboxes[&id].endpoints.iter().map(|e| e.network.clone()).collect();
        assert_eq!(there, ["green", "bridge"]);
    });
}
