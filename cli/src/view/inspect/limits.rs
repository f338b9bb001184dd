//! The limits of `HostConfig`, with docker's field names and its way to say "not set".

use davit_contracts::runtime::{ContainerSpec, DeviceRate};
use serde_json::{Map, Value, json};

/// Fields of `HostConfig` about limits and devices.
pub fn fields(spec: &ContainerSpec) -> Map<String, Value> {
    let r = spec.resources.clone().unwrap_or_default();
    let ulimits: Vec<Value> = spec
        .ulimits
        .iter()
        .map(|u| json!({"Name": u.name, "Soft": number(u.soft), "Hard": number(u.hard)}))
        .collect();
    let swap = if r.memory > 0 && r.memory_swap == 0 { r.memory.saturating_mul(2) } else { r.memory_swap };
    let rates = |of: fn(&DeviceRate) -> u64| -> Vec<Value> {
        r.blkio.iter().filter(|d| of(d) > 0).map(|d| json!({"Path": d.path, "Rate": of(d)})).collect()
    };
    let weights: Vec<Value> = r
        .blkio
        .iter()
        .filter(|d| d.weight > 0)
        .map(|d| json!({"Path": d.path, "Weight": d.weight}))
        .collect();
    let value = json!({
        "Memory": r.memory,
        "MemorySwap": swap,
        "MemoryReservation": r.memory_reservation,
        "MemorySwappiness": r.memory_swappiness,
        "NanoCpus": r.nano_cpus,
        "CpuShares": r.cpu_shares,
        "CpuQuota": r.cpu_quota,
        "CpuPeriod": r.cpu_period,
        "CpusetCpus": r.cpuset_cpus,
        "CpusetMems": r.cpuset_mems,
        "PidsLimit": (r.pids_limit != 0).then_some(r.pids_limit),
        "BlkioWeight": r.blkio_weight,
        "BlkioWeightDevice": weights,
        "BlkioDeviceReadBps": rates(|d| d.read_bps),
        "BlkioDeviceWriteBps": rates(|d| d.write_bps),
        "BlkioDeviceReadIOps": rates(|d| d.read_iops),
        "BlkioDeviceWriteIOps": rates(|d| d.write_iops),
        "OomScoreAdj": r.oom_score_adj,
        "OomKillDisable": r.oom_kill_disable,
        "Devices": spec.devices.iter().map(|d| device(d)).collect::<Vec<_>>(),
        "DeviceCgroupRules": r.device_cgroup_rules,
        "CgroupParent": spec.cgroup_parent,
        "Ulimits": ulimits,
    });
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// docker writes "no bound" as -1.
fn number(value: u64) -> Value {
    if value == u64::MAX { json!(-1) } else { json!(value) }
}

fn device(text: &str) -> Value {
    let mut parts = text.split(':');
    let host = parts.next().unwrap_or_default();
    let is_access = |t: &str| !t.is_empty() && t.bytes().all(|b| b"rwm".contains(&b));
    let (inside, access) = match (parts.next(), parts.next()) {
        (Some(mode), None) if is_access(mode) => (host, mode),
        (Some(inside), access) => (inside, access.unwrap_or("rwm")),
        (None, _) => (host, "rwm"),
    };
    json!({"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access})
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::runtime::{Resources, Ulimit};

    #[test]
    fn fields_are_dockers() {
        let got = fields(&ContainerSpec {
            resources: Some(Resources {
                memory: 1 << 30,
                blkio: vec![DeviceRate { path: "/dev/a".into(), read_bps: 5, ..DeviceRate::default() }],
                ..Resources::default()
            }),
            ulimits: vec![Ulimit { name: "core".into(), soft: 0, hard: u64::MAX }],
            devices: vec!["/dev/a:r".into(), "/dev/a:/dev/b".into()],
            ..ContainerSpec::default()
        });
        assert_eq!((&got["MemorySwap"], &got["PidsLimit"]), (&json!(2u64 << 30), &Value::Null));
        assert_eq!(got["BlkioDeviceReadBps"], json!([{"Path": "/dev/a", "Rate": 5}]));
        assert_eq!((&got["BlkioDeviceWriteBps"], &got["Ulimits"][0]["Hard"]), (&json!([]), &json!(-1)));
        assert_eq!(got["Devices"][0]["CgroupPermissions"], "r");
        assert_eq!(got["Devices"][1]["PathInContainer"], "/dev/b");
    }
}
