//! What happened: numbered, kept in memory for late subscribers, and in a small journal file so that a restart forgets little.
//!
//! Owner of `state/runtime/events.jsonl`. The journal is appended to without fsync and begun anew when it has grown; a torn last line is
//! dropped when it is read.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use davit_contracts::runtime::Event;
use tokio::sync::broadcast;

use crate::clock::unix_ns;

/// How many events late subscribers can still see.
const KEPT: usize = 1000;
/// The journal is begun anew at this size.
const JOURNAL_MAX: u64 = 1 << 20;

/// All events of this runtimed.
#[derive(Debug)]
pub struct Events {
    inner: Mutex<Inner>,
    live: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Inner {
    kept: VecDeque<Event>,
    next: u64,
    journal: Option<File>,
    path: PathBuf,
    size: u64,
}

impl Events {
    /// Reads the journal, if there is one.
    pub fn open(path: &Path) -> Self {
        let mut kept: VecDeque<Event> = fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        kept.drain(..kept.len().saturating_sub(KEPT));
        let next = kept.back().map_or(1, |e| e.seq + 1);
        let mut inner = Inner { kept, next, journal: None, path: path.to_owned(), size: 0 };
        // A rewrite drops a torn line and what is no longer kept.
        inner.rewrite();
        Self { inner: Mutex::new(inner), live: broadcast::channel(1024).0 }
    }

    /// Records and sends one.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: HashMap<String, String>) {
        let mut inner = self.lock();
        let event = Event {
            seq: inner.next,
            time_unix_ns: unix_ns(),
            r#type: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes,
        };
        inner.next += 1;
        inner.append(&event);
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        // Under the lock, so that a subscriber sees every event exactly once and in order.
        let _ = self.live.send(event);
    }

    /// What is kept, and what is to come.
    pub fn subscribe(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let inner = self.lock();
        (inner.kept.iter().cloned().collect(), self.live.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    fn append(&mut self, event: &Event) {
        if self.size > JOURNAL_MAX {
            self.rewrite();
        }
        let Some(journal) = &mut self.journal else { return };
        let mut line = serde_json::to_vec(event).expect("plain structs always serialise");
        line.push(b'\n');
        self.size += line.len() as u64;
        if let Err(error) = journal.write_all(&line) {
            tracing::warn!(path = %self.path.display(), %error, "events are no longer journaled");
            self.journal = None;
        }
    }

    fn rewrite(&mut self) {
        let mut bytes = Vec::new();
        for event in &self.kept {
            serde_json::to_writer(&mut bytes, event).expect("plain structs always serialise");
            bytes.push(b'\n');
        }
        // Half of what would trigger the next rewrite at most.
        if bytes.len() as u64 > JOURNAL_MAX / 2 {
            bytes.clear();
        }
        let temporary = self.path.with_extension("new");
        let written = fs::write(&temporary, &bytes)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .and_then(|()| OpenOptions::new().append(true).open(&self.path));
        self.size = bytes.len() as u64;
        self.journal = written
            .map_err(|error| tracing::warn!(path = %self.path.display(), %error, "events are not journaled"))
            .ok();
    }
}

/// Whether an event passes docker's filters: `type`, `event`, `container` (id or name), `label`.
pub fn matches(event: &Event, filters: &HashMap<String, String>) -> bool {
    filters.iter().all(|(key, value)| match key.as_str() {
        "type" => event.r#type == *value,
        // "health_status: healthy" is also found by its first word, as docker has it.
        "event" => event.action == *value || event.action.split(':').next() == Some(value),
        "container" => {
            (!value.is_empty() && event.id.starts_with(value.as_str()))
                || event.attributes.get("name").is_some_and(|n| n == value)
        }
        "label" => match value.split_once('=') {
            Some((k, v)) => event.attributes.get(k).is_some_and(|have| have == v),
            None => event.attributes.contains_key(value),
        },
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let events = Events::open(&path);
        events.emit("container", "create", "a", HashMap::new());
        events.emit("container", "start", "a", HashMap::new());
        drop(events);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"seq\":3,");
        fs::write(&path, text).unwrap();
        let events = Events::open(&path);
        let (_, mut live) = events.subscribe();
        events.emit("container", "die", "a", HashMap::new());
        assert_eq!(live.try_recv().unwrap().seq, 3);
        let (kept, _) = events.subscribe();
        let actions: Vec<_> = kept.iter().map(|e| e.action.as_str()).collect();
        assert_eq!(actions, ["create", "start", "die"]);
    }

    #[test]
    fn filters() {
        let e = Event {
            id: "abc".into(),
            r#type: "container".into(),
            action: "die".into(),
            attributes: [("name".to_owned(), "web".to_owned())].into(),
            ..Event::default()
        };
        let f = |k: &str, v: &str| matches(&e, &[(k.to_owned(), v.to_owned())].into());
        assert!(f("type", "container") && f("event", "die") && f("container", "ab") && f("container", "web"));
        let ill = Event { action: "health_status: unhealthy".into(), ..Event::default() };
        assert!(
            ["health_status", "health_status: unhealthy"]
                .iter()
                .all(|v| matches(&ill, &[("event".to_owned(), (*v).to_owned())].into()))
        );
        assert!(f("label", "name=web") && !f("label", "x") && !f("event", "start") && !f("unknown", "x"));
    }
}
