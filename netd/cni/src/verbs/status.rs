//! STATUS: whether an ADD would be served.

use davit_contracts::Kind;
use davit_contracts::network::InspectNetworkRequest;
use davit_contracts::plugin::health_response::Status;
use davit_contracts::plugin::{HealthRequest, InfoRequest};
use davit_contracts::version::{NETWORK, require};

use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::netd::{Netd, answer};

/// Nothing, or why not.
pub(super) async fn status(config: &Config) -> Result<(), Failure> {
    // Without netd containers go on, but nobody answers their questions for names. Of one that is not ours to ask that is
    // not known.
    let away = |code: Code| match code {
        Code::Again if config.resolver => Code::Limited,
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
    match answer(netd.networks().inspect(inspect)).await {
        Err(error) if error.kind() == Kind::NotFound && config.wanted.is_some() => Ok(()),
        other => other.map(drop).map_err(failed),
    }
}
