//! Containers.

use davit_contracts::runtime::containers_server::Containers;
use davit_contracts::runtime::wait_request::Condition;
#[allow(clippy::wildcard_imports)] // The service's own messages: forty names.
use davit_contracts::runtime::*;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Service, stats};
use crate::container::handle::{Command, Handle};
use crate::container::health;
use crate::container::state::{Ask, judge};
use crate::engine::lifecycle::START_PATIENCE;
use crate::error::RuntimeError;
use crate::logs::follow::{self, Source};
use crate::logs::options;
use crate::logs::part::Format;
use crate::{signal, top};

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    fn find(&self, name: &str) -> Result<Handle, RuntimeError> {
        self.engine.registry.find(name)
    }
}

#[tonic::async_trait]
impl Containers for Service {
    type LogsStream = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<LogEntry, Status>> + Send>>;
    type StatsStream = ReceiverStream<Result<StatsResponse, Status>>;

    async fn create(&self, request: Request<CreateRequest>) -> Reply<CreateResponse> {
        let made = self.engine.create(request.into_inner().spec.unwrap_or_default()).await?;
        Ok(Response::new(CreateResponse { id: made.id, name: made.name, warnings: made.warnings }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Reply<StartResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        let hold = request.hold_for_attach;
        let started = handle.ask(|answer| Command::Start { hold, answer }).await?;
        Ok(Response::new(StartResponse {
            id: handle.id,
            attach_socket: started.socket.display().to_string(),
            stage_us: started.stage_us,
            warnings: started.warnings,
            pid: started.pid,
        }))
    }

    async fn run(&self, request: Request<RunRequest>) -> Reply<RunResponse> {
        let request = request.into_inner();
        let (made, started) =
            self.engine.run(request.spec.unwrap_or_default(), request.hold_for_attach).await?;
        Ok(Response::new(RunResponse {
            id: made.id,
            name: made.name,
            attach_socket: started.socket.display().to_string(),
            stage_us: started.stage_us,
            warnings: made.warnings,
            pid: started.pid,
        }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Reply<StopResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        self.engine.stop(&handle, request.timeout_s, &request.signal).await?;
        Ok(Response::new(StopResponse { id: handle.id }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Reply<KillResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        let text = if request.signal.is_empty() { "KILL" } else { &request.signal };
        let number =
            signal::parse(text).ok_or_else(|| RuntimeError::Invalid(format!("invalid signal: {text}")))?;
        let ask = |answer| Command::Signal { signal: number, action: "kill", answer };
        if number == signal::KILL {
            handle.insist(START_PATIENCE, ask).await?;
        } else {
            handle.ask(ask).await?;
        }
        Ok(Response::new(KillResponse { id: handle.id }))
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Reply<RestartResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        self.engine.restart(&handle, request.timeout_s, &request.signal).await?;
        Ok(Response::new(RestartResponse { id: handle.id }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Reply<PauseResponse> {
        let handle = self.find(&request.into_inner().container)?;
        handle.ask(|answer| Command::Pause { answer }).await?;
        Ok(Response::new(PauseResponse { id: handle.id }))
    }

    async fn unpause(&self, request: Request<UnpauseRequest>) -> Reply<UnpauseResponse> {
        let handle = self.find(&request.into_inner().container)?;
        handle.ask(|answer| Command::Unpause { answer }).await?;
        Ok(Response::new(UnpauseResponse { id: handle.id }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Reply<RemoveResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        self.engine.remove(&handle, request.force, request.volumes).await?;
        Ok(Response::new(RemoveResponse { id: handle.id }))
    }

    async fn rename(&self, request: Request<RenameRequest>) -> Reply<RenameResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        handle.ask(|answer| Command::Rename { name: request.name, answer }).await?;
        Ok(Response::new(RenameResponse {}))
    }

    async fn clone_from(&self, request: Request<CloneRequest>) -> Reply<CloneResponse> {
        let made = self.engine.clone_container(request.into_inner()).await?;
        Ok(Response::new(CloneResponse { id: made.id, name: made.name, warnings: made.warnings }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Reply<UpdateResponse> {
        let UpdateRequest { container, resources, restart } = request.into_inner();
        let handle = self.find(&container)?;
        let resources = resources.map(Box::new);
        let warnings = handle.ask(|answer| Command::Update { resources, restart, answer }).await?;
        Ok(Response::new(UpdateResponse { warnings }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<ListResponse> {
        let containers = self.engine.list(&request.into_inner())?;
        Ok(Response::new(ListResponse { containers }))
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Reply<InspectResponse> {
        let view = self.find(&request.into_inner().container)?.view();
        let mut container = view.record.container.clone();
        container.exec_ids = self.engine.execs.running(&container.id);
        container.monitor_pid = view.record.monitor.map_or(0, |m| m.pid);
        Ok(Response::new(InspectResponse { container: Some(container) }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Reply<WaitResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        let condition = Condition::try_from(request.condition).unwrap_or(Condition::Unspecified);
        let (exit_code, error) = self.engine.wait(&handle, condition, &request.states).await?;
        Ok(Response::new(WaitResponse { exit_code, error }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Reply<AttachResponse> {
        let handle = self.find(&request.into_inner().container)?;
        let view = handle.view();
        let container = &view.record.container;
        if !view.record.held {
            judge(Ask::Attach, view.status(), &container.name).map_err(RuntimeError::WrongState)?;
        }
        let attach_socket = self.engine.dirs.run_dir(&handle.id).socket().display().to_string();
        let tty = container.spec.as_ref().is_some_and(|s| s.tty);
        self.engine.emit_for(&view, "attach", &[]);
        Ok(Response::new(AttachResponse { id: handle.id, attach_socket, tty }))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Reply<Self::LogsStream> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        let view = handle.view();
        let spec = view.record.container.spec.clone().unwrap_or_default();
        let path = self.engine.dirs.log(&handle.id, &spec);
        let source = match options::driver(Some(&spec)) {
            options::NONE => {
                return Err(RuntimeError::Unsupported(
                    "configured logging driver does not support reading: the container was made with log driver none".into(),
                )
                .into());
            }
            options::JOURNALD => Source::Journal(handle.id.clone()),
            options::LOCAL => Source::Files(path, Format::Local),
            _ => Source::Files(path, Format::Json),
        };
        let (out, stream) = mpsc::channel(256);
        tokio::spawn(follow::run(request, source, handle.watch(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream).map(|entry| entry.map_err(Status::from)))))
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Reply<ProbeResponse> {
        let handle = self.find(&request.into_inner().container)?;
        let result = handle.ask(|answer| Command::Probe { answer }).await?;
        Ok(Response::new(ProbeResponse { result: Some(health::result(result)) }))
    }

    async fn top(&self, request: Request<TopRequest>) -> Reply<TopResponse> {
        let TopRequest { container, ps_args } = request.into_inner();
        let handle = self.find(&container)?;
        let view = handle.view();
        judge(Ask::Top, view.status(), &view.record.container.name).map_err(RuntimeError::WrongState)?;
        self.engine.emit_for(&view, "top", &[]);
        let pid = view.record.state().pid;
        Ok(Response::new(if ps_args.is_empty() { top::of(pid)? } else { top::by_ps(pid, &ps_args).await? }))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Reply<Self::StatsStream> {
        Ok(Response::new(ReceiverStream::new(stats::begin(&self.engine, request.into_inner())?)))
    }

    async fn connect_network(
        &self,
        request: Request<ConnectNetworkRequest>,
    ) -> Reply<ConnectNetworkResponse> {
        let request = request.into_inner();
        let handle = self.find(&request.container)?;
        let endpoint = Box::new(request.endpoint.unwrap_or_default());
        handle.ask(|answer| Command::Connect { endpoint, answer }).await?;
        Ok(Response::new(ConnectNetworkResponse {}))
    }

    async fn disconnect_network(
        &self,
        request: Request<DisconnectNetworkRequest>,
    ) -> Reply<DisconnectNetworkResponse> {
        let DisconnectNetworkRequest { container, network, force } = request.into_inner();
        let handle = self.find(&container)?;
        handle.ask(|answer| Command::Disconnect { network, force, answer }).await?;
        Ok(Response::new(DisconnectNetworkResponse {}))
    }

    async fn check_networks(&self, request: Request<CheckNetworksRequest>) -> Reply<CheckNetworksResponse> {
        let (drifts, detached) = self.engine.check_networks(request.into_inner().repair).await?;
        Ok(Response::new(CheckNetworksResponse { drifts, detached }))
    }
}
