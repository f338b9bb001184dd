//! The stream of events: the journal from where the subscriber left off, then what happens.

use std::sync::Arc;
use std::time::Duration;

use davit_contracts::runtime::events_server::Events;
use davit_contracts::runtime::{Event, SubscribeRequest};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Service;
use crate::clock::unix_ns;
use crate::engine::Engine;
use crate::events::{FILTERS, Past, matches};
use crate::filters::Filters;

/// Journaled events are read in portions.
const PORTION: usize = 1000;

#[tonic::async_trait]
impl Events for Service {
    type SubscribeStream = ReceiverStream<Result<Event, Status>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let filters = Filters::new(&request.filters, &request.filter, FILTERS)?;
        let (out, stream) = mpsc::channel(64);
        let subscription = Subscription { engine: Arc::clone(&self.engine), request, filters, out };
        tokio::spawn(subscription.serve());
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Subscription {
    engine: Arc<Engine>,
    request: SubscribeRequest,
    filters: Filters,
    out: mpsc::Sender<Result<Event, Status>>,
}

impl Subscription {
    async fn serve(self) {
        let (mut past, mut live) = self.engine.events.subscribe();
        // Without a beginning only what happens from now on is meant.
        let replay = self.request.since_unix_ns > 0 || self.request.after_seq > 0;
        let mut seen = if replay { self.request.after_seq } else { past.next - 1 };
        loop {
            // An older journal's reader, which was ahead of this one, starts with what is new here.
            seen = seen.min(past.next - 1);
            if !self.catch_up(&past, &mut seen).await || !self.follow(&mut live, &mut seen).await {
                return;
            }
            // It read too slowly for what is kept in memory: the journal has the rest.
            (past, live) = self.engine.events.subscribe();
        }
    }

    /// Sends what was before; false when the stream is at its end.
    async fn catch_up(&self, past: &Past, seen: &mut u64) -> bool {
        if *seen > 0 && *seen + 1 < past.first {
            return self.rotated(past.first).await;
        }
        let kept = past.kept.first().map_or(past.next, |e| e.seq);
        while *seen + 1 < kept {
            let (engine, after, since) = (Arc::clone(&self.engine), *seen, self.request.since_unix_ns);
            let read = move || engine.events.read(after, kept, since, PORTION);
            let events = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            if events.is_empty() {
                break;
            }
            for event in events {
                *seen = event.seq;
                if !self.send(event).await {
                    return false;
                }
            }
        }
        for event in &past.kept {
            if event.seq > *seen
                && event.time_unix_ns >= self.request.since_unix_ns
                && !self.send(event.clone()).await
            {
                return false;
            }
        }
        *seen = past.next - 1;
        true
    }

    /// Sends what happens; true when the journal has to help.
    async fn follow(&self, live: &mut Receiver<Event>, seen: &mut u64) -> bool {
        let until = sleep_until(self.request.until_unix_ns);
        tokio::pin!(until);
        loop {
            let event = tokio::select! {
                biased;
                event = live.recv() => event,
                () = &mut until => return false,
                () = self.out.closed() => return false,
            };
            match event {
                Ok(event) if event.seq <= *seen => {}
                Ok(event) => {
                    *seen = event.seq;
                    if !self.send(event).await {
                        return false;
                    }
                }
                Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            }
        }
    }

    /// What it asks for is not kept any more. It hears from which number on it may ask again.
    async fn rotated(&self, first: u64) -> bool {
        let text = format!(
            "events before number {first} are not kept any more: resume with after_seq {}",
            first - 1
        );
        let _ = self.out.send(Err(Status::data_loss(text))).await;
        false
    }

    /// False when the stream is at its end.
    async fn send(&self, event: Event) -> bool {
        let until = self.request.until_unix_ns;
        if until > 0 && event.time_unix_ns > until {
            return false;
        }
        !matches(&event, &self.filters) || self.out.send(Ok(event)).await.is_ok()
    }
}

async fn sleep_until(unix: i64) {
    if unix <= 0 {
        return std::future::pending().await;
    }
    tokio::time::sleep(Duration::from_nanos(u64::try_from(unix - unix_ns()).unwrap_or(0))).await;
}
