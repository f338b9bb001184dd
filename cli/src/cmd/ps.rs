//! ps, top, port.

use davit_contracts::runtime::{Container, InspectRequest, ListRequest, TopRequest};
use davit_contracts::storage::InspectImageRequest;
use davit_contracts::{Error, Kind};

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
    let filter = view::key_values(&args.filter);
    let asks = |key: &str| args.filter.iter().any(|(k, _)| k == key);
    // A filter on a state, like -n, looks at all containers.
    let all = args.all || last > 0 || asks("status") || asks("exited");
    let request = ListRequest { all, filter, last, ..ListRequest::default() };
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
    let (written, whole) = sizes(app, container).await;
    format!("{} (virtual {})", words::size(written), words::size(whole))
}

/// The same in bytes.
pub async fn sizes(app: &App, container: &Container) -> (u64, u64) {
    let written = prune::written(app, &container.id).await;
    let request = InspectImageRequest { reference: container.image_id.clone() };
    let image = match app.images().await {
        Ok(mut images) => app.storage(images.inspect(request)).await.ok().and_then(|a| a.image),
        Err(_) => None,
    };
    (written, written + image.map_or(0, |i| i.size))
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
    let wanted = args.port.as_deref().map(port_inside);
    let mut any = false;
    for p in ports.iter().filter(|p| p.host_port != 0) {
        let inside = format!("{}/{}", p.container_port, p.protocol);
        let ip = match p.host_ip.as_str() {
            "" => "0.0.0.0".to_owned(),
            ip if ip.contains(':') => format!("[{ip}]"),
            ip => ip.to_owned(),
        };
        match &wanted {
            Some(wanted) if wanted.as_ref() != Some(&inside) => continue,
            Some(_) => output::line(format!("{ip}:{}", p.host_port)),
            None => output::line(format!("{inside} -> {ip}:{}", p.host_port)),
        }
        any = true;
    }
    match (&args.port, wanted) {
        (Some(asked), Some(wanted)) if !any => Err(not_published(asked, wanted.is_some(), &args.container)),
        _ => Ok(()),
    }
}

/// `80` is `80/tcp`; nothing when it is no port.
fn port_inside(text: &str) -> Option<String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse::<u16>().ok().filter(|p| *p != 0)?;
    let protocol = protocol.to_ascii_lowercase();
    matches!(protocol.as_str(), "tcp" | "udp" | "sctp").then(|| format!("{port}/{protocol}"))
}

/// docker's line.
fn not_published(port: &str, is_port: bool, container: &str) -> Failure {
    let hint = if is_port {
        format!("'davit port {container}' lists what it publishes")
    } else {
        "a port is a number from 1 to 65535, alone or with its protocol: 80, 80/tcp, 53/udp, 9/sctp"
            .to_owned()
    };
    let text = format!("no public port '{port}' published for {container}");
    Failure::Told(Error::new(Kind::NotFound, text).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_with_or_without_its_protocol() {
        for (text, port) in
            [("80", "80/tcp"), ("53/udp", "53/udp"), ("0080/TCP", "80/tcp"), ("9/sctp", "9/sctp")]
        {
            assert_eq!(port_inside(text).as_deref(), Some(port));
        }
        for text in ["foo", "", "0", "65536", "-1", "80/", "80/icmp", "80/tcp/udp", "8080:80"] {
            assert_eq!(port_inside(text), None, "{text}");
        }
        let Failure::Told(e) = not_published("foo", false, "c1") else { panic!() };
        assert_eq!(e.message(), "no public port 'foo' published for c1");
        assert!(e.hint().contains("80/tcp") && e.hint().contains("53/udp"), "{}", e.hint());
    }
}
