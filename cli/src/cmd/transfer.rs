//! What moves images: pull, push, load, save, import, from-host.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use davit_contracts::Kind;
use davit_contracts::storage::import_request::Part as ImportPart;
use davit_contracts::storage::load_request::Part as LoadPart;
use davit_contracts::storage::{
    FromHostRequest, ImageDone, ImportHeader, ImportRequest, LoadHeader, LoadRequest, PullRequest,
    PushRequest, RegistryAuth,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::pull::{auth, show};
use crate::app::App;
use crate::args::image::{FromHostArgs, ImportArgs, LoadArgs, PullArgs, PushArgs, RegistryArgs};
use crate::attach::terminal;
use crate::error::{Failure, Outcome};
use crate::{output, spec};

/// A piece of an archive on its way.
const PIECE: usize = 1 << 20;

/// `davit pull`
pub async fn pull(app: &App, args: &PullArgs) -> Outcome {
    let request = PullRequest {
        reference: args.image.clone(),
        platform: spec::platform(args.platform.as_deref())?,
        auth: credentials(&args.registry, &args.image)?,
        plain_http: args.registry.plain_http,
        skip_tls_verify: !args.registry.tls_verify,
        ca_pem: authority(&args.registry)?,
    };
    let stream = app.storage(app.images().await?.pull(request)).await?;
    for image in show(app, stream, args.quiet).await? {
        name_all(&image);
    }
    Ok(())
}

/// `davit push`
pub async fn push(app: &App, args: &PushArgs) -> Outcome {
    let request = PushRequest {
        reference: args.image.clone(),
        auth: credentials(&args.registry, &args.image)?,
        plain_http: args.registry.plain_http,
        skip_tls_verify: !args.registry.tls_verify,
        ca_pem: authority(&args.registry)?,
        all_tags: false,
    };
    let stream = app.storage(app.images().await?.push(request)).await?;
    for image in show(app, stream, args.quiet).await? {
        if !args.quiet {
            name_all(&image);
        }
    }
    Ok(())
}

fn name_all(image: &ImageDone) {
    for reference in &image.references {
        output::line(reference);
    }
    if image.references.is_empty() {
        output::line(&image.image_id);
    }
}

fn credentials(args: &RegistryArgs, image: &str) -> Outcome<Option<RegistryAuth>> {
    let Some(creds) = &args.creds else { return Ok(auth(image)) };
    let (username, password) =
        creds.split_once(':').ok_or_else(|| Failure::Usage("--creds wants USER:PASSWORD".into()))?;
    Ok(Some(RegistryAuth {
        username: username.to_owned(),
        password: password.to_owned(),
        identity_token: String::new(),
    }))
}

fn authority(args: &RegistryArgs) -> Outcome<Vec<u8>> {
    match &args.ca_file {
        None => Ok(Vec::new()),
        Some(path) => {
            std::fs::read(path).map_err(|e| Failure::io(format!("cannot read {}", path.display()), &e))
        }
    }
}

/// `davit load`. A directory goes by its path; a file is sent, because the daemon may not be allowed to read it.
pub async fn load(app: &App, args: &LoadArgs) -> Outcome {
    let mut header = LoadHeader {
        reference: args.tag.clone().unwrap_or_default(),
        platform: spec::platform(args.platform.as_deref())?,
        ..LoadHeader::default()
    };
    let data = |bytes| LoadRequest { part: Some(LoadPart::Data(bytes)) };
    let source = args.input.as_deref().filter(|p| *p != Path::new("-"));
    let is_dir = source.is_some_and(Path::is_dir);
    if let Some(path) = source.filter(|_| is_dir) {
        header.path = absolute(path)?;
    }
    let reader = if is_dir { None } else { Some(open(source)?) };
    let requests = feed(LoadRequest { part: Some(LoadPart::Header(header)) }, reader, data);
    let stream = app.storage(app.images().await?.load(requests.stream)).await?;
    let images = checked(show(app, stream, args.quiet).await, source, &requests.failure)?;
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
