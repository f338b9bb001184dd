//! What the program sees.

use serde_json::json;

use crate::bundle::Bundle;

#[test]
fn it_is_pid_1_in_its_own_namespaces_with_exactly_its_mounts() {
    let script =
        "echo pid=$$; hostname; ls -d /proc/[0-9]* | head -3; cat /proc/mounts; readlink /proc/self/ns/net";
    let out = Bundle::new(&script.replace("readlink", "ls -l")).says();
    assert!(out.starts_with("pid=1\nboat\n/proc/1\n"), "{out}");
    let points: Vec<&str> =
        out.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| p.starts_with('/')).collect();
    for want in
        ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/proc/sys"]
    {
        assert!(points.contains(&want), "{want} is not mounted: {points:?}");
    }
    assert!(!out.contains("/tmp/davit-runner"), "the host's mounts are in sight");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!out.contains(own.to_str().unwrap()));
}

#[test]
fn ids_groups_umask_directory_and_environment_are_as_configured() {
    let bundle =
        Bundle::new("id -u; id -g; id -G; umask; pwd; env; touch /tmp/f; stat -c %a /tmp/f").with(|c| {
            c["process"]["user"] =
                json!({"uid": 1234, "gid": 567, "additionalGids": [8, 90], "umask": 0o077});
            c["process"]["cwd"] = json!("/made/here");
            c["process"]["env"] = json!(["PATH=/bin", "A=b c"]);
        });
    std::fs::create_dir(bundle.rootfs().join("tmp")).unwrap();
    std::os::unix::fs::chown(bundle.rootfs().join("tmp"), Some(1234), None).unwrap();
    std::fs::write(bundle.rootfs().join("etc/passwd"), "x:x:1234:567::/home/x:/bin/sh\n").unwrap();
    let out = bundle.says();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..5], ["1234", "567", "567 8 90", "0077", "/made/here"]);
    assert!(lines.contains(&"A=b c") && lines.contains(&"HOME=/home/x") && !out.contains("CARGO"), "{out}");
    assert_eq!(*lines.last().unwrap(), "600");
}

fn status(out: &str, key: &str) -> String {
    let line = out.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("{key} in {out}"));
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn capabilities_are_exactly_those_of_the_config() {
    let five = json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
    });
    let root =
        Bundle::new("cat /proc/self/status").with(|c| c["process"]["capabilities"] = five.clone()).says();
    assert_eq!(
        (status(&root, "CapBnd").as_str(), status(&root, "CapEff").as_str()),
        ("0000000000000021", "0000000000000021")
    );
    assert_eq!(status(&root, "NoNewPrivs"), "1");
    // For a plain user only the ambient set survives exec.
    let user = Bundle::new("cat /proc/self/status").with(|c| {
        c["process"]["capabilities"] = five;
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c["process"]["noNewPrivileges"] = json!(false);
    });
    let user = user.says();
    for (set, want) in
        [("CapInh", 0x20), ("CapPrm", 0x20), ("CapEff", 0x20), ("CapAmb", 0x20), ("CapBnd", 0x21)]
    {
        assert_eq!(u64::from_str_radix(&status(&user, set), 16).unwrap(), want, "{set}");
    }
    assert_eq!(status(&user, "NoNewPrivs"), "0");
    let none = Bundle::new("cat /proc/self/status")
        .with(|c| drop(c["process"].as_object_mut().unwrap().remove("capabilities")));
    assert_eq!(status(&none.says(), "CapBnd"), "0000000000000000");
}

#[test]
fn no_descriptor_but_the_three_standard_ones_is_open() {
    // The shell's own glob holds one more open for a moment: ls through exec does not.
    let bundle = Bundle::new("").with(|c| c["process"]["args"] = json!(["ls", "/proc/self/fd"]));
    // A descriptor that the caller leaks on purpose.
    let leak = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let out = bundle.says();
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]); // 3 is ls's own, on that directory
}

#[test]
fn masked_paths_are_empty_and_read_only_ones_cannot_be_written() {
    let script = "cat /masked/file; ls /maskeddir; echo x > /ro/f || echo denied; echo x > /ro/sub/f || echo denied;
        echo 1 > /proc/sys/kernel/panic || echo denied; cat /proc/kcore | head -c 1; touch /sys/x || echo denied; touch /w && echo written";
    let bundle = Bundle::new(script).with(|c| {
        let masked = c["linux"]["maskedPaths"].as_array_mut().unwrap();
        masked.extend([json!("/masked/file"), json!("/maskeddir"), json!("/not/there")]);
        c["linux"]["readonlyPaths"].as_array_mut().unwrap().extend([json!("/ro"), json!("/nor/this")]);
    });
    for dir in ["masked", "maskeddir", "ro/sub"] {
        std::fs::create_dir_all(bundle.rootfs().join(dir)).unwrap();
    }
    for file in ["masked/file", "maskeddir/secret"] {
        std::fs::write(bundle.rootfs().join(file), "secret").unwrap();
    }
    let (code, out, err) = bundle.run();
    assert_eq!((code, out.as_str()), (0, "denied\ndenied\ndenied\ndenied\nwritten\n"), "{err}");
}

#[test]
fn a_read_only_root_cannot_be_written_but_its_mounts_can() {
    let bundle = Bundle::new("touch /f || echo denied; touch /data/f && touch /dev/shm/f && echo written")
        .with(|c| c["root"]["readonly"] = json!(true));
    let source = bundle.dir.join("data");
    std::fs::create_dir(&source).unwrap();
    let bundle = bundle
        .mount(json!({"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "rw"]}));
    assert_eq!(bundle.says(), "denied\nwritten\n");
    assert!(source.join("f").exists() && bundle.rootfs().join("data").is_dir());
}

#[test]
fn bind_mounts_take_files_options_and_what_lies_below() {
    let script = "cat /etc/hosts; echo x >> /etc/hosts || echo denied; grep -c nosuid,nodev,noexec,noatime /proc/mounts;
        touch /new/deep/x || echo denied; cat /tmpfs/kept; touch /tmpfs/f && echo written";
    let bundle = Bundle::new(script);
    std::fs::write(bundle.dir.join("hosts"), "127.0.0.1 boat\n").unwrap();
    std::fs::create_dir_all(bundle.rootfs().join("tmpfs")).unwrap();
    std::fs::write(bundle.rootfs().join("tmpfs/kept"), "copied up\n").unwrap();
    let bundle = bundle
        .mount(json!({"destination": "/etc/hosts", "type": "none", "source": "hosts", "options": ["bind", "ro"]}))
        .mount(json!({"destination": "/opts", "type": "bind", "source": "hosts", "options": ["nosuid", "nodev", "noexec", "noatime"]}))
        .mount(json!({"destination": "/new", "type": "bind", "source": "/sys", "options": ["rbind", "rro"]}))
        .mount(json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}));
    let (code, out, err) = bundle.run();
    assert_eq!((code, out.as_str()), (0, "127.0.0.1 boat\ndenied\n1\ndenied\ncopied up\nwritten\n"), "{err}");
    assert!(!bundle.rootfs().join("tmpfs/f").exists());
}

#[test]
fn default_devices_work_and_others_can_be_given() {
    let script = "echo x > /dev/null && head -c 2 /dev/zero | cat -v && head -c1 /dev/urandom > /dev/null && echo x > /dev/full || echo full;
        ls -l /dev/ptmx /dev/stdin; stat -c '%a %u %t:%T' /dev/extra; cat /dev/extra || echo denied";
    let bundle = Bundle::new(script).with(|c| {
        c["linux"]["devices"] = json!([{"type": "c", "path": "/dev/extra", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 7, "gid": 8}]);
    });
    let (_, out, err) = bundle.run();
    assert!(out.contains("^@^@full") && out.contains("/dev/ptmx -> pts/ptmx"), "{out}{err}");
    // /dev/kmsg is there but not among the allowed devices.
    assert!(out.contains("640 7 1:b") && out.ends_with("denied\n"), "{out}{err}");
}

#[test]
fn names_sysctls_and_limits_are_set() {
    let script = "cat /proc/sys/kernel/domainname /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward; ulimit -n; ulimit -Hn;
        cat /proc/self/oom_score_adj; cat /sys/class/net/lo/flags";
    let out = Bundle::new(script).with(|c| {
        c["domainname"] = json!("fleet");
        c["linux"]["sysctl"] = json!({"kernel.shmmni": "123", "net.ipv4.ip_forward": "1"});
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 300}]);
        c["process"]["oomScoreAdj"] = json!(77);
    });
    let out = out.says();
    assert_eq!(out.lines().collect::<Vec<_>>(), ["fleet", "123", "1", "200", "300", "77", "0x9"]);
}

#[test]
fn hard_limits_that_cannot_be_raised_are_capped() {
    let out = Bundle::new("ulimit -Hn").with(|c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 100_000_000}]);
    });
    let granted: u64 = out.says().trim().parse().unwrap();
    assert!(granted >= 1024);
}

#[test]
fn the_cgroup_mount_shows_only_its_own_groups_read_only() {
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/pids.current /sys/fs/cgroup/pids.current; mkdir /sys/fs/cgroup/pids/x || echo denied";
    let bundle = Bundle::new(script).with(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        assert!(namespaces.iter().any(|n| n["type"] == "cgroup"));
    });
    let (_, out, err) = bundle.run();
    assert!(
        out.lines().any(|l| l.contains("pids:/") && l.ends_with(":/")) || out.contains("0::/\n"),
        "{out}"
    );
    assert!(out.ends_with("denied\n") && out.contains("\n2\n"), "{out}{err}");
}
