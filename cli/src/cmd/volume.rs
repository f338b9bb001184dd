//! Volumes: create, ls, inspect, rm, prune.

use davit_contracts::storage::{CreateVolumeRequest, ListVolumesRequest, RemoveVolumeRequest};
use davit_contracts::{Kind, id};

use super::confirm::confirm;
use super::{inspect, prune};
use crate::app::{App, each};
use crate::args::volume::{CreateArgs, ListArgs, RemoveArgs, VolumeCommand};
use crate::error::{Failure, Outcome};
use crate::output::format::Format;
use crate::output::{self, words};
use crate::view;

/// `davit volume ...`
pub async fn volume(app: &App, command: VolumeCommand) -> Outcome {
    match command {
        VolumeCommand::Create(args) => create(app, &args).await,
        VolumeCommand::Ls(args) => list(app, &args).await,
        VolumeCommand::Inspect(args) => {
            inspect::inspect(app, args.format.as_deref(), Some("volume"), false, &args.names).await
        }
        VolumeCommand::Rm(args) => remove(app, &args).await,
        VolumeCommand::Prune(args) => {
            let filter = view::storage_filters(&args.filter, words::now())?;
            let which = if args.all { "all" } else { "anonymous" };
            let warning = format!(
                "WARNING! This will remove {which} local volumes not used by at least one container."
            );
            if !args.force && !confirm(&warning)? {
                return Ok(());
            }
            prune::volumes(app, args.all, filter).await
        }
    }
}

async fn create(app: &App, args: &CreateArgs) -> Outcome {
    let name = args.name.clone().unwrap_or_default();
    if !name.is_empty() {
        id::check_name(&name).map_err(|e| e.to_string())?;
    }
    let request = CreateVolumeRequest {
        name,
        labels: args.label.iter().cloned().collect(),
        options: args.opt.iter().cloned().collect(),
        driver: args.driver.clone(),
    };
    output::line(app.storage(app.volumes().await?.create(request)).await?.name);
    Ok(())
}

async fn list(app: &App, args: &ListArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), args.quiet)?;
    let filter = view::storage_filters(&args.filter, words::now())?;
    let request = ListVolumesRequest { filter, ..ListVolumesRequest::default() };
    let mut volumes = app.storage(app.volumes().await?.list(request)).await?.volumes;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<_> = volumes.iter().map(view::volume::row).collect();
    output::print(&format.show(&rows, &view::volume::COLUMNS, "Name")?);
    Ok(())
}

async fn remove(app: &App, args: &RemoveArgs) -> Outcome {
    each(&args.volumes, |volume| async {
        let request = RemoveVolumeRequest { name: volume.clone(), force: args.force };
        match app.storage(app.volumes().await?.remove(request)).await {
            Ok(_) => Ok(volume),
            Err(Failure::Told(e)) if args.force && e.kind() == Kind::NotFound => Ok(String::new()),
            Err(e) => Err(e),
        }
    })
    .await
}
