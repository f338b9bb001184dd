//! Checks, explanations and the host, as answers show them.

use davit_contracts::network as proto;

use crate::engine::{Drift, HostView};
use crate::firewall::compare::Fault;

pub(super) fn drift(d: Drift) -> proto::Drift {
    let kind = match d.fault {
        Fault::Missing => "missing",
        Fault::Stray => "stray",
        Fault::Differs => "differs",
    };
    proto::Drift {
        kind: kind.to_owned(),
        object: d.object,
        network: d.network,
        sandbox: d.sandbox,
        detail: d.detail,
        repaired: d.repaired,
        error: d.error,
    }
}

pub(super) fn host(h: HostView) -> proto::HostResponse {
    let interface = |i: crate::engine::HostInterface| proto::HostInterface {
        name: i.name,
        kind: i.kind,
        addresses: i.addresses,
        up: i.up,
        default_route: i.default_route,
        network: i.network,
    };
    proto::HostResponse {
        hostname: h.hostname,
        interfaces: h.interfaces.into_iter().map(interface).collect(),
        firewall: h.firewall.to_owned(),
        nameservers: h.nameservers,
    }
}
