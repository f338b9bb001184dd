//! check, gc.

use davit_contracts::Error;
use davit_contracts::storage::check_event::Event;
use davit_contracts::storage::finding::Problem;
use davit_contracts::storage::{CheckDone, CheckRequest, CollectRequest, Finding};
use serde_json::json;

use crate::app::App;
use crate::args::storage::{CheckArgs, GcArgs, StorageCommand};
use crate::error::{Failure, Outcome};
use crate::output::{self, words};

/// `davit storage ...`
pub async fn storage(app: &App, command: StorageCommand) -> Outcome {
    match command {
        StorageCommand::Check(args) => check(app, args).await,
        StorageCommand::Gc(args) => gc(app, &args).await,
    }
}

/// Tells each finding as it is made; exit code 1 when problems remain.
async fn check(app: &App, args: CheckArgs) -> Outcome {
    let as_json = args.format.is_some();
    let request = CheckRequest {
        references: args.images,
        repair: args.repair,
        quick: args.quick,
        ..CheckRequest::default()
    };
    let mut events = app.storage(app.storage_system().await?.check(request)).await?;
    let mut done = None;
    while let Some(event) = events.message().await.map_err(Error::from)? {
        match event.event {
            Some(Event::Finding(finding)) if as_json => output::line(finding_json(&finding).to_string()),
            Some(Event::Finding(finding)) => output::line(finding_text(&finding)),
            Some(Event::Done(totals)) => done = Some(totals),
            Some(Event::Layer(_)) | None => {}
        }
    }
    let Some(done) = done else {
        return Err(Failure::new(davit_contracts::Kind::Unavailable, "the check ended without an answer"));
    };
    output::line(if as_json { totals_json(&done).to_string() } else { totals_text(&done, args.repair) });
    if done.problems > done.repaired { Err(Failure::Code(1)) } else { Ok(()) }
}

fn kind(finding: &Finding) -> &'static str {
    match Problem::try_from(finding.problem) {
        Ok(Problem::Content) => "content",
        Ok(Problem::Missing) => "missing",
        Ok(Problem::Extra) => "extra",
        Ok(Problem::Metadata) => "metadata",
        Ok(Problem::Blob) => "blob",
        Ok(Problem::Record) => "record",
        Ok(Problem::Unspecified) | Err(_) => "unknown",
    }
}

/// `alpine:latest, web:1: layer 0123456789ab: /bin/sh: content differs (repaired)`
fn finding_text(finding: &Finding) -> String {
    let mut parts = Vec::new();
    if !finding.images.is_empty() {
        parts.push(finding.images.join(", "));
    }
    if !finding.diff_id.is_empty() {
        parts.push(format!("layer {}", words::short(&finding.diff_id)));
    }
    if !finding.path.is_empty() || matches!(kind(finding), "content" | "missing" | "extra" | "metadata") {
        parts.push(format!("/{}", finding.path));
    }
    let mut detail = finding.detail.clone();
    if finding.repaired {
        detail.push_str(" (repaired)");
    } else if !finding.why_not.is_empty() {
        detail = format!("{detail} (NOT repaired: {})", finding.why_not);
    }
    parts.push(detail);
    parts.join(": ")
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    let path = if finding.path.is_empty() { String::new() } else { format!("/{}", finding.path) };
    json!({
        "Problem": kind(finding),
        "Path": path,
        "DiffId": finding.diff_id,
        "Images": finding.images,
        "Detail": finding.detail,
        "Repaired": finding.repaired,
        "WhyNot": finding.why_not,
    })
}

fn totals_json(done: &CheckDone) -> serde_json::Value {
    json!({
        "Layers": done.layers,
        "Files": done.files,
        "Bytes": done.bytes,
        "Problems": done.problems,
        "Repaired": done.repaired,
    })
}

fn totals_text(done: &CheckDone, repair: bool) -> String {
    let looked = format!(
        "{} in {}, {} read",
        count(done.files, "file"),
        count(done.layers, "layer"),
        words::size(done.bytes)
    );
    let left = done.problems - done.repaired.min(done.problems);
    match (done.problems, left) {
        (0, _) => format!("{looked}: no problems"),
        (all, 0) => format!("{looked}: {}, all repaired", count(all, "problem")),
        (all, left) if repair => format!("{looked}: {}, {left} not repaired", count(all, "problem")),
        (all, _) => {
            format!("{looked}: {}; 'davit storage check --repair' restores files", count(all, "problem"))
        }
    }
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Docker's wording of what a prune did.
async fn gc(app: &App, args: &GcArgs) -> Outcome {
    let answer = app.storage(app.storage_system().await?.collect(CollectRequest {})).await?;
    if !args.quiet {
        answer.deleted.iter().for_each(|id| output::line(format!("deleted: {id}")));
    }
    output::line(format!("Total reclaimed space: {}", words::size(answer.reclaimed_bytes)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_one_line() {
        let finding = Finding {
            problem: Problem::Content as i32,
            path: "bin/sh".into(),
            diff_id: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            images: vec!["a:1".into(), "b:1".into()],
            detail: "content differs".into(),
            repaired: false,
            why_not: "its archive is damaged".into(),
        };
        assert_eq!(
            finding_text(&finding),
            "a:1, b:1: layer 0123456789ab: /bin/sh: content differs (NOT repaired: its archive is damaged)"
        );
        let repaired = Finding { repaired: true, why_not: String::new(), ..finding };
        assert!(finding_text(&repaired).ends_with("/bin/sh: content differs (repaired)"));
        assert_eq!(finding_json(&repaired)["Path"], "/bin/sh");
    }

    #[test]
    fn the_totals_say_what_is_left() {
        let totals = |problems, repaired| CheckDone { layers: 1, files: 2, bytes: 1500, problems, repaired };
        assert_eq!(totals_text(&totals(0, 0), false), "2 files in 1 layer, 1.5kB read: no problems");
        assert!(totals_text(&totals(1, 1), true).ends_with("1 problem, all repaired"));
        assert!(totals_text(&totals(3, 1), true).ends_with("3 problems, 2 not repaired"));
        assert!(totals_text(&totals(3, 0), false).contains("--repair"));
    }
}
