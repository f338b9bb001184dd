//! Limits and devices: what was asked for is in force, what cannot be is refused in docker's words.

use std::collections::BTreeMap;

use davit_tests::Host;

/// Files of the container's cgroups, v1 and v2, and what must be in them.
const FILES: [(&str, &str, &str, &str); 12] = [
    ("memory/memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
    ("memory/memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432"),
    ("memory/memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"),
    ("memory/memory.swappiness", "5", "", ""),
    ("cpu/cpu.shares", "200", "cpu.weight", "8"),
    ("cpu/cpu.cfs_quota_us", "20000", "cpu.max", "20000 50000"),
    ("cpu/cpu.cfs_period_us", "50000", "", ""),
    ("cpuset/cpuset.cpus", "0", "cpuset.cpus", "0"),
    ("cpuset/cpuset.mems", "0", "cpuset.mems", "0"),
    ("pids/pids.max", "50", "pids.max", "50"),
    ("blkio/blkio.throttle.read_bps_device", "1048576", "io.max", "rbps=1048576"),
    ("blkio/blkio.throttle.write_iops_device", "7", "io.max", "wiops=7"),
];

#[test]
fn what_was_asked_for_is_in_the_cgroups_and_in_inspect() {
    let host = Host::with_busybox();
    // Any disk will do, and only a whole one: a partition has no rates.
    let disk = host
        .sh("for d in /sys/block/*; do n=/dev/${d##*/}; [ -b $n ] && echo $n && break; done")
        .ok()
        .text()
        .to_owned();
    let (read, write) = (format!("{disk}:1mb"), format!("{disk}:7"));
    let flags = [
        "-m",
        "64m",
        "--memory-swap",
        "96m",
        "--memory-reservation",
        "32m",
        "--memory-swappiness",
        "5",
        "-c",
        "200",
        "--cpu-quota",
        "20000",
        "--cpu-period",
        "50000",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "--pids-limit",
        "50",
        "--device-read-bps",
        &read,
        "--device-write-iops",
        &write,
        "--oom-score-adj",
        "321",
        "--shm-size",
        "2m",
        "--cgroup-parent",
        "/davit-of-mine",
        "--device",
        "/dev/fuse:/dev/mine:r",
        "--device-cgroup-rule",
        "c 10:229 w",
        "--kernel-memory",
        "50m",
        "--net",
        "none",
    ];
    let c = host.run_detached("c", &[&flags[..], &["busybox:1", "sleep", "1000"]].concat());
    let unified = host.sh("test -e /sys/fs/cgroup/cgroup.controllers").code == 0;
    for (v1, v1_value, v2, v2_value) in FILES {
        let (file, value) = if unified { (v2, v2_value) } else { (v1, v1_value) };
        if !file.is_empty() {
            c.exec(&["cat", &format!("/sys/fs/cgroup/{file}")]).ok().says(value);
        }
    }
    host.sh("find /sys/fs/cgroup -type d -path '*davit-of-mine*'").ok().says(&c.id);
    c.sh("cat /proc/1/oom_score_adj; df -k /dev/shm | tail -1").ok().says("321").says("2048");
    // Reading is --device's, writing the rule's.
    c.sh("exec 3<>/dev/mine && echo both").ok().prints("both");
    c.sh("mknod /tmp/tun c 10 200; (exec 3</tmp/tun) 2>&1").says("not permitted");
    is_shown(&c);
    c.remove();
}

/// The same in docker's fields.
fn is_shown(c: &davit_tests::Container<'_>) {
    let config = c.inspect(&["HostConfig"]);
    let shown = |key: &str| config[key].to_string();
    for (key, value) in [
        ("Memory", "67108864"),
        ("MemorySwap", "100663296"),
        ("MemoryReservation", "33554432"),
        ("MemorySwappiness", "5"),
        ("CpuShares", "200"),
        ("CpuQuota", "20000"),
        ("CpuPeriod", "50000"),
        ("CpusetCpus", "\"0\""),
        ("CpusetMems", "\"0\""),
        ("PidsLimit", "50"),
        ("OomScoreAdj", "321"),
        ("ShmSize", "2097152"),
        ("CgroupParent", "\"/davit-of-mine\""),
        ("DeviceCgroupRules", "[\"c 10:229 w\"]"),
        ("NanoCpus", "0"),
        ("OomKillDisable", "false"),
    ] {
        assert_eq!(shown(key), value, "{key}");
    }
    assert_eq!(config["BlkioDeviceReadBps"][0]["Rate"], 1 << 20);
    assert_eq!(config["Devices"][0]["PathInContainer"], "/dev/mine");
}

#[test]
fn what_cannot_be_is_one_line_and_leaves_nothing() {
    let host = Host::with_busybox();
    let cpus = host.sh("nproc --all").ok().text().to_owned();
    let range = format!("as there are only {cpus} CPUs available");
    let refusals: [(&[&str], &str); 22] = [
        (&["-m", "5m"], "Minimum memory limit allowed is 6MB"),
        (&["--memory-swap", "64m"], "You should always set the Memory limit when using Memoryswap limit"),
        (&["-m", "64m", "--memory-reservation", "65m"], "less than memory reservation limit"),
        (&["--memory-reservation", "1m"], "Minimum memory reservation allowed is 6MB"),
        (&["--memory-swappiness", "101"], "memory swappiness range is 0-100"),
        (&["--cpus", "4096"], &range),
        (&["--cpus", "0.5", "--cpu-quota", "5000"], "Nano CPUs and CPU Quota cannot both be set"),
        (&["--cpus", "0.5", "--cpu-period", "5000"], "Nano CPUs and CPU Period cannot both be set"),
        (&["--cpu-period", "10"], "CPU cfs period can not be less than 1ms"),
        (&["--cpu-quota", "10"], "CPU cfs quota can not be less than 1ms"),
        (&["--cpuset-cpus", "4095"], "Requested CPUs are not available - requested 4095, available: 0"),
        (&["--cpuset-cpus", "0,x"], "Invalid value 0,x for cpuset cpus"),
        (&["--cpuset-mems", "77"], "Requested memory nodes are not available"),
        (&["--blkio-weight", "5"], "Range of blkio weight is from 10 to 1000"),
        (&["--device-read-bps", "/dev/nope:1mb"], "/dev/nope"),
        (&["--device-write-iops", "/dev/null:5"], "/dev/null is no block device"),
        (&["--device", "/dev/nope"], "gathering device information while adding custom device \"/dev/nope\""),
        (&["--device", "/dev/null:/dev/x:q"], "bad mode specified: q"),
        (&["--oom-score-adj", "1001"], "range for oom score adj is [-1000, 1000]"),
        (&["--cgroup-parent", "../.."], "invalid --cgroup-parent"),
        (&["--ulimit", "nofile=9:8"], "nofile"),
        (&["--ulimit", "speed=9"], "speed"),
    ];
    host.leaves_nothing(|| {
        for (flags, says) in refusals {
            let words = [&["run", "--rm", "--net", "none"], flags, &["busybox:1", "true"]].concat();
            host.davit(words).exits(125).refused(&[says]);
        }
    });
    // These never reach a daemon.
    for flags in [
        ["--device-read-bps", "sda:1mb"],
        ["--device-cgroup-rule", "c 1"],
        ["--blkio-weight-device", "/dev/sda:5"],
    ] {
        let ran = host.davit([&["run"], &flags[..], &["busybox:1", "true"]].concat()).exits(125);
        assert!(ran.stderr.contains("format") || ran.stderr.contains("invalid weight"), "{ran}");
    }
}

/// The names in /proc/PID/limits.
const ROWS: [(&str, &str); 15] = [
    ("core", "Max core file size"),
    ("cpu", "Max cpu time"),
    ("data", "Max data size"),
    ("fsize", "Max file size"),
    ("locks", "Max file locks"),
    ("memlock", "Max locked memory"),
    ("msgqueue", "Max msgqueue size"),
    ("nice", "Max nice priority"),
    ("nofile", "Max open files"),
    ("nproc", "Max processes"),
    ("rss", "Max resident set"),
    ("rtprio", "Max realtime priority"),
    ("rttime", "Max realtime timeout"),
    ("sigpending", "Max pending signals"),
    ("stack", "Max stack size"),
];

fn hard(limits: &str) -> BTreeMap<&str, String> {
    let row = |name: &str| limits.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    ROWS.into_iter()
        .map(|(key, name)| (key, row(name).split_whitespace().nth(1).unwrap_or_default().to_owned()))
        .collect()
}

#[test]
fn every_ulimit_is_as_high_as_the_host_lets_it_be() {
    let host = Host::with_busybox();
    let own = host.sh("cat /proc/self/limits").ok().text().to_owned();
    let mask = host.sh("grep CapEff /proc/self/status | cut -f2").ok().text().to_owned();
    let can_raise = u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 24) != 0;
    let mut flags: Vec<String> = ["run", "--rm", "--net", "none"].map(str::to_owned).to_vec();
    for (name, _) in ROWS {
        flags.extend(["--ulimit".to_owned(), format!("{name}=-1")]);
    }
    flags.extend(["busybox:1", "cat", "/proc/self/limits"].map(str::to_owned));
    let ran = host.davit(&flags).ok();
    let (ours, theirs) = (hard(&own), hard(&ran.stdout));
    for (name, _) in ROWS {
        let most = if can_raise && name != "nofile" { "unlimited" } else { &ours[name] };
        assert!(
            theirs[name] == most || (can_raise && name == "nofile"),
            "{name}: {} and not {most}",
            theirs[name]
        );
        let warned = ran.stderr.matches(&format!("ulimit {name} is capped to")).count();
        assert_eq!(warned, usize::from(theirs[name] != "unlimited"), "{name}: {ran}");
    }
    let low = host.davit([
        "run",
        "--rm",
        "--net",
        "none",
        "--ulimit",
        "core=5:9",
        "busybox:1",
        "cat",
        "/proc/self/limits",
    ]);
    let low = low.ok();
    assert_eq!((hard(&low.stdout)["core"].as_str(), low.stderr.as_str()), ("9", ""));
}
