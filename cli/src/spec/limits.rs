//! Limits and security: what can be said about them without asking the host.

use davit_contracts::runtime::{Resources, Security};

use crate::args::limits::LimitArgs;
use crate::args::run::CreateArgs;

/// Limits as the contract has them.
pub fn resources(args: &LimitArgs) -> Result<Resources, String> {
    let memory = args.memory.unwrap_or(0).max(0);
    if memory != 0 && memory < 6 << 20 {
        return Err("Minimum memory limit allowed is 6MB".into());
    }
    let memory_swap = args.memory_swap.unwrap_or(0);
    if memory_swap > 0 && memory_swap < memory {
        return Err("--memory-swap counts memory and swap together: it cannot be below --memory".into());
    }
    if let Some(v) = args.memory_swappiness.filter(|v| !(-1..=100).contains(v)) {
        return Err(format!("invalid value: {v}. Valid memory swappiness range is 0-100"));
    }
    let rates = [
        &args.blkio_weight_device,
        &args.device_read_bps,
        &args.device_write_bps,
        &args.device_read_iops,
        &args.device_write_iops,
    ];
    Ok(Resources {
        nano_cpus: args.cpus.unwrap_or(0),
        cpu_shares: args.cpu_shares.unwrap_or(0),
        cpu_quota: args.cpu_quota.unwrap_or(0),
        cpu_period: args.cpu_period.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        memory,
        memory_swap,
        memory_reservation: args.memory_reservation.unwrap_or(0) as i64,
        memory_swappiness: args.memory_swappiness.filter(|v| *v >= 0),
        // -1 and 0 both mean no limit.
        pids_limit: args.pids_limit.unwrap_or(0).max(0),
        blkio_weight: args.blkio_weight.unwrap_or(0).into(),
        blkio: rates.into_iter().flatten().cloned().collect(),
        device_cgroup_rules: args.device_cgroup_rule.clone(),
        oom_score_adj: args.oom_score_adj.unwrap_or(0),
        oom_kill_disable: args.oom_kill_disable,
    })
}

/// Privileges as the contract has them.
pub fn security(args: &CreateArgs) -> Result<Security, String> {
    Ok(Security {
        privileged: args.privileged,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        security_opt: args.security_opt.iter().map(|o| security_opt(o)).collect::<Result<_, _>>()?,
        group_add: args.group_add.clone(),
    })
}

/// A seccomp profile is a file here, and its content from here on: the daemon may see other files.
fn security_opt(text: &str) -> Result<String, String> {
    let Some((key, value)) = text.split_once('=').or_else(|| text.split_once(':')) else {
        return match text {
            "no-new-privileges" | "writable-cgroups" => Ok(text.to_owned()),
            _ => Err(format!("invalid --security-opt: {text:?}")),
        };
    };
    if key != "seccomp" || matches!(value, "unconfined" | "builtin") {
        return Ok(text.to_owned());
    }
    let content = std::fs::read_to_string(value)
        .map_err(|e| format!("opening seccomp profile ({value}) failed: {}", crate::error::plain(&e)))?;
    let json: serde_json::Value = serde_json::from_str(&content)
        .map_err(|e| format!("compacting json for seccomp profile ({value}) failed: {e}"))?;
    if !json.is_object() {
        return Err(format!("seccomp profile ({value}): a JSON object is expected"));
    }
    Ok(format!("seccomp={json}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_here() {
        let dir = std::env::temp_dir().join(format!("davit-profile-{}", std::process::id()));
        std::fs::write(&dir, "{ \"defaultAction\":\n \"SCMP_ACT_ALLOW\" }").unwrap();
        let path = dir.display().to_string();
        assert_eq!(
            security_opt(&format!("seccomp={path}")).unwrap(),
            r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#
        );
        for (content, says) in [("{", "compacting json"), ("[]", "object")] {
            std::fs::write(&dir, content).unwrap();
            let e = security_opt(&format!("seccomp:{path}")).unwrap_err();
            assert!(e.contains(says) && !e.contains('\n'), "{e}");
        }
        std::fs::remove_file(&dir).unwrap();
        assert!(security_opt(&format!("seccomp={path}")).unwrap_err().contains("opening seccomp profile"));
        for same in ["no-new-privileges", "seccomp=unconfined", "apparmor:x", "label=disable"] {
            assert_eq!(security_opt(same).unwrap(), same);
        }
        assert!(security_opt("nonsense").is_err());
    }
}
