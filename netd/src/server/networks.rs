//! `davit.network.v1.Networks`.

use std::collections::HashMap;

use davit_contracts::Error;
use davit_contracts::network as proto;
use davit_contracts::network::networks_server::Networks;
use tonic::{Request, Response, Status};

use super::convert;
use super::filters::Filters;
use super::{Service, status, view};
use crate::engine::{Drift, EngineError, Explained};

#[tonic::async_trait]
impl Networks for Service {
    async fn create(
        &self,
        request: Request<proto::CreateNetworkRequest>,
    ) -> Result<Response<proto::Network>, Status> {
        let request = request.into_inner();
        let made = self.sandboxes.create_network(request).await.map_err(|e| status(&e))?;
        tracing::info!(network.id = %made.network.id, network = %made.network.name, "network created");
        Ok(Response::new(convert::network(&made)))
    }

    async fn list(
        &self,
        request: Request<proto::ListNetworksRequest>,
    ) -> Result<Response<proto::ListNetworksResponse>, Status> {
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut all = self.engine.call(|e| Ok(e.list_networks())).await.map_err(|e| status(&e))?;
        all.retain(|l| filters.match_network(l));
        let networks = all.iter().map(convert::network).collect();
        Ok(Response::new(proto::ListNetworksResponse { networks }))
    }

    async fn inspect(
        &self,
        request: Request<proto::InspectNetworkRequest>,
    ) -> Result<Response<proto::Network>, Status> {
        let name = request.into_inner().name;
        let found = self.engine.call(move |e| e.inspect_network(&name)).await.map_err(|e| status(&e))?;
        Ok(Response::new(convert::network(&found)))
    }

    async fn remove(
        &self,
        request: Request<proto::RemoveNetworkRequest>,
    ) -> Result<Response<proto::RemoveNetworkResponse>, Status> {
        let proto::RemoveNetworkRequest { name, force } = request.into_inner();
        let gone = self.sandboxes.remove_network(name, force).await.map_err(|e| status(&e))?;
        tracing::info!(network.id = %gone.id, network = %gone.name, "network removed");
        Ok(Response::new(proto::RemoveNetworkResponse { id: gone.id.to_string(), name: gone.name }))
    }

    async fn prune(
        &self,
        request: Request<proto::PruneNetworksRequest>,
    ) -> Result<Response<proto::PruneNetworksResponse>, Status> {
        let filters = Filters::of_prune(&request.into_inner().filters)?;
        let prune = move |e: &mut crate::engine::Engine| Ok(e.prune_networks(|l| filters.match_network(l)));
        let pruned = self.engine.call(prune).await.map_err(|e| status(&e))?;
        let mut failed = HashMap::new();
        for (name, error) in pruned.failed {
            let error = Error::from_error(error.kind(), &error);
            tracing::warn!(network = %name, %error, "not pruned");
            failed.insert(name, error.to_string());
        }
        Ok(Response::new(proto::PruneNetworksResponse { removed: pruned.removed, failed }))
    }

    async fn set_policy(
        &self,
        request: Request<proto::SetPolicyRequest>,
    ) -> Result<Response<proto::Network>, Status> {
        let request = request.into_inner();
        let set = self.engine.call(move |e| e.set_policy(&request)).await.map_err(|e| status(&e))?;
        tracing::info!(network.id = %set.network.id, network = %set.network.name, "network policy set");
        Ok(Response::new(convert::network(&set)))
    }

    async fn check(
        &self,
        request: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckResponse>, Status> {
        let proto::CheckRequest { repair, detached } = request.into_inner();
        let host = self.engine.call(move |e| e.check_host(repair, &detached)).await;
        let (mut drifts, sandboxes) = host.map_err(|e| status(&e))?;
        let unseen = |what: &str, error: EngineError| vec![Drift::unseen(what, &error)];
        for id in sandboxes {
            let what = format!("container {id}");
            let found = self.engine.call(move |e| e.check_sandbox(&id, repair)).await;
            drifts.extend(found.unwrap_or_else(|e| unseen(&what, e)));
        }
        let plugins = self.sandboxes.check().await;
        drifts.extend(plugins.unwrap_or_else(|e| unseen("attachments of plugins", e)));
        // After the sandboxes: a repair of those may leave something for plugins.
        let left = self.sandboxes.check_leftovers(repair).await;
        drifts.extend(left.unwrap_or_else(|e| unseen("what plugins left over", e)));
        let drifts = drifts.into_iter().map(view::drift).collect();
        Ok(Response::new(proto::CheckResponse { drifts }))
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let question = view::question(request.into_inner())?;
        let mut told = HashMap::new();
        loop {
            let (question, known) = (question.clone(), told.clone());
            let explained = self.engine.call(move |e| e.explain(&question, &known)).await;
            let inquiry = match explained.map_err(|e| status(&e))? {
                Explained::Whole(explanation) => return Ok(Response::new(view::explanation(explanation))),
                Explained::Ask(inquiry) => inquiry,
            };
            let name = inquiry.name.clone();
            let answer = tokio::task::spawn_blocking(move || inquiry.ask()).await;
            told.insert(name, answer.map_err(|e| Status::internal(e.to_string()))?);
        }
    }

    async fn host(&self, _: Request<proto::HostRequest>) -> Result<Response<proto::HostResponse>, Status> {
        let host = self.engine.call(|e| e.host()).await.map_err(|e| status(&e))?;
        Ok(Response::new(view::host(host)))
    }
}
