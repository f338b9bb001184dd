//! STATUS: whether an ADD would be served.

use davit_contracts::Kind;
use davit_contracts::network::{HostRequest, InspectNetworkRequest, Network};
use davit_contracts::plugin::health_response::Status;
use davit_contracts::plugin::{HealthRequest, InfoRequest};
use davit_contracts::version::{NETWORK, require};

use super::fit;
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::netd::{Netd, answer};

/// Nothing, or why not.
pub(super) async fn status(config: &Config) -> Result<(), Failure> {
    // Without netd containers go on, but nobody answers their questions for names. Of one that is not ours to ask that is
    // not known.
    let away = |code: Code| match code {
        Code::Again if config.resolver => Code::Limited,
        Code::Config => Code::Config,
        _ => Code::Unavailable,
    };
    let netd =
        Netd::connect(config.socket.as_deref()).await.map_err(|e| Failure { code: away(e.code), ..e })?;
    let failed = |e: davit_contracts::Error| Failure { code: Code::Unavailable, ..e.into() };
    let info =
        answer(netd.plugin().info(InfoRequest { contracts: vec![NETWORK.into()] })).await.map_err(failed)?;
    require(&info.name, &info.contracts, NETWORK).map_err(failed)?;
    let health = answer(netd.plugin().health(HealthRequest {})).await.map_err(failed)?;
    if health.status() == Status::Failed {
        let reasons: Vec<_> = health
            .checks
            .iter()
            .filter(|c| c.status() == Status::Failed)
            .map(|c| c.message.as_str())
            .collect();
        return Err(Failure::new(Code::Unavailable, format!("netd cannot work: {}", reasons.join("; "))));
    }
    let inspect = InspectNetworkRequest { name: config.network.clone() };
    let parent = match (answer(netd.networks().inspect(inspect)).await, &config.wanted) {
        (Err(error), Some(wanted)) if error.kind() == Kind::NotFound => {
            wanted.parent().unwrap_or_default().to_owned()
        }
        (Err(error), _) => return Err(failed(error)),
        (Ok(network), _) => {
            is_meant(config, &network)?;
            network.parent
        }
    };
    check_parent(&netd, &parent).await
}

/// What ADD would refuse in any case.
fn is_meant(config: &Config, network: &Network) -> Result<(), Failure> {
    if matches!(network.driver.as_str(), "host" | "none") {
        return Err(fit::without_interface(&config.network));
    }
    let there: Vec<_> = network.subnets.iter().filter_map(|s| s.subnet.parse().ok()).collect();
    fit::check_subnets(config, &there)
}

/// Whether the host has a network's parent, or what a VLAN is made on, `eth0` for `eth0.5`. Empty: it needs none.
async fn check_parent(netd: &Netd, parent: &str) -> Result<(), Failure> {
    if parent.is_empty() {
        return Ok(());
    }
    let failed = |e: davit_contracts::Error| Failure { code: Code::Unavailable, ..e.into() };
    let host = answer(netd.networks().host(HostRequest {})).await.map_err(failed)?;
    let has = |name: &str| host.interfaces.iter().any(|i| i.name == name);
    let vlan = parent.rsplit_once('.').filter(|(_, id)| id.parse::<u16>().is_ok());
    // A network that was made without one has one of netd's.
    if has(parent) || vlan.is_some_and(|(below, _)| has(below)) || parent.starts_with("dv-") {
        return Ok(());
    }
    let message = format!("the host has no interface {parent}, which is to be the parent");
    Err(Failure::new(Code::Unavailable, message))
}
