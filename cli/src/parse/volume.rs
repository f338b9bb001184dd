//! `-v [SOURCE:]TARGET[:OPTIONS]`, docker's rules: a source with a slash is a path, one without is a volume's name.

use std::path::Path;

use davit_contracts::id::check_name;
use davit_contracts::runtime::MountSpec;

use super::mount::clean_target;

/// One `-v`. Relative sources (`./x`, `../x`) are resolved against `cwd`; `~/` against `home`, because shells leave it alone after a colon.
pub fn volume(text: &str, cwd: &Path, home: Option<&Path>) -> Result<MountSpec, String> {
    let bad = |why: &str| {
        format!("'{text}' is no volume: {why} (such as ./site:/srv, data:/var/lib/db, /etc/x:/etc/x:ro)")
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(bad("there are more than two colons")),
    };
    if parts.len() > 1 && source.is_empty() {
        return Err(bad("the source is empty"));
    }
    if !target.starts_with('/') {
        return Err(bad(&format!("'{target}' is not an absolute path in the container")));
    }
    let mut spec = MountSpec { target: clean_target(target).map_err(|e| bad(&e))?, ..MountSpec::default() };
    let is_path =
        source.starts_with('/') || source.starts_with('.') || source.starts_with('~') || source.contains('/');
    if is_path {
        "bind".clone_into(&mut spec.r#type);
        spec.source = absolute(source, cwd, home).ok_or_else(|| bad("HOME is not set"))?;
        spec.create_source = true;
    } else {
        "volume".clone_into(&mut spec.r#type);
        if !source.is_empty() {
            check_name(source).map_err(|e| bad(&e.to_string()))?;
        }
        source.clone_into(&mut spec.source);
    }
    for word in options.split(',').filter(|w| !w.is_empty()) {
        option(&mut spec, word).map_err(|e| bad(&e))?;
    }
    Ok(spec)
}

fn option(spec: &mut MountSpec, word: &str) -> Result<(), String> {
    match word {
        "ro" | "readonly" => spec.read_only = true,
        "rw" => spec.read_only = false,
        "nocopy" if spec.r#type == "volume" => {
            spec.options.insert("nocopy".into(), "true".into());
        }
        // SELinux labels: accepted, and for the daemon to apply or to ignore.
        "z" | "Z" => {
            spec.options.insert("relabel".into(), if word == "Z" { "private" } else { "shared" }.into());
        }
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if spec.r#type == "bind" => {
            word.clone_into(&mut spec.propagation);
        }
        "idmap" => {
            spec.options.insert("idmap".into(), "true".into());
        }
        "bind" | "rbind" | "cached" | "delegated" | "consistent" => {}
        _ => {
            return Err(format!(
                "the option '{word}' is unknown: ro, rw, nocopy, z, Z or a propagation such as rslave"
            ));
        }
    }
    Ok(())
}

/// The host path that `source` means, without `.`, `..` and double slashes.
fn absolute(source: &str, cwd: &Path, home: Option<&Path>) -> Option<String> {
    let path = match source.strip_prefix('~') {
        Some("") => home?.to_owned(),
        Some(rest) if rest.starts_with('/') => home?.join(rest.trim_start_matches('/')),
        _ => cwd.join(source),
    };
    Some(clean(&path.to_string_lossy()))
}

/// Removes `.`, `..` and empty parts by the text alone, as docker's client does.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<MountSpec, String> {
        volume(text, Path::new("/srv/dir"), Some(Path::new("/home/u")))
    }

    #[test]
    fn sources_are_paths_or_names() {
        for (text, kind, source, target) in [
            ("/a:/b", "bind", "/a", "/b"),
            ("./x:/b", "bind", "/srv/dir/x", "/b"),
            ("../x/./y:/b/", "bind", "/srv/x/y", "/b"),
            ("~/x:/b", "bind", "/home/u/x", "/b"),
            ("sub/x:/b", "bind", "/srv/dir/sub/x", "/b"),
            ("data:/b", "volume", "data", "/b"),
            ("/b", "volume", "", "/b"),
        ] {
            let m = parse(text).unwrap();
            assert_eq!(
                (m.r#type.as_str(), m.source.as_str(), m.target.as_str()),
                (kind, source, target),
                "{text}"
            );
            assert_eq!(m.create_source, kind == "bind");
        }
    }

    #[test]
    fn options_are_understood() {
        assert!(parse("/a:/b:ro").unwrap().read_only);
        let m = parse("/a:/b:rslave,ro,Z").unwrap();
        assert_eq!((m.propagation.as_str(), m.options["relabel"].as_str()), ("rslave", "private"));
        assert_eq!(parse("data:/b:nocopy").unwrap().options["nocopy"], "true");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "b",
            "a:b",
            ":/b",
            "/a:",
            "/a:/b:xx",
            "/a:/b:ro:rw",
            "/a:/",
            "-x:/b",
            "a b:/c",
            "/a:/b:nocopy",
            "data:/b:rshared",
        ] {
            assert!(parse(bad).is_err(), "{bad}: {:?}", parse(bad));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn cleaning_twice_is_cleaning_once(path in "(/|[a-c.]{1,3}){0,12}") {
            let once = clean(&path);
            prop_assert_eq!(clean(&once), once.clone());
            prop_assert!(once.starts_with('/') && !once.contains("//"));
        }
    }
}
