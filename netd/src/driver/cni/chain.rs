//! A configuration list at work: the verbs, plugin after plugin (specification, section 3).

use std::path::{Path, PathBuf};

use super::list::{List, ListError};
use super::run::{Call, RunError, run};
use super::running::Running;
use super::{CniNetwork, Foreign, Object};

/// Why a chain did not do what it was to.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The list.
    #[error(transparent)]
    List(#[from] ListError),
    /// A plugin.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The last plugin of an ADD printed nothing.
    #[error("the plugins of '{0}' answered ADD without a result")]
    Silent(String),
}

/// A list with its programs found.
#[derive(Debug)]
pub struct Chain {
    list: List,
    programs: Vec<PathBuf>,
    path: Vec<PathBuf>,
    running: Running,
}

/// Whose attachment it is about.
/// The default is nobody's, for verbs about none.
#[derive(Debug, Clone, Default)]
pub struct Attachment {
    /// The sandbox's id.
    pub container: String,
    /// Where its namespace is; absent when it is gone.
    pub netns: Option<PathBuf>,
    /// The interface inside.
    pub interface: String,
    /// What was asked for, and what came of it.
    pub foreign: Foreign,
}

impl Chain {
    /// Reads a network's list and finds its plugins. Their runs are on record in `running`.
    pub fn of(network: &CniNetwork, running: &Running) -> Result<Self, ChainError> {
        let list = List::parse(&network.config)?;
        let programs = list.plugins.iter().map(|p| p.program(&network.path)).collect::<Result<_, _>>()?;
        Ok(Self { list, programs, path: network.path.clone(), running: running.clone() })
    }

    /// Attaches; the last plugin's result. After an error DEL has to follow.
    pub async fn add(&self, at: &Attachment) -> Result<Object, ChainError> {
        let mut previous = None;
        for index in 0..self.programs.len() {
            previous = self.one("ADD", index, at, previous.as_ref()).await?.or(previous);
        }
        previous.ok_or_else(|| ChainError::Silent(self.list.name.clone()))
    }

    /// Detaches, the last plugin first; goes on after errors and answers the first.
    pub async fn del(&self, at: &Attachment) -> Result<(), ChainError> {
        // Before 0.4.0 plugins were not told on DEL.
        let previous = at.foreign.result.as_ref().filter(|_| self.list.is_since("0.4.0"));
        let mut first = Ok(());
        for index in (0..self.programs.len()).rev() {
            if let Err(error) = self.one("DEL", index, at, previous).await
                && first.is_ok()
            {
                first = Err(error);
            }
        }
        first
    }

    /// Compares what is there with what ADD made; `None` where the list does not know or want it.
    pub async fn check(&self, at: &Attachment) -> Option<Result<(), ChainError>> {
        let previous = at.foreign.result.as_ref()?;
        if self.list.disable_check || !self.list.is_since("0.4.0") {
            return None;
        }
        for index in 0..self.programs.len() {
            if let Err(error) = self.one("CHECK", index, at, Some(previous)).await {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    /// Whether the plugins would serve an ADD, as far as they can say.
    pub async fn status(&self) -> Result<(), ChainError> {
        if !self.list.is_since("1.1.0") {
            return Ok(());
        }
        for index in 0..self.programs.len() {
            self.one("STATUS", index, &Attachment::default(), None).await?;
        }
        Ok(())
    }

    /// Tells the plugins which attachments there are, so that they remove all others.
    pub async fn collect_garbage(&self, valid: &[(String, String)]) -> Result<(), ChainError> {
        if !self.list.is_since("1.1.0") || self.list.disable_gc {
            return Ok(());
        }
        let valid: Vec<_> = valid
            .iter()
            .map(|(container, interface)| serde_json::json!({"containerID": container, "ifname": interface}))
            .collect();
        for (plugin, program) in self.list.plugins.iter().zip(&self.programs) {
            let mut config = self.list.config(plugin, &Object::new(), None);
            config.insert("cni.dev/valid-attachments".into(), valid.clone().into());
            run(&self.call("GC", program, &Attachment::default(), &config)).await?;
        }
        Ok(())
    }

    async fn one(
        &self,
        verb: &'static str,
        index: usize,
        at: &Attachment,
        previous: Option<&Object>,
    ) -> Result<Option<Object>, ChainError> {
        let config = self.list.config(&self.list.plugins[index], &at.foreign.asked, previous);
        Ok(run(&self.call(verb, &self.programs[index], at, &config)).await?)
    }

    fn call<'a>(
        &'a self,
        verb: &'static str,
        program: &'a Path,
        at: &'a Attachment,
        config: &'a Object,
    ) -> Call<'a> {
        Call {
            program,
            verb,
            container: &at.container,
            netns: at.netns.as_deref(),
            interface: &at.interface,
            path: &self.path,
            config,
            running: &self.running,
        }
    }
}
