//! DEL and GC.

use davit_contracts::network::{
    DetachRequest, InspectNetworkRequest, ListSandboxesRequest, RemoveNetworkRequest, Sandbox,
};
use davit_contracts::{Error, Kind};

use super::identity::{CONFIGURATION, CONTAINER, INTERFACE, sandbox_id};
use crate::call::Attachment;
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::netd::{Netd, answer};

/// Detaches; fine when nothing is attached, and when the namespace is gone.
pub(super) async fn del(at: &Attachment, config: &Config) -> Result<(), Failure> {
    let netd = Netd::connect(config.socket.as_deref()).await?;
    detach(&netd, sandbox_id(&config.name, &at.container, &at.interface)).await?;
    Ok(())
}

async fn detach(netd: &Netd, sandbox_id: String) -> Result<(), Error> {
    answer(netd.endpoints().detach(DetachRequest { sandbox_id })).await.map(drop)
}

/// Detaches what this configuration attached and the caller does not know any more. Goes on after errors.
pub(super) async fn gc(config: &Config) -> Result<(), Failure> {
    let valid = config.valid.as_ref().ok_or_else(|| {
        Failure::new(Code::Config, "GC needs the field 'cni.dev/valid-attachments'")
            .with_details("an empty list means that nothing is to stay")
    })?;
    let netd = Netd::connect(config.socket.as_deref()).await?;
    let all = answer(netd.endpoints().list(ListSandboxesRequest {})).await?.sandboxes;
    let is = |s: &Sandbox, label: &str, wanted: &str| s.labels.get(label).is_some_and(|v| v == wanted);
    let mut errors = Vec::new();
    for sandbox in all.iter().filter(|s| is(s, CONFIGURATION, &config.name)) {
        let stays = |(container, interface): &(String, String)| {
            is(sandbox, CONTAINER, container) && is(sandbox, INTERFACE, interface)
        };
        if !valid.iter().any(stays)
            && let Err(error) = detach(&netd, sandbox.id.clone()).await
        {
            errors.push(error);
        }
    }
    if errors.is_empty() && config.remove_unused && valid.is_empty() {
        errors.extend(remove_network(&netd, config).await.err());
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0).into()),
        n => {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Err(Failure::new(Code::Netd, format!("{n} attachments could not be removed"))
                .with_details(lines.join("; ")))
        }
    }
}

/// Removes the network if an ADD of this configuration made it; others may still use it.
pub(super) async fn remove_network(netd: &Netd, config: &Config) -> Result<(), Error> {
    let name = config.network.clone();
    let found = match answer(netd.networks().inspect(InspectNetworkRequest { name: name.clone() })).await {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        other => other?,
    };
    if found.labels.get(CONFIGURATION) != Some(&config.name) || !found.endpoints.is_empty() {
        return Ok(());
    }
    match answer(netd.networks().remove(RemoveNetworkRequest { name, force: false })).await {
        Err(error) if matches!(error.kind(), Kind::InUse | Kind::NotFound) => Ok(()),
        other => other.map(drop),
    }
}
