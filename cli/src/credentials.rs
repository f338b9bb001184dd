//! Who a person is to registries: docker's config.json (`$DOCKER_CONFIG`, else ~/.docker), and the credential helpers that
//! it names. Passwords are kept by the client only; the daemon gets them with each call.
//!
//! ```text
//! registry ──> credHelpers[registry], else credsStore ──> docker-credential-NAME get | store | erase
//!          └─> auths[registry]: {"auth": base64(user:password), "identitytoken": ...}
//! ```

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use davit_contracts::Kind;
use davit_contracts::storage::RegistryAuth;
use serde_json::{Map, Value, json};

use crate::error::{Failure, Outcome};

mod helper;

use helper::Helper;

/// docker.io's name in config.json.
const HUB: &str = "https://index.docker.io/v1/";

/// Where credentials went.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// Into the file, readable by this user.
    InFile(PathBuf),
    /// Into a helper's keeping.
    ByHelper,
}

/// docker's configuration file; keys that are not about credentials are kept as they are.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    root: Map<String, Value>,
}

/// Credentials for the registry of an image, if any are known. What is wrong with the file or a helper is told, and the
/// registry is asked without.
pub fn of_image(image: &str) -> Option<RegistryAuth> {
    let found = Config::load().and_then(|c| c.get(registry_of(image)));
    found.unwrap_or_else(|e| {
        if let Failure::Told(e) = e {
            crate::output::complain!("WARNING: credentials are left out: {e}");
        }
        None
    })
}

/// The registry that a reference means: a first part with a dot, a colon, or `localhost`.
pub fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// Host and port of what a person calls a registry: "https://reg:5000/v2/" is "reg:5000", nothing is docker.io.
pub fn host_of(registry: &str) -> &str {
    let rest =
        registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    match rest.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// How config.json and helpers call a registry.
pub fn key_of(registry: &str) -> &str {
    let host = host_of(registry);
    if host == "docker.io" { HUB } else { host }
}

impl Config {
    /// Reads it; a missing file is an empty one.
    pub fn load() -> Outcome<Self> {
        let dir = std::env::var_os("DOCKER_CONFIG")
            .filter(|d| !d.is_empty())
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
        Self::at(&dir.unwrap_or_else(|| PathBuf::from("/root/.docker")))
    }

    fn at(dir: &Path) -> Outcome<Self> {
        let path = dir.join("config.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Failure::io(format!("cannot read {}", path.display()), &e)),
        };
        let root = if text.trim().is_empty() { Ok(Map::new()) } else { serde_json::from_str(&text) };
        let root = root.map_err(|e| {
            Failure::new(Kind::InvalidArgument, format!("{} is no docker configuration: {e}", path.display()))
        })?;
        Ok(Self { path, root })
    }

    fn helper(&self, registry: &str) -> Option<Helper> {
        let own = self.root.get("credHelpers");
        let own = own.and_then(|h| h.get(key_of(registry)).or_else(|| h.get(host_of(registry))));
        let name = own.or_else(|| self.root.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| Helper::new(name))
    }

    /// The keys of `auths` that mean a registry: with or without scheme and path.
    fn keys(&self, registry: &str) -> Vec<String> {
        let Some(Value::Object(auths)) = self.root.get("auths") else { return Vec::new() };
        let mut keys: Vec<String> =
            auths.keys().filter(|k| host_of(k) == host_of(registry)).cloned().collect();
        // The exact one first.
        keys.sort_by_key(|k| k != key_of(registry));
        keys
    }

    /// What is known of a registry.
    pub fn get(&self, registry: &str) -> Outcome<Option<RegistryAuth>> {
        if let Some(helper) = self.helper(registry)
            && let Some(found) = helper.get(key_of(registry))?
        {
            return Ok(Some(found));
        }
        Ok(self.keys(registry).iter().find_map(|k| from_entry(&self.root["auths"][k.as_str()])))
    }

    /// Keeps credentials that the registry has accepted.
    pub fn keep(&mut self, registry: &str, auth: &RegistryAuth) -> Outcome<Kept> {
        let helper = self.helper(registry);
        let entry = match &helper {
            Some(helper) => {
                helper.store(key_of(registry), auth)?;
                json!({})
            }
            None => to_entry(auth),
        };
        let stale = self.keys(registry);
        let auths = self.root.entry("auths").or_insert_with(|| json!({}));
        let Value::Object(auths) = auths else {
            let message = format!("{} is no docker configuration: auths is no object", self.path.display());
            return Err(Failure::new(Kind::InvalidArgument, message));
        };
        for key in stale {
            auths.remove(&key);
        }
        auths.insert(key_of(registry).to_owned(), entry);
        self.save()?;
        Ok(if helper.is_some() { Kept::ByHelper } else { Kept::InFile(self.path.clone()) })
    }

    /// Forgets a registry; whether something was known of it.
    pub fn forget(&mut self, registry: &str) -> Outcome<bool> {
        let mut known = false;
        if let Some(helper) = self.helper(registry) {
            known = helper.erase(key_of(registry))?;
        }
        let stale = self.keys(registry);
        if let Some(Value::Object(auths)) = self.root.get_mut("auths") {
            for key in &stale {
                auths.remove(key);
            }
        }
        if !stale.is_empty() {
            known = true;
            self.save()?;
        }
        Ok(known)
    }

    /// Whole or not at all, and for this user's eyes. A link stays one: what it leads to is replaced.
    fn save(&self) -> Outcome {
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |e: std::io::Error| Failure::io(format!("cannot write {}", self.path.display()), &e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let draft = path.with_extension(format!("json.{}.tmp", std::process::id()));
        let text = serde_json::to_string_pretty(&self.root).expect("a map of values is JSON");
        let written = (|| {
            let _ = std::fs::remove_file(&draft);
            let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written.map_err(failed)
    }
}

fn from_entry(entry: &Value) -> Option<RegistryAuth> {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let decoded = STANDARD_NO_PAD.decode(text("auth").trim_end_matches('=')).unwrap_or_default();
    let decoded = String::from_utf8(decoded).unwrap_or_default();
    let (username, password) = decoded.split_once(':').unwrap_or_default();
    let (mut username, mut password) = (username.to_owned(), password.trim_end_matches('\0').to_owned());
    if username.is_empty() {
        (username, password) = (text("username"), text("password"));
    }
    let identity_token = text("identitytoken");
    if username.is_empty() && identity_token.is_empty() {
        return None;
    }
    Some(RegistryAuth { username, password, identity_token })
}

fn to_entry(auth: &RegistryAuth) -> Value {
    // With a token the password is not kept.
    let password = if auth.identity_token.is_empty() { auth.password.as_str() } else { "" };
    let mut entry = json!({"auth": STANDARD.encode(format!("{}:{password}", auth.username))});
    if !auth.identity_token.is_empty() {
        entry["identitytoken"] = json!(auth.identity_token);
    }
    entry
}

#[cfg(test)]
mod tests;
