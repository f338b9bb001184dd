//! `davit create`, and what it shares with `run`: the image that is fetched when it is missing, the cidfile.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use davit_contracts::runtime::{ContainerSpec, CreateRequest};
use davit_contracts::{Error, Kind};

use super::pull;
use crate::app::App;
use crate::args::run::CreateArgs;
use crate::error::{Failure, Outcome};
use crate::{output, spec};

/// `davit create`
pub async fn create(app: &App, args: &CreateArgs) -> Outcome {
    let mut spec = spec::build(args)?;
    spec.stdin_once = spec.open_stdin;
    let cid = CidFile::reserve(args.cidfile.as_deref())?;
    let answer = with_image(app, args, &spec, || {
        Box::pin(async {
            let request = CreateRequest { spec: Some(spec.clone()) };
            let mut containers = app.containers().await?;
            Box::pin(app.runtime(containers.create(request))).await
        })
    })
    .await?;
    warn(&answer.warnings);
    cid.write(&answer.id)?;
    output::line(&answer.id);
    Ok(())
}

/// Tells what the daemon had to say besides.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        crate::output::complain!("WARNING: {warning}");
    }
}

/// Does `call`; where the image is missing it is fetched and the call made again.
pub async fn with_image<T, F>(
    app: &App,
    args: &CreateArgs,
    spec: &ContainerSpec,
    mut call: impl FnMut() -> F,
) -> Outcome<T>
where
    F: Future<Output = Outcome<T>>,
{
    let platform = spec::platform(args.platform.as_deref())?;
    let other = match &platform {
        Some(wanted) if args.pull != "never" => pull::is_for_another(app, &spec.image, wanted).await?,
        _ => false,
    };
    if args.pull == "always" || other {
        pull::pull(app, &spec.image, platform.clone(), args.quiet).await?;
        return call().await;
    }
    let missing = match call().await {
        Err(Failure::Told(e)) if e.kind() == Kind::NotFound && args.pull != "never" => e,
        other => return other,
    };
    // Networks and containers can be missing too.
    if pull::is_here(app, &spec.image).await? {
        return Err(missing.into());
    }
    if !args.quiet {
        crate::output::complain!("Unable to find image '{}' locally", spec.image);
    }
    match pull::pull(app, &spec.image, platform, args.quiet).await {
        Ok(_) => call().await,
        Err(Failure::Told(e)) => Err(unfetched(&spec.image, &e, &missing).into()),
        Err(other) => Err(other),
    }
}

/// Why it could not be fetched, with the names that may have been meant.
fn unfetched(image: &str, e: &Error, missing: &Error) -> Error {
    let hint = match (missing.hint(), e.hint()) {
        ("", hint) | (hint, "") => hint.to_owned(),
        (near, hint) => format!("{near} If not, {hint}"),
    };
    let message = format!("there is no image '{image}' here, and it cannot be fetched: {e}");
    Error::new(e.kind(), message).with_subject(e.subject()).with_hint(hint)
}

/// `--cidfile`: made before the container, so that a bad path costs nothing.
pub struct CidFile(Option<(PathBuf, std::fs::File, bool)>);

impl CidFile {
    /// Makes the file; it must not exist.
    pub fn reserve(path: Option<&Path>) -> Outcome<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Failure::io(format!("cannot make the cidfile {}", path.display()), &e))?;
        Ok(Self(Some((path.to_owned(), file, false))))
    }

    /// Writes the id.
    pub fn write(mut self, id: &str) -> Outcome {
        let Some((path, file, written)) = &mut self.0 else { return Ok(()) };
        file.write_all(id.as_bytes())
            .map_err(|e| Failure::io(format!("cannot write the cidfile {}", path.display()), &e))?;
        *written = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if let Some((path, _, false)) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}
