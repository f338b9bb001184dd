//! A credential helper: the program docker-credential-NAME, asked by a word and standard input, as docker does.

use std::io::Write as _;
use std::process::{Command, Stdio};

use davit_contracts::Kind;
use davit_contracts::storage::RegistryAuth;
use serde_json::{Value, json};

use crate::error::{Failure, Outcome};

/// The name under which a helper keeps an identity token.
const TOKEN: &str = "<token>";
/// What helpers say when they know nothing; it is part of the protocol.
const UNKNOWN: &str = "credentials not found";

/// One helper.
#[derive(Debug)]
pub(super) struct Helper {
    program: String,
}

impl Helper {
    pub(super) fn new(name: &str) -> Self {
        Self { program: format!("docker-credential-{name}") }
    }

    #[cfg(test)]
    pub(super) fn at(program: String) -> Self {
        Self { program }
    }

    /// What it knows of a registry.
    pub(super) fn get(&self, key: &str) -> Outcome<Option<RegistryAuth>> {
        let Some(answer) = self.run("get", key)? else { return Ok(None) };
        let answer: Value =
            serde_json::from_str(&answer).map_err(|_| self.failure("its answer to 'get' cannot be read"))?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let (username, secret) = (text("Username"), text("Secret"));
        Ok(match username.as_str() {
            "" => None,
            TOKEN => Some(RegistryAuth { identity_token: secret, ..RegistryAuth::default() }),
            _ => Some(RegistryAuth { username, password: secret, identity_token: String::new() }),
        })
    }

    /// Gives it credentials to keep.
    pub(super) fn store(&self, key: &str, auth: &RegistryAuth) -> Outcome {
        let (username, secret) = if auth.identity_token.is_empty() {
            (auth.username.as_str(), auth.password.as_str())
        } else {
            (TOKEN, auth.identity_token.as_str())
        };
        let request = json!({"ServerURL": key, "Username": username, "Secret": secret});
        self.run("store", &request.to_string()).map(drop)
    }

    /// Makes it forget a registry; whether it knew it.
    pub(super) fn erase(&self, key: &str) -> Outcome<bool> {
        Ok(self.run("erase", key)?.is_some())
    }

    /// Its answer; None when it knows nothing of the registry.
    fn run(&self, word: &str, input: &str) -> Outcome<Option<String>> {
        let spawned = Command::new(&self.program)
            .arg(word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|e| self.failure(&crate::error::plain(&e)))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not want it has its reasons; its answer says them.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(|e| self.failure(&crate::error::plain(&e)))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Ok(Some(text));
        }
        // Errors come on standard output.
        if text.contains(UNKNOWN) {
            return Ok(None);
        }
        let said =
            if text.is_empty() { String::from_utf8_lossy(&output.stderr).trim().to_owned() } else { text };
        let said = if said.is_empty() { output.status.to_string() } else { said };
        Err(self.failure(&said))
    }

    fn failure(&self, why: &str) -> Failure {
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        Failure::new(Kind::Internal, format!("credential helper {} failed: {why}", self.program))
    }
}
