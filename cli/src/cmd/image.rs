//! Images that are here: ls, rm, tag, history, prune. What moves images is in [`super::transfer`].

use davit_contracts::Kind;
use davit_contracts::storage::{
    InspectImageRequest, ListImagesRequest, PruneImagesRequest, RemoveImageRequest, TagRequest,
};

use super::{inspect, save, transfer};
use crate::app::{App, each};
use crate::args::image::{HistoryArgs, ImageCommand, ListArgs, PruneArgs, RemoveArgs, TagArgs};
use crate::error::{Failure, Outcome};
use crate::output::format::Format;
use crate::output::{self, words};
use crate::view;

/// `davit image ...`
pub async fn image(app: &App, command: ImageCommand) -> Outcome {
    match command {
        ImageCommand::Ls(args) => list(app, &args).await,
        ImageCommand::Inspect(args) => {
            inspect::inspect(app, args.format.as_deref(), Some("image"), &args.names).await
        }
        ImageCommand::Rm(args) => remove(app, &args).await,
        ImageCommand::Tag(args) => tag(app, &args).await,
        ImageCommand::History(args) => history(app, &args).await,
        ImageCommand::Pull(args) => transfer::pull(app, &args).await,
        ImageCommand::Push(args) => transfer::push(app, &args).await,
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
    let mut filters = view::filters(&args.filter);
    if let Some(reference) = &args.reference {
        filters.insert("reference".into(), reference.clone());
    }
    let request = ListImagesRequest { all: args.all, filters };
    let answer = app.storage(app.images().await?.list(request)).await?;
    let now = words::now();
    let mut rows: Vec<_> =
        answer.images.iter().flat_map(|i| view::image::rows(i, now, args.no_trunc)).collect();
    if args.quiet {
        // An image with several names is one image.
        rows.dedup_by(|a, b| a["ID"] == b["ID"]);
    }
    let columns: &[(&str, &str)] =
        if args.digests { &view::image::DIGEST_COLUMNS } else { &view::image::COLUMNS };
    output::print(&format.show(&rows, columns, "ID")?);
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
        answer.history.iter().map(|h| view::image::history_row(h, now, args.no_trunc)).collect();
    output::print(&format.show(&rows, &view::image::HISTORY_COLUMNS, "ID")?);
    Ok(())
}

async fn prune(app: &App, args: &PruneArgs) -> Outcome {
    let request = PruneImagesRequest { all: args.all, filters: view::filters(&args.filter) };
    let answer = app.storage(app.images().await?.prune(request)).await?;
    let text = removed(&answer.untagged, &answer.deleted);
    if !text.is_empty() {
        output::line(text);
    }
    output::line(format!("Total reclaimed space: {}", words::size(answer.reclaimed_bytes)));
    Ok(())
}
