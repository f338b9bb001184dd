//! What `update` changes of a container's limits: the record's next limits, and the OCI object for a running container.

use davit_contracts::runtime::Resources;
use serde_json::{Map, Value, json};

use super::host::Host;
use super::resources;
use crate::error::RuntimeError;

/// One change, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// For the record.
    pub next: Resources,
    /// OCI `resources` with only what changes.
    pub apply: Value,
    /// The same families as they were: what undoes it.
    pub undo: Value,
    /// The new limit of memory, if one was asked for.
    pub memory: Option<u64>,
}

/// Puts `asked` over `old`. Zero and empty leave a limit as it is, -1 lifts it.
pub fn change(old: &Resources, asked: &Resources, host: &Host) -> Result<Change, RuntimeError> {
    let mut next = old.clone();
    cpu(&mut next, asked)?;
    memory(&mut next, old, asked)?;
    set(&mut next.pids_limit, asked.pids_limit);
    if asked.blkio_weight > 0 {
        next.blkio_weight = asked.blkio_weight;
    }
    resources::limits(Some(&next), Vec::new(), host)?;
    Ok(Change {
        apply: object(&next, asked),
        undo: object(old, asked),
        memory: u64::try_from(asked.memory).ok().filter(|m| *m > 0),
        next,
    })
}

/// -1 becomes the record's word for no limit.
fn set(limit: &mut i64, asked: i64) {
    match asked {
        0 => {}
        n => *limit = n.max(0),
    }
}

fn cpu(next: &mut Resources, asked: &Resources) -> Result<(), RuntimeError> {
    let conflict = |text: &str| Err(RuntimeError::Invalid(format!("conflicting options: {text}")));
    if asked.nano_cpus != 0 {
        if asked.cpu_quota != 0 || asked.cpu_period != 0 {
            return conflict("CPUs and a quota or period cannot both be set");
        }
        if next.cpu_quota > 0 || next.cpu_period > 0 {
            return conflict("Nano CPUs cannot be updated as CPU Quota or Period has already been set");
        }
        set(&mut next.nano_cpus, asked.nano_cpus);
    }
    if asked.cpu_quota < 0 {
        (next.nano_cpus, next.cpu_quota) = (0, 0);
    } else if asked.cpu_quota > 0 || asked.cpu_period > 0 {
        if next.nano_cpus > 0 {
            return conflict("CPU Quota or Period cannot be updated as NanoCPUs has already been set");
        }
        if asked.cpu_quota > 0 {
            next.cpu_quota = asked.cpu_quota;
        }
        if asked.cpu_period > 0 {
            next.cpu_period = asked.cpu_period;
        }
    }
    if asked.cpu_shares > 0 {
        next.cpu_shares = asked.cpu_shares;
    }
    for (into, from) in
        [(&mut next.cpuset_cpus, &asked.cpuset_cpus), (&mut next.cpuset_mems, &asked.cpuset_mems)]
    {
        if !from.is_empty() {
            into.clone_from(from);
        }
    }
    Ok(())
}

fn memory(next: &mut Resources, old: &Resources, asked: &Resources) -> Result<(), RuntimeError> {
    set(&mut next.memory_reservation, asked.memory_reservation);
    let swap = swap_of(old);
    match asked.memory {
        0 => {}
        ..=-1 => (next.memory, next.memory_swap) = (0, 0),
        memory => {
            if asked.memory_swap == 0 && swap > 0 && memory > swap {
                return Err(RuntimeError::Invalid(
                    "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
                        .into(),
                ));
            }
            (next.memory, next.memory_swap) = (memory, swap);
        }
    }
    match asked.memory_swap {
        0 => {}
        ..=-1 => next.memory_swap = if next.memory > 0 { -1 } else { 0 },
        swap => next.memory_swap = swap,
    }
    if next.memory_reservation > next.memory && next.memory > 0 {
        return Err(RuntimeError::Invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage".into(),
        ));
    }
    Ok(())
}

/// The limit of memory and swap together, as it holds: docker's default is twice that of memory.
pub fn swap_of(r: &Resources) -> i64 {
    if r.memory_swap == 0 && r.memory > 0 { r.memory.saturating_mul(2) } else { r.memory_swap }
}

/// The families that `asked` touches, with the values of `r`.
fn object(r: &Resources, asked: &Resources) -> Value {
    let lifted = |n: i64| if n > 0 { n } else { -1 };
    let mut out = Map::new();
    if asked.memory != 0 || asked.memory_swap != 0 || asked.memory_reservation != 0 {
        let mut memory = Map::new();
        if asked.memory != 0 || asked.memory_swap != 0 {
            memory.insert("limit".into(), json!(lifted(r.memory)));
            memory.insert("swap".into(), json!(lifted(swap_of(r))));
        }
        if asked.memory_reservation != 0 {
            memory.insert("reservation".into(), json!(lifted(r.memory_reservation)));
        }
        out.insert("memory".into(), memory.into());
    }
    let mut cpu = Map::new();
    if asked.nano_cpus != 0 || asked.cpu_quota != 0 || asked.cpu_period != 0 {
        let (quota, period) = quota(r);
        cpu.insert("quota".into(), json!(quota));
        cpu.insert("period".into(), json!(period));
    }
    if asked.cpu_shares > 0 {
        cpu.insert("shares".into(), json!(if r.cpu_shares > 0 { r.cpu_shares } else { 1024 }));
    }
    for (key, wanted, value) in
        [("cpus", &asked.cpuset_cpus, &r.cpuset_cpus), ("mems", &asked.cpuset_mems, &r.cpuset_mems)]
    {
        if !wanted.is_empty() && !value.is_empty() {
            cpu.insert(key.into(), json!(value));
        }
    }
    if !cpu.is_empty() {
        out.insert("cpu".into(), cpu.into());
    }
    if asked.pids_limit != 0 {
        out.insert("pids".into(), json!({ "limit": lifted(r.pids_limit) }));
    }
    if asked.blkio_weight > 0 && r.blkio_weight > 0 {
        out.insert("blockIO".into(), json!({ "weight": r.blkio_weight }));
    }
    out.into()
}

/// In microseconds; a quota of -1 is none.
fn quota(r: &Resources) -> (i64, u64) {
    if r.nano_cpus > 0 {
        return (r.nano_cpus / 10_000, 100_000);
    }
    let quota = if r.cpu_quota > 0 { r.cpu_quota } else { -1 };
    (quota, if r.cpu_period > 0 { r.cpu_period } else { 100_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: i64 = 1 << 20;

    fn host() -> Host {
        Host::of_tests()
    }

    fn limited() -> Resources {
        Resources { memory: 64 * MB, nano_cpus: 500_000_000, pids_limit: 10, ..Resources::default() }
    }

    #[test]
    fn only_what_is_asked_for_changes() {
        let asked = Resources { pids_limit: 20, cpu_shares: 7, ..Resources::default() };
        let c = change(&limited(), &asked, &host()).unwrap();
        assert_eq!(c.apply, json!({"cpu": {"shares": 7}, "pids": {"limit": 20}}));
        assert_eq!(c.undo, json!({"cpu": {"shares": 1024}, "pids": {"limit": 10}}));
        assert_eq!(c.next, Resources { pids_limit: 20, cpu_shares: 7, ..limited() });
    }

    #[test]
    fn memory_keeps_its_swap_and_minus_one_lifts() {
        let asked = Resources { memory: 100 * MB, ..Resources::default() };
        let c = change(&limited(), &asked, &host()).unwrap();
        assert_eq!(c.apply, json!({"memory": {"limit": 100 * MB, "swap": 128 * MB}}));
        let asked = Resources { memory: -1, pids_limit: -1, cpu_quota: -1, ..Resources::default() };
        let c = change(&limited(), &asked, &host()).unwrap();
        assert_eq!(c.next, Resources::default());
        assert_eq!(c.apply["memory"], json!({"limit": -1, "swap": -1}));
        assert_eq!(c.apply["cpu"]["quota"], -1);
        let asked = Resources { memory_swap: -1, ..Resources::default() };
        assert_eq!(change(&limited(), &asked, &host()).unwrap().apply["memory"]["swap"], -1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let bad = |asked: Resources| change(&limited(), &asked, &host()).unwrap_err().to_string();
        let e = bad(Resources { memory: 200 * MB, ..Resources::default() });
        assert!(e.contains("update the memoryswap at the same time"), "{e}");
        bad(Resources { memory: MB, ..Resources::default() });
        bad(Resources { memory_swap: 10 * MB, ..Resources::default() });
        bad(Resources { memory_reservation: 70 * MB, ..Resources::default() });
        bad(Resources { cpu_quota: 1000, ..Resources::default() });
        bad(Resources { nano_cpus: 1, cpu_period: 1000, ..Resources::default() });
    }
}
