//! `davit inspect`: containers, images, networks and volumes.

use davit_contracts::network::InspectNetworkRequest;
use davit_contracts::runtime::InspectRequest;
use davit_contracts::storage::{InspectImageRequest, InspectVolumeRequest};
use davit_contracts::{Error, Kind};
use serde_json::Value;

use super::ps;
use crate::app::App;
use crate::error::{Failure, Outcome};
use crate::output::{self, format};
use crate::view;

const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

/// Prints what was found; what was not is told, and makes the exit code 1.
pub async fn inspect(
    app: &App,
    format: Option<&str>,
    kind: Option<&str>,
    size: bool,
    names: &[String],
) -> Outcome {
    let mut found = Vec::new();
    let mut failed = false;
    for name in names {
        match find(app, kind, size, name).await {
            Ok(value) => found.push(value),
            Err(e) => {
                failed = true;
                e.tell();
            }
        }
    }
    if !found.is_empty() || format.is_none() {
        output::print(&format::inspected(format, &found)?);
    }
    if failed { Err(Failure::Code(1)) } else { Ok(()) }
}

async fn find(app: &App, kind: Option<&str>, size: bool, name: &str) -> Outcome<Value> {
    if let Some(kind) = kind {
        return one(app, kind, size, name).await;
    }
    for kind in KINDS {
        match one(app, kind, size, name).await {
            // A name that this kind cannot have is no more than absent.
            Err(Failure::Told(e)) if matches!(e.kind(), Kind::NotFound | Kind::InvalidArgument) => {}
            other => return other,
        }
    }
    let message = format!("there is no container, image, network or volume '{name}'");
    Err(Error::new(Kind::NotFound, message)
        .with_subject(name)
        .with_hint("'davit ps -a', 'davit images', 'davit net ls' and 'davit volume ls' list what there is")
        .into())
}

async fn one(app: &App, kind: &str, size: bool, name: &str) -> Outcome<Value> {
    let name = name.to_owned();
    match kind {
        "container" => {
            let request = InspectRequest { container: name.trim_start_matches('/').to_owned() };
            let answer = app.runtime(app.containers().await?.inspect(request)).await?;
            let container = answer.container.unwrap_or_default();
            let mut out = view::inspect::container(&container);
            if size {
                let (written, whole) = ps::sizes(app, &container).await;
                out["SizeRw"] = written.into();
                out["SizeRootFs"] = whole.into();
            }
            Ok(out)
        }
        "image" => {
            let request = InspectImageRequest { reference: name };
            Ok(view::image::inspect(&app.storage(app.images().await?.inspect(request)).await?))
        }
        "network" => {
            let request = InspectNetworkRequest { name };
            Ok(view::network::inspect(&app.network(app.networks().await?.inspect(request)).await?))
        }
        _ => {
            let request = InspectVolumeRequest { name };
            Ok(view::volume::inspect(&app.storage(app.volumes().await?.inspect(request)).await?))
        }
    }
}
