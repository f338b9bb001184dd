//! The files that a restart relies on: the note of forwarding, and the records of sandboxes.

use std::path::Path;

use super::super::{Engine, EngineError};
use super::mend::Mend;
use super::{Fault, Found};
use crate::endpoint::Sandbox;

impl Engine {
    /// The note of whose forwarding is ours.
    pub(super) fn look_at_forwarding(&self, found: &mut Vec<Found>) {
        let Some(fault) = self.forwarding_fault() else { return };
        let detail = match fault {
            Fault::Missing => "a restart of netd could not tell whether the host may forward for strangers",
            Fault::Stray => "no forwarding is ours",
            Fault::Differs => "it is damaged, or says something else than netd knows",
        };
        let object = format!("record of forwarding {}", self.forwarding_note().display());
        found.push(Found::new(fault, object, detail, Mend::Forwarding));
    }

    /// Records that are damaged, that nobody answers for, or that say something else than we know. `detached`: ids of
    /// containers that run without being known here.
    pub(super) fn look_at_records(
        &self,
        detached: &[String],
        found: &mut Vec<Found>,
    ) -> Result<(), EngineError> {
        let survey = self.journal.survey()?;
        for path in &survey.damaged {
            let known = self.sandboxes.get(id_of(path));
            let detail = match known {
                Some(_) => "it cannot be read; a restart of netd would take the container off its networks",
                None => {
                    "it cannot be read, or is under another name than its container's; netd takes no notice of it"
                }
            };
            let mend = match known {
                Some(sandbox) => Mend::Record(sandbox.id.clone()),
                None => Mend::RemoveFile(path.clone()),
            };
            found.push(Found::new(Fault::Differs, object(path), detail, mend).of_known(known));
        }
        for path in &survey.set_aside {
            found.push(self.of_set_aside(path, detached));
        }
        for path in &survey.strays {
            let what = if path.is_dir() { "folder" } else { "file" };
            let object = format!("{what} {}", path.display());
            let detail = "it is no record of a container";
            found.push(Found::new(Fault::Stray, object, detail, Mend::RemoveFile(path.clone())));
        }
        for record in &survey.records {
            let known = self.sandboxes.get(&record.id);
            let (fault, detail) = match known {
                None => (Fault::Stray, "netd does not know this container".to_owned()),
                Some(known) if known != record => (Fault::Differs, differences(known, record)),
                Some(_) => continue,
            };
            let mend = Mend::Record(record.id.clone());
            let object = format!("record of {}", record.id);
            found.push(Found::new(fault, object, detail, mend).of_known(known.or(Some(record))));
        }
        let on_disk = |s: &&Sandbox| {
            survey.records.iter().any(|r| r.id == s.id) || survey.damaged.iter().any(|p| id_of(p) == s.id)
        };
        for sandbox in self.sandboxes.values().filter(|s| !on_disk(s)) {
            let mend = Mend::Record(sandbox.id.clone());
            let object = format!("record of {}", sandbox.id);
            let detail = "a restart of netd would forget this container";
            found.push(Found::new(Fault::Missing, object, detail, mend).of_known(Some(sandbox)));
        }
        Ok(())
    }

    /// A record that could not be read at the last start.
    fn of_set_aside(&self, path: &Path, detached: &[String]) -> Found {
        let id = id_of(path);
        let known = self.sandboxes.get(id);
        let (detail, mend) = if known.is_some() {
            let detail = "it could not be read when netd started; the container is attached again".to_owned();
            (detail, Mend::RemoveFile(path.to_owned()))
        } else if detached.iter().any(|d| d == id) {
            let detail = format!("it could not be read when netd started, so container {id} has no network");
            (detail, Mend::Nothing("its container runs: attach it again first, with 'davit restart'"))
        } else {
            let detail = format!(
                "it could not be read when netd started; if it was container {id}'s, that has no network now"
            );
            (detail, Mend::RemoveFile(path.to_owned()))
        };
        Found::new(Fault::Differs, object(path), detail, mend).of_known(known)
    }
}

fn object(path: &Path) -> String {
    format!("record {}", path.display())
}

/// Whose record a file is by its name.
fn id_of(path: &Path) -> &str {
    path.file_stem().and_then(|s| s.to_str()).unwrap_or_default()
}

/// In what a record is not as netd knows the sandbox.
fn differences(known: &Sandbox, record: &Sandbox) -> String {
    let fields = |s: &Sandbox| serde_json::to_value(s).ok().and_then(|v| v.as_object().cloned());
    let (known, record) = (fields(known).unwrap_or_default(), fields(record).unwrap_or_default());
    let all = known.keys().chain(record.keys().filter(|k| !known.contains_key(*k)));
    let different: Vec<_> = all.filter(|k| known.get(*k) != record.get(*k)).map(String::as_str).collect();
    format!("it says something else than netd knows of: {}", different.join(", "))
}
