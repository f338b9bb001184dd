//! `--mount type=bind,source=...,target=...[,readonly]` and `--tmpfs PATH[:OPTIONS]`.

use davit_contracts::runtime::MountSpec;

use super::size;
use super::volume::clean;

/// One `--mount`: comma-separated `key=value` fields, docker's keys.
pub fn mount(text: &str) -> Result<MountSpec, String> {
    let bad =
        |why: String| format!("'{text}' is no mount: {why} (such as type=bind,source=/a,target=/b,readonly)");
    let mut spec = MountSpec { r#type: "volume".into(), ..MountSpec::default() };
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let truth = match value {
            "" | "true" | "1" => true,
            "false" | "0" => false,
            _ => !value.is_empty(),
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => value.clone_into(&mut spec.r#type),
            "source" | "src" => value.clone_into(&mut spec.source),
            "target" | "destination" | "dst" => spec.target = clean_target(value).map_err(bad)?,
            "readonly" | "ro" => spec.read_only = truth,
            "bind-propagation" => value.clone_into(&mut spec.propagation),
            "volume-nocopy" if truth => {
                spec.options.insert("nocopy".into(), "true".into());
            }
            "volume-nocopy" | "consistency" => {}
            "tmpfs-size" => {
                spec.options.insert("size".into(), size::bytes(value).map_err(bad)?.to_string());
            }
            "tmpfs-mode" => {
                u32::from_str_radix(value, 8).map_err(|_| bad(format!("the mode '{value}' is not octal")))?;
                spec.options.insert("mode".into(), value.to_owned());
            }
            other => return Err(bad(format!("the field '{other}' is unknown"))),
        }
    }
    match spec.r#type.as_str() {
        "bind" if !spec.source.starts_with('/') => {
            Err(bad("a bind mount's source must be an absolute path of the host".into()))
        }
        "tmpfs" if !spec.source.is_empty() => Err(bad("a tmpfs has no source".into())),
        "bind" | "volume" | "tmpfs" if spec.target.is_empty() => Err(bad("the target is missing".into())),
        "bind" | "volume" | "tmpfs" => Ok(spec),
        other => Err(bad(format!("the type '{other}' is none of bind, volume, tmpfs"))),
    }
}

/// Checks `--tmpfs PATH[:OPTIONS]` and gives it in clean form.
pub fn tmpfs(text: &str) -> Result<String, String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let path = clean_target(path).map_err(|e| format!("'{text}' is no tmpfs: {e}"))?;
    Ok(if options.is_empty() { path } else { format!("{path}:{options}") })
}

/// An absolute path inside the container, never the root itself.
pub fn clean_target(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("'{path}' is not an absolute path in the container"));
    }
    let path = clean(path);
    if path == "/" { Err("the container's root cannot be mounted over".into()) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_understood() {
        let m = mount("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap();
        assert_eq!((m.source.as_str(), m.target.as_str(), m.read_only), ("/a", "/b", true));
        assert_eq!(m.propagation, "rslave");
        assert!(!m.create_source);
        assert!(!mount("type=bind,src=/a,dst=/b,readonly=false").unwrap().read_only);
        assert_eq!(mount("source=data,target=/b").unwrap().r#type, "volume");
        let m = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        assert_eq!((m.options["size"].as_str(), m.options["mode"].as_str()), ("1048576", "1777"));
        assert_eq!(tmpfs("/run/:size=1m"), Ok("/run:size=1m".into()));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "type=bind,target=/b",
            "type=bind,source=a,target=/b",
            "type=x,target=/b",
            "source=a",
            "target=b",
            "target=/",
            "type=tmpfs,source=/a,target=/b",
            "target=/b,foo=1",
            "type=tmpfs,target=/t,tmpfs-mode=9",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        assert!(tmpfs("run").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = mount(&text);
            let _ = tmpfs(&text);
        }
    }
}
