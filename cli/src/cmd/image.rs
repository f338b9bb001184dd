//! Images that are here: ls, rm, tag, history, prune. What moves images is in [`super::transfer`].

use davit_contracts::Kind;
use davit_contracts::storage::{
    Filter, InspectImageRequest, ListImagesRequest, PruneImagesRequest, RemoveImageRequest, TagRequest,
};

use super::confirm::confirm;
use super::{inspect, pull, push, save, transfer};
use crate::app::{App, each};
use crate::args::image::{HistoryArgs, ImageCommand, ListArgs, PruneArgs, RemoveArgs, TagArgs};
use crate::error::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::{self, words};
use crate::view;

/// `davit image ...`
pub async fn image(app: &App, command: ImageCommand) -> Outcome {
    match command {
        ImageCommand::Ls(args) => list(app, &args).await,
        ImageCommand::Inspect(args) => {
            inspect::inspect(app, args.format.as_deref(), Some("image"), false, &args.names).await
        }
        ImageCommand::Rm(args) => remove(app, &args).await,
        ImageCommand::Tag(args) => tag(app, &args).await,
        ImageCommand::History(args) => history(app, &args).await,
        ImageCommand::Pull(args) => pull::command(app, &args).await,
        ImageCommand::Push(args) => push::push(app, &args).await,
        ImageCommand::Load(args) => transfer::load(app, &args).await,
        ImageCommand::Save(args) => save::save(app, &args).await,
        ImageCommand::Import(args) => transfer::import(app, &args).await,
        ImageCommand::FromHost(args) => transfer::from_host(app, &args).await,
        ImageCommand::Prune(args) => prune(app, &args).await,
    }
}

/// `davit images`
pub async fn list(app: &App, args: &ListArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), args.quiet)?;
    let now = words::now();
    let mut filter = view::storage_filters(&args.filter, now)?;
    if let Some(value) = &args.reference {
        filter.push(Filter { key: "reference".into(), value: value.clone() });
    }
    let template = args.format.as_deref().unwrap_or_default();
    let digests = args.digests || template.contains(".Digest") || template == "json";
    let request =
        ListImagesRequest { all: args.all, filter, short: !digests, ..ListImagesRequest::default() };
    let answer = app.storage(app.images().await?.list(request)).await?;
    let mut lines: Vec<_> = answer.images.iter().flat_map(|i| view::image::lines(i, digests)).collect();
    if args.quiet {
        // An image with several names is one image.
        lines.dedup_by(|a, b| a.id() == b.id());
    }
    let columns: &[(&str, &str)] =
        if args.digests { &view::image::DIGEST_COLUMNS } else { &view::image::COLUMNS };
    let cell = |line: &view::image::Line<'_>, key: &str| line.cell(key, now, args.no_trunc);
    let row = |line: &view::image::Line<'_>| line.row(now, args.no_trunc);
    output::print(&format::show_cells(&format, &lines, columns, "ID", cell, row)?);
    Ok(())
}

/// `davit rmi`
pub async fn remove(app: &App, args: &RemoveArgs) -> Outcome {
    each(&args.images, |image| async {
        let request = RemoveImageRequest { reference: image, force: args.force };
        match app.storage(app.images().await?.remove(request)).await {
            Ok(answer) => Ok(removed(&answer.untagged, &answer.deleted)),
            Err(Failure::Told(e)) if args.force && e.kind() == Kind::NotFound => {
                crate::error::tell(&e);
                Ok(String::new())
            }
            Err(e) => Err(e),
        }
    })
    .await
}

fn removed(untagged: &[String], deleted: &[String]) -> String {
    let untagged = untagged.iter().map(|r| format!("Untagged: {r}"));
    untagged.chain(deleted.iter().map(|d| format!("Deleted: {d}"))).collect::<Vec<_>>().join("\n")
}

/// `davit tag`
pub async fn tag(app: &App, args: &TagArgs) -> Outcome {
    let request = TagRequest { source: args.source.clone(), target: args.target.clone() };
    app.storage(app.images().await?.tag(request)).await.map(drop)
}

/// `davit history`
pub async fn history(app: &App, args: &HistoryArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), args.quiet)?;
    let request = InspectImageRequest { reference: args.image.clone() };
    let answer = app.storage(app.images().await?.inspect(request)).await?;
    let now = words::now();
    let rows: Vec<_> =
        answer.history.iter().map(|h| view::image::history_row(h, now, args.no_trunc, args.human)).collect();
    output::print(&format.show(&rows, &view::image::HISTORY_COLUMNS, "ID")?);
    Ok(())
}

async fn prune(app: &App, args: &PruneArgs) -> Outcome {
    let filter = view::storage_filters(&args.filter, words::now())?;
    let what = if args.all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !args.force && !confirm(what)? {
        return Ok(());
    }
    let (text, reclaimed) = prune_images(app, args.all, filter).await?;
    if !text.is_empty() {
        output::line(text);
    }
    output::line(format!("Total reclaimed space: {}", words::size(reclaimed)));
    Ok(())
}

/// Prunes; answers docker's text and the bytes that were freed.
pub async fn prune_images(app: &App, all: bool, filter: Vec<Filter>) -> Outcome<(String, u64)> {
    let request = PruneImagesRequest { all, filter, ..PruneImagesRequest::default() };
    let answer = app.storage(app.images().await?.prune(request)).await?;
    let mut text = String::new();
    if !answer.untagged.is_empty() || !answer.deleted.is_empty() {
        text.push_str("Deleted Images:\n");
        let untagged = answer.untagged.iter().map(|u| format!("untagged: {u}\n"));
        text.extend(untagged.chain(answer.deleted.iter().map(|d| format!("deleted: {d}\n"))));
    }
    Ok((text, answer.reclaimed_bytes))
}
