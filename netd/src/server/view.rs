//! Checks, explanations and the host, as answers show them.

use davit_contracts::network as proto;
use davit_contracts::{Error, Kind};
use tonic::Status;

use crate::engine::{Drift, Explanation, Hop, HostView, Question, Verdict};
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

pub(super) fn question(r: proto::ExplainRequest) -> Result<Question, Status> {
    let port = u16::try_from(r.port).map_err(|_| {
        let text = format!("{} is not a port: 65535 is the highest", r.port);
        Status::from(Error::new(Kind::InvalidArgument, text))
    })?;
    Ok(Question { from: r.from, to: r.to, port, protocol: r.protocol })
}

pub(super) fn explanation(e: Explanation) -> proto::ExplainResponse {
    let reaches = e.reaches();
    let hop = |h: Hop| {
        let verdict = match h.verdict {
            Verdict::Note => proto::hop::Verdict::Note,
            Verdict::Pass => proto::hop::Verdict::Pass,
            Verdict::Stop => proto::hop::Verdict::Stop,
        };
        proto::Hop {
            stage: h.stage.to_owned(),
            r#where: h.place,
            what: h.what,
            verdict: verdict.into(),
            hint: h.hint,
        }
    };
    proto::ExplainResponse { hops: e.hops.into_iter().map(hop).collect(), reaches }
}
