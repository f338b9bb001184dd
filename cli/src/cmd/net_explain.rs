//! `davit network explain`: what lets traffic through, hop by hop, or stops it.

mod stand;

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use davit_contracts::network::hop::Verdict;
use davit_contracts::network::{ExplainRequest, ExplainResponse, Hop};
use serde_json::json;

use crate::app::App;
use crate::args::network_view::ExplainArgs;
use crate::error::{Failure, Outcome};
use crate::output;
use crate::parse::destination::{Destination, destination};

/// Exit code 1 when something stops it.
pub async fn explain(app: &App, args: &ExplainArgs) -> Outcome {
    let to = destination(&args.to)?;
    let source = stand::source(app, &args.from).await;
    let (named, mut before) = match stand::of_hosts_file(&source, &to.host) {
        Some(stand) => (stand.name, stand.hops),
        None => (to.host.clone(), Vec::new()),
    };
    let mut answer = ask(app, &source.name, &named, &to).await?;
    // What the source resolves is what it reaches, whoever else is called so.
    if !stand::resolves(&answer) {
        let target = stand::target(app, &source, &named).await;
        if let Some(stop) = target.stop {
            answer = ExplainResponse { hops: vec![stop], reaches: false };
            before = target.hops;
        } else if target.name != named {
            answer = ask(app, &source.name, &target.name, &to).await?;
            before = target.hops;
        }
    }
    answer.hops.splice(0..0, source.hops.into_iter().chain(before));
    if args.format.is_some() {
        output::line(object(&args.from, &to, &answer).to_string());
    } else {
        let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
        output::print(&text(&args.from, &args.to, &answer, plain));
    }
    if answer.reaches { Ok(()) } else { Err(Failure::Code(1)) }
}

async fn ask(app: &App, from: &str, host: &str, to: &Destination) -> Outcome<ExplainResponse> {
    let request = ExplainRequest {
        from: from.to_owned(),
        to: host.to_owned(),
        port: to.port.into(),
        protocol: to.protocol.clone(),
    };
    app.network(app.networks().await?.explain(request)).await
}

fn object(from: &str, to: &Destination, answer: &ExplainResponse) -> serde_json::Value {
    let hop = |h: &Hop| {
        let verdict = match h.verdict() {
            Verdict::Note => "note",
            Verdict::Pass => "pass",
            Verdict::Stop => "stop",
        };
        json!({"Stage": h.stage, "Where": h.r#where, "What": h.what, "Verdict": verdict, "Hint": h.hint})
    };
    json!({
        "From": from,
        "To": to.host,
        "Port": to.port,
        "Protocol": to.protocol,
        "Reaches": answer.reaches,
        "Hops": answer.hops.iter().map(hop).collect::<Vec<_>>(),
    })
}

/// One line a hop, the hint below a stop, the verdict last.
fn text(from: &str, to: &str, answer: &ExplainResponse, plain: bool) -> String {
    let paint = |color: &str, text: &str| {
        if plain { text.to_owned() } else { format!("\x1b[{color}m{text}\x1b[0m") }
    };
    let mark = |verdict| match (verdict, plain) {
        (Verdict::Pass, true) => "ok  ".to_owned(),
        (Verdict::Note, true) => "-   ".to_owned(),
        (Verdict::Stop, true) => "STOP".to_owned(),
        (Verdict::Pass, false) => paint("32", "✓"),
        (Verdict::Note, false) => paint("2", "·"),
        (Verdict::Stop, false) => paint("31", "✗"),
    };
    let width = |of: fn(&Hop) -> &str| answer.hops.iter().map(|h| of(h).chars().count()).max().unwrap_or(0);
    let (stage, place) = (width(|h| &h.stage), width(|h| &h.r#where));
    let mut out = String::new();
    for hop in &answer.hops {
        let line = format!("{:stage$}  {:place$}  {}", hop.stage, hop.r#where, hop.what);
        let _ = writeln!(out, "{} {}", mark(hop.verdict()), line.trim_end());
    }
    match answer.hops.iter().find(|h| h.verdict() == Verdict::Stop) {
        Some(stop) => {
            let verdict = format!("{from} does not reach {to}: stopped at {} ({})", stop.r#where, stop.stage);
            let _ = writeln!(out, "{}", paint("1;31", &verdict));
            if !stop.hint.is_empty() {
                let _ = writeln!(out, "hint: {}", stop.hint);
            }
        }
        None => {
            let _ = writeln!(out, "{}", paint("1;32", &format!("{from} reaches {to}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(stage: &str, place: &str, what: &str, verdict: Verdict, hint: &str) -> Hop {
        Hop {
            stage: stage.into(),
            r#where: place.into(),
            what: what.into(),
            verdict: verdict.into(),
            hint: hint.into(),
        }
    }

    #[test]
    fn a_stop_is_the_last_line_with_what_to_do() {
        let answer = ExplainResponse {
            hops: vec![
                hop("name", "web", "'db' is 10.0.0.2", Verdict::Pass, ""),
                hop("rule", "host", "networks are apart", Verdict::Stop, "connect them"),
            ],
            reaches: false,
        };
        assert_eq!(
            text("web", "db:80", &answer, true),
            "ok   name  web   'db' is 10.0.0.2\n\
             STOP rule  host  networks are apart\n\
             web does not reach db:80: stopped at host (rule)\n\
             hint: connect them\n"
        );
        let colored = text("web", "db:80", &answer, false);
        assert!(colored.contains("\x1b[32m✓\x1b[0m name") && colored.contains("\x1b[31m✗"), "{colored}");
    }

    #[test]
    fn what_reaches_says_so() {
        let answer = ExplainResponse {
            hops: vec![hop("target", "db", "somebody listens", Verdict::Pass, "")],
            reaches: true,
        };
        assert!(text("web", "db", &answer, true).ends_with("web reaches db\n"));
    }
}
