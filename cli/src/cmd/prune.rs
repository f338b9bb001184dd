//! `container prune` and `system prune`: docker's order, words and output.

use std::collections::HashMap;

use davit_contracts::network::PruneNetworksRequest;
use davit_contracts::runtime::{Container, ListRequest, RemoveRequest};
use davit_contracts::storage::{Filter, PruneVolumesRequest, UsageRequest};

use super::confirm::confirm;
use super::image::prune_images;
use crate::app::App;
use crate::args::container::PruneArgs as ContainerPruneArgs;
use crate::args::system::PruneArgs;
use crate::error::{Failure, Outcome};
use crate::output::{self, words};
use crate::{parse, view};

/// Which containers are meant: their daemon has no filters that are rich enough.
struct Wanted {
    /// Made before then.
    until: Option<i64>,
    labels: Vec<(bool, String)>,
}

impl Wanted {
    fn new(filters: &[(String, String)]) -> Result<Self, String> {
        let mut wanted = Self { until: None, labels: Vec::new() };
        for (key, value) in filters {
            match key.as_str() {
                "until" => {
                    let at = parse::duration::moment(value, words::now())?;
                    wanted.until = Some(wanted.until.map_or(at, |u| u.min(at)));
                }
                "label" => wanted.labels.push((true, value.clone())),
                "label!" => wanted.labels.push((false, value.clone())),
                other => return Err(format!("invalid filter '{other}': until, label and label! are known")),
            }
        }
        Ok(wanted)
    }

    fn fits(&self, created_unix_ns: i64, labels: &HashMap<String, String>) -> bool {
        let has = |text: &str| match text.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(text),
        };
        self.until.is_none_or(|at| created_unix_ns < at)
            && self.labels.iter().all(|(wanted, text)| has(text) == *wanted)
    }
}

/// What was removed under one title, and how many bytes it held.
#[derive(Default)]
struct Pruned {
    text: String,
    bytes: u64,
    failed: bool,
}

impl Pruned {
    fn list(title: &str, names: &[String], bytes: u64) -> Self {
        let mut text = String::new();
        if !names.is_empty() {
            text = format!("Deleted {title}:\n");
            text.extend(names.iter().map(|n| format!("{n}\n")));
        }
        Self { text, bytes, failed: false }
    }
}

/// `davit container prune`
pub async fn containers(app: &App, args: &ContainerPruneArgs) -> Outcome {
    let wanted = Wanted::new(&args.filter)?;
    if !args.force && !confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(());
    }
    finish(&[prune_containers(app, &wanted).await?])
}

/// `davit system prune`
pub async fn system(app: &App, args: &PruneArgs) -> Outcome {
    let wanted = Wanted::new(&args.filter)?;
    if args.volumes && wanted.until.is_some() {
        return Err(Failure::Usage(r#"the "until" filter is not supported with "--volumes""#.into()));
    }
    if !args.force && !confirm(&warning(args))? {
        return Ok(());
    }
    let mut all = vec![prune_containers(app, &wanted).await?, prune_networks(app, &args.filter).await?];
    let filter = view::storage_filters(&args.filter, words::now())?;
    if args.volumes {
        all.push(prune_volumes(app, false, filter.clone()).await?);
    }
    let (text, bytes) = prune_images(app, args.all, filter).await?;
    all.push(Pruned { text, bytes, failed: false });
    finish(&all)
}

fn warning(args: &PruneArgs) -> String {
    let mut lines = vec![
        "WARNING! This will remove:".to_owned(),
        "  - all stopped containers".to_owned(),
        "  - all networks not used by at least one container".to_owned(),
    ];
    if args.volumes {
        lines.push("  - all anonymous volumes not used by at least one container".to_owned());
    }
    lines.push(if args.all {
        "  - all images without at least one container associated to them".to_owned()
    } else {
        "  - all dangling images".to_owned()
    });
    if !args.filter.is_empty() {
        lines.extend([String::new(), "  Items to be pruned will be filtered with:".to_owned()]);
        lines.extend(args.filter.iter().map(|(key, value)| format!("  - {key}={value}")));
    }
    lines.join("\n") + "\n"
}

/// Volumes that nothing uses, as one part of the output.
async fn prune_volumes(app: &App, all: bool, filter: Vec<Filter>) -> Outcome<Pruned> {
    let request = PruneVolumesRequest { all, filter, ..PruneVolumesRequest::default() };
    let answer = app.storage(app.volumes().await?.prune(request)).await?;
    Ok(Pruned::list("Volumes", &answer.removed, answer.reclaimed_bytes))
}

/// `davit volume prune`
pub async fn volumes(app: &App, all: bool, filter: Vec<Filter>) -> Outcome {
    finish(&[prune_volumes(app, all, filter).await?])
}

async fn prune_containers(app: &App, wanted: &Wanted) -> Outcome<Pruned> {
    let request = ListRequest { all: true, ..ListRequest::default() };
    let all = app.runtime(app.containers().await?.list(request)).await?.containers;
    let (mut removed, mut bytes, mut failed) = (Vec::new(), 0, false);
    for container in all.into_iter().filter(|c| is_stopped(c) && fits(wanted, c)) {
        let size = written(app, &container.id).await;
        let request = RemoveRequest { container: container.id.clone(), ..RemoveRequest::default() };
        match app.runtime(app.containers().await?.remove(request)).await {
            Ok(_) => {
                removed.push(container.id);
                bytes += size;
            }
            Err(e) => {
                e.tell();
                failed = true;
            }
        }
    }
    Ok(Pruned { failed, ..Pruned::list("Containers", &removed, bytes) })
}

fn fits(wanted: &Wanted, container: &Container) -> bool {
    let none = HashMap::new();
    wanted.fits(container.created_unix_ns, container.spec.as_ref().map_or(&none, |s| &s.labels))
}

fn is_stopped(container: &Container) -> bool {
    let status = container.state.as_ref().map_or("", |s| s.status.as_str());
    matches!(status, "created" | "exited" | "dead")
}

/// Bytes that a container wrote; 0 when that cannot be told.
pub async fn written(app: &App, id: &str) -> u64 {
    let Ok(mut snapshots) = app.snapshots().await else { return 0 };
    let request = UsageRequest { key: id.to_owned() };
    app.storage(snapshots.usage(request)).await.map_or(0, |u| u.bytes)
}

async fn prune_networks(app: &App, filter: &[(String, String)]) -> Outcome<Pruned> {
    let filters = view::network::prune_filters(filter, words::now())?;
    let answer = app.network(app.networks().await?.prune(PruneNetworksRequest { filters })).await?;
    let failed = tell_failed(&answer.failed).is_err();
    Ok(Pruned { failed, ..Pruned::list("Networks", &answer.removed, 0) })
}

/// Says which networks could not be removed and why; an error when there are any.
pub fn tell_failed(failed: &HashMap<String, String>) -> Outcome {
    let mut all: Vec<_> = failed.iter().collect();
    all.sort();
    for (name, why) in &all {
        output::complain!("davit: network {name} was not removed: {why}");
    }
    if all.is_empty() { Ok(()) } else { Err(Failure::Code(1)) }
}

fn finish(parts: &[Pruned]) -> Outcome {
    for part in parts.iter().filter(|p| !p.text.is_empty()) {
        output::line(&part.text);
    }
    let bytes = parts.iter().map(|p| p.bytes).sum();
    output::line(format!("Total reclaimed space: {}", words::size(bytes)));
    if parts.iter().any(|p| p.failed) { Err(Failure::Code(1)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(all: bool, volumes: bool, filter: &[(&str, &str)]) -> PruneArgs {
        let filter = filter.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        PruneArgs { all, force: false, volumes, filter }
    }

    #[test]
    fn the_warning_says_what_goes() {
        assert_eq!(
            warning(&args(false, false, &[])),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
             container\n  - all dangling images\n"
        );
        let long = warning(&args(true, true, &[("label!", "keep")]));
        assert!(long.contains(
            "\n  - all anonymous volumes not used by at least one container\n  - all images without"
        ));
        assert!(long.ends_with("\n\n  Items to be pruned will be filtered with:\n  - label!=keep\n"));
    }

    #[test]
    fn filters_choose_by_age_and_labels() {
        let wanted = |f: &[(&str, &str)]| Wanted::new(&args(false, false, f).filter);
        let labels = HashMap::from([("a".to_owned(), "1".to_owned())]);
        assert!(wanted(&[("label", "a"), ("label!", "b")]).unwrap().fits(0, &labels));
        assert!(!wanted(&[("label", "a=2")]).unwrap().fits(0, &labels));
        assert!(!wanted(&[("label!", "a=1")]).unwrap().fits(0, &labels));
        assert!(wanted(&[("until", "5"), ("until", "7")]).unwrap().fits(4_999_999_999, &labels));
        assert!(!wanted(&[("until", "5"), ("until", "7")]).unwrap().fits(5_000_000_000, &labels));
        assert!(wanted(&[("name", "x")]).is_err());
    }
}
