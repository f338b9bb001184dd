//! Stand-ins for storaged and netd: what they hold can be looked at, and they fail when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use davit_contracts::network::endpoints_server::{Endpoints, EndpointsServer};
use davit_contracts::network::networks_server::{Networks, NetworksServer};
use davit_contracts::network::{self as net, Endpoint, Network, Sandbox};
use davit_contracts::storage::snapshots_server::{Snapshots, SnapshotsServer};
use davit_contracts::storage::volumes_server::{Volumes, VolumesServer};
use davit_contracts::storage::{self as st, ImageConfig, Mount, Snapshot};
use davit_contracts::{Error, Kind};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// What the stand-ins hold and how they misbehave.
#[derive(Default)]
pub struct Held {
    pub snapshots: BTreeMap<String, PathBuf>,
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub volumes: BTreeSet<(String, String)>,
    pub image: ImageConfig,
    pub refuse_attach: Option<Error>,
    pub refuse_detach: bool,
    /// For as long as it is set detach does not answer.
    pub hang_detach: bool,
    pub slow_detach: Duration,
    pub slow_prepare: Duration,
    pub prepares: usize,
    /// Networks that were removed.
    pub removed_networks: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Peers {
    held: Arc<Mutex<Held>>,
    dir: PathBuf,
}

impl Peers {
    pub fn new(dir: &Path) -> Self {
        Self { held: Arc::default(), dir: dir.to_owned() }
    }

    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    /// Serves storaged's socket until it is dropped.
    pub fn serve_storage(&self, socket: &Path) -> Served {
        let me = self.clone();
        Served::new(socket, async move |incoming| {
            tonic::transport::Server::builder()
                .add_service(SnapshotsServer::new(me.clone()))
                .add_service(VolumesServer::new(me))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        })
    }

    /// Serves netd's socket until it is dropped.
    pub fn serve_network(&self, socket: &Path) -> Served {
        let me = self.clone();
        Served::new(socket, async move |incoming| {
            tonic::transport::Server::builder()
                .add_service(EndpointsServer::new(me.clone()))
                .add_service(NetworksServer::new(me))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        })
    }

    #[allow(clippy::result_large_err)]
    fn sandbox(&self, id: &str, change: impl FnOnce(&mut Sandbox)) -> Result<(), Status> {
        let unknown = || Error::new(Kind::NotFound, format!("no sandbox {id} is attached"));
        self.held().sandboxes.get_mut(id).map(change).ok_or_else(|| unknown().into())
    }

    fn root_of(&self, key: &str) -> PathBuf {
        self.dir.join(key)
    }
}

/// A daemon in a runtime of its own, so that its end closes its connections, as the end of a process does.
pub struct Served {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new<F: Future<Output = ()>>(
        socket: &Path,
        serve: impl FnOnce(UnixListenerStream) -> F + Send + 'static,
    ) -> Self {
        let _ = fs::remove_file(socket);
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
                tokio::select! {
                    () = serve(incoming) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const APPLETS: &[&str] =
    &["sh", "true", "false", "sleep", "echo", "cat", "id", "env", "ls", "pwd", "hostname", "ip", "wc"];

fn make_root(root: &Path) {
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("bin/garbage"), "no program\n").unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nsailor:x:4242:4243::/home/sailor:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\ncrew:x:77:sailor\n").unwrap();
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Snapshots for Peers {
    type ExportStream = tokio_stream::Empty<Result<st::Chunk, Status>>;
    type CopyOutStream = tokio_stream::Empty<Result<st::CopyOutResponse, Status>>;
    async fn changes(&self, _: Request<st::ChangesRequest>) -> Reply<st::ChangesResponse> {
        Err(Status::unimplemented(""))
    }
    async fn export(&self, _: Request<st::ExportRequest>) -> Reply<Self::ExportStream> {
        Err(Status::unimplemented(""))
    }
    async fn copy_out(&self, _: Request<st::CopyOutRequest>) -> Reply<Self::CopyOutStream> {
        Err(Status::unimplemented(""))
    }
    async fn copy_in(&self, _: Request<tonic::Streaming<st::CopyInRequest>>) -> Reply<st::CopyInResponse> {
        Err(Status::unimplemented(""))
    }
    async fn prepare(&self, request: Request<st::PrepareRequest>) -> Reply<st::PrepareResponse> {
        let request = request.into_inner();
        let slow = {
            let mut held = self.held();
            held.prepares += 1;
            held.slow_prepare
        };
        if request.image != "busybox" {
            return Err(Error::new(Kind::NotFound, format!("no image '{}'", request.image))
                .with_hint("did you mean busybox?")
                .into());
        }
        // As storaged's, this work goes on when the caller has gone.
        let me = self.clone();
        let work = tokio::spawn(async move {
            tokio::time::sleep(slow).await;
            let root = me.root_of(&request.key);
            if !root.exists() {
                make_root(&root);
            }
            me.held().snapshots.insert(request.key.clone(), root);
            me.answer(&request.key)
        });
        work.await.unwrap()
    }
    async fn fork(&self, _: Request<st::ForkRequest>) -> Reply<st::PrepareResponse> {
        Err(Status::unimplemented(""))
    }
    async fn mounts(&self, request: Request<st::MountsRequest>) -> Reply<st::PrepareResponse> {
        self.answer(&request.into_inner().key)
    }
    async fn remove(&self, request: Request<st::RemoveSnapshotRequest>) -> Reply<st::RemoveSnapshotResponse> {
        if let Some(root) = self.held().snapshots.remove(&request.into_inner().key) {
            fs::remove_dir_all(root).unwrap();
        }
        Ok(Response::new(st::RemoveSnapshotResponse {}))
    }
    async fn list(&self, _: Request<st::ListSnapshotsRequest>) -> Reply<st::ListSnapshotsResponse> {
        let held = self.held();
        let snapshots = held.snapshots.keys().map(|key| Snapshot {
            key: key.clone(),
            labels: [("davit.owner".to_owned(), "runtimed".to_owned())].into(),
            ..Snapshot::default()
        });
        Ok(Response::new(st::ListSnapshotsResponse { snapshots: snapshots.collect() }))
    }
    async fn usage(&self, _: Request<st::UsageRequest>) -> Reply<st::UsageResponse> {
        Err(Status::unimplemented(""))
    }
}

impl Peers {
    #[allow(clippy::result_large_err)]
    fn answer(&self, key: &str) -> Reply<st::PrepareResponse> {
        let held = self.held();
        let root = held.snapshots.get(key).ok_or_else(|| Status::not_found(key.to_owned()))?;
        let mount = Mount {
            r#type: "bind".into(),
            source: root.display().to_string(),
            options: vec!["rbind".into(), "rw".into()],
            target: String::new(),
        };
        Ok(Response::new(st::PrepareResponse {
            mounts: vec![mount],
            image_id: format!("sha256:{}", "1".repeat(64)),
            config: Some(held.image.clone()),
            driver: "stand-in".into(),
            reference: "busybox:latest".into(),
        }))
    }
}

#[tonic::async_trait]
impl Volumes for Peers {
    async fn prune(&self, _: Request<st::PruneVolumesRequest>) -> Reply<st::PruneVolumesResponse> {
        Err(Status::unimplemented(""))
    }
    async fn create(&self, _: Request<st::CreateVolumeRequest>) -> Reply<st::Volume> {
        Err(Status::unimplemented(""))
    }
    async fn list(&self, _: Request<st::ListVolumesRequest>) -> Reply<st::ListVolumesResponse> {
        Err(Status::unimplemented(""))
    }
    async fn inspect(&self, _: Request<st::InspectVolumeRequest>) -> Reply<st::Volume> {
        Err(Status::unimplemented(""))
    }
    async fn remove(&self, _: Request<st::RemoveVolumeRequest>) -> Reply<st::RemoveVolumeResponse> {
        Err(Status::unimplemented(""))
    }
    async fn acquire(&self, request: Request<st::AcquireVolumeRequest>) -> Reply<st::AcquireVolumeResponse> {
        let request = request.into_inner();
        let name = if request.name.is_empty() { "anonymous".to_owned() } else { request.name };
        let source = self.dir.join(format!("volume-{name}"));
        fs::create_dir_all(&source).unwrap();
        self.held().volumes.insert((name.clone(), request.user));
        let volume = st::Volume { name, mountpoint: source.display().to_string(), ..st::Volume::default() };
        Ok(Response::new(st::AcquireVolumeResponse { volume: Some(volume), mount: None }))
    }
    async fn release(&self, request: Request<st::ReleaseVolumeRequest>) -> Reply<st::ReleaseVolumeResponse> {
        let user = request.into_inner().user;
        self.held().volumes.retain(|(_, u)| *u != user);
        Ok(Response::new(st::ReleaseVolumeResponse::default()))
    }
}

#[tonic::async_trait]
impl Endpoints for Peers {
    async fn attach(&self, request: Request<net::AttachRequest>) -> Reply<net::AttachResponse> {
        let request = request.into_inner();
        let refused = self.held().refuse_attach.clone();
        if let Some(e) = refused {
            return Err(e.into());
        }
        let holder = request.holder.unwrap();
        assert!(fs::exists(format!("/proc/{}/ns/net", holder.pid)).unwrap(), "the holder lives");
        let endpoints: Vec<Endpoint> = request
            .endpoints
            .iter()
            .map(|e| meant(&e.network))
            .map(|network| Endpoint { network_id: format!("id-{network}"), network, ..Endpoint::default() })
            .zip(&request.endpoints)
            .map(|(e, asked)| {
                let ip = if asked.ip.is_empty() { "10.89.0.2" } else { &asked.ip };
                Endpoint { ip: format!("{ip}/24"), ..e }
            })
            .collect();
        let sandbox = Sandbox {
            id: request.sandbox_id.clone(),
            name: request.name,
            holder: Some(holder),
            endpoints: endpoints.clone(),
            ports: request.ports.clone(),
            labels: request.labels,
        };
        self.held().sandboxes.insert(request.sandbox_id, sandbox);
        Ok(Response::new(net::AttachResponse {
            endpoints,
            ports: request.ports,
            resolv_conf: Some(net::ResolvConf {
                nameservers: vec!["127.0.0.11".into()],
                ..Default::default()
            }),
            stage_us: [("veth".to_owned(), 7)].into(),
            host_gateway: vec!["10.89.0.1".into()],
        }))
    }
    async fn detach(&self, request: Request<net::DetachRequest>) -> Reply<net::DetachResponse> {
        let slow = self.held().slow_detach;
        tokio::time::sleep(slow).await;
        while self.held().hang_detach {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut held = self.held();
        if held.refuse_detach {
            return Err(Error::new(Kind::Internal, "told to refuse").into());
        }
        held.sandboxes.remove(&request.into_inner().sandbox_id);
        Ok(Response::new(net::DetachResponse {}))
    }
    async fn connect(&self, request: Request<net::ConnectRequest>) -> Reply<Endpoint> {
        let net::ConnectRequest { sandbox_id, endpoint } = request.into_inner();
        let spec = endpoint.unwrap();
        let network = meant(&spec.network);
        let network_id = format!("id-{network}");
        let ip = if spec.ip.is_empty() { String::new() } else { spec.ip + "/24" };
        let made = Endpoint { network, network_id, ip, ..Endpoint::default() };
        self.sandbox(&sandbox_id, |s| s.endpoints.push(made.clone()))?;
        Ok(Response::new(made))
    }
    async fn disconnect(&self, request: Request<net::DisconnectRequest>) -> Reply<net::DisconnectResponse> {
        let net::DisconnectRequest { sandbox_id, network, .. } = request.into_inner();
        self.sandbox(&sandbox_id, |s| s.endpoints.retain(|e| e.network_id != network))?;
        Ok(Response::new(net::DisconnectResponse {}))
    }
    async fn rename(&self, request: Request<net::RenameSandboxRequest>) -> Reply<net::RenameSandboxResponse> {
        let net::RenameSandboxRequest { sandbox_id, name } = request.into_inner();
        if name == "refused" {
            return Err(Error::new(Kind::Internal, "told to refuse").into());
        }
        let mut held = self.held();
        let Some(sandbox) = held.sandboxes.get_mut(&sandbox_id) else {
            return Ok(Response::new(net::RenameSandboxResponse::default()));
        };
        sandbox.name.clone_from(&name);
        for endpoint in &mut sandbox.endpoints {
            endpoint.name.clone_from(&name);
        }
        Ok(Response::new(net::RenameSandboxResponse { endpoints: sandbox.endpoints.clone() }))
    }
    async fn check(&self, _: Request<net::CheckSandboxRequest>) -> Reply<net::CheckSandboxResponse> {
        Err(Status::unimplemented(""))
    }
    async fn list(&self, _: Request<net::ListSandboxesRequest>) -> Reply<net::ListSandboxesResponse> {
        let sandboxes = self.held().sandboxes.values().cloned().collect();
        Ok(Response::new(net::ListSandboxesResponse { sandboxes }))
    }
}

/// The name of a network that is named by itself or by the beginning of its id, which is "id-" and the name.
fn meant(text: &str) -> String {
    let known = ["bridge", "blue", "green"].into_iter();
    match text.strip_prefix("id-") {
        Some(rest) => known.into_iter().find(|n| n.starts_with(rest)).unwrap_or(rest).to_owned(),
        None => text.to_owned(),
    }
}

#[tonic::async_trait]
impl Networks for Peers {
    async fn create(&self, _: Request<net::CreateNetworkRequest>) -> Reply<Network> {
        Err(Status::unimplemented(""))
    }
    async fn list(&self, _: Request<net::ListNetworksRequest>) -> Reply<net::ListNetworksResponse> {
        Err(Status::unimplemented(""))
    }
    async fn inspect(&self, request: Request<net::InspectNetworkRequest>) -> Reply<Network> {
        let name = meant(&request.into_inner().name);
        if name == "missing" || self.held().removed_networks.contains(&name) {
            return Err(Error::new(Kind::NotFound, format!("network {name} not found")).into());
        }
        Ok(Response::new(Network { id: format!("id-{name}"), name, ..Network::default() }))
    }
    async fn remove(&self, _: Request<net::RemoveNetworkRequest>) -> Reply<net::RemoveNetworkResponse> {
        Err(Status::unimplemented(""))
    }
    async fn prune(&self, _: Request<net::PruneNetworksRequest>) -> Reply<net::PruneNetworksResponse> {
        Err(Status::unimplemented(""))
    }
    async fn set_policy(&self, _: Request<net::SetPolicyRequest>) -> Reply<Network> {
        Err(Status::unimplemented(""))
    }
    async fn check(&self, _: Request<net::CheckRequest>) -> Reply<net::CheckResponse> {
        Err(Status::unimplemented(""))
    }
    async fn explain(&self, _: Request<net::ExplainRequest>) -> Reply<net::ExplainResponse> {
        Err(Status::unimplemented(""))
    }
    async fn host(&self, _: Request<net::HostRequest>) -> Reply<net::HostResponse> {
        Err(Status::unimplemented(""))
    }
}
