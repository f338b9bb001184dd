//! System.Check: a check on threads of its own, its events as messages.

use std::pin::Pin;
use std::sync::Arc;

use davit_contracts::storage as pb;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::status;
use crate::check::{Event, Finding, Options, Problem, Reporter, Totals};
use crate::registry::Access;
use crate::store::Store;

type Events = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::CheckEvent, Status>> + Send>>;

/// Findings on their way; a client that does not read holds the check up, not our memory.
const EVENTS: usize = 64;

struct Channel(mpsc::Sender<Result<pb::CheckEvent, Status>>);

impl Reporter for Channel {
    fn report(&self, event: Event) {
        // Refused only when the client has gone, which `closed` tells.
        let _ = self.0.blocking_send(Ok(message(event)));
    }

    fn closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Starts a check; it is given up when the answer is dropped.
pub(super) fn run(store: Arc<Store>, request: pb::CheckRequest) -> Events {
    let (sender, receiver) = mpsc::channel(EVENTS);
    let options = Options {
        references: request.references,
        repair: request.repair,
        quick: request.quick,
        access: request.auth.into_iter().map(|(registry, auth)| (registry, access(auth))).collect(),
    };
    let (span, runtime) = (tracing::Span::current(), Handle::current());
    tokio::task::spawn_blocking(move || {
        span.in_scope(|| {
            let last = match store.check(&options, &Channel(sender.clone()), &runtime) {
                Ok(totals) => Ok(done(totals)),
                Err(e) => Err(status(&e)),
            };
            let _ = sender.blocking_send(last);
        });
    });
    Box::pin(ReceiverStream::new(receiver))
}

fn access(auth: pb::RegistryAuth) -> Access {
    Access {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        ..Access::default()
    }
}

fn done(totals: Totals) -> pb::CheckEvent {
    let Totals { layers, files, bytes, problems, repaired } = totals;
    let done = pb::CheckDone { layers, files, bytes, problems, repaired };
    pb::CheckEvent { event: Some(pb::check_event::Event::Done(done)) }
}

fn message(event: Event) -> pb::CheckEvent {
    use pb::check_event::Event as Out;
    let event = match event {
        Event::Finding(f) => Out::Finding(finding(f)),
        Event::Layer(id, current, total) => Out::Layer(pb::progress::Layer {
            id: id.short().to_owned(),
            phase: pb::progress::Phase::Done as i32,
            current,
            total,
        }),
    };
    pb::CheckEvent { event: Some(event) }
}

fn finding(f: Finding) -> pb::Finding {
    use pb::finding::Problem as Out;
    let problem = match f.problem {
        Problem::Content => Out::Content,
        Problem::Missing => Out::Missing,
        Problem::Extra => Out::Extra,
        Problem::Metadata => Out::Metadata,
        Problem::Blob => Out::Blob,
        Problem::Record => Out::Record,
    };
    pb::Finding {
        problem: problem as i32,
        path: f.path,
        diff_id: f.diff_id.map(|d| d.to_string()).unwrap_or_default(),
        images: f.images,
        detail: f.detail,
        repaired: f.repaired,
        why_not: f.why_not,
    }
}
