//! ps, top, port.

use davit_contracts::Kind;
use davit_contracts::runtime::{Container, InspectRequest, ListRequest, TopRequest};
use davit_contracts::storage::InspectImageRequest;

use super::prune;
use crate::app::App;
use crate::args::container::{PortArgs, PsArgs, TopArgs};
use crate::error::{Failure, Outcome};
use crate::output::format::Format;
use crate::output::{self, table, words};
use crate::view;

/// `davit ps`
pub async fn ps(app: &App, args: &PsArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), args.quiet)?;
    let last = if args.latest { 1 } else { args.last.unwrap_or(0) };
    let filters = view::filters(&args.filter);
    // A filter on a state, like -n, looks at all containers.
    let all = args.all || last > 0 || filters.contains_key("status") || filters.contains_key("exited");
    let request = ListRequest { all, filters, last };
    let answer = app.runtime(app.containers().await?.list(request)).await?;
    let now = words::now();
    let mut rows: Vec<_> =
        answer.containers.iter().map(|c| view::container::row(c, now, args.no_trunc)).collect();
    let mut columns = view::container::COLUMNS.to_vec();
    if args.size {
        columns.push(("SIZE", "Size"));
        for (row, container) in rows.iter_mut().zip(&answer.containers) {
            row["Size"] = size(app, container).await.into();
        }
    }
    output::print(&format.show(&rows, &columns, "ID")?);
    Ok(())
}

/// What a container wrote, and what it sees: `2B (virtual 4.5MB)`.
async fn size(app: &App, container: &Container) -> String {
    let written = prune::written(app, &container.id).await;
    let request = InspectImageRequest { reference: container.image_id.clone() };
    let image = match app.images().await {
        Ok(mut images) => app.storage(images.inspect(request)).await.ok().and_then(|a| a.image),
        Err(_) => None,
    };
    let whole = written + image.map_or(0, |i| i.size);
    format!("{} (virtual {})", words::size(written), words::size(whole))
}

/// `davit top`
pub async fn top(app: &App, args: &TopArgs) -> Outcome {
    let (container, options) = args
        .container_and_options
        .split_first()
        .ok_or_else(|| Failure::Usage("the container is missing".into()))?;
    let request = TopRequest { container: container.clone(), ps_args: options.to_vec() };
    let answer = app.runtime(app.containers().await?.top(request)).await?;
    let rows: Vec<Vec<String>> =
        std::iter::once(answer.titles).chain(answer.processes.into_iter().map(|p| p.values)).collect();
    output::print(&table::layout(&rows));
    Ok(())
}

/// `davit port`
pub async fn port(app: &App, args: &PortArgs) -> Outcome {
    let request = InspectRequest { container: args.container.clone() };
    let answer = app.runtime(app.containers().await?.inspect(request)).await?;
    let ports = answer.container.unwrap_or_default().ports;
    let wanted = args.port.as_ref().map(|p| if p.contains('/') { p.clone() } else { format!("{p}/tcp") });
    let mut any = false;
    for p in ports.iter().filter(|p| p.host_port != 0) {
        let inside = format!("{}/{}", p.container_port, p.protocol);
        let ip = match p.host_ip.as_str() {
            "" => "0.0.0.0".to_owned(),
            ip if ip.contains(':') => format!("[{ip}]"),
            ip => ip.to_owned(),
        };
        match &wanted {
            Some(wanted) if *wanted != inside => continue,
            Some(_) => output::line(format!("{ip}:{}", p.host_port)),
            None => output::line(format!("{inside} -> {ip}:{}", p.host_port)),
        }
        any = true;
    }
    match wanted {
        Some(wanted) if !any => {
            Err(Failure::new(Kind::NotFound, format!("{} does not publish {wanted}", args.container)))
        }
        _ => Ok(()),
    }
}
