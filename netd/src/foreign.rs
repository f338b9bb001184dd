//! Sandboxes with networks that other programs make: the order of records and of plugins' runs.
//!
//! ```text
//! attach   engine: plan, record, ours wired   plugins: ADD   engine: recorded as acknowledged, names
//! connect  the same, with one endpoint
//! detach   plugins: DEL                       engine: everything else, the record last
//! start    engine: what was never acknowledged, or has no holder any more, becomes leftovers
//!          plugins that a killed netd ran: ended                              plugins: DEL
//! ```
//! A plugin may take seconds, so it runs here and not on the engine's thread; other sandboxes are served meanwhile. A
//! sandbox is changed by one request at a time, which has its [`turn`]. A request that was begun is finished also when
//! its caller has gone: a kill leaves a record that names what may be there, a lost connection leaves nothing.

mod leftovers;
pub mod turn;

use std::sync::Arc;
use std::time::Duration;

use davit_contracts::id::EndpointId;
use davit_contracts::network as proto;

use crate::driver::cni::chain::{Attachment, Chain, ChainError};
use crate::driver::cni::running::Running;
use crate::driver::cni::{CniNetwork, Object};
use crate::endpoint::{Endpoint, Sandbox};
use crate::engine::{AttachSpec, Attached, Client, Drift, EndpointSpec, Engine, EngineError, Listed, chain};
use crate::firewall::compare::Fault;
use crate::network::{Network, spec};
use tokio::task::JoinSet;
use turn::Turns;

/// How long plugins may keep everybody waiting at the start with their search for what is left over.
const GARBAGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long who removes a network waits for a container that is just leaving it.
const LEAVING_PATIENCE: Duration = Duration::from_secs(10);

/// An attachment that plugins make or remove.
#[derive(Debug, Clone)]
pub struct Work {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Whose, for a person.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// Its plugins.
    pub plugins: CniNetwork,
    /// What they are told.
    pub at: Attachment,
}

/// Changes of sandboxes, one after another for each.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    engine: Client,
    running: Running,
    turns: Arc<Turns>,
}

impl Sandboxes {
    /// Over an engine. Plugins that run are on record in `running`.
    pub fn new(engine: Client, running: Running) -> Self {
        Self { engine, running, turns: Arc::default() }
    }

    /// Makes a network. Plugins that can say so must be ready to serve it.
    pub async fn create_network(&self, request: proto::CreateNetworkRequest) -> Result<Listed, EngineError> {
        if request.driver == "cni"
            && let Some(plugins) = spec::check(&request)?.cni
        {
            let status = async { Chain::of(&plugins, &self.running)?.status().await };
            let network = request.name.clone();
            status.await.map_err(|source| EngineError::NotReady { network, source: Box::new(source) })?;
        }
        self.engine.call(move |e| e.create_network(&request)).await
    }

    /// Attaches a sandbox, all or nothing.
    pub async fn attach(&self, spec: AttachSpec) -> Result<Attached, EngineError> {
        let me = self.clone();
        finished(async move {
            let _turn = me.turns.take(&spec.id).await;
            let spec = Arc::new(spec);
            let begin = || {
                let spec = spec.clone();
                me.engine.call(move |e| e.attach(&spec))
            };
            let attached = match begin().await {
                Err(EngineError::PluginsFirst(_)) => {
                    me.leave(&spec.id).await?;
                    begin().await?
                }
                other => other?,
            };
            if !attached.sandbox.is_unfinished() {
                return Ok(attached);
            }
            let undo = |e: &mut Engine, id: &str| e.detach_own(id);
            me.add(&spec.id, undo).await
        })
        .await
    }

    /// Detaches a sandbox; fine when it is unknown.
    pub async fn detach(&self, id: String) -> Result<(), EngineError> {
        let me = self.clone();
        finished(async move {
            let _turn = me.turns.take(&id).await;
            let own = id.clone();
            match me.engine.call(move |e| e.detach(&own)).await {
                Err(EngineError::PluginsFirst(_)) => me.leave(&id).await,
                other => other,
            }
        })
        .await
    }

    /// Connects a sandbox to one more network.
    pub async fn connect(
        &self,
        id: String,
        spec: EndpointSpec,
    ) -> Result<(Sandbox, Endpoint, String), EngineError> {
        let me = self.clone();
        finished(async move {
            let _turn = me.turns.take(&id).await;
            let own = id.clone();
            let (sandbox, endpoint, network) = me.engine.call(move |e| e.connect(&own, &spec)).await?;
            if !endpoint.is_unfinished() {
                return Ok((sandbox, endpoint, network));
            }
            let name = network.clone();
            let undo = move |e: &mut Engine, id: &str| e.disconnect_own(id, &name);
            let attached = me.add(&id, undo).await?;
            let found = attached.sandbox.endpoints.iter().find(|e| e.id == endpoint.id).cloned();
            let endpoint = found.unwrap_or(endpoint);
            Ok((attached.sandbox, endpoint, network))
        })
        .await
    }

    /// Takes a sandbox off a network. With `force` also when its plugins do not remove what they made: that is left over.
    pub async fn disconnect(&self, id: String, network: String, force: bool) -> Result<(), EngineError> {
        let me = self.clone();
        finished(async move {
            let _turn = me.turns.take(&id).await;
            me.disconnect_in_turn(id, network, force).await
        })
        .await
    }

    async fn disconnect_in_turn(&self, id: String, network: String, force: bool) -> Result<(), EngineError> {
        let (own, from) = (id.clone(), network.clone());
        match self.engine.call(move |e| e.disconnect(&own, &from)).await {
            Err(EngineError::PluginsFirst(_)) => {}
            other => return other,
        }
        let (own, from) = (id.clone(), network.clone());
        let works = self.engine.call(move |e| e.plugin_work(&own, Some(&from))).await?;
        if let Err(error) = delete(&works, &self.running).await {
            self.give_up(&id, Some(&network), force, error).await?;
        }
        self.engine.call(move |e| e.disconnect_own(&id, &network)).await
    }

    /// Removes a network; with `force`, sandboxes are disconnected first.
    pub async fn remove_network(&self, name: String, force: bool) -> Result<Network, EngineError> {
        let me = self.clone();
        finished(async move {
            let remove = || {
                let name = name.clone();
                me.engine.call(move |e| e.remove_network(&name, force))
            };
            match remove().await {
                Err(EngineError::PluginsFirst(_)) => {}
                Err(EngineError::NetworkInUse { .. }) => {
                    me.await_leaving(&name).await?;
                    return remove().await;
                }
                other => return other,
            }
            let own = name.clone();
            let listed = me.engine.call(move |e| e.inspect_network(&own)).await?;
            for (sandbox, _) in listed.endpoints {
                let _turn = me.turns.take(&sandbox.id).await;
                me.disconnect_in_turn(sandbox.id, name.clone(), force).await?;
            }
            remove().await
        })
        .await
    }

    /// Plugins may take a while to let a container go that has ended: waits for those of a network that are in turn.
    async fn await_leaving(&self, network: &str) -> Result<(), EngineError> {
        let own = network.to_owned();
        let listed = self.engine.call(move |e| e.inspect_network(&own)).await?;
        let all = async {
            for (sandbox, _) in listed.endpoints {
                drop(self.turns.take(&sandbox.id).await);
            }
        };
        let _ = tokio::time::timeout(LEAVING_PATIENCE, all).await;
        Ok(())
    }

    /// Tells the plugins of lists that are davit's alone what is to stay.
    async fn collect_garbage(&self) -> Result<(), EngineError> {
        let mut networks = JoinSet::new();
        for (plugins, valid) in self.engine.call(Engine::plugin_garbage).await? {
            let running = self.running.clone();
            networks.spawn(async move {
                let collect = async { Chain::of(&plugins, &running)?.collect_garbage(&valid).await };
                match tokio::time::timeout(GARBAGE_PATIENCE, collect).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "plugins could not look for what is left over"),
                    Err(_) => tracing::warn!("plugins that look for what is left over take too long: ended"),
                }
            });
        }
        networks.join_all().await;
        Ok(())
    }

    /// Has plugins compare what they made with what is there; what they find wrong, which only a new ADD mends.
    pub async fn check(&self) -> Result<Vec<Drift>, EngineError> {
        let mut wrong = Vec::new();
        for work in self.engine.call(Engine::all_plugin_work).await? {
            let found = match Chain::of(&work.plugins, &self.running) {
                Ok(chain) => chain.check(&work.at).await.and_then(Result::err),
                Err(error) => Some(error),
            };
            wrong.extend(found.map(|error| Drift {
                fault: Fault::Differs,
                object: format!("attachment {}", work.at.interface),
                network: work.network,
                sandbox: work.container,
                detail: error.to_string(),
                repaired: false,
                error: "only its plugins can mend it: disconnect and connect".to_owned(),
            }));
        }
        Ok(wrong)
    }

    /// Has the plugins make what a sandbox's record says is unfinished; else undoes it.
    async fn add(
        &self,
        id: &str,
        undo: impl FnOnce(&mut Engine, &str) -> Result<(), EngineError> + Send + 'static,
    ) -> Result<Attached, EngineError> {
        let own = id.to_owned();
        let mut works = self.engine.call(move |e| e.plugin_work(&own, None)).await?;
        works.retain(|w| w.at.foreign.result.is_none());
        let failure = match add(&works, &self.running).await {
            Ok(results) => {
                let own = id.to_owned();
                match self.engine.call(move |e| e.finish(&own, results)).await {
                    Ok(attached) => return Ok(attached),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if let Err(error) = delete(&works, &self.running).await {
            tracing::warn!(container.id = %id, %error, "undoing a failed ADD");
        }
        let own = id.to_owned();
        if let Err(error) = self.engine.call(move |e| undo(e, &own)).await {
            tracing::warn!(container.id = %id, %error, "undoing a failed attach");
        }
        Err(failure)
    }

    /// Removes a sandbox that plugins have a part in.
    async fn leave(&self, id: &str) -> Result<(), EngineError> {
        let own = id.to_owned();
        let works = self.engine.call(move |e| e.plugin_work(&own, None)).await?;
        if let Err(error) = delete(&works, &self.running).await {
            self.give_up(id, None, false, error).await?;
        }
        let own = id.to_owned();
        self.engine.call(move |e| e.detach_own(&own)).await
    }

    /// Has what plugins did not remove kept as left over, where that is all that can be done; else answers their error.
    async fn give_up(
        &self,
        id: &str,
        network: Option<&str>,
        force: bool,
        error: EngineError,
    ) -> Result<(), EngineError> {
        let (own, from) = (id.to_owned(), network.map(str::to_owned));
        if !self.engine.call(move |e| e.give_up(&own, from.as_deref(), force)).await? {
            return Err(error);
        }
        tracing::warn!(container.id = %id, error = %chain(&error), "plugins left something; tried again from time to time");
        Ok(())
    }
}

/// Finishes what was begun, whether or not somebody waits for it.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::spawn(work).await.map_err(|_| EngineError::Stopped)?
}

async fn add(works: &[Work], running: &Running) -> Result<Vec<(EndpointId, Object)>, EngineError> {
    let mut results = Vec::new();
    for work in works {
        let add = async { Chain::of(&work.plugins, running)?.add(&work.at).await };
        let result = add.await.map_err(|e| failed("attach", work, e))?;
        results.push((work.endpoint.clone(), result));
    }
    Ok(results)
}

/// The last first; goes on after errors and answers the first.
async fn delete(works: &[Work], running: &Running) -> Result<(), EngineError> {
    let mut first = Ok(());
    for work in works.iter().rev() {
        let delete = async { Chain::of(&work.plugins, running)?.del(&work.at).await };
        if let Err(error) = delete.await
            && first.is_ok()
        {
            first = Err(failed("detach", work, error));
        }
    }
    first
}

fn failed(verb: &'static str, work: &Work, source: ChainError) -> EngineError {
    let (container, network) = (work.container.clone(), work.network.clone());
    EngineError::Plugins { verb, container, network, source: Box::new(source) }
}
