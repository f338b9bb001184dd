//! `davit network graph`: the host, its networks and containers as a picture.

use davit_contracts::network::{
    HostRequest, InspectNetworkRequest, ListNetworksRequest, ListSandboxesRequest, Network,
};

use crate::app::App;
use crate::args::network_view::GraphArgs;
use crate::error::{Failure, Outcome};
use crate::graph::model::Graph;
use crate::graph::{dot, svg};
use crate::output;

/// Writes it to standard output or to a file.
pub async fn graph(app: &App, args: &GraphArgs) -> Outcome {
    let networks = chosen(app, &args.networks).await?;
    let sandboxes = app.network(app.endpoints().await?.list(ListSandboxesRequest {})).await?.sandboxes;
    let host = app.network(app.networks().await?.host(HostRequest {})).await?;
    let graph = Graph::new(&host, &networks, &sandboxes, args.networks.is_empty());
    let text = match args.format.as_str() {
        "dot" => dot::dot(&graph),
        "json" => format!("{}\n", graph.json()),
        _ => svg::svg(&graph),
    };
    match &args.output {
        None => output::print(&text),
        Some(path) => std::fs::write(path, text)
            .map_err(|e| Failure::io(format!("cannot write {}", path.display()), &e))?,
    }
    Ok(())
}

async fn chosen(app: &App, names: &[String]) -> Outcome<Vec<Network>> {
    if names.is_empty() {
        let request = ListNetworksRequest::default();
        return Ok(app.network(app.networks().await?.list(request)).await?.networks);
    }
    let mut networks: Vec<Network> = Vec::new();
    for name in names {
        let request = InspectNetworkRequest { name: name.clone() };
        let network = app.network(app.networks().await?.inspect(request)).await?;
        if !networks.iter().any(|n| n.id == network.id) {
            networks.push(network);
        }
    }
    Ok(networks)
}
