//! One TOML file a daemon. A missing file means defaults; an unknown key is an error that names it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The text is no TOML, or holds a key or value that is not known.
    #[error("{path} is not a valid configuration: line {line}: {why}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Why, in one line: toml's own text is a drawing of several.
        why: String,
    },
}

/// Reads a daemon's configuration. `T` carries `#[serde(default, deny_unknown_fields)]`.
pub fn load<T: DeserializeOwned + Default>(path: &Path) -> Result<T, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    toml::from_str(&text).map_err(|e| parse_error(path, &text, &e))
}

fn parse_error(path: &Path, text: &str, e: &toml::de::Error) -> ConfigError {
    let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let why = e.message().trim().replace('\n', ", ");
    ConfigError::Parse { path: path.to_owned(), line, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        driver: String,
    }

    #[test]
    fn missing_is_default_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        assert_eq!(load::<Sample>(&path).unwrap(), Sample::default());
        fs::write(&path, "driver = \"overlay\"").unwrap();
        assert_eq!(load::<Sample>(&path).unwrap().driver, "overlay");
        for (text, words) in [
            ("# mine\n\ndrivr = \"overlay\"\n", ["line 3", "drivr"]),
            ("driver = 7", ["line 1", "string"]),
            ("driver = \"overlay\"\n[", ["line 2", "keys"]),
        ] {
            fs::write(&path, text).unwrap();
            let e = load::<Sample>(&path).unwrap_err().to_string();
            assert!(words.iter().all(|w| e.contains(w)) && !e.contains('\n'), "{e}");
        }
    }
}
