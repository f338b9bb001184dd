//! What docker's object has besides: fields that clients read whether or not they say anything here.

use davit_contracts::runtime::{Container, ContainerSpec};
use serde_json::{Value, json};

/// Adds what is not there yet.
pub fn complete(out: &mut Value, c: &Container, spec: &ContainerSpec) {
    let resources = spec.resources.clone().unwrap_or_default();
    let volumes: serde_json::Map<String, Value> = c
        .mount_points
        .iter()
        .filter(|m| m.r#type == "volume")
        .map(|m| (m.target.clone(), json!({})))
        .collect();
    add(
        out,
        json!({
            "AppArmorProfile": "",
            "MountLabel": "",
            "ProcessLabel": "",
            "ExecIDs": if c.exec_ids.is_empty() { Value::Null } else { json!(c.exec_ids) },
            "GraphDriver": {"Name": c.driver, "Data": null},
            "Config": {
                "AttachStdin": spec.stdin_once,
                "AttachStdout": spec.stdin_once,
                "AttachStderr": spec.stdin_once,
                "Volumes": if volumes.is_empty() { Value::Null } else { Value::Object(volumes) },
                "OnBuild": null,
            },
            "HostConfig": {
                "ContainerIDFile": "",
                "VolumeDriver": "",
                "Cgroup": "",
                "CgroupParent": spec.cgroup_parent,
                "CgroupnsMode": spec.namespaces.as_ref().map_or("", |n| n.cgroup.as_str()),
                "ConsoleSize": if spec.console_size.len() == 2 { json!(spec.console_size) } else { json!([0, 0]) },
                "Isolation": "",
                "CpuPeriod": resources.cpu_period,
                "CpuQuota": resources.cpu_quota,
                "CpuRealtimePeriod": 0,
                "CpuRealtimeRuntime": 0,
                "CpusetMems": resources.cpuset_mems,
                "MemoryReservation": resources.memory_reservation,
                "MemorySwappiness": null,
                "KernelMemory": 0,
                "KernelMemoryTCP": 0,
                "BlkioWeight": resources.blkio_weight,
                "BlkioWeightDevice": [],
                "DeviceCgroupRules": null,
                "DeviceRequests": null,
                "Devices": spec.devices.iter().map(|d| device(d)).collect::<Vec<_>>(),
                "OomKillDisable": resources.oom_kill_disable,
                "OomScoreAdj": resources.oom_score_adj,
                "StorageOpt": null,
            },
        }),
    );
}

/// `/dev/a[:/dev/b[:rwm]]`
fn device(text: &str) -> Value {
    let parts: Vec<&str> = text.split(':').collect();
    let is_path = |p: &&&str| p.starts_with('/');
    let inside = parts.get(1).filter(is_path).unwrap_or(&parts[0]);
    let access = parts[1..].iter().find(|p| !p.starts_with('/')).unwrap_or(&"rwm");
    json!({"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": access})
}

fn add(out: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    for (key, value) in more {
        match out.get_mut(&key) {
            Some(have) if have.is_object() && value.is_object() => add(have, value),
            Some(_) => {}
            None => out[&key] = value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        let mut out = json!({"HostConfig": {"CpuQuota": 7}, "GraphDriver": "x"});
        let spec = ContainerSpec {
            devices: vec!["/dev/a:/dev/b:r".into(), "/dev/c:rw".into()],
            ..ContainerSpec::default()
        };
        complete(&mut out, &Container::default(), &spec);
        assert_eq!((&out["HostConfig"]["CpuQuota"], &out["GraphDriver"]), (&json!(7), &json!("x")));
        assert_eq!(out["HostConfig"]["CpuPeriod"], 0);
        assert_eq!(out["ExecIDs"], Value::Null);
        assert_eq!(
            out["HostConfig"]["Devices"][0],
            json!({"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"})
        );
        assert_eq!(out["HostConfig"]["Devices"][1]["PathInContainer"], "/dev/c");
    }
}
