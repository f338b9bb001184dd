//! Configuration lists (specification, section 1): read, checked, and made into what each plugin is given.

use std::path::PathBuf;

use serde_json::Value;

use super::Object;

/// The largest list that is taken.
pub const LARGEST: usize = 1 << 20;
/// The longest chain that is taken.
const LONGEST: usize = 32;
/// Versions that we speak, the latest first.
const VERSIONS: [&str; 4] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1"];

/// A list, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The version that all of it is spoken in.
    pub version: String,
    /// Its name, which plugins key their state by.
    pub name: String,
    /// CHECK is not to be called.
    pub disable_check: bool,
    /// GC is not to be called.
    pub disable_gc: bool,
    /// The plugins' configurations, in the order of ADD.
    pub plugins: Vec<Plugin>,
}

/// A plugin's place in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// The program's name.
    pub kind: String,
    config: Object,
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says what it is")]
pub enum ListError {
    #[error("the CNI configuration is empty")]
    Empty,
    #[error("the CNI configuration is larger than 1 MiB")]
    Large,
    #[error("the CNI configuration is not JSON: {0}")]
    Json(String),
    #[error(
        "the CNI configuration is no object: {{\"cniVersion\": ..., \"name\": ..., \"plugins\": [...]}} is expected"
    )]
    NoObject,
    #[error("the CNI configuration has no field '{0}'")]
    Missing(&'static str),
    #[error("field {field} of the CNI configuration cannot be {value}: {expected} is expected")]
    Field { field: String, value: String, expected: &'static str },
    #[error("the CNI configuration is of version {0}")]
    Version(String),
    #[error("plugin '{kind}' is not in {}", path.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" or "))]
    Plugin { kind: String, path: Vec<PathBuf> },
}

impl List {
    /// Reads a list, or the configuration of one plugin.
    pub fn parse(text: &str) -> Result<Self, ListError> {
        if text.trim().is_empty() {
            return Err(ListError::Empty);
        }
        if text.len() > LARGEST {
            return Err(ListError::Large);
        }
        let parsed = serde_json::from_str(text).map_err(|e| ListError::Json(e.to_string()))?;
        let Value::Object(object) = parsed else { return Err(ListError::NoObject) };
        let name = string(&object, "name")?.ok_or(ListError::Missing("name"))?;
        if !is_identifier(&name) {
            return Err(bad("name", &Value::from(name), "a name of letters, digits, '_', '.' and '-'"));
        }
        let plugins = match object.get("plugins") {
            None if object.contains_key("type") => vec![plugin(&Value::Object(object.clone()))?],
            None => return Err(ListError::Missing("plugins")),
            Some(Value::Array(all)) if (1..=LONGEST).contains(&all.len()) => {
                all.iter().map(plugin).collect::<Result<_, _>>()?
            }
            Some(other) => return Err(bad("plugins", other, "a list of 1 to 32 plugins")),
        };
        Ok(Self {
            version: version(&object)?,
            name,
            disable_check: switch(&object, "disableCheck")?,
            disable_gc: switch(&object, "disableGC")?,
            plugins,
        })
    }

    /// Whether the list's version has a verb that came with `since`.
    pub fn is_since(&self, since: &str) -> bool {
        let at = |v: &str| VERSIONS.iter().position(|known| *known == v);
        at(&self.version) <= at(since)
    }

    /// Whether a plugin takes arguments of this capability.
    pub fn has_capability(&self, capability: &str) -> bool {
        self.plugins.iter().any(|p| p.has_capability(capability))
    }

    /// What a plugin is given: its configuration with the list's name and version, the arguments that it can take, and
    /// what came before.
    pub fn config(&self, plugin: &Plugin, asked: &Object, previous: Option<&Object>) -> Object {
        let mut config = plugin.config.clone();
        config.insert("name".into(), self.name.clone().into());
        config.insert("cniVersion".into(), self.version.clone().into());
        let mut runtime: Object = match config.remove("runtimeConfig") {
            Some(Value::Object(given)) => given,
            _ => Object::new(),
        };
        for (capability, value) in asked {
            if plugin.has_capability(capability) {
                runtime.insert(capability.clone(), value.clone());
            }
        }
        if !runtime.is_empty() {
            config.insert("runtimeConfig".into(), Value::Object(runtime));
        }
        if let Some(previous) = previous {
            config.insert("prevResult".into(), Value::Object(previous.clone()));
        }
        config
    }
}

impl Plugin {
    fn has_capability(&self, capability: &str) -> bool {
        self.config.get("capabilities").and_then(|c| c.get(capability)).and_then(Value::as_bool) == Some(true)
    }

    /// The program, in the first directory that has it.
    pub fn program(&self, path: &[PathBuf]) -> Result<PathBuf, ListError> {
        let is_program = |file: &PathBuf| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        let found = path.iter().map(|dir| dir.join(&self.kind)).find(is_program);
        found.ok_or_else(|| ListError::Plugin { kind: self.kind.clone(), path: path.to_vec() })
    }
}

/// Directories between colons; relative ones are no place to take a program from.
pub fn directories(text: &str) -> Result<Vec<PathBuf>, ListError> {
    let all: Vec<PathBuf> = text.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect();
    match all.iter().find(|d| !d.is_absolute()) {
        Some(relative) => {
            Err(bad(super::PATH_OPTION, &relative.display().to_string().into(), "an absolute path"))
        }
        None if all.is_empty() => Err(ListError::Missing(super::PATH_OPTION)),
        None => Ok(all),
    }
}

fn bad(field: &str, value: &Value, expected: &'static str) -> ListError {
    let text = value.to_string();
    let value =
        if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() };
    ListError::Field { field: field.to_owned(), value, expected }
}

fn string(object: &Object, field: &str) -> Result<Option<String>, ListError> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(bad(field, other, "a text")),
    }
}

/// A switch; old lists have it as a text.
fn switch(object: &Object, field: &str) -> Result<bool, ListError> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
        Some(other) => Err(bad(field, other, "true or false")),
    }
}

/// The latest that both sides speak: `cniVersions` are all that the list can be spoken in.
fn version(object: &Object) -> Result<String, ListError> {
    let mut offered: Vec<String> = string(object, "cniVersion")?.into_iter().collect();
    match object.get("cniVersions") {
        None | Some(Value::Null) => {}
        Some(Value::Array(all)) => {
            offered.extend(all.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        Some(other) => return Err(bad("cniVersions", other, "a list of versions")),
    }
    let found = VERSIONS.iter().find(|v| offered.iter().any(|o| o == *v));
    found.map(|v| (*v).to_owned()).ok_or_else(|| {
        ListError::Version(if offered.is_empty() { "0.1.0".to_owned() } else { offered.join(", ") })
    })
}

fn plugin(value: &Value) -> Result<Plugin, ListError> {
    let Value::Object(config) = value else { return Err(bad("plugins", value, "an object for each plugin")) };
    let kind = string(config, "type")?.ok_or(ListError::Missing("type"))?;
    // It becomes the name of a program.
    if !is_identifier(&kind) {
        return Err(bad("type", &Value::from(kind), "the name of a plugin"));
    }
    Ok(Plugin { kind, config: config.clone() })
}

fn is_identifier(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    text.len() <= 255
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn list(value: &Value) -> Result<List, ListError> {
        List::parse(&value.to_string())
    }

    #[test]
    fn a_list_becomes_what_each_plugin_is_given() {
        let list = list(&json!({"cniVersion": "1.0.0", "name": "web", "disableCheck": "true", "plugins": [
            {"type": "bridge", "name": "x", "bridge": "cni0"},
            {"type": "portmap", "capabilities": {"portMappings": true, "ips": false}}
        ]}))
        .unwrap();
        assert!(list.disable_check && list.has_capability("portMappings") && !list.has_capability("ips"));
        let asked = json!({"portMappings": [1], "ips": ["x"]});
        let previous = json!({"ips": []});
        let first = list.config(&list.plugins[0], asked.as_object().unwrap(), None);
        assert_eq!(
            Value::Object(first),
            json!({"cniVersion": "1.0.0", "name": "web", "type": "bridge", "bridge": "cni0"})
        );
        let second = list.config(&list.plugins[1], asked.as_object().unwrap(), previous.as_object());
        assert_eq!(second["runtimeConfig"], json!({"portMappings": [1]}));
        assert_eq!(second["prevResult"], previous);
    }

    #[test]
    fn the_latest_common_version_is_spoken() {
        let at = |more: Value| {
            let mut value = json!({"name": "n", "type": "bridge"});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            list(&value).map(|l| l.version)
        };
        assert_eq!(at(json!({"cniVersion": "0.4.0"})).unwrap(), "0.4.0");
        assert_eq!(
            at(json!({"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0", "9.0.0"]})).unwrap(),
            "1.1.0"
        );
        assert_eq!(at(json!({"cniVersion": "0.2.0"})), Err(ListError::Version("0.2.0".into())));
        assert_eq!(at(json!({})), Err(ListError::Version("0.1.0".into())));
        let one = list(&json!({"name": "n", "type": "bridge", "cniVersion": "1.0.0"})).unwrap();
        assert!(one.is_since("0.4.0") && one.is_since("1.0.0") && !one.is_since("1.1.0"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (value, part) in [
            (json!({"cniVersion": "1.0.0", "plugins": []}), "name"),
            (json!({"cniVersion": "1.0.0", "name": "n"}), "plugins"),
            (json!({"cniVersion": "1.0.0", "name": "n", "plugins": []}), "plugins"),
            (json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{}]}), "type"),
            (json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../sh"}]}), "../sh"),
            (json!({"cniVersion": "1.0.0", "name": "../n", "type": "bridge"}), "../n"),
            (json!({"cniVersion": 1, "name": "n", "type": "bridge"}), "cniVersion"),
        ] {
            let error = list(&value).unwrap_err().to_string();
            assert!(error.contains(part), "{value}: {error}");
        }
        assert_eq!(List::parse("  "), Err(ListError::Empty));
        assert_eq!(List::parse("[]"), Err(ListError::NoObject));
        assert!(matches!(List::parse("{"), Err(ListError::Json(_))));
        assert_eq!(List::parse(&" x".repeat(LARGEST)), Err(ListError::Large));
        let bridge = list(&json!({"name": "n", "type": "no-such-plugin", "cniVersion": "1.0.0"})).unwrap();
        let error = bridge.plugins[0].program(&["/a".into(), "/b".into()]).unwrap_err();
        assert_eq!(error.to_string(), "plugin 'no-such-plugin' is not in /a or /b");
        assert!(directories("bin:/opt").is_err() && directories(":").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~]{0,200}") {
            let _ = List::parse(&text);
            let _ = List::parse(&format!("{{\"cniVersion\":\"1.0.0\",\"name\":\"n\",{text}}}"));
            let _ = directories(&text);
        }
    }
}
