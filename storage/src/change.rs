//! docker's `--change`: Dockerfile instructions applied to a config. Pure.

use crate::oci::RunConfig;

/// An instruction is none that `--change` takes, or is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// RUN, COPY and others make layers; the rest does not exist.
    #[error(
        "'{0}' cannot be used as a change; CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR can"
    )]
    Unknown(String),
    /// Nothing follows the instruction.
    #[error("'{0}' needs an argument")]
    NoArgument(String),
    /// A quote that does not end, a pair without '=', a port that is none.
    #[error("'{text}' is malformed: {why}")]
    Malformed {
        /// The whole change.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Applies one instruction.
pub fn apply(config: &mut RunConfig, change: &str) -> Result<(), ChangeError> {
    let text = change.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let malformed = |why| ChangeError::Malformed { text: text.to_owned(), why };
    let word = word.to_ascii_uppercase();
    let known = ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"];
    if !known.contains(&word.as_str()) {
        return Err(ChangeError::Unknown(word));
    }
    if rest.is_empty() {
        return Err(ChangeError::NoArgument(word));
    }
    match word.as_str() {
        "CMD" => config.cmd = command(config, rest),
        "ENTRYPOINT" => {
            config.entrypoint = command(config, rest);
            config.cmd.clear();
        }
        "ENV" => {
            for (key, value) in pairs(rest).map_err(malformed)? {
                set_env(&mut config.env, &key, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).map_err(malformed)?),
        "EXPOSE" => {
            for port in words(rest).map_err(malformed)? {
                config.exposed_ports.insert(exposed(&port).ok_or_else(|| malformed("not a port"))?, empty());
            }
        }
        "VOLUME" => {
            let paths = match serde_json::from_str::<Vec<String>>(rest) {
                Ok(paths) => paths,
                Err(_) => words(rest).map_err(malformed)?,
            };
            config.volumes.extend(paths.into_iter().map(|p| (p, empty())));
        }
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        "USER" => rest.clone_into(&mut config.user),
        _ => config.working_dir = working_dir(&config.working_dir, rest),
    }
    Ok(())
}

/// Applies all, in order.
pub fn apply_all(config: &mut RunConfig, changes: &[String]) -> Result<(), ChangeError> {
    changes.iter().try_for_each(|c| apply(config, c))
}

fn empty() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// Exec form when it is a JSON array of strings, else shell form.
fn command(config: &RunConfig, text: &str) -> Vec<String> {
    if let Ok(exec) = serde_json::from_str::<Vec<String>>(text) {
        return exec;
    }
    let mut shell =
        if config.shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { config.shell.clone() };
    shell.push(text.to_owned());
    shell
}

fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    match env.iter_mut().find(|e| e.split_once('=').is_some_and(|(k, _)| k == key)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

fn exposed(port: &str) -> Option<String> {
    let (range, proto) = port.split_once('/').unwrap_or((port, "tcp"));
    let valid = |p: &str| p.parse::<u16>().is_ok_and(|n| n > 0);
    let numbers = range.split_once('-').map_or_else(|| valid(range), |(a, b)| valid(a) && valid(b));
    let proto = proto.to_ascii_lowercase();
    (numbers && matches!(proto.as_str(), "tcp" | "udp" | "sctp")).then(|| format!("{range}/{proto}"))
}

fn working_dir(old: &str, new: &str) -> String {
    if new.starts_with('/') {
        return new.to_owned();
    }
    format!("{}/{new}", if old.is_empty() { "" } else { old.trim_end_matches('/') })
}

/// `a=b "c d"=e`, or the old form `KEY the rest`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    if !first.contains('=') && !text.starts_with(['"', '\'']) {
        let (key, value) = text.split_once(char::is_whitespace).ok_or("a value is missing")?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|w| match w.split_once('=') {
            Some((k, v)) if !k.is_empty() => Ok((k.to_owned(), v.to_owned())),
            _ => Err("KEY=value is expected"),
        })
        .collect()
}

/// Words as a shell splits them: quotes and backslashes, no expansion.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(chars.next().ok_or("it ends with a backslash")?);
            }
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => out.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        for c in changes {
            apply(&mut config, c).unwrap();
        }
        config
    }

    #[test]
    fn both_forms_of_commands() {
        assert_eq!(changed(&[r#"CMD ["a", "b c"]"#]).cmd, ["a", "b c"]);
        assert_eq!(changed(&["cmd echo hi"]).cmd, ["/bin/sh", "-c", "echo hi"]);
        let c = changed(&["CMD x", r#"ENTRYPOINT ["/e"]"#]);
        assert!(c.cmd.is_empty() && c.entrypoint == ["/e"]);
    }

    #[test]
    fn pairs_and_words() {
        let c = changed(&[r#"ENV A=1 B="two words" C=x\ y"#, "ENV A 3 4", "LABEL a.b='c d'"]);
        assert_eq!(c.env, ["A=3 4", "B=two words", "C=x y"]);
        assert_eq!(c.labels["a.b"], "c d");
        let c = changed(&[
            "EXPOSE 80 53/UDP",
            r#"VOLUME ["/a", "/b"]"#,
            "VOLUME /c",
            "USER 1:2",
            "WORKDIR /x",
            "WORKDIR y",
        ]);
        assert_eq!(c.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(c.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/c"]);
        assert_eq!((c.user.as_str(), c.working_dir.as_str()), ("1:2", "/x/y"));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["RUN x", "", "CMD", "ENV A", "LABEL =x", "ENV A=\"", "EXPOSE http", "EXPOSE 0", "ENV A=\\"]
        {
            assert!(apply(&mut RunConfig::default(), bad).is_err(), "{bad}");
        }
    }
}
