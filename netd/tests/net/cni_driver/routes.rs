//! Default routes of containers that are on networks of davit's and on those of plugins.

use davit_contracts::network as proto;
use serde_json::json;

use super::{PLACES, bridge, list, on, request};
use crate::host::{BEYOND, Guest, Host};

/// Whoever leaves, the way out that is left is taken.
#[tokio::test]
async fn the_default_route_moves_between_davits_networks_and_those_of_plugins() {
    let host = Host::with(PLACES).await;
    host.create(request("theirs", list("deb", "1.0.0", json!([bridge("10.92.0.0/24")])))).await.unwrap();
    let ours = host.net_create("ours").await;
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    let leave = async |guest: &Guest, network: &str| {
        let request =
            proto::DisconnectRequest { sandbox_id: guest.id.clone(), network: network.into(), force: false };
        host.endpoints().disconnect(request).await.unwrap();
    };
    let (ours, theirs) = (format!("via {}", ours.subnets[0].gateway), "via 10.92.0.1".to_owned());
    for order in [["ours", "theirs"], ["theirs", "ours"]] {
        for (gone, left) in [("ours", &theirs), ("theirs", &ours)] {
            for later in [true, false] {
                let guest = Guest::new("a");
                let now = if later { &order[..1] } else { &order[..] };
                host.attach(&guest, now, &[]).await.unwrap();
                if later {
                    let connect =
                        proto::ConnectRequest { sandbox_id: guest.id.clone(), endpoint: Some(on(order[1])) };
                    host.endpoints().connect(connect).await.unwrap();
                }
                leave(&guest, gone).await;
                let routes = guest.space.run("ip route show default");
                let case = format!("{order:?} later={later}: without {gone}");
                assert!(routes.lines().count() == 1 && routes.contains(left), "{case}: {routes}");
                assert!(guest.space.ask_tcp(&format!("{BEYOND}:80")).is_some(), "{case}");
                host.detach(&guest).await;
            }
        }
    }
}
