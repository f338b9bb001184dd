//! New containers: made, or made and started in one go. Everybody sees them from the beginning; one that cannot be made leaves nothing.

use std::collections::HashMap;

use davit_contracts::storage::PrepareResponse;

use super::copy::Copying;
use super::handle::{Answer, Command, Handle};
use super::start::Started;
use super::task::{Flow, Task};
use super::{restart, volumes};
use crate::engine::make_private_dir;
use crate::error::RuntimeError;

impl Task {
    /// The fast path of `davit run`: created and started in one go. A failure leaves nothing, unless the program could not be run.
    pub(super) async fn make_and_start(&mut self, hold: bool, answer: Answer<Started>) -> Flow {
        self.record.unseen = true;
        let cut = self.begin_starting();
        let result = Box::pin(self.bring_up(hold, true, &cut)).await;
        if let Err(e) = &result {
            tracing::debug!(container.id = self.record.short(), error = e.line(), "the run failed");
            return self.throw_away(answer, result).await;
        }
        self.end_starting();
        self.announce_created();
        let _ = answer.send(result);
        Flow::On
    }

    /// Makes a container that does not run.
    pub(super) async fn make(&mut self, answer: Answer<()>) -> Flow {
        let cut = self.begin_starting();
        let result = cut.or(self.create()).await;
        if result.is_err() {
            return self.throw_away(answer, result).await;
        }
        self.end_starting();
        self.announce_created();
        let _ = answer.send(result);
        Flow::On
    }

    /// Makes a container that does not run and begins with another one's files.
    pub(super) async fn make_like(
        &mut self,
        source: &Handle,
        freeze: bool,
        durable: bool,
        answer: Answer<()>,
    ) -> Flow {
        let cut = self.begin_starting();
        let result = cut.or(self.copy_from(source, freeze, durable)).await;
        if result.is_err() {
            return self.throw_away(answer, result).await;
        }
        self.end_starting();
        self.announce_created();
        let _ = answer.send(result);
        Flow::On
    }

    /// The source's task makes the copies; a failure undoes them here.
    async fn copy_from(&mut self, source: &Handle, freeze: bool, durable: bool) -> Result<(), RuntimeError> {
        self.look_networks_up().await?;
        let spec = self.spec_of();
        make_private_dir(&self.directory())?;
        self.teardown.snapshot = true;
        // Whether there are any volumes is known when they are copied.
        self.record.volumes = true;
        let wish = Copying { id: self.record.id().to_owned(), spec: spec.clone(), freeze, durable };
        let copied = source.ask(|answer| Command::Copy { wish: Box::new(wish), answer }).await?;
        let root = PrepareResponse { config: Some(copied.image), ..copied.root };
        self.take_image(&root, &spec)?;
        self.record.volumes = volumes::wants_any(&spec, &self.record.image);
        self.record.container.mount_points = copied.points;
        self.record_new()?;
        self.teardown.snapshot = false;
        Ok(())
    }

    /// Undoes a container that failed before it was there; one whose command could not be run stays, exited, as docker leaves it.
    async fn throw_away<T>(&mut self, answer: Answer<T>, result: Result<T, RuntimeError>) -> Flow {
        let kept = match &result {
            Err(e) => self.discard(e).await,
            Ok(_) => true,
        };
        self.end_starting();
        if kept {
            self.announce_created();
            let _ = answer.send(result);
            return Flow::On;
        }
        // The name is free at once; what could not be undone is tried again behind it.
        self.engine.registry.remove(self.record.id());
        self.publish_gone();
        let _ = answer.send(result);
        Flow::End
    }

    /// Prepares the snapshot and volumes of a new container.
    async fn create(&mut self) -> Result<(), RuntimeError> {
        self.look_networks_up().await?;
        let spec = self.spec_of();
        make_private_dir(&self.directory())?;
        self.teardown.snapshot = true;
        let root = self.root(true, &spec).await?;
        self.take_image(&root, &spec)?;
        self.record.volumes = volumes::wants_any(&spec, &self.record.image);
        self.record.container.mount_points = volumes::resolve(
            &self.engine.peers,
            self.record.id(),
            &spec,
            &self.record.image,
            &HashMap::new(),
        )
        .await?;
        self.record_new()?;
        self.teardown.snapshot = false;
        Ok(())
    }

    /// The record of a new container, durable where a reboot starts it.
    fn record_new(&self) -> Result<(), RuntimeError> {
        if restart::is_policy(&self.record.policy()) {
            return self.record.save_durably(&self.directory());
        }
        self.record.save(&self.directory())
    }

    /// Ends a run that failed before anybody saw the container. True: the container stays, exited, because its program could not be run.
    pub async fn discard(&mut self, error: &RuntimeError) -> bool {
        let keep = error.command_exit_code().is_some() && !self.record.auto_remove() && self.record.prepared;
        if keep {
            self.teardown.snapshot = false;
        } else {
            self.teardown.snapshot = true;
            self.teardown.release = self.record.volumes.then_some(true);
            self.teardown.directory = Some(self.directory());
        }
        self.abandon().await;
        self.record.unseen = false;
        if keep {
            self.start_failed(error);
        }
        keep
    }
}
