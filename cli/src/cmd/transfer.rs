//! What moves images within this host: load, save, import, from-host.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use davit_contracts::Kind;
use davit_contracts::storage::import_request::Part as ImportPart;
use davit_contracts::storage::load_request::Part as LoadPart;
use davit_contracts::storage::{
    FromHostRequest, ImageDone, ImportHeader, ImportRequest, LoadHeader, LoadRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::pull::show;
use crate::app::App;
use crate::args::image::{FromHostArgs, ImportArgs, LoadArgs};
use crate::attach::terminal;
use crate::error::{Failure, Outcome};
use crate::{output, spec};

/// A piece of an archive on its way.
const PIECE: usize = 1 << 20;

/// `davit load`. A directory goes by its path; a file too where the daemon sees the same one, else its bytes are sent.
pub async fn load(app: &App, args: &LoadArgs) -> Outcome {
    let mut header = LoadHeader {
        reference: args.tag.clone().unwrap_or_default(),
        platform: spec::platform(args.platform.as_deref())?,
        ..LoadHeader::default()
    };
    let source = args.input.as_deref().filter(|p| *p != Path::new("-"));
    let is_dir = source.is_some_and(Path::is_dir);
    let opened = if is_dir { None } else { Some(open(source)?) };
    if let Some(path) = source {
        (header.path, header.path_dev, header.path_ino) = where_it_is(path, is_dir)?;
    }
    let by_path = !header.path.is_empty();
    let images = match send(app, args, source, header.clone(), opened.filter(|_| !by_path)).await {
        Err(Failure::Told(e)) if by_path && !is_dir && e.kind() == Kind::WrongState => {
            let header = LoadHeader { path: String::new(), path_dev: 0, path_ino: 0, ..header };
            send(app, args, source, header, Some(open(source)?)).await?
        }
        other => other?,
    };
    for image in images {
        for reference in &image.references {
            output::line(if args.quiet { reference.clone() } else { format!("Loaded image: {reference}") });
        }
        if image.references.is_empty() {
            output::line(if args.quiet {
                image.image_id
            } else {
                format!("Loaded image ID: {}", image.image_id)
            });
        }
    }
    Ok(())
}

/// Path, device and inode of a file that the daemon may open itself; nothing for a pipe.
fn where_it_is(path: &Path, is_dir: bool) -> Outcome<(String, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    if is_dir {
        return Ok((absolute(path)?, 0, 0));
    }
    match path.canonicalize().and_then(|p| Ok((p.metadata()?, p))) {
        Ok((meta, path)) if meta.is_file() => Ok((absolute(&path)?, meta.dev(), meta.ino())),
        _ => Ok((String::new(), 0, 0)),
    }
}

async fn send(
    app: &App,
    args: &LoadArgs,
    source: Option<&Path>,
    header: LoadHeader,
    reader: Option<Box<dyn Read + Send>>,
) -> Outcome<Vec<ImageDone>> {
    let data = |bytes| LoadRequest { part: Some(LoadPart::Data(bytes)) };
    let requests = feed(LoadRequest { part: Some(LoadPart::Header(header)) }, reader, data);
    let stream = app.storage(app.images().await?.load(requests.stream)).await?;
    checked(show(app, stream, args.quiet).await, source, &requests.failure)
}

/// `davit import`
pub async fn import(app: &App, args: &ImportArgs) -> Outcome {
    let header = ImportHeader {
        path: String::new(),
        reference: args.reference.clone().unwrap_or_default(),
        changes: args.change.clone(),
        message: args.message.clone().unwrap_or_default(),
    };
    let source = Some(Path::new(&args.file)).filter(|p| *p != Path::new("-"));
    let reader = open(source)?;
    let data = |bytes| ImportRequest { part: Some(ImportPart::Data(bytes)) };
    let requests = feed(ImportRequest { part: Some(ImportPart::Header(header)) }, Some(reader), data);
    let stream = app.storage(app.images().await?.import(requests.stream)).await?;
    for image in checked(show(app, stream, false).await, source, &requests.failure)? {
        output::line(image.image_id);
    }
    Ok(())
}

/// `davit image from-host`
pub async fn from_host(app: &App, args: &FromHostArgs) -> Outcome {
    let mut paths = Vec::new();
    for path in &args.path {
        paths.push(absolute(Path::new(path))?);
    }
    let request = FromHostRequest {
        reference: args.tag.clone(),
        programs: args.programs.clone(),
        paths,
        changes: args.change.clone(),
    };
    let stream = app.storage(app.images().await?.from_host(request)).await?;
    for image in show(app, stream, args.quiet).await? {
        output::line(image.image_id);
    }
    Ok(())
}

fn absolute(path: &Path) -> Outcome<String> {
    let path =
        std::path::absolute(path).map_err(|e| Failure::io(format!("cannot find {}", path.display()), &e))?;
    Ok(path.to_string_lossy().into_owned())
}

fn open(source: Option<&Path>) -> Outcome<Box<dyn Read + Send>> {
    match source {
        Some(path) => {
            let file =
                File::open(path).map_err(|e| Failure::io(format!("cannot open {}", path.display()), &e))?;
            if file.metadata().is_ok_and(|m| m.is_dir()) {
                return Err(Failure::new(
                    Kind::InvalidArgument,
                    format!("{} is a directory", path.display()),
                ));
            }
            Ok(Box::new(file))
        }
        None if terminal::is_terminal(&std::io::stdin()) => Err(Failure::Usage(
            "an archive is wanted: name it, or let standard input be one (it is a terminal)".into(),
        )),
        None => Ok(Box::new(std::io::stdin())),
    }
}

/// Requests that a thread feeds from a reader, and the error that it may have met.
struct Feed<T> {
    stream: ReceiverStream<T>,
    failure: std::sync::Arc<std::sync::Mutex<Option<std::io::Error>>>,
}

fn feed<T: Send + 'static>(
    header: T,
    reader: Option<Box<dyn Read + Send>>,
    data: impl Fn(Vec<u8>) -> T + Send + 'static,
) -> Feed<T> {
    let (sender, receiver) = mpsc::channel(4);
    let failure = std::sync::Arc::new(std::sync::Mutex::new(None));
    let report = failure.clone();
    std::thread::spawn(move || {
        if sender.blocking_send(header).is_err() {
            return;
        }
        let Some(mut reader) = reader else { return };
        loop {
            let mut piece = vec![0; PIECE];
            match reader.read(&mut piece) {
                Ok(0) => return,
                Ok(n) => {
                    piece.truncate(n);
                    // The daemon has heard enough: its answer says why.
                    if sender.blocking_send(data(piece)).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    if let Ok(mut slot) = report.lock() {
                        *slot = Some(e);
                    }
                    return;
                }
            }
        }
    });
    Feed { stream: ReceiverStream::new(receiver), failure }
}

/// A source that cannot be read is the reason for whatever the daemon says of the archive's end. The daemon knows no path,
/// only bytes: what it refuses is named here.
fn checked<T>(
    result: Outcome<T>,
    source: Option<&Path>,
    failure: &std::sync::Mutex<Option<std::io::Error>>,
) -> Outcome<T> {
    let name = source.unwrap_or(Path::new("standard input")).display();
    match (failure.lock().ok().and_then(|mut slot| slot.take()), result) {
        (Some(e), _) => Err(Failure::io(format!("cannot read {name}"), &e)),
        // What is wrong with the arguments is not about the file.
        (None, Err(Failure::Told(e))) if e.kind() != Kind::InvalidArgument => {
            Err(Failure::Told(e.within(name)))
        }
        (None, result) => result,
    }
}
