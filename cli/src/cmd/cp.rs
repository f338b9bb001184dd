//! `davit cp`: files out of a container and into one, with docker's rules for names.
//!
//! Both ways the files travel as a tar. What is copied is renamed while it is packed or unpacked here; storaged only packs what is at
//! a path, and unpacks into a directory.

mod local;
mod naming;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use davit_contracts::Kind;
use davit_contracts::runtime::Container;
use davit_contracts::storage::copy_in_request::Part as InPart;
use davit_contracts::storage::copy_out_response::Part as OutPart;
use davit_contracts::storage::{CopyInHeader, CopyInRequest, CopyOutRequest, CopyOutResponse, PathStat};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use self::naming::{Destination, Plan, join_link, plan, split};
use super::export::{find, named, tree};
use crate::app::App;
use crate::args::tree::CpArgs;
use crate::error::{Failure, Outcome};
use crate::output::{complain, words};

const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
/// A piece of a tar on its way.
const PIECE: usize = 256 << 10;

/// `davit cp`
pub async fn cp(app: &App, args: &CpArgs) -> Outcome {
    let (from, to) = (naming::argument(&args.source), naming::argument(&args.destination));
    match (from, to) {
        ((Some(_), _), (Some(_), _)) => {
            Err(Failure::new(Kind::InvalidArgument, "copying between containers is not supported"))
        }
        ((Some(container), path), (None, to)) => copy_out(app, args, container, path, to).await,
        ((None, from), (Some(container), path)) => copy_in(app, args, from, container, path).await,
        ((None, _), (None, _)) => {
            Err(Failure::new(Kind::InvalidArgument, "must specify at least one container source"))
        }
    }
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(Kind::InvalidArgument, text)
}

fn copied(args: &CpArgs, bytes: u64, to: &str) {
    if !args.quiet {
        complain!("Successfully copied {} to {to}", words::size(bytes));
    }
}

/// Asks for a path; answers its stat and the tar that follows.
async fn ask(
    app: &App,
    container: &Container,
    typed: &str,
    path: &str,
    follow_link: bool,
) -> Outcome<(PathStat, Streaming<CopyOutResponse>)> {
    let tree = tree(app, container).await?;
    let request = CopyOutRequest { tree: Some(tree), path: path.to_owned(), follow_link };
    let told = |e| named(e, container, typed);
    let mut stream = app.storage(app.snapshots().await?.copy_out(request)).await.map_err(told)?;
    let first = stream.message().await.map_err(|s| told(app.refused("storaged", s)))?;
    match first.and_then(|m| m.part) {
        Some(OutPart::Stat(stat)) => Ok((stat, stream)),
        _ => Err(Failure::new(Kind::Internal, "davit-storaged answered no stat of the path")),
    }
}

async fn copy_out(app: &App, args: &CpArgs, typed: &str, path: &str, to: &str) -> Outcome {
    let found = find(app, typed).await?;
    let destination = if to == "-" { None } else { Some(Destination::local(to).map_err(invalid)?) };
    let (stat, mut stream) = ask(app, &found, typed, path, args.follow_link).await?;
    let Some(destination) = destination else {
        let mut out = std::io::stdout();
        while let Some(data) = next(app, &mut stream).await? {
            out.write_all(&data).map_err(|e| Failure::io("cannot write the archive", &e))?;
        }
        return out.flush().map_err(|e| Failure::io("cannot write the archive", &e));
    };
    let plan = plan(stat.mode & TYPE == DIRECTORY, &stat.name, &destination).map_err(invalid)?;
    let keep_owner = args.archive;
    let (sender, pieces) = std::sync::mpsc::sync_channel::<Vec<u8>>(4);
    let top = stat.name;
    let unpacking = std::thread::spawn(move || local::unpack(Pieces::new(pieces), &top, &plan, keep_owner));
    let mut bytes = 0;
    let mut failure = None;
    loop {
        match next(app, &mut stream).await {
            Ok(Some(data)) => {
                bytes += data.len() as u64;
                // It has failed: why shows when it is joined.
                if sender.send(data).is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(e) => {
                failure = Some(e);
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacking.join().map_err(|_| Failure::new(Kind::Internal, "unpacking failed"))?;
    if let Some(e) = failure {
        return Err(named(e, &found, typed));
    }
    unpacked.map_err(|e| Failure::io(e.0, &e.1))?;
    copied(args, bytes, to);
    Ok(())
}

async fn next(app: &App, stream: &mut Streaming<CopyOutResponse>) -> Outcome<Option<Vec<u8>>> {
    match stream.message().await.map_err(|s| app.refused("storaged", s))?.and_then(|m| m.part) {
        Some(OutPart::Data(data)) => Ok(Some(data)),
        _ => Ok(None),
    }
}

async fn copy_in(app: &App, args: &CpArgs, from: &str, typed: &str, path: &str) -> Outcome {
    let container = find(app, typed).await?;
    let destination = destination_inside(app, &container, typed, path).await?;
    let shown = format!("{typed}:{}", destination.path);
    let (into, pack): (String, Box<dyn FnOnce(Sending) -> std::io::Result<()> + Send>) = if from == "-" {
        if !destination.is_dir {
            return Err(invalid(format!("destination \"{typed}:{path}\" must be a directory")));
        }
        let send =
            |mut out: Sending| std::io::copy(&mut std::io::stdin(), &mut out).and_then(|_| out.flush());
        (destination.path, Box::new(send))
    } else {
        let source = local::Source::find(from, args.follow_link)?;
        let Plan { into, rename } = plan(source.is_dir, &source.name, &destination).map_err(invalid)?;
        let top = rename.unwrap_or_else(|| source.name.clone());
        (into, Box::new(move |out| local::pack(&source, &top, out)))
    };
    let header = CopyInHeader {
        tree: Some(tree(app, &container).await?),
        path: into,
        no_overwrite_dir_non_dir: true,
        keep_owner: args.archive,
    };
    let (sender, receiver) = mpsc::channel(4);
    let sending = Sending { sender, piece: Vec::new(), bytes: Arc::default() };
    let bytes = Arc::clone(&sending.bytes);
    let failure = Arc::new(Mutex::new(None));
    let report = Arc::clone(&failure);
    let first = CopyInRequest { part: Some(InPart::Header(header)) };
    std::thread::spawn(move || {
        if sending.sender.blocking_send(first).is_err() {
            return;
        }
        if let Err(e) = pack(sending)
            && e.kind() != std::io::ErrorKind::BrokenPipe
            && let Ok(mut slot) = report.lock()
        {
            *slot = Some(e);
        }
    });
    let answer = app.storage(app.snapshots().await?.copy_in(ReceiverStream::new(receiver))).await;
    if let Some(e) = failure.lock().ok().and_then(|mut slot| slot.take()) {
        return Err(Failure::io(format!("cannot read {from}"), &e));
    }
    answer.map_err(|e| named(e, &container, typed))?;
    if from != "-" {
        copied(args, bytes.lock().map_or(0, |n| *n), &shown);
    }
    Ok(())
}

/// What is at the destination in a container; a link there is followed.
async fn destination_inside(
    app: &App,
    container: &Container,
    typed: &str,
    path: &str,
) -> Outcome<Destination> {
    let mut destination = Destination { path: path.to_owned(), exists: false, is_dir: false };
    let mut found = match ask(app, container, typed, path, false).await {
        Ok((stat, _)) => Some(stat),
        Err(Failure::Told(e)) if is_absent(e.kind()) => None,
        Err(e) => return Err(e),
    };
    if let Some(link) = found.as_ref().filter(|s| s.mode & TYPE == LINK) {
        destination.path = join_link(&split(path).0, &link.link_target);
        found = match ask(app, container, typed, &destination.path, true).await {
            Ok((stat, _)) => Some(stat),
            Err(Failure::Told(e)) if is_absent(e.kind()) => None,
            Err(e) => return Err(e),
        };
    }
    if let Some(stat) = found {
        let kind = stat.mode & TYPE;
        if !matches!(kind, DIRECTORY | REGULAR) {
            let text = format!("destination \"{typed}:{path}\" must be a directory or a regular file");
            return Err(invalid(text));
        }
        (destination.exists, destination.is_dir) = (true, kind == DIRECTORY);
    }
    Ok(destination)
}

/// Unpacking decides: the parent may be there.
fn is_absent(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::InvalidArgument)
}

/// A tar on its way to storaged.
pub(super) struct Sending {
    sender: mpsc::Sender<CopyInRequest>,
    piece: Vec<u8>,
    bytes: Arc<Mutex<u64>>,
}

impl Write for Sending {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.piece.extend_from_slice(buf);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        if let Ok(mut bytes) = self.bytes.lock() {
            *bytes += piece.len() as u64;
        }
        let request = CopyInRequest { part: Some(InPart::Data(piece)) };
        self.sender.blocking_send(request).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

/// A tar on its way from storaged.
struct Pieces {
    coming: std::sync::mpsc::Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Pieces {
    fn new(pieces: std::sync::mpsc::Receiver<Vec<u8>>) -> Self {
        Self { coming: pieces, current: Vec::new(), at: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.current.len() {
            match self.coming.recv() {
                Err(_) => return Ok(0),
                Ok(piece) => (self.current, self.at) = (piece, 0),
            }
        }
        let n = buf.len().min(self.current.len() - self.at);
        buf[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Whether a local path names something that a destination must not be.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.is_dir() && !m.is_file())
}
