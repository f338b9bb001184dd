//! CHECK: what ADD answered, against netd's record, netd's own check and the kernel.

mod kernel;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use davit_contracts::Kind;
use davit_contracts::network::{CheckSandboxRequest, Drift, Endpoint};
use davit_sys::netns::{self, NetnsError};
use ipnet::IpNet;

use super::identity::sandbox_id;
use crate::call::Attachment;
use crate::config::Config;
use crate::expected::{Expected, Interface};
use crate::failure::{Code, Failure};
use crate::netd::{Netd, answer};
use kernel::{Seen, look};

/// Compares; the first difference is the answer.
pub(super) async fn check(at: &Attachment, config: &Config) -> Result<(), Failure> {
    let previous = config
        .previous
        .as_ref()
        .ok_or_else(|| Failure::new(Code::Config, "CHECK needs the field 'prevResult'"))?;
    let wanted = Expected::of(previous, &at.interface)?;
    let netd = Netd::connect(config.socket.as_deref()).await?;
    let sandbox_id = sandbox_id(&config.name, &at.container, &at.interface);
    let checked = match answer(netd.endpoints().check(CheckSandboxRequest { sandbox_id })).await {
        Err(error) if error.kind() == Kind::NotFound => {
            let what = format!("netd knows nothing of it on network '{}'", config.network);
            return Err(differs(at, what).with_details("DEL and ADD attach it again"));
        }
        other => other?,
    };
    let endpoints = checked.sandbox.map(|s| s.endpoints).unwrap_or_default();
    let endpoint = endpoints.first().ok_or_else(|| differs(at, "it is not connected any more"))?;
    let path = at.netns.as_deref().unwrap_or(Path::new(""));
    let fd = open(path)?;
    compare_sandbox(at, &wanted, path, &fd)?;
    compare_record(at, &wanted, endpoint)?;
    let seen = netns::visit(fd.as_fd(), || look(&at.interface))
        .map_err(|e| Failure::new(Code::Unknown, e.to_string()))?
        .map_err(|e| Failure::new(Code::Io, format!("cannot look into {}: {e}", path.display())))?;
    compare_kernel(at, &wanted, &seen)?;
    match checked.drifts.iter().find(|drift| concerns(drift)) {
        Some(drift) => Err(differs(at, said(drift)).with_details("davit net check --repair mends it")),
        None => Ok(()),
    }
}

fn differs(at: &Attachment, what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Differs, format!("{} of container {}: {what}", at.interface, at.container))
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    netns::open(path).map_err(|error| match &error {
        NetnsError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Failure::new(Code::Unknown, format!("{error}: {source}"))
        }
        _ => Failure::new(Code::Environment, format!("CNI_NETNS cannot be used: {error}")),
    })
}

/// One namespace may have several paths.
fn compare_sandbox(at: &Attachment, wanted: &Expected, path: &Path, fd: &OwnedFd) -> Result<(), Failure> {
    let other = Path::new(&wanted.sandbox);
    if other == path {
        return Ok(());
    }
    let theirs = netns::open(other).and_then(|theirs| netns::identify(theirs.as_fd())).ok();
    let own = netns::identify(fd.as_fd()).map_err(|e| Failure::new(Code::Io, e.to_string()))?;
    if theirs == Some(own) {
        return Ok(());
    }
    Err(differs(at, format!("prevResult has it in {}, which is another namespace", other.display())))
}

fn compare_record(at: &Attachment, wanted: &Expected, endpoint: &Endpoint) -> Result<(), Failure> {
    let has =
        |address: &IpNet| [&endpoint.ip, &endpoint.ip6].iter().any(|e| e.parse().ok() == Some(*address));
    if let Some(lost) = wanted.addresses.iter().find(|address| !has(address)) {
        return Err(differs(at, format!("{lost} is not its address at netd")));
    }
    let leads =
        |ip: &IpAddr| [&endpoint.gateway, &endpoint.gateway6].iter().any(|e| e.parse().ok() == Some(*ip));
    if let Some(other) = wanted.gateways.iter().find(|gateway| !leads(gateway)) {
        return Err(differs(at, format!("{other} is not its gateway at netd")));
    }
    compare_interface(at, &wanted.inside, &endpoint.mac, endpoint.mtu)?;
    if endpoint.host_interface.is_empty() {
        return Ok(());
    }
    let outside = wanted.outside.iter().find(|i| i.name == endpoint.host_interface).ok_or_else(|| {
        differs(at, format!("prevResult lacks {}, its end on the host", endpoint.host_interface))
    })?;
    compare_interface(at, outside, &endpoint.host_mac, endpoint.mtu)
}

/// What cannot be seen is not compared.
fn compare_interface(at: &Attachment, wanted: &Interface, mac: &str, mtu: u32) -> Result<(), Failure> {
    if let Some(said) = wanted.mac.as_ref().filter(|said| !mac.is_empty() && !said.eq_ignore_ascii_case(mac))
    {
        return Err(differs(at, format!("the mac of {} is {mac}, not {said}", wanted.name)));
    }
    if let Some(said) = wanted.mtu.filter(|said| mtu > 0 && *said != u64::from(mtu)) {
        return Err(differs(at, format!("the MTU of {} is {mtu}, not {said}", wanted.name)));
    }
    Ok(())
}

fn compare_kernel(at: &Attachment, wanted: &Expected, seen: &Seen) -> Result<(), Failure> {
    if !seen.there {
        return Err(differs(at, "the interface is gone"));
    }
    if !seen.up {
        return Err(differs(at, "the interface is down"));
    }
    if let (Some(wanted), Some(mac)) = (&wanted.inside.mac, &seen.mac)
        && !wanted.eq_ignore_ascii_case(mac)
    {
        return Err(differs(at, format!("its mac is {mac}, not {wanted}")));
    }
    if let Some(lost) = wanted.addresses.iter().find(|a| !seen.addresses.contains(a)) {
        return Err(differs(at, format!("it has lost its address {lost}")));
    }
    let Some(route) = wanted.routes.iter().find(|route| !seen.leads(route)) else { return Ok(()) };
    let to = match route.to.prefix_len() {
        0 => "the default route".to_owned(),
        _ => format!("the route to {}", route.to),
    };
    let by = route.gateway.map(|ip| format!(" by {ip}")).unwrap_or_default();
    Err(differs(at, format!("{to}{by} is not there")))
}

/// Whether a difference is this container's affair. What is there besides is not, nor are overlaps, which ADD does not refuse,
/// ports of others, and default routes: which one is there is compared with the result.
fn concerns(drift: &Drift) -> bool {
    let not = ["subnets of network ", "reservation of port ", "default route "];
    drift.kind != "stray" && !not.iter().any(|start| drift.object.starts_with(start))
}

fn said(drift: &Drift) -> String {
    match (drift.kind.as_str(), drift.detail.as_str()) {
        ("missing", "") => format!("{} is missing", drift.object),
        ("missing", detail) => format!("{} is missing: {detail}", drift.object),
        (_, "") => format!("{} is not as it should be", drift.object),
        (_, detail) => format!("{}: {detail}", drift.object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_containers_affair_is_overlooked() {
        let drift =
            |kind: &str, object: &str| Drift { kind: kind.into(), object: object.into(), ..Drift::default() };
        assert!(concerns(&drift("missing", "address 10.0.0.1/24 on dv-1")));
        for (kind, object) in [
            ("stray", "interface dvh1"),
            ("differs", "subnets of network web"),
            ("missing", "reservation of port 0.0.0.0:80/tcp"),
            ("missing", "default route via 10.0.0.1 inside"),
        ] {
            assert!(!concerns(&drift(kind, object)), "{object}");
        }
    }
}
