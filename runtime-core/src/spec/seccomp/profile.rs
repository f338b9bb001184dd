//! Seccomp profiles that people bring: docker's JSON, which is the OCI section with `archMap`, and with `includes` and `excludes` a rule.
//!
//! [`check`] is asked when the container is created, [`resolve`] when it is started: only then is it known which capabilities it has.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use super::super::oci::{Seccomp, Syscall, SyscallArg};
use crate::error::RuntimeError;

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// This machine as profiles name it: seccomp's and Go's name.
#[cfg(target_arch = "x86_64")]
const NATIVE: (&str, &str) = ("SCMP_ARCH_X86_64", "amd64");
/// This machine as profiles name it: seccomp's and Go's name.
#[cfg(target_arch = "aarch64")]
const NATIVE: (&str, &str) = ("SCMP_ARCH_AARCH64", "arm64");
/// This machine as profiles name it: seccomp's and Go's name.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE: (&str, &str) = ("", std::env::consts::ARCH);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    architectures: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    arch_map: Vec<Architecture>,
    #[serde(deserialize_with = "or_default")]
    flags: Vec<String>,
    listener_path: String,
    listener_metadata: String,
    #[serde(deserialize_with = "or_default")]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Architecture {
    architecture: String,
    #[serde(deserialize_with = "or_default")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    /// The form of old profiles.
    name: String,
    #[serde(deserialize_with = "or_default")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    args: Vec<SyscallArg>,
    #[serde(deserialize_with = "or_default")]
    includes: Conditions,
    #[serde(deserialize_with = "or_default")]
    excludes: Conditions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conditions {
    #[serde(deserialize_with = "or_default")]
    caps: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Go programs write `null` for an empty list or object.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

fn bad(why: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Invalid(format!("decoding seccomp profile failed: {why}"))
}

/// Refuses a profile that cannot be applied, whatever the container's capabilities.
pub fn check(json: &str) -> Result<(), RuntimeError> {
    parse(json).map(drop)
}

fn parse(json: &str) -> Result<Profile, RuntimeError> {
    let p: Profile = serde_json::from_str(json).map_err(bad)?;
    if !p.architectures.is_empty() && !p.arch_map.is_empty() {
        return Err(bad(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ));
    }
    action(&p.default_action)?;
    if p.default_action == "SCMP_ACT_NOTIFY" {
        return Err(bad("SCMP_ACT_NOTIFY cannot be the default action"));
    }
    for rule in &p.syscalls {
        if !rule.name.is_empty() && !rule.names.is_empty() {
            return Err(bad(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
            ));
        }
        action(&rule.action)?;
        if rule.action == "SCMP_ACT_NOTIFY" && p.listener_path.is_empty() {
            return Err(bad("SCMP_ACT_NOTIFY needs listenerPath"));
        }
        for arg in &rule.args {
            if !OPERATORS.contains(&&*arg.op) {
                return Err(bad(format_args!("unknown comparison {:?}", arg.op)));
            }
            if arg.index > 5 {
                return Err(bad(format_args!(
                    "there is no argument {}: they are numbered 0 to 5",
                    arg.index
                )));
            }
        }
        for text in [&rule.includes.min_kernel, &rule.excludes.min_kernel].into_iter().flatten() {
            kernel(text)?;
        }
    }
    Ok(p)
}

fn action(name: &str) -> Result<(), RuntimeError> {
    if ACTIONS.contains(&name) {
        return Ok(());
    }
    Err(bad(if name.is_empty() {
        "an action is missing".to_owned()
    } else {
        format!("unknown action {name:?}")
    }))
}

/// "4.8".
fn kernel(text: &str) -> Result<(u32, u32), RuntimeError> {
    let numbers = text.split_once('.').map(|(major, minor)| (major.parse(), minor.parse()));
    match numbers {
        Some((Ok(major), Ok(minor))) => Ok((major, minor)),
        _ => Err(bad(format_args!("minKernel {text:?} is no version such as 4.8"))),
    }
}

/// The filter for a container with these capabilities on a kernel of this version.
pub fn resolve(json: &str, capabilities: &[String], running: (u32, u32)) -> Result<Seccomp, RuntimeError> {
    let p = parse(json)?;
    let mut architectures = p.architectures;
    if let Some(own) = p.arch_map.into_iter().find(|a| a.architecture == NATIVE.0) {
        architectures.push(own.architecture);
        architectures.extend(own.sub_architectures);
    }
    let mut syscalls = Vec::new();
    for rule in p.syscalls {
        if !applies(&rule, capabilities, running)? {
            continue;
        }
        let names = if rule.name.is_empty() { rule.names } else { vec![rule.name] };
        syscalls.push(Syscall {
            names: names.into_iter().map(Cow::Owned).collect(),
            action: rule.action.into(),
            errno_ret: rule.errno_ret,
            args: rule.args,
        });
    }
    Ok(Seccomp {
        default_action: p.default_action.into(),
        default_errno_ret: p.default_errno_ret,
        architectures: architectures.into_iter().map(Cow::Owned).collect(),
        flags: p.flags,
        listener_path: p.listener_path,
        listener_metadata: p.listener_metadata,
        syscalls,
    })
}

/// All of a rule's `includes` must hold and none of its `excludes`.
fn applies(rule: &Rule, capabilities: &[String], running: (u32, u32)) -> Result<bool, RuntimeError> {
    let has = |cap: &String| capabilities.contains(cap);
    let (i, e) = (&rule.includes, &rule.excludes);
    let old = |text: &Option<String>| text.as_deref().map(kernel).transpose().map(|v| v.map(|v| running < v));
    let included = (i.arches.is_empty() || i.arches.iter().any(|a| a == NATIVE.1))
        && i.caps.iter().all(has)
        && old(&i.min_kernel)? != Some(true);
    let excluded = e.arches.iter().any(|a| a == NATIVE.1)
        || e.caps.iter().any(has)
        || old(&e.min_kernel)? == Some(false);
    Ok(included && !excluded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(json: &str, caps: &[&str], kernel: (u32, u32)) -> String {
        let caps: Vec<String> = caps.iter().map(ToString::to_string).collect();
        let all = resolve(json, &caps, kernel).unwrap().syscalls;
        all.iter().flat_map(|s| s.names.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_are_for_capabilities_kernels_and_machines() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"name":"a","action":"SCMP_ACT_ALLOW","args":null},
            {"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["c"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]},"comment":"x"},
            {"names":["d"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["e"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"4.8"}},
            {"names":["f"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["mars"]}},
            {"names":["g"],"action":"SCMP_ACT_ALLOW","includes":{},"excludes":{"arches":["mars"]}}]}"#;
        assert_eq!(names(json, &[], (6, 1)), "a c d g");
        assert_eq!(names(json, &["CAP_SYS_ADMIN"], (4, 7)), "a b e g");
    }

    #[test]
    fn errnos_arguments_and_architectures_are_kept() {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
            "archMap":[{{"architecture":"SCMP_ARCH_MIPS"}},{{"architecture":"{}","subArchitectures":["SCMP_ARCH_X86"]}}],
            "syscalls":[{{"names":["clone"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"args":[{{"index":0,"value":7,"op":"SCMP_CMP_MASKED_EQ"}}]}}]}}"#,
            NATIVE.0
        );
        let s = resolve(&json, &[], (6, 1)).unwrap();
        assert_eq!(
            (s.default_errno_ret, s.architectures.len(), s.syscalls[0].errno_ret),
            (Some(38), 2, Some(1))
        );
        assert_eq!((s.syscalls[0].args[0].value, s.syscalls[0].args[0].value_two), (7, 0));
    }

    #[test]
    fn a_profile_that_is_none_is_refused_in_one_line() {
        for (json, says) in [
            ("{", "EOF"),
            ("{}", "an action is missing"),
            (r#"{"defaultAction":"SCMP_ACT_PERHAPS"}"#, "SCMP_ACT_PERHAPS"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "default action"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["a"],"archMap":[{"architecture":"a"}]}"#,
                "both 'arch",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "both 'name'",
            ),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"]}]}"#, "an action is missing"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],"action":"SCMP_ACT_NOTIFY"}]}"#,
                "listenerPath",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
                "argument 6",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":1,"op":"EQ"}]}]}"#,
                "\"EQ\"",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],"action":"SCMP_ACT_KILL","includes":{"minKernel":"x"}}]}"#,
                "minKernel",
            ),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}"#, "sequence"),
        ] {
            let e = check(json).unwrap_err().to_string();
            assert!(e.contains(says) && !e.contains('\n'), "{json}: {e}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[{}\\[\\]a-zA-Z_:\",.0-9]{0,60}") {
            let _ = check(&text);
        }
    }
}
