//! Limits, devices and ulimits in the words of the OCI specification.

use davit_contracts::runtime::{DeviceRate, Resources};

use super::host::Host;
use super::oci::{
    BlockIo, Cpu, DeviceRule, Memory, Pids, Resources as OciResources, ThrottleDevice, WeightDevice,
};
use crate::error::RuntimeError;

pub mod devices;
mod ulimits;
mod verify;

pub use ulimits::rlimits;
pub use verify::settle;

const CPU_PERIOD: u64 = 100_000;

/// cgroup limits of a container, as far as this host can hold them (see [`settle`]); `rules` are those of extra devices.
pub fn limits(
    asked: Option<&Resources>,
    rules: Vec<DeviceRule>,
    host: &Host,
) -> Result<OciResources, RuntimeError> {
    let settled = asked.map(|r| settle(r, host)).transpose()?.map(|(r, _)| r).unwrap_or_default();
    let mut out = changes(&settled)?;
    if !host.rootless {
        out.devices = devices::default_rules();
        for rule in &settled.device_cgroup_rules {
            out.devices.push(devices::rule_of(rule)?);
        }
        out.devices.extend(rules);
    }
    Ok(out)
}

/// Limits without device rules: what `update` hands to an OCI runtime. `r` is settled.
pub fn changes(r: &Resources) -> Result<OciResources, RuntimeError> {
    let memory = memory(r);
    Ok(OciResources {
        devices: Vec::new(),
        memory: (memory != Memory::default()).then_some(memory),
        cpu: cpu(r),
        pids: (r.pids_limit != 0).then_some(Pids { limit: r.pids_limit }),
        block_io: block_io(r)?,
    })
}

fn memory(r: &Resources) -> Memory {
    Memory {
        limit: (r.memory > 0).then_some(r.memory),
        reservation: (r.memory_reservation > 0).then_some(r.memory_reservation),
        swap: (r.memory_swap != 0).then_some(r.memory_swap),
        swappiness: r.memory_swappiness.and_then(|v| u64::try_from(v).ok()),
        disable_oom_killer: r.oom_kill_disable,
    }
}

fn cpu(r: &Resources) -> Option<Cpu> {
    let mut cpu = Cpu {
        shares: (r.cpu_shares > 0).then_some(r.cpu_shares),
        quota: (r.cpu_quota != 0).then_some(r.cpu_quota),
        period: (r.cpu_period != 0).then_some(r.cpu_period),
        cpus: r.cpuset_cpus.clone(),
        mems: r.cpuset_mems.clone(),
    };
    if r.nano_cpus > 0 {
        cpu.quota = Some(r.nano_cpus / (1_000_000_000 / CPU_PERIOD as i64));
        cpu.period = Some(CPU_PERIOD);
    }
    (cpu != Cpu::default()).then_some(cpu)
}

fn block_io(r: &Resources) -> Result<Option<BlockIo>, RuntimeError> {
    let rates = |of: fn(&DeviceRate) -> u64| -> Result<Vec<ThrottleDevice>, RuntimeError> {
        let asked = r.blkio.iter().filter(|d| of(d) > 0);
        asked
            .map(|d| {
                let (major, minor) = devices::block_number(&d.path)?;
                Ok(ThrottleDevice { major, minor, rate: of(d) })
            })
            .collect()
    };
    let weight_device = r
        .blkio
        .iter()
        .filter(|d| d.weight > 0)
        .map(|d| {
            let (major, minor) = devices::block_number(&d.path)?;
            Ok(WeightDevice { major, minor, weight: d.weight as u16 })
        })
        .collect::<Result<_, RuntimeError>>()?;
    let io = BlockIo {
        weight: (r.blkio_weight > 0).then_some(r.blkio_weight as u16),
        weight_device,
        throttle_read_bps_device: rates(|d| d.read_bps)?,
        throttle_write_bps_device: rates(|d| d.write_bps)?,
        throttle_read_iops_device: rates(|d| d.read_iops)?,
        throttle_write_iops_device: rates(|d| d.write_iops)?,
    };
    Ok((io != BlockIo::default()).then_some(io))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(r: &Resources) -> serde_json::Value {
        serde_json::to_value(limits(Some(r), Vec::new(), &Host::of_tests()).unwrap()).unwrap()
    }

    #[test]
    fn cpus_become_a_quota_and_memory_doubles_as_swap() {
        let r =
            Resources { nano_cpus: 1_500_000_000, memory: 64 << 20, pids_limit: 10, ..Resources::default() };
        let out = of(&r);
        assert_eq!(out["cpu"], serde_json::json!({"quota": 150_000, "period": 100_000}));
        assert_eq!(out["memory"]["swap"], 128 << 20);
        assert_eq!(out["pids"]["limit"], 10);
        assert_eq!(out["devices"][0]["allow"], false);
    }

    #[test]
    fn every_limit_has_its_place() {
        let out = of(&Resources {
            memory: 64 << 20,
            memory_swap: -1,
            memory_reservation: 32 << 20,
            memory_swappiness: Some(0),
            oom_kill_disable: true,
            cpu_shares: 512,
            cpu_quota: -1,
            cpu_period: 50_000,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
            blkio_weight: 300,
            device_cgroup_rules: vec!["c 42:* rw".into()],
            ..Resources::default()
        });
        assert_eq!(
            out["memory"],
            serde_json::json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": -1, "swappiness": 0, "disableOOMKiller": true})
        );
        assert_eq!(
            out["cpu"],
            serde_json::json!({"shares": 512, "quota": -1, "period": 50_000, "cpus": "0-1", "mems": "0"})
        );
        assert_eq!(out["blockIO"], serde_json::json!({"weight": 300}));
        let last = out["devices"].as_array().unwrap().last().unwrap();
        assert_eq!(*last, serde_json::json!({"allow": true, "type": "c", "major": 42, "access": "rw"}));
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        let out = of(&Resources::default());
        assert_eq!(out.as_object().unwrap().keys().collect::<Vec<_>>(), ["devices"]);
    }
}
