//! Limits: written where they belong, and in force.

use serde_json::json;

use crate::bundle::Bundle;

fn hybrid() -> bool {
    std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
}

#[test]
fn limits_are_written_and_update_changes_them() {
    let b = Bundle::new("exec sleep 1000").with(|c| {
        c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        c["linux"]["resources"]["cpu"] =
            json!({"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0"});
        c["linux"]["resources"]["pids"] = json!({"limit": 50});
    });
    b.create();
    b.start();
    if hybrid() {
        assert_eq!(b.cgroup_file("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(b.cgroup_file("cpu", "cpu.shares"), "512");
        assert_eq!(b.cgroup_file("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), "0");
        assert_eq!(b.cgroup_file("pids", "pids.max"), "50");
        assert_eq!(b.cgroup_file("memory", "cgroup.procs"), b.pid().to_string());
    } else {
        assert_eq!(b.cgroup_file("", "memory.max"), (64 << 20).to_string());
        assert_eq!(b.cgroup_file("", "pids.max"), "50");
    }
    b.ok(&["update", "--memory", "32m", "--pids-limit", "20", "--cpu-share", "256", &b.id]);
    if hybrid() {
        assert_eq!(b.cgroup_file("memory", "memory.limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(
            (b.cgroup_file("pids", "pids.max"), b.cgroup_file("cpu", "cpu.shares")),
            ("20".into(), "256".into())
        );
    } else {
        assert_eq!(b.cgroup_file("", "memory.max"), (32 << 20).to_string());
    }
    b.delete();
}

#[test]
fn update_joins_a_controller_that_was_not_needed_before() {
    let b = Bundle::new("exec sleep 1000");
    b.create();
    b.start();
    b.ok(&["update", "--cpuset-cpus", "0", &b.id]);
    let allowed = std::fs::read_to_string(format!("/proc/{}/status", b.pid())).unwrap();
    assert!(allowed.contains("Cpus_allowed_list:\t0\n"), "{allowed}");
    b.delete();
}

#[test]
fn a_fork_bomb_hits_the_task_limit() {
    let b = Bundle::new("i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done; echo all").with(|c| {
        c["linux"]["resources"]["pids"] = json!({"limit": 10});
    });
    let (code, out, err) = b.run();
    assert!(code != 0 && !out.contains("all") && err.contains("fork"), "{code} {out} {err}");
}

#[test]
fn memory_beyond_the_limit_is_killed() {
    let b = Bundle::new("x=$(head -c 100000000 /dev/zero | cat -v); echo survived").with(|c| {
        c["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    });
    let (code, out, _) = b.run();
    assert!(code != 0 && !out.contains("survived"), "{code} {out}");
}
