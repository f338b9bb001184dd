//! The stream of log entries that a client asked for.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use davit_contracts::runtime::log_entry::Stream;
use davit_contracts::runtime::{LogEntry, LogsRequest};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::journal;
use super::part::Format;
use super::reader::Reader;
use crate::clock::unix_ns;
use crate::container::handle::View;
use crate::error::{RuntimeError, io_error};
use crate::readable;

/// Where the entries are.
#[derive(Debug)]
pub enum Source {
    /// In files.
    Files(PathBuf, Format),
    /// In the journal, of the container with this id.
    Journal(String),
}

/// Sends entries until the log, the container, the time asked for, or the client's interest ends.
pub async fn run(
    request: LogsRequest,
    source: Source,
    mut view: watch::Receiver<View>,
    out: mpsc::Sender<Result<LogEntry, RuntimeError>>,
) {
    let result = match &source {
        Source::Files(path, format) => follow(&request, path, *format, &mut view, &out).await,
        Source::Journal(id) => journal::follow(&request, id, &mut view, &out).await,
    };
    if let Err(e) = result {
        let _ = out.send(Err(e)).await;
    }
}

async fn follow(
    request: &LogsRequest,
    path: &Path,
    format: Format,
    view: &mut watch::Receiver<View>,
    out: &mpsc::Sender<Result<LogEntry, RuntimeError>>,
) -> Result<(), RuntimeError> {
    let failed = || io_error("read the log", path);
    // The watch before the first read: nothing written in between is missed.
    let changes = if request.follow { Some(watch_dir(path).map_err(failed())?) } else { None };
    let mut ended = !request.follow || !lives(&view.borrow_and_update());
    let until = request.until_unix_ns;
    let (opened, tail) = (path.to_owned(), request.tail);
    let opening = tokio::task::spawn_blocking(move || Reader::open(&opened, format, tail));
    let mut reader = joined(opening.await).map_err(failed())?;
    loop {
        let reading = tokio::task::spawn_blocking(move || {
            let batch = reader.read();
            (reader, batch)
        });
        let (back, batch) = reading.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        reader = back;
        let batch = batch.map_err(failed())?;
        let at_end = batch.is_empty();
        for entry in batch {
            if until > 0 && entry.time_unix_ns > until {
                return Ok(());
            }
            if wanted(request, &entry) && out.send(Ok(entry)).await.is_err() {
                return Ok(());
            }
        }
        if !at_end {
            continue;
        }
        let Some(changes) = changes.as_ref().filter(|_| !ended) else { return Ok(()) };
        tokio::select! {
            changed = change(changes) => changed.map_err(failed())?,
            // One more read after the end: the monitor has written everything before it says so.
            _ = view.wait_for(|v| !lives(v)) => ended = true,
            () = out.closed() => return Ok(()),
            () = reached(until) => ended = true,
        }
    }
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

pub(super) fn lives(view: &View) -> bool {
    !view.gone && (view.status().is_alive() || view.record.held)
}

pub(super) fn wanted(request: &LogsRequest, entry: &LogEntry) -> bool {
    // Neither asked for means both.
    let any = !request.stdout && !request.stderr;
    let stream = match entry.stream() {
        Stream::Stderr => request.stderr,
        _ => request.stdout,
    };
    (any || stream) && entry.time_unix_ns >= request.since_unix_ns
}

fn watch_dir(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, path.parent().unwrap_or(Path::new("/")), flags)?;
    readable::watch(fd)
}

async fn change(watch: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut ready = watch.readable().await?;
    let mut buffer = [0u8; 4096];
    while rustix::io::read(watch.get_ref(), &mut buffer).is_ok() {}
    ready.clear_ready();
    Ok(())
}

pub(super) async fn reached(until: i64) {
    if until <= 0 {
        return std::future::pending().await;
    }
    let left = u64::try_from(until - unix_ns()).unwrap_or(0);
    tokio::time::sleep(Duration::from_nanos(left)).await;
}
