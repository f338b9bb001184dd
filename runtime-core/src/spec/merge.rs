//! What an image says and what a person asked for, merged as docker merges them.

use davit_contracts::runtime::ContainerSpec;
use davit_contracts::storage::ImageConfig;

use crate::error::RuntimeError;

/// docker's PATH for images that set none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program as it will run, but for its user's numbers and home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Entrypoint and command.
    pub argv: Vec<String>,
    /// `KEY=value`; HOME may still be missing.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// As text: "", "uid", "name:group", ...
    pub user: String,
}

/// Merges; `hostname` is the container's.
pub fn program(spec: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Result<Program, RuntimeError> {
    let argv = argv(spec, image);
    if argv.is_empty() || argv[0].is_empty() {
        return Err(RuntimeError::Invalid(format!(
            "no command specified, and the image {} has no default one",
            spec.image
        )));
    }
    Ok(Program {
        argv,
        env: environment(&spec.env, &image.env, hostname, spec.tty),
        cwd: working_dir(first_of(&spec.working_dir, &image.working_dir))?,
        user: first_of(&spec.user, &image.user).to_owned(),
    })
}

fn first_of<'a>(asked: &'a str, image: &'a str) -> &'a str {
    if asked.is_empty() { image } else { asked }
}

/// docker's rule: an entrypoint that was asked for also discards the image's command; an empty one clears both.
fn argv(spec: &ContainerSpec, image: &ImageConfig) -> Vec<String> {
    let (entrypoint, command) = match &spec.entrypoint {
        Some(list) if list.values.iter().all(String::is_empty) => (&[] as &[String], &spec.command),
        Some(list) => (list.values.as_slice(), &spec.command),
        None if spec.command.is_empty() => (image.entrypoint.as_slice(), &image.cmd),
        None => (image.entrypoint.as_slice(), &spec.command),
    };
    entrypoint.iter().chain(command).cloned().collect()
}

/// Defaults, then the image's, then the person's: a later value replaces an earlier one in its place.
pub fn environment(asked: &[String], image: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in image.iter().chain(asked) {
        set(&mut env, entry);
    }
    env
}

/// Replaces or appends one entry; a bare `KEY` removes it, as docker's `-e KEY` does for one that the client's environment lacks.
pub fn set(env: &mut Vec<String>, entry: &str) {
    let Some((key, _)) = entry.split_once('=') else {
        env.retain(|e| key_of(e) != entry);
        return;
    };
    match env.iter_mut().find(|e| key_of(e) == key) {
        Some(old) => entry.clone_into(old),
        None => env.push(entry.to_owned()),
    }
}

/// Whether a key is set.
pub fn has(env: &[String], key: &str) -> bool {
    env.iter().any(|e| key_of(e) == key)
}

fn key_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Cleans a working directory: "" is "/", and no `.` or `..` remain.
pub fn working_dir(asked: &str) -> Result<String, RuntimeError> {
    if asked.is_empty() {
        return Ok("/".to_owned());
    }
    if !asked.starts_with('/') {
        return Err(RuntimeError::Invalid(format!(
            "the working directory '{asked}' is invalid, it needs to be an absolute path"
        )));
    }
    Ok(clean(asked))
}

/// An absolute path without empty, `.` and `..` components.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::runtime::StringList;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn argv_of(entrypoint: Option<&[&str]>, command: &[&str]) -> Vec<String> {
        let image =
            ImageConfig { entrypoint: strings(&["/ep"]), cmd: strings(&["a"]), ..ImageConfig::default() };
        let spec = ContainerSpec {
            entrypoint: entrypoint.map(|e| StringList { values: strings(e) }),
            command: strings(command),
            ..ContainerSpec::default()
        };
        argv(&spec, &image)
    }

    #[test]
    fn entrypoint_and_command_merge_as_dockers() {
        assert_eq!(argv_of(None, &[]), ["/ep", "a"]);
        assert_eq!(argv_of(None, &["b"]), ["/ep", "b"]);
        assert_eq!(argv_of(Some(&["/x"]), &[]), ["/x"]);
        assert_eq!(argv_of(Some(&["/x"]), &["b"]), ["/x", "b"]);
        assert_eq!(argv_of(Some(&[""]), &["b"]), ["b"]);
        assert!(argv_of(Some(&[]), &[]).is_empty());
    }

    #[test]
    fn no_command_at_all_is_an_error() {
        let e = program(&ContainerSpec::default(), &ImageConfig::default(), "h").unwrap_err();
        assert!(e.to_string().starts_with("no command specified"), "{e}");
    }

    #[test]
    fn environments_merge_in_place() {
        let env = environment(
            &strings(&["A=3", "PATH=/x", "NEW=", "GONE"]),
            &strings(&["A=1", "B=2", "GONE=1"]),
            "h",
            true,
        );
        assert_eq!(env, ["PATH=/x", "HOSTNAME=h", "TERM=xterm", "A=3", "B=2", "NEW="]);
        assert!(has(&env, "A") && !has(&env, "GONE"));
    }

    #[test]
    fn working_directories_are_absolute_and_clean() {
        assert_eq!(working_dir("").unwrap(), "/");
        assert_eq!(working_dir("/a/../../b//./c/").unwrap(), "/b/c");
        assert!(working_dir("a").is_err());
    }
}
