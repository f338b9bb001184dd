//! `--log-driver` and `--log-opt`: docker's drivers, options, defaults and refusals.
//!
//! Driver and default options are entered into a container when it is made, so that its log can be read after the configuration has changed.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use davit_contracts::runtime::{Container, ContainerSpec, LogConfig};
use davit_contracts::storage::ImageConfig;
use davit_wire::config::{FileLog, JournalLog, LogSink};

use super::tag;
use crate::config::LogDefaults;
use crate::error::RuntimeError;
use crate::nearest::nearest;

/// The default.
pub const JSON_FILE: &str = "json-file";
/// Compact and compressed.
pub const LOCAL: &str = "local";
/// systemd's.
pub const JOURNALD: &str = "journald";
/// No log.
pub const NONE: &str = "none";

/// Where journald listens.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// docker's size of a buffer in mode non-blocking.
const BUFFER: u64 = 1 << 20;

/// docker's defaults of the local driver.
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;

/// The options of each driver.
const KNOWN: [(&str, &[&str]); 4] = [
    (JSON_FILE, &["compress", "env", "labels", "max-buffer-size", "max-file", "max-size", "mode", "tag"]),
    (LOCAL, &["compress", "max-buffer-size", "max-file", "max-size", "mode"]),
    (JOURNALD, &["env", "labels", "max-buffer-size", "mode", "tag"]),
    (NONE, &["max-buffer-size", "mode"]),
];

/// The driver of a container; of one that an older runtimed made, the default.
pub fn driver(spec: Option<&ContainerSpec>) -> &str {
    let name = spec.and_then(|s| s.log.as_ref()).map_or("", |l| l.driver.as_str());
    if name.is_empty() { JSON_FILE } else { name }
}

/// Enters the configuration's driver where none was asked for, and its options where its driver is used.
pub fn settle(log: &mut LogConfig, defaults: &LogDefaults) {
    let default = if defaults.driver.is_empty() { JSON_FILE } else { &defaults.driver };
    if log.driver.is_empty() {
        default.clone_into(&mut log.driver);
    }
    if log.driver == default {
        for (key, value) in &defaults.options {
            log.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if log.driver == JSON_FILE && defaults.max_size > 0 {
        log.options.entry("max-size".into()).or_insert_with(|| defaults.max_size.to_string());
        log.options.entry("max-file".into()).or_insert_with(|| defaults.max_files.max(1).to_string());
    }
}

/// Refuses what cannot be, also on this host.
pub fn check(log: &LogConfig) -> Result<(), RuntimeError> {
    let about = About::default();
    plan(log, &about, Path::new("/"))?;
    if log.driver == JOURNALD {
        let socket = Path::new(JOURNAL_SOCKET);
        if !std::fs::metadata(socket).is_ok_and(|m| m.file_type().is_socket()) {
            return Err(RuntimeError::Invalid(format!(
                "the log driver journald needs systemd's journald, which does not run on this host: there is no socket {JOURNAL_SOCKET}"
            )));
        }
    }
    Ok(())
}

/// What options may speak of.
#[derive(Debug, Default)]
pub struct About<'a> {
    /// The container.
    pub container: Option<&'a Container>,
    /// Its image.
    pub image: Option<&'a ImageConfig>,
}

/// What the monitor is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where output goes.
    pub sink: LogSink,
    /// Bytes of the buffer in mode non-blocking; 0: blocking.
    pub buffer: u64,
}

/// From the options to what the monitor is told.
pub fn plan(log: &LogConfig, about: &About<'_>, path: &Path) -> Result<Plan, RuntimeError> {
    let driver = if log.driver.is_empty() { JSON_FILE } else { &log.driver };
    let known = known(driver)?;
    let mut keys: Vec<&String> = log.options.keys().collect();
    keys.sort_unstable();
    if let Some(key) = keys.into_iter().find(|key| !known.contains(&key.as_str())) {
        let near = nearest(key, known.iter().copied()).into_iter().next();
        let near = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        return Err(RuntimeError::Invalid(format!(
            "unknown log opt '{key}' for {driver} log driver: {} are known{near}",
            known.join(", ")
        )));
    }
    let options = Options(&log.options);
    let buffer = options.buffer()?;
    let sink = match driver {
        NONE => LogSink::None,
        LOCAL => LogSink::Local(options.file(path, LOCAL_SIZE, LOCAL_FILES, true)?),
        JOURNALD => LogSink::Journald(JournalLog {
            socket: JOURNAL_SOCKET.into(),
            fields: options.journal_fields(about)?,
        }),
        _ => {
            let mut file = options.file(path, 0, 1, false)?;
            file.attrs = options.attributes(about, str::to_owned);
            if let Some(tag) = log.options.get("tag") {
                file.attrs.insert("tag".into(), tag::expand(tag, about.container)?);
            }
            LogSink::JsonFile(file)
        }
    };
    Ok(Plan { sink, buffer })
}

fn known(driver: &str) -> Result<&'static [&'static str], RuntimeError> {
    KNOWN.iter().find(|(name, _)| *name == driver).map(|(_, options)| *options).ok_or_else(|| {
        RuntimeError::Invalid(format!(
            "logger: no log driver named '{driver}' is registered: json-file, local, journald and none are known"
        ))
    })
}

struct Options<'a>(&'a HashMap<String, String>);

impl Options<'_> {
    fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, RuntimeError> {
        let Some(text) = self.0.get(key) else { return Ok(None) };
        let wanted = match key {
            "max-file" => "a number of files, at least 1",
            "compress" => "true or false",
            "mode" => "blocking or non-blocking",
            _ => "a size such as 10m",
        };
        let bad = || RuntimeError::Invalid(format!("invalid log opt {key}={text}: {wanted} is expected"));
        parse(text).map(Some).ok_or_else(bad)
    }

    fn buffer(&self) -> Result<u64, RuntimeError> {
        let non_blocking = self.parsed("mode", |text| match text {
            "" | "blocking" => Some(false),
            "non-blocking" => Some(true),
            _ => None,
        })?;
        let size = self.parsed("max-buffer-size", |text| bytes(text).filter(|n| *n > 0))?;
        match (non_blocking.unwrap_or(false), size) {
            (false, Some(_)) => Err(RuntimeError::Invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'".into(),
            )),
            (false, None) => Ok(0),
            (true, size) => Ok(size.unwrap_or(BUFFER)),
        }
    }

    fn file(&self, path: &Path, size: u64, files: u32, compress: bool) -> Result<FileLog, RuntimeError> {
        let max_size = self.parsed("max-size", bytes)?.unwrap_or(size);
        let max_files = self.parsed("max-file", |t| t.parse().ok().filter(|n| *n > 0))?.unwrap_or(files);
        let asked = self.parsed("compress", |text| match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })?;
        let rotates = max_size > 0 && max_files > 1;
        if asked == Some(true) && !rotates {
            return Err(RuntimeError::Invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set".into(),
            ));
        }
        let compress = asked.unwrap_or(compress) && rotates;
        Ok(FileLog { path: path.to_owned(), max_size, max_files, compress, attrs: BTreeMap::new() })
    }

    /// The labels and variables that `labels` and `env` name, where the container has them.
    fn attributes(&self, about: &About<'_>, name: impl Fn(&str) -> String) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let keys = |option: &str| self.0.get(option).map_or("", String::as_str).split(',').map(str::trim);
        let spec = about.container.and_then(|c| c.spec.as_ref());
        for key in keys("labels").filter(|k| !k.is_empty()) {
            let own = spec.and_then(|s| s.labels.get(key));
            if let Some(value) = own.or_else(|| about.image.and_then(|i| i.labels.get(key))) {
                out.insert(name(key), value.clone());
            }
        }
        for key in keys("env").filter(|k| !k.is_empty()) {
            let entries = about.container.iter().flat_map(|c| &c.env).filter_map(|e| e.split_once('='));
            if let Some((_, value)) = entries.into_iter().find(|(k, _)| *k == key) {
                out.insert(name(key), value.to_owned());
            }
        }
        out
    }

    /// docker's fields.
    fn journal_fields(&self, about: &About<'_>) -> Result<BTreeMap<String, String>, RuntimeError> {
        let tag = self.0.get("tag").filter(|t| !t.is_empty()).map_or("{{.ID}}", String::as_str);
        let tag = tag::expand(tag, about.container)?;
        let mut fields = self.attributes(about, field_name);
        fields.retain(|name, _| !name.is_empty());
        let Some(c) = about.container else { return Ok(fields) };
        let short = &c.id[..12.min(c.id.len())];
        for (name, value) in [
            ("CONTAINER_ID", short),
            ("CONTAINER_ID_FULL", &c.id),
            ("CONTAINER_NAME", &c.name),
            ("CONTAINER_TAG", &tag),
            ("SYSLOG_IDENTIFIER", &tag),
            ("IMAGE_NAME", &c.image),
        ] {
            fields.insert(name.into(), value.to_owned());
        }
        Ok(fields)
    }
}

/// A name as the journal takes it: upper case letters, digits and `_`, which is not its first.
fn field_name(name: &str) -> String {
    let one = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars()
        .map(one)
        .collect::<String>()
        .trim_start_matches(|c: char| c == '_' || c.is_ascii_digit())
        .to_owned()
}

/// "10m", "1k", "1g", "512", "-1" (unlimited).
fn bytes(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 1 << 10),
        b'm' => (&lower[..lower.len() - 1], 1 << 20),
        b'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogConfig { driver: driver.into(), options }
    }

    fn planned(driver: &str, options: &[(&str, &str)]) -> Result<Plan, String> {
        plan(&asked(driver, options), &About::default(), Path::new("/l")).map_err(|e| e.to_string())
    }

    #[test]
    fn drivers_and_their_defaults() {
        let file = FileLog { path: "/l".into(), max_files: 1, ..FileLog::default() };
        let json = |file| Ok(Plan { sink: LogSink::JsonFile(file), buffer: 0 });
        assert_eq!(planned("", &[]), json(file.clone()));
        let rotated = FileLog { max_size: 10 << 20, max_files: 3, ..file.clone() };
        assert_eq!(planned("json-file", &[("max-size", "10m"), ("max-file", "3")]), json(rotated.clone()));
        let all = [("max-size", "10mb"), ("max-file", "3"), ("compress", "true")];
        assert_eq!(planned("json-file", &all), json(FileLog { compress: true, ..rotated }));
        let local = FileLog { max_size: 20 << 20, max_files: 5, compress: true, ..file };
        assert_eq!(planned("local", &[]), Ok(Plan { sink: LogSink::Local(local), buffer: 0 }));
        let buffered = Plan { sink: LogSink::None, buffer: 1 << 20 };
        assert_eq!(planned("none", &[("mode", "non-blocking")]), Ok(buffered));
        assert_eq!(bytes("-1"), Some(0));
        assert_eq!(bytes("99999999999999999999g"), None);
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_line_that_helps() {
        for (driver, options, part) in [
            ("syslog", &[][..], "no log driver named 'syslog' is registered: json-file, local"),
            (
                "local",
                &[("max-sise", "1m")],
                "unknown log opt 'max-sise' for local log driver: compress, max-buffer-size",
            ),
            ("local", &[("labels", "a")], "unknown log opt 'labels'"),
            ("", &[("max-size", "big")], "invalid log opt max-size=big: a size such as 10m is expected"),
            ("", &[("max-file", "0")], "at least 1"),
            ("", &[("mode", "fast")], "blocking or non-blocking"),
            ("", &[("max-buffer-size", "1m")], "only supported with 'mode=non-blocking'"),
            ("", &[("compress", "true")], "compress cannot be true when max-file is less than 2"),
            ("", &[("tag", "{{.Nmae}}")], "{{.Nmae}}"),
        ] {
            let e = planned(driver, options).unwrap_err();
            assert!(e.contains(part), "{e}");
        }
    }

    #[test]
    fn defaults_are_entered_when_a_container_is_made() {
        let options = [("max-size".to_owned(), "5m".to_owned())];
        let defaults =
            LogDefaults { driver: "local".into(), options: options.into(), ..LogDefaults::default() };
        let mut log = asked("", &[("max-file", "2")]);
        settle(&mut log, &defaults);
        assert_eq!(log, asked("local", &[("max-file", "2"), ("max-size", "5m")]));
        let mut other = asked("none", &[]);
        settle(&mut other, &defaults);
        assert_eq!(other, asked("none", &[]));
        let mut json = asked("", &[]);
        settle(&mut json, &LogDefaults { max_size: 100, ..LogDefaults::default() });
        assert_eq!(json, asked("json-file", &[("max-size", "100"), ("max-file", "1")]));
    }

    #[test]
    fn labels_variables_and_tags_go_along() {
        let spec =
            ContainerSpec { labels: [("a.b".to_owned(), "1".to_owned())].into(), ..ContainerSpec::default() };
        let container = Container {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            image: "busybox:1".into(),
            env: vec!["OS=x".into()],
            spec: Some(spec),
            ..Container::default()
        };
        let image =
            ImageConfig { labels: [("im".to_owned(), "2".to_owned())].into(), ..ImageConfig::default() };
        let about = About { container: Some(&container), image: Some(&image) };
        let options = [("labels", "a.b,im,none"), ("env", "OS"), ("tag", "{{ .Name }}/{{.ID}}")];
        let LogSink::JsonFile(file) = plan(&asked("", &options), &about, Path::new("/l")).unwrap().sink
        else {
            panic!()
        };
        let pairs: Vec<String> = file.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["OS=x", "a.b=1", "im=2", "tag=web/0123456789ab"]);
        let LogSink::Journald(j) =
            plan(&asked("journald", &options[..2]), &about, Path::new("/l")).unwrap().sink
        else {
            panic!()
        };
        let field = |name: &str| j.fields.get(name).map_or("", String::as_str);
        assert_eq!(["A_B", "IM", "OS"].map(field), ["1", "2", "x"]);
        assert_eq!(
            ["CONTAINER_NAME", "CONTAINER_TAG", "IMAGE_NAME"].map(field),
            ["web", "0123456789ab", "busybox:1"]
        );
        assert_eq!(field_name("__1a-b"), "A_B");
    }
}
