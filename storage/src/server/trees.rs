//! Containers' trees and saved images as streams: what `snapshots` and `images` answer with more than a message.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use davit_contracts::storage as pb;
use davit_contracts::{Error as ContractError, Kind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::streams::{ChunkReader, ChunkStream, ProgressStream, run};
use super::{blocking, status};
use crate::error::Error;
use crate::image::commit::CommitOptions;
use crate::image::save::Format;
use crate::oci::{HealthCheck, RunConfig};
use crate::store::Store;
use crate::tree::changes::Change;
use crate::tree::copy::{PathStat, Rules};
use crate::tree::{Bind, Chunks, Process, Tree, TreeError};

/// Messages on their way to a client.
const MESSAGES: usize = 4;

/// What [`super::snapshots`] answers to a copy.
pub(super) type CopyOutStream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::CopyOutResponse, Status>> + Send>>;

/// Where messages of a thread go.
type Sender<M> = mpsc::Sender<Result<M, Status>>;

/// Runs `work`, which may block, and streams what it sends; a failure is the last message.
fn streamed<M: Send + 'static>(
    work: impl FnOnce(&Sender<M>) -> Result<(), Error> + Send + 'static,
) -> Pin<Box<dyn tokio_stream::Stream<Item = Result<M, Status>> + Send>> {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || {
        span.in_scope(|| {
            if let Err(e) = work(&sender) {
                if sender.is_closed() {
                    tracing::info!("given up: the caller has gone away");
                } else {
                    let _ = sender.blocking_send(Err(status(&e)));
                }
            }
        });
    });
    Box::pin(ReceiverStream::new(receiver))
}

fn chunks<M: Send + 'static>(sender: &Sender<M>, wrap: impl Fn(Vec<u8>) -> M + Send + 'static) -> Chunks {
    let sender = sender.clone();
    Chunks::new(move |data| sender.blocking_send(Ok(wrap(data))).is_ok())
}

/// `Images.Save`
pub(super) fn save(store: &Arc<Store>, request: pb::SaveRequest) -> Result<ChunkStream, Status> {
    use pb::save_request::Format as Wanted;
    let format = match request.format() {
        Wanted::Oci => Format::Oci,
        Wanted::DockerArchive | Wanted::Unspecified => Format::DockerArchive,
    };
    if request.references.is_empty() {
        return Err(ContractError::new(Kind::InvalidArgument, "no image is named").into());
    }
    let store = Arc::clone(store);
    Ok(streamed(move |sender| {
        store.save(&request.references, format, chunks(sender, |data| pb::Chunk { data }))
    }))
}

/// `Images.Commit`
pub(super) fn commit(store: &Arc<Store>, request: pb::CommitRequest) -> ProgressStream {
    let store = Arc::clone(store);
    run(|sink| async move {
        let options = CommitOptions {
            reference: request.reference,
            changes: request.changes,
            author: request.author,
            message: request.message,
            config: request.config.map(run_config),
            process: process(request.pid, request.pid_start_ticks)?,
        };
        store.commit_snapshot(&request.snapshot_key, options, &sink).await.map(drop)
    })
}

/// `Snapshots.Changes`
pub(super) async fn changes(
    store: &Arc<Store>,
    request: pb::ChangesRequest,
) -> Result<pb::ChangesResponse, Status> {
    use pb::change::Kind as Out;
    let changes = blocking(store, move |store| {
        store.changes(&request.key, process(request.pid, request.pid_start_ticks)?)
    })
    .await?;
    let change = |(change, path): (Change, Vec<u8>)| pb::Change {
        path: String::from_utf8_lossy(&path).into_owned(),
        kind: match change {
            Change::Modified => Out::Modified,
            Change::Added => Out::Added,
            Change::Deleted => Out::Deleted,
        } as i32,
    };
    Ok(pb::ChangesResponse { changes: changes.into_iter().map(change).collect() })
}

/// `Snapshots.Export`
pub(super) fn export(store: &Arc<Store>, request: pb::ExportRequest) -> ChunkStream {
    let store = Arc::clone(store);
    streamed(move |sender| {
        let tree = tree_of(&store, request.tree)?;
        Ok(crate::tree::archive::export(&tree, chunks(sender, |data| pb::Chunk { data }))?)
    })
}

/// `Snapshots.CopyOut`
pub(super) fn copy_out(store: &Arc<Store>, request: pb::CopyOutRequest) -> CopyOutStream {
    use pb::copy_out_response::Part;
    let store = Arc::clone(store);
    let message = |part| pb::CopyOutResponse { part: Some(part) };
    streamed(move |sender| {
        let tree = tree_of(&store, request.tree)?;
        let first = sender.clone();
        let tell = move |stat| first.blocking_send(Ok(message(Part::Stat(path_stat(stat))))).is_ok();
        let out = chunks(sender, move |data| message(Part::Data(data)));
        Ok(crate::tree::copy::copy_out(&tree, &request.path, request.follow_link, tell, out)?)
    })
}

/// `Snapshots.CopyIn`
pub(super) async fn copy_in(
    store: &Arc<Store>,
    mut stream: Streaming<pb::CopyInRequest>,
) -> Result<pb::CopyInResponse, Status> {
    use pb::copy_in_request::Part;
    let Some(Part::Header(header)) = stream.message().await?.and_then(|m| m.part) else {
        let text = "the first message of a copy must be its header";
        return Err(ContractError::new(Kind::InvalidArgument, text).into());
    };
    let from = ChunkReader::start(stream, |m: pb::CopyInRequest| match m.part {
        Some(Part::Data(data)) => Some(data),
        _ => None,
    });
    let rules = Rules { keep_kinds: header.no_overwrite_dir_non_dir, keep_owner: header.keep_owner };
    blocking(store, move |store| {
        let tree = tree_of(store, header.tree)?;
        Ok(crate::tree::copy::copy_in(&tree, &header.path, rules, from)?)
    })
    .await?;
    Ok(pb::CopyInResponse {})
}

/// A mount at the root itself says by `ro` that the container may not write to its root.
fn tree_of(store: &Arc<Store>, tree: Option<pb::Tree>) -> Result<Tree, Error> {
    let asked = tree.unwrap_or_default();
    let (mut tree, _) = store.tree(&asked.snapshot_key)?;
    for mount in asked.mounts {
        let read_only = mount.options.iter().any(|o| o == "ro");
        if matches!(mount.target.as_str(), "" | "/") {
            tree.read_only |= read_only;
            continue;
        }
        tree.binds.push(Bind {
            source: PathBuf::from(mount.source),
            target: PathBuf::from(mount.target),
            read_only,
        });
    }
    tree.process = process(asked.pid, asked.pid_start_ticks)?;
    Ok(tree)
}

/// 0 is nobody.
pub(super) fn process(pid: i32, start_ticks: u64) -> Result<Option<Process>, Error> {
    match pid {
        0 => Ok(None),
        1.. => Ok(Some(Process { pid, start_ticks })),
        _ => Err(TreeError::Process(davit_sys::process::ProcessError::Gone(pid)).into()),
    }
}

fn path_stat(stat: PathStat) -> pb::PathStat {
    let nanoseconds = i64::from(stat.mtime.nanoseconds);
    pb::PathStat {
        name: stat.name,
        size: stat.size,
        mode: stat.mode,
        mtime_unix_ns: stat.mtime.seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        link_target: stat.link_target,
    }
}

fn run_config(c: pb::ImageConfig) -> RunConfig {
    let set = |all: Vec<String>| all.into_iter().map(|k| (k, serde_json::json!({}))).collect();
    RunConfig {
        env: c.env,
        entrypoint: c.entrypoint,
        cmd: c.cmd,
        working_dir: c.working_dir,
        user: c.user,
        exposed_ports: set(c.exposed_ports),
        volumes: set(c.volumes),
        labels: c.labels.into_iter().collect(),
        stop_signal: c.stop_signal,
        shell: c.shell,
        healthcheck: c.healthcheck.map(|h| HealthCheck {
            test: h.test,
            interval: h.interval_ns,
            timeout: h.timeout_ns,
            start_period: h.start_period_ns,
            retries: h.retries,
            start_interval: h.start_interval_ns,
        }),
    }
}
