//! What plugins made and have not removed yet, of containers that are gone or were taken off a network by force.
//!
//! Each is on record with all that its DEL needs (run/network/leftovers), so it outlives its network. DEL is tried when netd
//! starts, now and then while it runs, and by a repair.

use std::time::Duration;

use davit_contracts::id::EndpointId;

use super::{Sandboxes, Work, delete};
use crate::engine::{Drift, Engine, EngineError, chain};
use crate::firewall::compare::Fault;

/// How long until it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

impl Sandboxes {
    /// Runs DEL for what earlier runs of netd left, from then on now and then, and first GC where a network wants it. Does not
    /// wait for DEL; who comes for one of those sandboxes does.
    pub async fn clean_up(&self) -> Result<(), EngineError> {
        // What they would still make is not theirs to make any more: first they end.
        if let Err(error) = self.running.end_all().await {
            tracing::warn!(error = %chain(&error), "plugins of an earlier netd may still run");
        }
        let leftovers = self.engine.call(Engine::leftovers).await?;
        let mut turns = Vec::new();
        for (id, _) in &leftovers {
            turns.push(self.turns.take(id).await);
        }
        let me = self.clone();
        tokio::spawn(async move {
            for ((id, works), turn) in leftovers.into_iter().zip(turns) {
                if let Err(error) = me.delete_leftovers(&id, &works).await {
                    tracing::warn!(container.id = %id, error = %chain(&error), "plugins left something; tried again from time to time");
                }
                drop(turn);
            }
            me.try_again().await
        });
        // Before anybody is served: what is attached meanwhile would not be in the list of what is to stay.
        self.collect_garbage().await
    }

    /// Ends with the engine.
    async fn try_again(&self) -> Result<(), EngineError> {
        loop {
            tokio::time::sleep(AGAIN).await;
            for (id, _) in self.engine.call(Engine::leftovers).await? {
                if let Err(error) = self.clear(&id).await {
                    tracing::debug!(container.id = %id, %error, "plugins still leave something");
                }
            }
        }
    }

    /// What is left over, as a check tells it; a repair has it removed.
    pub async fn check_leftovers(&self, repair: bool) -> Result<Vec<Drift>, EngineError> {
        let mut drifts = Vec::new();
        for (id, works) in self.engine.call(Engine::leftovers).await? {
            let failure = if repair { self.clear(&id).await.err() } else { None };
            let drift = |work: Work| Drift {
                fault: Fault::Stray,
                object: format!("what plugins made for {} of {}", work.at.interface, work.at.container),
                network: work.network,
                sandbox: work.container,
                detail: "their DEL has not succeeded yet".into(),
                repaired: repair && failure.is_none(),
                error: failure.as_ref().map_or_else(String::new, |e| chain(e)),
            };
            drifts.extend(works.into_iter().map(drift));
        }
        Ok(drifts)
    }

    /// Tries DEL for a sandbox's leftovers.
    async fn clear(&self, id: &str) -> Result<(), EngineError> {
        let _turn = self.turns.take(id).await;
        // As it is in turn.
        let leftovers = self.engine.call(Engine::leftovers).await?;
        match leftovers.into_iter().find(|(of, _)| of == id) {
            Some((_, works)) => self.delete_leftovers(id, &works).await,
            None => Ok(()),
        }
    }

    async fn delete_leftovers(&self, id: &str, works: &[Work]) -> Result<(), EngineError> {
        delete(works, &self.running).await?;
        let gone: Vec<EndpointId> = works.iter().map(|w| w.endpoint.clone()).collect();
        let id = id.to_owned();
        self.engine.call(move |e| e.forget_leftovers(&id, &gone)).await
    }
}
