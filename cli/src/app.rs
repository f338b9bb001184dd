//! What every command works with: the directories, and connections to the daemons, which are started when nobody answers.

use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use davit_contracts::layout::Layout;
use davit_contracts::network::endpoints_client::EndpointsClient;
use davit_contracts::network::networks_client::NetworksClient;
use davit_contracts::plugin::plugin_client::PluginClient;
use davit_contracts::runtime::containers_client::ContainersClient;
use davit_contracts::runtime::events_client::EventsClient;
use davit_contracts::runtime::execs_client::ExecsClient;
use davit_contracts::runtime::pods_client::PodsClient;
use davit_contracts::storage::images_client::ImagesClient;
use davit_contracts::storage::registries_client::RegistriesClient;
use davit_contracts::storage::snapshots_client::SnapshotsClient;
use davit_contracts::storage::system_client::SystemClient;
use davit_contracts::storage::volumes_client::VolumesClient;
use davit_contracts::{Error, Kind, client};
use tokio::sync::OnceCell;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::error::{Failure, Outcome, connection_broke};
use crate::supervisor;

/// How long a supervisor may take to see that a daemon of somebody else's is gone, to hope for it, and to start its own.
const SUCCESSION: Duration = Duration::from_secs(20);

/// One invocation.
pub struct App {
    /// Where everything is.
    pub layout: Layout,
    /// Print more.
    pub debug: bool,
    storaged: OnceCell<Channel>,
    netd: OnceCell<Channel>,
    runtimed: OnceCell<Channel>,
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident on $daemon:ident;)*) => {$(
        $(#[$doc])*
        pub async fn $name(&self) -> Outcome<$client<Channel>> {
            let channel = self.$daemon.get_or_try_init(|| self.connect(stringify!($daemon))).await?;
            Ok($client::new(channel.clone())
                .max_decoding_message_size(client::MAX_MESSAGE)
                .max_encoding_message_size(client::MAX_MESSAGE))
        }
    )*};
}

impl App {
    /// Connects to nothing yet.
    pub fn new(layout: Layout, debug: bool) -> Self {
        Self { layout, debug, storaged: OnceCell::new(), netd: OnceCell::new(), runtimed: OnceCell::new() }
    }

    clients! {
        /// storaged's images.
        images: ImagesClient on storaged;
        /// storaged's snapshots.
        snapshots: SnapshotsClient on storaged;
        /// storaged's conversations with registries.
        registries: RegistriesClient on storaged;
        /// storaged as a whole.
        storage_system: SystemClient on storaged;
        /// storaged's volumes.
        volumes: VolumesClient on storaged;
        /// netd's networks.
        networks: NetworksClient on netd;
        /// netd's endpoints.
        endpoints: EndpointsClient on netd;
        /// runtimed's containers.
        containers: ContainersClient on runtimed;
        /// runtimed's execs.
        execs: ExecsClient on runtimed;
        /// runtimed's pods.
        pods: PodsClient on runtimed;
        /// runtimed's events.
        events: EventsClient on runtimed;
    }

    /// Identity and health of one daemon, without starting anything.
    pub async fn plugin(&self, daemon: &str) -> Result<PluginClient<Channel>, Error> {
        Ok(PluginClient::new(client::connect(&self.layout.socket(daemon)).await?))
    }

    async fn connect(&self, daemon: &str) -> Outcome<Channel> {
        let socket = self.layout.socket(daemon);
        let first = match client::connect(&socket).await {
            Ok(channel) => return Ok(channel),
            Err(e) => e,
        };
        if first.causes().iter().chain([&first.message().to_owned()]).any(|c| c.contains("ermission denied"))
        {
            return Err(Error::new(Kind::PermissionDenied, first.to_string())
                .with_hint(
                    "the socket belongs to another user: become that user, or a member of the socket's group",
                )
                .into());
        }
        if std::env::var_os("DAVIT_NO_AUTOSTART").is_some_and(|v| v == "1") {
            return Err(Error::new(Kind::Unavailable, format!("davit-{daemon} is not running ({first})"))
                .with_hint("start the daemons with 'davit up'")
                .into());
        }
        supervisor::start(&self.layout, Some(daemon))?;
        self.connect_to_successor(daemon, &socket).await
    }

    /// Connects to what the supervisor has made sure of. A daemon that somebody else started may just be ending: the supervisor sees
    /// that within seconds, and starts its own.
    async fn connect_to_successor(&self, daemon: &str, socket: &Path) -> Outcome<Channel> {
        let give_up = Instant::now() + SUCCESSION;
        loop {
            match client::connect(socket).await {
                Err(_) if nobody_serves(socket) && Instant::now() < give_up => {}
                other => return Ok(other?),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            if !supervisor::wait_ready(&self.layout, Some(daemon))? {
                supervisor::start(&self.layout, Some(daemon))?;
            }
        }
    }

    /// Awaits a call. The supervisor keeps a dead daemon's socket open, so a call to a daemon that does not come up would wait for ever:
    /// when the answer is late the supervisor is asked whether the daemon is alive.
    pub async fn call<T>(
        &self,
        daemon: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Outcome<T> {
        // On the heap: a call's state is tens of kilobytes, and every command above holds it.
        let mut call = Box::pin(call);
        loop {
            match tokio::time::timeout(supervisor::SUSPICIOUS, &mut call).await {
                Ok(answer) => return self.answered(daemon, answer),
                Err(_) => self.check(daemon)?,
            }
        }
    }

    fn answered<T>(&self, daemon: &str, answer: Result<Response<T>, Status>) -> Outcome<T> {
        answer.map(Response::into_inner).map_err(|status| self.refused(daemon, status))
    }

    /// A daemon's refusal, of a call or in the middle of a stream.
    pub fn refused(&self, daemon: &str, status: Status) -> Failure {
        let error = Error::from(status);
        if self.debug {
            crate::output::complain!("davit: davit-{daemon} answered {:?}: {error:?}", error.kind());
        }
        if !connection_broke(&error) {
            return error.into();
        }
        Error::new(Kind::Unavailable, format!("davit-{daemon} ended while it worked on this"))
            .with_hint(format!(
                "it is started again by itself: repeat the command; its log is {}",
                self.layout.supervisor_log().display()
            ))
            .into()
    }

    fn check(&self, daemon: &str) -> Outcome {
        let Ok(Some(report)) = supervisor::status(&self.layout) else { return Ok(()) };
        match report.hopeless(daemon) {
            Some(note) => {
                Err(Error::new(Kind::Unavailable, format!("davit-{daemon} does not start: {note}"))
                    .with_hint(format!("its log is {}", self.layout.supervisor_log().display()))
                    .into())
            }
            None => Ok(()),
        }
    }

    /// A call to storaged.
    pub async fn storage<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Outcome<T> {
        self.call("storaged", call).await
    }

    /// A call to netd.
    pub async fn network<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Outcome<T> {
        self.call("netd", call).await
    }

    /// A call to runtimed.
    pub async fn runtime<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Outcome<T> {
        self.call("runtimed", call).await
    }
}

/// Whether the socket is missing, or left from a daemon that has ended.
fn nobody_serves(socket: &Path) -> bool {
    let refused = UnixStream::connect(socket).err().map(|e| e.kind());
    matches!(refused, Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused))
}

/// Like [`each`], but all are begun before the first is awaited; told in the order of the names.
pub async fn at_once<F>(names: &[String], one: impl Fn(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<String>>,
{
    let waiting: Vec<_> = names.iter().map(|name| one(name.clone())).collect();
    let mut failed = false;
    for result in join(waiting).await {
        match result {
            Ok(text) if text.is_empty() => {}
            Ok(text) => crate::output::line(text),
            Err(e) => {
                e.tell();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Code(1)) } else { Ok(()) }
}

/// Awaits all of them side by side.
pub async fn join<F: Future>(calls: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = calls.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (call, result) in waiting.iter_mut().zip(&mut results) {
            if result.is_none() {
                match call.as_mut().poll(context) {
                    std::task::Poll::Ready(answer) => *result = Some(answer),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// Runs a command for each of several names: errors are told as they come, and the exit code says that there were some.
pub async fn each<F>(names: &[String], mut one: impl FnMut(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<String>>,
{
    let mut failed = false;
    for name in names {
        match one(name.clone()).await {
            Ok(text) if text.is_empty() => {}
            Ok(text) => crate::output::line(text),
            Err(e) => {
                e.tell();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Code(1)) } else { Ok(()) }
}
