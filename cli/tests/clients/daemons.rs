//! Stand-ins for runtimed and storaged that answer just what the tests ask.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use davit_contracts::runtime::containers_server::{Containers, ContainersServer};
use davit_contracts::storage::images_server::{Images, ImagesServer};
use davit_contracts::{Error, Kind, runtime as rt, storage as st};
use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What the stand-ins share with the test.
#[derive(Default)]
pub struct Book {
    /// Calls in order, as words.
    pub calls: Vec<String>,
    /// Images that are here.
    pub images: HashSet<String>,
    /// What Inspect says of any container.
    pub container: rt::Container,
    /// The request of the last Run.
    pub run: Option<rt::RunRequest>,
}

/// Shared state.
pub type Shared = Arc<Mutex<Book>>;

#[derive(Clone)]
struct Daemon {
    book: Shared,
    monitor: PathBuf,
}

type Answer<T> = Result<Response<T>, Status>;

impl Daemon {
    fn note(&self, call: impl Into<String>) {
        self.book.lock().unwrap().calls.push(call.into());
    }

    fn missing(&self, image: &str) -> Option<Status> {
        let here = self.book.lock().unwrap().images.contains(image);
        let e = Error::new(Kind::NotFound, format!("there is no image '{image}'"))
            .with_hint("did you mean tools:latest?");
        (!here).then(|| e.into())
    }
}

fn not_here<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this test"))
}

/// Methods that no test calls, as `async_trait` writes them: it does not look into macros.
macro_rules! absent {
    ($($name:ident($request:ty) -> $response:ty;)*) => {$(
        fn $name<'a, 'b>(&'a self, _: Request<$request>) -> Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { not_here() })
        }
    )*};
}

#[tonic::async_trait]
impl Containers for Daemon {
    async fn run(&self, request: Request<rt::RunRequest>) -> Answer<rt::RunResponse> {
        let request = request.into_inner();
        let spec = request.spec.clone().unwrap_or_default();
        self.note(format!("run {}", spec.image));
        if let Some(status) = self.missing(&spec.image) {
            return Err(status);
        }
        self.book.lock().unwrap().run = Some(request);
        Ok(Response::new(rt::RunResponse {
            id: "a".repeat(64),
            attach_socket: self.monitor.display().to_string(),
            ..rt::RunResponse::default()
        }))
    }

    async fn wait(&self, request: Request<rt::WaitRequest>) -> Answer<rt::WaitResponse> {
        self.note(format!("wait {:?}", request.into_inner().condition()));
        Ok(Response::new(rt::WaitResponse::default()))
    }

    async fn inspect(&self, _: Request<rt::InspectRequest>) -> Answer<rt::InspectResponse> {
        self.note("inspect");
        let container = self.book.lock().unwrap().container.clone();
        Ok(Response::new(rt::InspectResponse { container: Some(container) }))
    }

    async fn list(&self, _: Request<rt::ListRequest>) -> Answer<rt::ListResponse> {
        let container = self.book.lock().unwrap().container.clone();
        Ok(Response::new(rt::ListResponse { containers: vec![container] }))
    }

    type LogsStream = ReceiverStream<Result<rt::LogEntry, Status>>;
    type StatsStream = ReceiverStream<Result<rt::StatsResponse, Status>>;

    absent! {
        create(rt::CreateRequest) -> rt::CreateResponse;
        start(rt::StartRequest) -> rt::StartResponse;
        stop(rt::StopRequest) -> rt::StopResponse;
        kill(rt::KillRequest) -> rt::KillResponse;
        restart(rt::RestartRequest) -> rt::RestartResponse;
        pause(rt::PauseRequest) -> rt::PauseResponse;
        unpause(rt::UnpauseRequest) -> rt::UnpauseResponse;
        remove(rt::RemoveRequest) -> rt::RemoveResponse;
        clone_from(rt::CloneRequest) -> rt::CloneResponse;
        rename(rt::RenameRequest) -> rt::RenameResponse;
        update(rt::UpdateRequest) -> rt::UpdateResponse;
        attach(rt::AttachRequest) -> rt::AttachResponse;
        logs(rt::LogsRequest) -> Self::LogsStream;
        probe(rt::ProbeRequest) -> rt::ProbeResponse;
        top(rt::TopRequest) -> rt::TopResponse;
        stats(rt::StatsRequest) -> Self::StatsStream;
        connect_network(rt::ConnectNetworkRequest) -> rt::ConnectNetworkResponse;
        disconnect_network(rt::DisconnectNetworkRequest) -> rt::DisconnectNetworkResponse;
        check_networks(rt::CheckNetworksRequest) -> rt::CheckNetworksResponse;
    }
}

type Progress = ReceiverStream<Result<st::Progress, Status>>;

#[tonic::async_trait]
impl Images for Daemon {
    async fn inspect(&self, request: Request<st::InspectImageRequest>) -> Answer<st::InspectImageResponse> {
        match self.missing(&request.into_inner().reference) {
            Some(status) => Err(status),
            None => Ok(Response::new(st::InspectImageResponse::default())),
        }
    }

    /// `gone` cannot be fetched; all else can.
    async fn pull(&self, request: Request<st::PullRequest>) -> Answer<Self::PullStream> {
        let reference = request.into_inner().reference;
        self.note(format!("pull {reference}"));
        if reference == "gone" {
            return Err(Error::new(Kind::Unavailable, "the registry does not answer").into());
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        self.book.lock().unwrap().images.insert(reference.clone());
        let done = st::ImageDone { references: vec![reference], ..st::ImageDone::default() };
        let event = st::Progress { event: Some(st::progress::Event::Done(done)) };
        let _ = sender.send(Ok(event)).await;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn load(&self, request: Request<Streaming<st::LoadRequest>>) -> Answer<Self::LoadStream> {
        let mut parts = request.into_inner();
        let mut bytes = 0;
        while let Some(part) = parts.message().await? {
            if let Some(st::load_request::Part::Data(data)) = part.part {
                bytes += data.len();
            }
        }
        self.note(format!("load {bytes}"));
        Err(Error::new(Kind::Corrupt, "the archive is cut short").into())
    }

    type PullStream = Progress;
    type PushStream = Progress;
    type LoadStream = Progress;
    type SaveStream = ReceiverStream<Result<st::Chunk, Status>>;
    type ImportStream = Progress;
    type FromHostStream = Progress;
    type CommitStream = Progress;

    absent! {
        push(st::PushRequest) -> Self::PushStream;
        save(st::SaveRequest) -> Self::SaveStream;
        import(Streaming<st::ImportRequest>) -> Self::ImportStream;
        from_host(st::FromHostRequest) -> Self::FromHostStream;
        commit(st::CommitRequest) -> Self::CommitStream;
        list(st::ListImagesRequest) -> st::ListImagesResponse;
        tag(st::TagRequest) -> st::TagResponse;
        remove(st::RemoveImageRequest) -> st::RemoveImageResponse;
        prune(st::PruneImagesRequest) -> st::PruneImagesResponse;
    }
}

/// Serves until dropped. Each daemon has a runtime of its own, so that one can be ended alone.
pub struct Serving(Option<tokio::runtime::Runtime>);

impl Serving {
    /// Serves `runtimed` and `storaged` in `run`.
    pub fn start(run: &Path, book: &Shared) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let daemon = Daemon { book: book.clone(), monitor: run.join("monitor.sock") };
        let guard = runtime.enter();
        for name in ["runtimed", "storaged"] {
            let listener = UnixListener::bind(run.join(format!("{name}.sock"))).unwrap();
            let router = tonic::transport::Server::builder()
                .add_service(ContainersServer::new(daemon.clone()))
                .add_service(ImagesServer::new(daemon.clone()));
            runtime.spawn(router.serve_with_incoming(UnixListenerStream::new(listener)));
        }
        drop(guard);
        Self(Some(runtime))
    }

    /// As a kill does: connections break.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Not in the background: its socket must be closed when this returns.
            runtime.shutdown_timeout(std::time::Duration::from_secs(20));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}
