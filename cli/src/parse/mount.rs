//! `--mount type=bind,source=...,target=...[,readonly]` and `--tmpfs PATH[:OPTIONS]`.

use davit_contracts::runtime::MountSpec;

use super::size;
use super::volume::clean;

/// One `--mount`: comma-separated `key=value` fields, docker's keys.
pub fn mount(text: &str) -> Result<MountSpec, String> {
    let bad =
        |why: String| format!("'{text}' is no mount: {why} (such as type=bind,source=/a,target=/b,readonly)");
    let mut spec = MountSpec { r#type: "volume".into(), ..MountSpec::default() };
    for part in fields(text) {
        let (key, value) = part.split_once('=').unwrap_or((&part, ""));
        field(&mut spec, &key.trim().to_ascii_lowercase(), value).map_err(bad)?;
    }
    checked(spec).map_err(bad)
}

/// The fields as a line of CSV: `"volume-opt=o=size=1m,uid=0"` is one.
pub(super) fn fields(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = out.last_mut().expect("it begins with one field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                last.push('"');
                chars.next();
            }
            '"' if quoted || last.is_empty() => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => last.push(c),
        }
    }
    out
}

fn field(spec: &mut MountSpec, key: &str, value: &str) -> Result<(), String> {
    let truth = match value {
        "" | "true" | "1" => true,
        "false" | "0" => false,
        _ => return flagless(spec, key, value),
    };
    match key {
        "readonly" | "ro" => spec.read_only = truth,
        "bind-nonrecursive" => spec.non_recursive = truth,
        "bind-create-src" => spec.create_source = truth,
        "volume-nocopy" if truth => {
            spec.options.insert("nocopy".into(), "true".into());
        }
        "idmap" if truth => {
            spec.options.insert("idmap".into(), "true".into());
        }
        "volume-nocopy" | "idmap" => {}
        _ => return flagless(spec, key, value),
    }
    Ok(())
}

/// The fields that are no truth values.
fn flagless(spec: &mut MountSpec, key: &str, value: &str) -> Result<(), String> {
    match key {
        "type" => value.clone_into(&mut spec.r#type),
        "source" | "src" => value.clone_into(&mut spec.source),
        "target" | "destination" | "dst" => spec.target = clean_target(value)?,
        "bind-propagation" => value.clone_into(&mut spec.propagation),
        "bind-recursive" => match value {
            "enabled" | "writable" => {}
            "disabled" => spec.non_recursive = true,
            "readonly" => spec.read_only_recursive = true,
            _ => {
                return Err(format!(
                    "bind-recursive is enabled, disabled, writable or readonly, not '{value}'"
                ));
            }
        },
        "volume-subpath" => value.clone_into(&mut spec.subpath),
        "volume-driver" if matches!(value, "local" | "") => {}
        "volume-driver" => return Err(format!("there is no volume driver '{value}': only local")),
        "volume-label" | "volume-opt" => {
            let (name, text) = value.split_once('=').unwrap_or((value, ""));
            if name.is_empty() {
                return Err(format!("{key} is of the form name=value, not '{value}'"));
            }
            let map = if key == "volume-label" { &mut spec.volume_labels } else { &mut spec.volume_options };
            map.insert(name.to_owned(), text.to_owned());
        }
        "consistency" => {}
        "tmpfs-size" => {
            spec.options.insert("size".into(), size::bytes(value)?.to_string());
        }
        "tmpfs-mode" => {
            u32::from_str_radix(value, 8).map_err(|_| format!("the mode '{value}' is not octal"))?;
            spec.options.insert("mode".into(), value.to_owned());
        }
        "readonly" | "ro" | "bind-nonrecursive" | "bind-create-src" | "volume-nocopy" => {
            return Err(format!("{key} is true or false, not '{value}'"));
        }
        other => return Err(format!("the field '{other}' is unknown")),
    }
    Ok(())
}

fn checked(spec: MountSpec) -> Result<MountSpec, String> {
    let of_bind =
        !spec.propagation.is_empty() || spec.non_recursive || spec.create_source || spec.read_only_recursive;
    let of_volume =
        !spec.subpath.is_empty() || !spec.volume_labels.is_empty() || !spec.volume_options.is_empty();
    match spec.r#type.as_str() {
        "bind" if !spec.source.starts_with('/') => {
            Err("a bind mount's source must be an absolute path of the host".into())
        }
        "tmpfs" if !spec.source.is_empty() => Err("a tmpfs has no source".into()),
        "bind" | "volume" | "tmpfs" if spec.target.is_empty() => Err("the target is missing".into()),
        "volume" | "tmpfs" if of_bind => Err("the bind-... fields belong to type=bind".into()),
        "bind" | "tmpfs" if of_volume => Err("the volume-... fields belong to type=volume".into()),
        "bind" if spec.read_only_recursive && !spec.read_only => {
            Err("bind-recursive=readonly wants readonly, too".into())
        }
        "bind" | "volume" | "tmpfs" => Ok(spec),
        other => Err(format!("the type '{other}' is none of bind, volume, tmpfs")),
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
        let m =
            mount("src=v,dst=/v,volume-nocopy,volume-subpath=a/b,volume-label=k=v,\"volume-opt=o=a=1,b=2\"")
                .unwrap();
        assert_eq!((m.subpath.as_str(), m.volume_labels["k"].as_str()), ("a/b", "v"));
        assert_eq!((m.volume_options["o"].as_str(), m.options["nocopy"].as_str()), ("a=1,b=2", "true"));
        let m = mount("type=bind,src=/a,dst=/b,bind-nonrecursive,bind-create-src=true").unwrap();
        assert!(m.non_recursive && m.create_source);
        assert!(mount("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly").unwrap().read_only_recursive);
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
            "src=v,target=/t,bind-propagation=rshared",
            "type=bind,src=/a,target=/t,volume-subpath=x",
            "src=v,target=/t,volume-driver=nfs",
            "src=v,target=/t,volume-opt==x",
            "src=v,target=/t,readonly=maybe",
            "type=bind,src=/a,target=/t,bind-recursive=no",
            "type=bind,src=/a,target=/t,bind-recursive=readonly",
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
