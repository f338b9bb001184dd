//! The network's configuration, from stdin (specification, section 1; what is given for one call: "runtimeConfig").
//!
//! ```json
//! {"cniVersion": "1.0.0", "name": "web", "type": "davit-cni", "network": "my-bridge"}
//! {"cniVersion": "1.0.0", "name": "web", "type": "davit-cni", "subnets": ["10.90.0.0/24"], "ipv6": true}
//! ```
//! The first means a network of davit's that is there; the second one that the first ADD makes, named as the
//! configuration is unless `network` says otherwise.

pub mod dns;
pub mod network;
pub mod runtime;

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::LARGEST_CONFIG;
use crate::call::{Verb, is_identifier};
use crate::failure::{Code, Failure};
use crate::result::Object;
use crate::version::Version;
use dns::Dns;
use network::Wanted;
use runtime::Runtime;

/// A configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which version it is of.
    pub version: Version,
    /// Its name: with container and interface the key of an attachment.
    pub name: String,
    /// davit's network.
    pub network: String,
    /// How to make that network when it is not there; `None`: it has to be.
    pub wanted: Option<Wanted>,
    /// GC removes the network when it was made by an ADD and nothing is attached any more.
    pub remove_unused: bool,
    /// netd's socket, in place of where the command line finds it.
    pub socket: Option<PathBuf>,
    /// Whether 127.0.0.11 answers inside.
    pub resolver: bool,
    /// What of names goes into the result.
    pub dns: Dns,
    /// What was given for this one call.
    pub runtime: Runtime,
    /// The result of the plugins before, or of the ADD of before.
    pub previous: Option<Object>,
    /// For GC: containers and interfaces that are to stay.
    pub valid: Option<Vec<(String, String)>>,
}

/// The specification's fields.
const GENERAL: [&str; 12] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "ipMasq",
    "ipam",
    "dns",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "disableCheck",
];
/// Ours.
const OURS: [&str; 4] = ["network", "socket", "resolver", "removeUnused"];
/// Where GC finds what is to stay: the specification's word, and the one that libcni 1.2.0 had for it.
const VALID: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

impl Config {
    /// Reads a configuration for a verb. DEL and GC overlook what only ADD needs to understand.
    pub fn parse(bytes: &[u8], verb: Verb) -> Result<Self, Failure> {
        let object = object(bytes)?;
        let version = Version::parse(field::<String>(&object, "cniVersion")?.as_deref())?;
        allowed(version, verb)?;
        let removing = matches!(verb, Verb::Del | Verb::Gc);
        if !removing {
            check_fields(&object)?;
        }
        let name: String = needed(&object, "name")?;
        if !is_identifier(&name) {
            return Err(refused("name", &name, "letters, digits, '_', '.' and '-', a letter or digit first"));
        }
        // What removing does not need must not keep a container from going.
        let lenient = Lenient(removing);
        let given: Option<String> = lenient.of(field(&object, "network"))?;
        let wanted = lenient.of(network::parse(&object, given.is_some()))?;
        let runtime = lenient.of(Runtime::parse(&object, &name))?;
        let dns: Dns = lenient.of(field(&object, "dns"))?.unwrap_or_default();
        Ok(Self {
            version,
            network: given.filter(|n| !n.is_empty()).unwrap_or_else(|| name.clone()),
            name,
            wanted,
            remove_unused: lenient.of(field(&object, "removeUnused"))?.unwrap_or_default(),
            socket: socket(&object)?,
            resolver: lenient.of(field(&object, "resolver"))?.unwrap_or_default(),
            dns: runtime.dns.over(dns),
            runtime,
            previous: lenient.of(field(&object, "prevResult"))?,
            valid: if verb == Verb::Gc { valid(&object)? } else { None },
        })
    }

    /// The version that an error is told in, as far as it can be known.
    pub fn version_of(bytes: &[u8]) -> Version {
        let object = object(bytes).unwrap_or_default();
        let text = object.get("cniVersion").and_then(Value::as_str);
        Version::parse(text).unwrap_or(Version::LATEST)
    }
}

/// Whether what cannot be read counts as absent.
#[derive(Clone, Copy)]
struct Lenient(bool);

impl Lenient {
    fn of<T: Default>(self, read: Result<T, Failure>) -> Result<T, Failure> {
        read.or_else(|failure| if self.0 { Ok(T::default()) } else { Err(failure) })
    }
}

fn object(bytes: &[u8]) -> Result<Object, Failure> {
    if bytes.len() as u64 > LARGEST_CONFIG {
        return Err(Failure::new(Code::Decode, "the configuration is larger than 1 MiB"));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| Failure::new(Code::Decode, format!("the configuration is not a JSON object: {e}")))
}

/// CHECK came with 0.4.0, GC and STATUS with 1.1.0.
fn allowed(version: Version, verb: Verb) -> Result<(), Failure> {
    let since = match verb {
        Verb::Check => Version::V0_4_0,
        Verb::Gc | Verb::Status => Version::V1_1_0,
        Verb::Add | Verb::Del | Verb::Version => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    let message =
        format!("cniVersion {} has no {}: it came with {}", version.name(), verb.name(), since.name());
    Err(Failure::new(Code::Version, message))
}

/// A field that is misspelled must not be overlooked.
fn check_fields(object: &Object) -> Result<(), Failure> {
    let known = || GENERAL.into_iter().chain(OURS).chain(network::FIELDS);
    for (key, value) in object {
        if known().any(|k| k == key) || key.starts_with("cni.dev/") {
            continue;
        }
        let failure = Failure::new(Code::Field, format!("unknown field {key}: {}", shortened(value)));
        let nearest = known().map(|k| (distance(k, key), k)).min().filter(|(d, k)| *d <= k.len() / 2);
        return Err(match nearest {
            Some((_, nearest)) => failure.with_details(format!("did you mean '{nearest}'?")),
            None => failure,
        });
    }
    match object.get("ipam") {
        Some(Value::Object(ipam)) if !ipam.is_empty() => {
            let value = shortened(&Value::Object(ipam.clone()));
            Err(Failure::new(Code::Field, format!("unsupported field ipam: {value}"))
                .with_details("davit gives addresses itself: put subnets into 'subnets'"))
        }
        _ => Ok(()),
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { text.chars().take(77).chain("...".chars()).collect() }
}

/// Levenshtein's distance, of names as short as fields are.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(!ca.eq_ignore_ascii_case(cb));
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A field's value, when there is one.
fn field<T: DeserializeOwned>(object: &Object, name: &str) -> Result<Option<T>, Failure> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|e| {
            Failure::new(Code::Config, format!("field {name} cannot be {}: {e}", shortened(value)))
        }),
    }
}

fn needed<T: DeserializeOwned>(object: &Object, name: &str) -> Result<T, Failure> {
    field(object, name)?
        .ok_or_else(|| Failure::new(Code::Config, format!("the configuration has no field '{name}'")))
}

fn refused(field: &str, value: &str, expected: &str) -> Failure {
    Failure::new(Code::Config, format!("field {field} cannot be '{value}': {expected} is expected"))
}

fn socket(object: &Object) -> Result<Option<PathBuf>, Failure> {
    let path: Option<PathBuf> = field(object, "socket")?;
    match path {
        Some(path) if !path.is_absolute() => {
            Err(refused("socket", &path.display().to_string(), "an absolute path"))
        }
        other => Ok(other),
    }
}

#[derive(serde::Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    #[serde(rename = "ifname")]
    interface: String,
}

/// Go's encoder writes null for an empty list, which libcni sends when nothing is to stay.
fn valid(object: &Object) -> Result<Option<Vec<(String, String)>>, Failure> {
    for name in VALID {
        if let Some(list) = field::<Vec<Valid>>(object, name)? {
            return Ok(Some(list.into_iter().map(|v| (v.container, v.interface)).collect()));
        }
    }
    let empty = VALID.iter().any(|name| object.get(*name).is_some_and(Value::is_null));
    Ok(empty.then(Vec::new))
}

#[cfg(test)]
mod tests;
