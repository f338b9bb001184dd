//! The stream of events.

use std::time::Duration;

use davit_contracts::runtime::events_server::Events;
use davit_contracts::runtime::{Event, SubscribeRequest};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Service;
use crate::clock::unix_ns;
use crate::events::matches;

#[tonic::async_trait]
impl Events for Service {
    type SubscribeStream = ReceiverStream<Result<Event, Status>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let (kept, mut live) = self.engine.events.subscribe();
        let (out, stream) = mpsc::channel(64);
        tokio::spawn(async move {
            // Without a beginning only what happens from now on is meant.
            let replay = request.since_unix_ns > 0 || request.after_seq > 0;
            let old = kept
                .into_iter()
                .filter(|e| replay && e.time_unix_ns >= request.since_unix_ns && e.seq > request.after_seq);
            for event in old {
                if !send(&request, event, &out).await {
                    return;
                }
            }
            let until = sleep_until(request.until_unix_ns);
            tokio::pin!(until);
            loop {
                let event = tokio::select! {
                    event = live.recv() => event,
                    () = &mut until => return,
                    () = out.closed() => return,
                };
                let on = match event {
                    Ok(event) => send(&request, event, &out).await,
                    Err(RecvError::Lagged(missed)) => {
                        let text = format!(
                            "{missed} events were missed: the reader is too slow; resume with after_seq"
                        );
                        let _ = out.send(Err(Status::data_loss(text))).await;
                        false
                    }
                    Err(RecvError::Closed) => false,
                };
                if !on {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// False when the stream is at its end.
async fn send(request: &SubscribeRequest, event: Event, out: &mpsc::Sender<Result<Event, Status>>) -> bool {
    if request.until_unix_ns > 0 && event.time_unix_ns > request.until_unix_ns {
        return false;
    }
    !matches(&event, &request.filters) || out.send(Ok(event)).await.is_ok()
}

async fn sleep_until(unix: i64) {
    if unix <= 0 {
        return std::future::pending().await;
    }
    tokio::time::sleep(Duration::from_nanos(u64::try_from(unix - unix_ns()).unwrap_or(0))).await;
}
