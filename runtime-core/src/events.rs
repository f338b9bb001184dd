//! What happened: numbered, journaled in segments, and kept in memory for those who are nearly up to date.
//!
//! Owner of `state/runtime/events/`. Invariants:
//! - an event is in the journal before anybody hears of it, and numbers go up by one, over restarts too: who knows the last number that it
//!   saw misses nothing and sees nothing twice (kill -9 loses nothing; a power cut may cost the last seconds);
//! - the journal is bounded: whole segments go, the oldest first, and who asks for what is gone hears so.

mod journal;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use davit_contracts::runtime::Event;
use tokio::sync::broadcast;

use crate::clock::unix_ns;
use crate::filters::{Filters, has_label};
use journal::Journal;

/// How many events are kept in memory.
const KEPT: usize = 1000;
/// The keys that a subscription filters by.
pub const FILTERS: &[&str] = &["type", "event", "container", "image", "label", "name", "network", "pod"];

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
    journal: Journal,
}

/// Where a subscription begins.
#[derive(Debug)]
pub struct Past {
    /// From here on `kept` is whole.
    pub kept: Vec<Event>,
    /// The number of the next event.
    pub next: u64,
    /// The first number that is still journaled.
    pub first: u64,
}

impl Events {
    /// Reads the journal, if there is one.
    pub fn open(dir: &Path) -> Self {
        Self::with_limits(dir, journal::SEGMENT, journal::SEGMENTS)
    }

    fn with_limits(dir: &Path, segment: u64, segments: usize) -> Self {
        let (journal, kept) = Journal::open(dir, segment, segments, KEPT);
        let next = kept.back().map_or(journal.next(), |e| e.seq + 1);
        Self { inner: Mutex::new(Inner { kept, next, journal }), live: broadcast::channel(1024).0 }
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
        inner.journal.append(&event);
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        // Under the lock, so that a subscriber sees every event exactly once and in order.
        let _ = self.live.send(event);
    }

    /// What is kept in memory, and what is to come.
    pub fn subscribe(&self) -> (Past, broadcast::Receiver<Event>) {
        let inner = self.lock();
        let kept: Vec<Event> = inner.kept.iter().cloned().collect();
        let first = inner.journal.first().or(kept.first().map(|e| e.seq)).unwrap_or(inner.next);
        (Past { kept, next: inner.next, first }, self.live.subscribe())
    }

    /// Journaled events after `after` and before `before`, not older than `since`; blocking. At most `most`, the oldest first.
    pub fn read(&self, after: u64, before: u64, since: i64, most: usize) -> Vec<Event> {
        let segments = self.lock().journal.segments();
        journal::read(&segments, after, before, since, most)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether an event passes docker's filters.
pub fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |key: &str| event.attributes.get(key).map_or("", String::as_str);
    let begins = |text: &str, value: &str| !value.is_empty() && text.starts_with(value);
    filters.pass(|key, value| match key {
        "type" => event.r#type == value,
        // `exec_start: sh -c x` is an exec_start.
        "event" => {
            event.action.strip_prefix(value).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
        }
        "container" => match event.r#type.as_str() {
            "container" => begins(&event.id, value) || attribute("name") == value,
            _ => begins(attribute("container"), value),
        },
        "name" => attribute("name") == value,
        "image" => {
            let image = attribute("image");
            image == value || image.split_once(':').is_some_and(|(name, _)| name == value)
        }
        "network" => event.r#type == "network" && (begins(&event.id, value) || attribute("name") == value),
        "pod" => event.r#type == "pod" && (begins(&event.id, value) || attribute("name") == value),
        "label" => has_label(&event.attributes, value),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
