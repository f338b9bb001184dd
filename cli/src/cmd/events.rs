//! `davit events`.

use std::collections::BTreeMap;
use std::time::Duration;

use davit_contracts::runtime::{Event, SubscribeRequest};
use serde_json::{Value, json};

use super::lifecycle::is_interruption;
use crate::app::App;
use crate::args::system::EventsArgs;
use crate::error::{Failure, Outcome};
use crate::output::template::Template;
use crate::output::{self, words};
use crate::parse::duration::moment;
use crate::view;

/// Before a daemon that has ended is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Prints events until `--until`, or for ever.
pub async fn events(app: &App, args: &EventsArgs) -> Outcome {
    let now = words::now();
    let time = |text: &Option<String>| text.as_deref().map_or(Ok(0), |t| moment(t, now));
    let request = SubscribeRequest {
        since_unix_ns: time(&args.since)?,
        until_unix_ns: time(&args.until)?,
        filter: view::key_values(&args.filter),
        ..SubscribeRequest::default()
    };
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let json = args.format.as_deref() == Some("json");
    let show = |event: &Event| {
        output::line(match &template {
            Some(template) => template.render(&named(event))?,
            None if json => object(event).to_string(),
            None => text(event),
        });
        Ok(())
    };
    follow(app, request, now, show).await
}

/// Goes on over restarts of the daemon, from the number of the last event on.
async fn follow(
    app: &App,
    mut request: SubscribeRequest,
    begun: i64,
    mut show: impl FnMut(&Event) -> Outcome,
) -> Outcome {
    let mut connected = false;
    loop {
        match once(app, &mut request, &mut connected, &mut show).await {
            Err(Failure::Told(e)) if connected && is_interruption(&e) => {
                if request.after_seq == 0 && request.since_unix_ns == 0 {
                    request.since_unix_ns = begun;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(Failure::Told(e)) if resume_after(e.message()).is_some() => {
                request.after_seq = resume_after(e.message()).unwrap_or(0);
                crate::output::complain!("WARNING: some events are lost: they are not kept so long");
            }
            ended => return ended,
        }
    }
}

async fn once(
    app: &App,
    request: &mut SubscribeRequest,
    connected: &mut bool,
    show: &mut impl FnMut(&Event) -> Outcome,
) -> Outcome {
    let mut stream = app.runtime(app.events().await?.subscribe(request.clone())).await?;
    *connected = true;
    while let Some(event) = stream.message().await.map_err(|s| app.refused("runtimed", s))? {
        show(&event)?;
        request.after_seq = event.seq;
    }
    Ok(())
}

/// The number that the daemon names when what was asked for is gone.
fn resume_after(message: &str) -> Option<u64> {
    message.rsplit_once("resume with after_seq ")?.1.parse().ok()
}

/// docker's object of an event.
fn object(e: &Event) -> Value {
    json!({
        "status": e.action,
        "id": e.id,
        "from": e.attributes.get("image").cloned().unwrap_or_default(),
        "Type": e.r#type,
        "Action": e.action,
        "Actor": {"ID": e.id, "Attributes": e.attributes},
        "scope": "local",
        "time": e.time_unix_ns / 1_000_000_000,
        "timeNano": e.time_unix_ns,
    })
}

/// The same for templates, with the names that docker's have for what the JSON spells otherwise.
fn named(e: &Event) -> Value {
    let mut out = object(e);
    for (name, key) in [
        ("Status", "status"),
        ("ID", "id"),
        ("From", "from"),
        ("Scope", "scope"),
        ("Time", "time"),
        ("TimeNano", "timeNano"),
    ] {
        out[name] = out[key].clone();
    }
    out
}

/// docker's line: time, type, action, id, attributes in brackets.
fn text(e: &Event) -> String {
    let attributes: BTreeMap<_, _> = e.attributes.iter().collect();
    let attributes = attributes.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ");
    format!("{} {} {} {} ({attributes})", words::rfc3339(e.time_unix_ns), e.r#type, e.action, e.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_dockers() {
        let e = Event {
            time_unix_ns: 1_500_000_000,
            r#type: "container".into(),
            action: "die".into(),
            id: "abc".into(),
            attributes: [("name".into(), "web".into()), ("exitCode".into(), "0".into())].into(),
            ..Event::default()
        };
        assert_eq!(text(&e), "1970-01-01T00:00:01.500000000Z container die abc (exitCode=0, name=web)");
        assert_eq!(object(&e)["Actor"]["Attributes"]["name"], "web");
        let template = Template::parse("{{.ID}} {{.Status}} {{.Time}} {{.Actor.Attributes.name}}").unwrap();
        assert_eq!(template.render(&named(&e)).unwrap(), "abc die 1 web");
    }
}
