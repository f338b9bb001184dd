use super::*;

const M: i64 = 1 << 20;

fn refused(r: &Resources) -> String {
    settle(r, &Host::of_tests()).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_is_refused_in_dockers_words() {
    let of = Resources::default;
    for (asked, says) in [
        (Resources { memory: 1, ..of() }, "Minimum memory limit allowed is 6MB"),
        (Resources { memory: 64 * M, memory_swap: 32 * M, ..of() }, "should be larger than memory limit"),
        (Resources { memory_swap: 64 * M, ..of() }, "always set the Memory limit"),
        (Resources { memory_swappiness: Some(101), ..of() }, "valid memory swappiness range is 0-100"),
        (Resources { memory_reservation: 1, ..of() }, "Minimum memory reservation allowed is 6MB"),
        (
            Resources { memory: 8 * M, memory_reservation: 9 * M, ..of() },
            "can not be less than memory reservation",
        ),
        (Resources { nano_cpus: 1, cpu_period: 1000, ..of() }, "Nano CPUs and CPU Period"),
        (Resources { nano_cpus: 1, cpu_quota: 1000, ..of() }, "Nano CPUs and CPU Quota"),
        (Resources { nano_cpus: 3_000_000_000, ..of() }, "from 0.01 to 2.00, as there are only 2 CPUs"),
        (Resources { nano_cpus: 1, ..of() }, "from 0.01 to 2.00"),
        (Resources { cpu_period: 999, ..of() }, "CPU cfs period can not be less"),
        (Resources { cpu_quota: 999, ..of() }, "CPU cfs quota can not be less"),
        (Resources { cpuset_cpus: "0-2".into(), ..of() }, "requested 0-2, available: 0,1"),
        (Resources { cpuset_cpus: "x".into(), ..of() }, "Invalid value x for cpuset cpus"),
        (Resources { cpuset_mems: "1".into(), ..of() }, "Requested memory nodes are not available"),
        (Resources { oom_score_adj: 1001, ..of() }, "[-1000, 1000]"),
        (Resources { blkio_weight: 9, ..of() }, "from 10 to 1000"),
        (
            Resources { device_cgroup_rules: vec!["c 1:3".into()], ..of() },
            "invalid device cgroup format 'c 1:3'",
        ),
        (
            Resources {
                blkio: vec![DeviceRate { path: "/dev/none".into(), read_bps: 1, ..DeviceRate::default() }],
                ..of()
            },
            "/dev/none",
        ),
    ] {
        let e = refused(&asked);
        assert!(e.contains(says), "{says}: {e}");
    }
}

#[test]
fn swap_defaults_to_as_much_as_memory() {
    let swap = |memory, memory_swap| {
        let asked = Resources { memory, memory_swap, ..Resources::default() };
        settle(&asked, &Host::of_tests()).unwrap().0.memory_swap
    };
    assert_eq!(
        (swap(64 * M, 0), swap(64 * M, -1), swap(64 * M, 64 * M), swap(0, 0)),
        (128 * M, -1, 64 * M, 0)
    );
}

#[test]
fn what_the_host_cannot_hold_is_left_out_with_a_warning() {
    let asked = Resources {
        memory: 64 * M,
        memory_reservation: 32 * M,
        memory_swappiness: Some(5),
        oom_kill_disable: true,
        cpu_shares: 5,
        cpu_quota: 5000,
        cpuset_cpus: "7".into(),
        pids_limit: 5,
        blkio_weight: 10,
        oom_score_adj: -500,
        ..Resources::default()
    };
    let host = Host {
        cgroups: Cgroups { cpu_count: 2, ..Cgroups::default() },
        oom_score_min: 0,
        ..Host::of_tests()
    };
    let (left, warnings) = settle(&asked, &host).unwrap();
    assert_eq!(left, Resources { memory_swap: -1, ..Resources::default() });
    assert_eq!(warnings.len(), 10, "{warnings:#?}");
    // nano_cpus alone is refused, as docker does.
    let e = settle(&Resources { nano_cpus: 1_000_000_000, ..Resources::default() }, &host).unwrap_err();
    assert!(e.to_string().contains("CFS"), "{e}");
    let v2 = Host {
        cgroups: Cgroups { unified: true, v1_memory: false, ..Cgroups::of_tests() },
        ..Host::of_tests()
    };
    let (left, warnings) = settle(&Resources { cpuset_cpus: "1".into(), ..asked }, &v2).unwrap();
    assert!(!left.oom_kill_disable && left.memory_swappiness.is_none() && left.pids_limit == 5);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}
