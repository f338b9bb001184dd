//! Fetching images, for `pull` and for `run`.

use davit_contracts::Kind;
use davit_contracts::storage::{
    ImageDone, InspectImageRequest, InspectImageResponse, Platform, Progress, PullRequest, RegistryAuth,
};
use tonic::Streaming;

use crate::app::App;
use crate::args::image::{PullArgs, RegistryArgs};
use crate::error::{Failure, Outcome};
use crate::output::progress::Display;
use crate::{credentials, output, spec};

/// Whether storaged has it.
pub async fn is_here(app: &App, image: &str) -> Outcome<bool> {
    Ok(find(app, image).await?.is_some())
}

/// Whether the image that storaged has is made for another platform.
pub async fn is_for_another(app: &App, image: &str, wanted: &Platform) -> Outcome<bool> {
    let is = find(app, image).await?.and_then(|found| found.image?.platform);
    let silent = |p: &Platform| p.os.is_empty() && p.architecture.is_empty();
    let differs = |p: &Platform| p.os != wanted.os || p.architecture != wanted.architecture;
    Ok(is.is_some_and(|p| !silent(&p) && differs(&p)))
}

async fn find(app: &App, image: &str) -> Outcome<Option<InspectImageResponse>> {
    let request = InspectImageRequest { reference: image.to_owned() };
    match app.storage(app.images().await?.inspect(request)).await {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Told(e)) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Fetches with default registry settings; progress is shown on stderr.
pub async fn pull(
    app: &App,
    image: &str,
    platform: Option<Platform>,
    quiet: bool,
) -> Outcome<Vec<ImageDone>> {
    let request = PullRequest {
        reference: image.to_owned(),
        platform,
        auth: credentials::of_image(image),
        ..PullRequest::default()
    };
    let stream = app.storage(app.images().await?.pull(request)).await?;
    show(app, stream, quiet).await
}

/// Shows a stream of progress to its end and gives the images that came of it.
pub async fn show(app: &App, stream: Streaming<Progress>, quiet: bool) -> Outcome<Vec<ImageDone>> {
    play(app, stream, Display::new(quiet)).await
}

async fn play(app: &App, mut stream: Streaming<Progress>, mut display: Display) -> Outcome<Vec<ImageDone>> {
    let result = loop {
        match stream.message().await {
            Ok(Some(progress)) => display.event(progress),
            Ok(None) => break Ok(()),
            Err(status) => break Err(app.refused("storaged", status)),
        }
    };
    display.clear();
    result.map(|()| display.done)
}

/// The same, with what the daemon says on standard output, as docker's `pull` and `push` have it.
pub async fn show_told(app: &App, stream: Streaming<Progress>, quiet: bool) -> Outcome<Vec<ImageDone>> {
    play(app, stream, Display::new(quiet).telling(!quiet)).await
}

/// `davit pull`
pub async fn command(app: &App, args: &PullArgs) -> Outcome {
    let tagged = has_tag_or_digest(&args.image);
    if args.all_tags && tagged {
        return Err(Failure::Usage("tag can't be used with --all-tags/-a".into()));
    }
    if !args.all_tags && !tagged && !args.quiet {
        output::line("Using default tag: latest");
    }
    let request = PullRequest {
        reference: args.image.clone(),
        platform: spec::platform(args.platform.as_deref())?,
        auth: credentials(&args.registry, &args.image)?,
        plain_http: args.registry.plain_http,
        skip_tls_verify: !args.registry.tls_verify,
        ca_pem: authority(&args.registry)?,
        all_tags: args.all_tags,
    };
    let stream = app.storage(app.images().await?.pull(request)).await?;
    for image in show_told(app, stream, args.quiet).await? {
        for reference in &image.references {
            output::line(canonical(reference));
        }
    }
    Ok(())
}

/// Those of the command line, else those that are kept.
pub fn credentials(args: &RegistryArgs, image: &str) -> Outcome<Option<RegistryAuth>> {
    let Some(creds) = &args.creds else { return Ok(credentials::of_image(image)) };
    let (username, password) =
        creds.split_once(':').ok_or_else(|| Failure::Usage("--creds wants USER:PASSWORD".into()))?;
    Ok(Some(RegistryAuth {
        username: username.to_owned(),
        password: password.to_owned(),
        identity_token: String::new(),
    }))
}

/// The content of `--ca-file`.
pub fn authority(args: &RegistryArgs) -> Outcome<Vec<u8>> {
    match &args.ca_file {
        None => Ok(Vec::new()),
        Some(path) => {
            std::fs::read(path).map_err(|e| Failure::io(format!("cannot read {}", path.display()), &e))
        }
    }
}

/// Whether a reference says which image of its repository it means.
pub fn has_tag_or_digest(image: &str) -> bool {
    image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// A familiar reference in full: "busybox:1" is "docker.io/library/busybox:1".
pub fn canonical(familiar: &str) -> String {
    match familiar.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => familiar.to_owned(),
        Some(_) => format!("docker.io/{familiar}"),
        None => format!("docker.io/library/{familiar}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_in_full() {
        assert_eq!(canonical("busybox:1"), "docker.io/library/busybox:1");
        assert_eq!(canonical("team/app:1"), "docker.io/team/app:1");
        assert_eq!(canonical("reg:5000/app:1"), "reg:5000/app:1");
        assert!(has_tag_or_digest("reg:5000/app:1") && has_tag_or_digest("a@sha256:00"));
        assert!(!has_tag_or_digest("reg:5000/app") && !has_tag_or_digest("app"));
    }
}
