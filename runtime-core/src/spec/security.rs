//! `--security-opt`: docker's words, podman's `mask` and `unmask`, and `landlock`. docs/semantics/security.md is their reference.

use davit_contracts::runtime::Security;

use super::host::{Host, Modules};
use super::mounts;
use super::seccomp::profile;
use crate::config::BUILT_IN_RUNTIME;
use crate::error::RuntimeError;

/// The annotation that tells davit-runner about Landlock; no other runtime knows it.
pub const LANDLOCK: &str = "org.davit.landlock";

/// Which system call filter applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Filter {
    /// docker's default; none for a privileged container.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// This profile (JSON), also for a privileged container.
    Given(String),
}

/// All of `--security-opt`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// System calls.
    pub filter: Filter,
    /// Set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// A named AppArmor profile; empty: none.
    pub apparmor: String,
    /// SELinux parts asked for: (user, role, type, level), empty where not.
    pub label: [String; 4],
    /// SELinux labels are switched off for it.
    pub label_disabled: bool,
    /// Nothing is masked or read-only in /proc and /sys.
    pub plain_system_paths: bool,
    /// Further masked paths.
    pub mask: Vec<String>,
    /// Paths, with `*`, that are neither masked nor read-only.
    pub unmask: Vec<String>,
    /// /sys/fs/cgroup is writable.
    pub writable_cgroups: bool,
    /// `ro:/a,rw:/b`: what may be reached at all; empty: everything.
    pub landlock: String,
}

/// Reads `--security-opt` values.
pub fn options(security: &Security) -> Result<SecurityOptions, RuntimeError> {
    let mut out = SecurityOptions::default();
    for text in &security.security_opt {
        if text == "no-new-privileges" {
            out.no_new_privileges = true;
            continue;
        }
        if text == "writable-cgroups" {
            out.writable_cgroups = true;
            continue;
        }
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let (key, value) = split.ok_or_else(|| invalid(1, text))?;
        match key {
            "no-new-privileges" => out.no_new_privileges = switch(value, text)?,
            "writable-cgroups" => out.writable_cgroups = switch(value, text)?,
            "seccomp" => out.filter = filter(value)?,
            "apparmor" if value.is_empty() => return Err(invalid(2, text)),
            "apparmor" => value.clone_into(&mut out.apparmor),
            "label" => label(value, &mut out)?,
            "systempaths" if value == "unconfined" => out.plain_system_paths = true,
            "mask" => out.mask.extend(paths(value, text)?),
            "unmask" if value.eq_ignore_ascii_case("all") => out.plain_system_paths = true,
            "unmask" => out.unmask.extend(paths(value, text)?),
            "landlock" => landlock(value, &mut out)?,
            _ => return Err(invalid(2, text)),
        }
    }
    Ok(out)
}

/// The numbers are docker's.
fn invalid(form: u8, text: &str) -> RuntimeError {
    RuntimeError::Invalid(format!("invalid --security-opt {form}: {text:?}"))
}

fn switch(value: &str, text: &str) -> Result<bool, RuntimeError> {
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(2, text)),
    }
}

fn filter(value: &str) -> Result<Filter, RuntimeError> {
    match value {
        "unconfined" => Ok(Filter::Unconfined),
        "builtin" => Ok(Filter::Default),
        json if json.trim_start().starts_with('{') => {
            profile::check(json)?;
            Ok(Filter::Given(json.to_owned()))
        }
        // The file is the client's: what arrives here is its content.
        _ => Err(RuntimeError::Invalid(format!(
            "decoding seccomp profile failed: {value:?} is not the content of a profile"
        ))),
    }
}

fn label(value: &str, out: &mut SecurityOptions) -> Result<(), RuntimeError> {
    let at = match value.split_once(':').unwrap_or((value, "")) {
        ("disable", "") => {
            out.label_disabled = true;
            return Ok(());
        }
        ("nested", "") | ("filetype", _) => return Ok(()),
        ("user", v) if !v.is_empty() => (0, v),
        ("role", v) if !v.is_empty() => (1, v),
        ("type", v) if !v.is_empty() => (2, v),
        ("level", v) if !v.is_empty() => (3, v),
        _ => {
            return Err(RuntimeError::Invalid(format!(
                "bad label option {value:?}, valid options 'disable' or 'user, role, level, type, filetype' followed by ':' and a value"
            )));
        }
    };
    at.1.clone_into(&mut out.label[at.0]);
    Ok(())
}

fn paths(value: &str, text: &str) -> Result<Vec<String>, RuntimeError> {
    let all: Vec<String> = value.split(':').map(str::to_owned).collect();
    if all.iter().any(|p| !p.starts_with('/')) { Err(invalid(2, text)) } else { Ok(all) }
}

fn landlock(value: &str, out: &mut SecurityOptions) -> Result<(), RuntimeError> {
    for rule in value.split(',') {
        if !rule
            .split_once(':')
            .is_some_and(|(access, path)| matches!(access, "ro" | "rw") && path.starts_with('/'))
        {
            return Err(RuntimeError::Invalid(format!(
                "invalid --security-opt landlock: {rule:?}: ro:/PATH or rw:/PATH is expected, several with commas between"
            )));
        }
        if !out.landlock.is_empty() {
            out.landlock.push(',');
        }
        out.landlock.push_str(rule);
    }
    Ok(())
}

/// Refuses what this host or the container's OCI runtime cannot do.
pub fn possible(o: &SecurityOptions, modules: Modules, runtime: Option<&str>) -> Result<(), RuntimeError> {
    if !matches!(o.apparmor.as_str(), "" | "unconfined") && !modules.apparmor {
        return Err(RuntimeError::Unsupported(format!(
            "--security-opt apparmor={}: AppArmor is not enabled on this host",
            o.apparmor
        )));
    }
    if o.landlock.is_empty() {
        return Ok(());
    }
    if modules.landlock == 0 {
        return Err(RuntimeError::Unsupported(
            "--security-opt landlock: this kernel has no Landlock, or it is switched off".into(),
        ));
    }
    match runtime {
        Some(name) if name != BUILT_IN_RUNTIME => Err(RuntimeError::Unsupported(format!(
            "--security-opt landlock: the runtime {name} does not know it, {BUILT_IN_RUNTIME} does"
        ))),
        _ => Ok(()),
    }
}

/// Masked and read-only paths of a container.
pub fn system_paths(o: &SecurityOptions, privileged: bool) -> (Vec<String>, Vec<String>) {
    let kept = |list: &[&str]| -> Vec<String> {
        let own = list.iter().filter(|p| !o.unmask.iter().any(|u| fits(u, p)));
        own.map(ToString::to_string).collect()
    };
    let (mut masked, read_only) = if privileged || o.plain_system_paths {
        (Vec::new(), Vec::new())
    } else {
        (kept(mounts::MASKED), kept(mounts::READ_ONLY))
    };
    masked.extend(o.mask.iter().cloned());
    (masked, read_only)
}

/// Whether a pattern, in which `*` stands for anything within one name, fits a path.
fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.trim_end_matches('/'), path.trim_end_matches('/'));
    let names = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (patterns, names) = (names(pattern), names(path));
    patterns.len() == names.len() && patterns.iter().zip(&names).all(|(p, n)| name_fits(p, n))
}

fn name_fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    loop {
        if name_fits(rest, left) {
            return true;
        }
        let mut characters = left.chars();
        if characters.next().is_none() {
            return false;
        }
        left = characters.as_str();
    }
}

/// The SELinux label of a container's process: the policy's for containers with what was asked for in its place. Nothing where there is no
/// SELinux, where it is switched off for this container, and where nothing was asked for.
pub fn process_label(o: &SecurityOptions, host: &Host) -> String {
    let base = if host.modules.selinux { host.container_label.as_str() } else { "" };
    if base.is_empty() || o.label_disabled || o.label.iter().all(String::is_empty) {
        return String::new();
    }
    let mut parts = base.splitn(4, ':');
    let asked = o.label.iter();
    asked
        .map(|a| {
            let own = parts.next().unwrap_or("s0");
            if a.is_empty() { own } else { a.as_str() }
        })
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests;
