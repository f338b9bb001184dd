//! What a container sees from inside: its own processes, host name, files, user and mounts, and nobody else's.

use davit_tests::Host;

/// Runs a shell script in a fresh container without network.
fn sh(host: &Host, options: &[&str], script: &str) -> davit_tests::Ran {
    let args = [&["run", "--rm", "--net", "none"], options, &["busybox:1", "sh", "-c", script]].concat();
    host.davit(args)
}

#[test]
fn its_program_is_process_1_and_sees_no_process_of_the_host() {
    let host = Host::with_busybox();
    let lone = host.command("sleep").args(["12321"]).start();
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "sh", "-c", "echo $$"]).ok().prints("1");
    sh(&host, &[], "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").ok().says_not("12321").says_not("davit");
    sh(&host, &[], "echo /proc/[0-9]*").ok().prints("/proc/1");
    sh(&host, &[], &format!("kill -0 {}", lone.pid)).exits(1);
    host.sh("pgrep -f 'sleep [1]2321'").ok();
}

#[test]
fn its_host_name_is_its_short_id_or_what_was_asked_for() {
    let host = Host::with_busybox();
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    c.exec(&["hostname"]).ok().prints(&c.id[..12]);
    c.sh("grep -c $(hostname) /etc/hosts; cat /etc/hostname").ok();
    sh(&host, &["--hostname", "ship"], "hostname; cat /etc/hostname").ok().prints("ship\nship");
    assert_ne!(host.sh("hostname").ok().text(), "ship");
}

#[test]
fn its_user_is_root_with_few_capabilities_or_who_was_asked_for() {
    let host = Host::with_busybox();
    sh(&host, &[], "id -u; id -g").ok().prints("0\n0");
    sh(&host, &["-u", "web"], "id -u; id -g; id -Gn").ok().prints("1000\n1000\nweb ships");
    sh(&host, &["-u", "1234:5678"], "id -u; id -g").ok().prints("1234\n5678");
    sh(&host, &["-u", "nobody-here"], "true").exits(125).refused(&["nobody-here"]);
    // docker's default set: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot
    // mknod audit_write setfcap.
    sh(&host, &[], "grep CapEff /proc/self/status").ok().says("00000000a80425fb");
    sh(&host, &["-u", "web"], "grep CapEff /proc/self/status").ok().says("0000000000000000");
    sh(&host, &["--cap-drop", "ALL", "--cap-add", "CHOWN"], "grep CapEff /proc/self/status")
        .ok()
        .says("0000000000000001");
}

#[test]
fn system_calls_that_reach_the_host_are_refused() {
    let host = Host::with_busybox();
    for script in ["mount -t tmpfs none /tmp", "reboot -f", "unshare -m true", "hostname other"] {
        let ran = sh(&host, &[], script);
        assert!(ran.code != 0, "{ran}");
    }
    // busybox's date ends with 0 all the same.
    sh(&host, &[], "date -s 2001-01-01 2>&1").says("Operation not permitted");
    sh(&host, &[], "echo 1 > /proc/sys/kernel/sysrq; echo $?").says_not("0\n");
    sh(&host, &[], "cat /proc/kcore 2>/dev/null | wc -c").prints("0");
    sh(&host, &[], "ls /sys/firmware | wc -l").prints("0");
    sh(&host, &[], "touch /sys/x; echo b > /proc/sysrq-trigger; true").ok();
    sh(&host, &[], "grep Seccomp: /proc/self/status").ok().says("2");
}

#[test]
fn its_mounts_are_its_own() {
    let host = Host::with_busybox();
    let before = host.inventory();
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    let mounts = c.exec(&["cat", "/proc/mounts"]).ok();
    assert!(
        [" / overlay ", " / fuse.davit-cowfs "].iter().any(|m| mounts.stdout.contains(m)),
        "no root in {mounts}"
    );
    for mount in [" /proc proc ", " /dev tmpfs ", " /dev/pts devpts ", " /dev/shm tmpfs ", " /sys sysfs "] {
        assert!(mounts.stdout.contains(mount), "no {mount:?} in {mounts}");
    }
    let other = mounts.stdout.lines().filter(|l| l.contains(&*host.path().to_string_lossy()));
    for line in other {
        // Only overlay's own options and the files that davit binds may name directories of the host.
        assert!(line.starts_with("overlay / ") || line.contains(" /etc/"), "{line}");
    }
    let mounted: Vec<_> =
        host.inventory().beyond(&before).into_iter().filter(|t| t.starts_with("mount ")).collect();
    assert_eq!(mounted, Vec::<String>::new(), "no mount of a container is visible on the host");
    c.sh("ls /dev | tr '\\n' ' '")
        .ok()
        .says("null")
        .says("zero")
        .says("urandom")
        .says("tty")
        .says("ptmx")
        .says_not("vda");
}

#[test]
fn written_files_do_not_reach_the_image() {
    let host = Host::with_busybox();
    sh(&host, &[], "echo changed > /var/www/index.html; rm /etc/plain; mkdir /new; echo done")
        .ok()
        .prints("done");
    sh(&host, &[], "cat /var/www/index.html; ls /etc/plain; ls -d /new")
        .exits(1)
        .says("hello from busybox")
        .says("/etc/plain");
}

#[test]
fn two_containers_of_one_image_do_not_see_each_others_files() {
    let host = Host::with_busybox();
    let a = host.run_detached("a", &["--net", "none", "busybox:1", "sleep", "1000"]);
    let b = host.run_detached("b", &["--net", "none", "busybox:1", "sleep", "1000"]);
    a.sh("echo a > /mine; echo a > /var/www/index.html; echo shm > /dev/shm/x; echo tmp > /tmp/x").ok();
    b.sh("ls /mine /dev/shm/x /tmp/x").exits(1);
    b.sh("cat /var/www/index.html").ok().prints("hello from busybox");
    a.sh("cat /mine /var/www/index.html").ok().prints("a\na");
}

#[test]
fn files_outlive_a_stop_but_not_the_container() {
    let host = Host::with_busybox();
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    c.sh("echo kept > /kept").ok();
    host.davit(["kill", "c"]).ok();
    host.davit(["wait", "c"]).ok();
    host.davit(["start", "c"]).ok();
    c.exec(&["cat", "/kept"]).ok().prints("kept");
    c.remove();
    let c = host.run_detached("c", &["--net", "none", "busybox:1", "sleep", "1000"]);
    c.exec(&["cat", "/kept"]).exits(1);
}

#[test]
fn environment_and_directory_are_what_was_asked_for() {
    let host = Host::with_busybox();
    sh(&host, &["-e", "A=one two", "-e", "EMPTY="], "echo \"$A|$EMPTY|$HOME\"").ok().prints("one two||/root");
    sh(&host, &["-u", "web"], "echo $HOME").ok().prints("/home/web");
    sh(&host, &[], "echo $PATH").ok().says("/usr/bin");
    let words = ["run", "--rm", "--net", "none", "-e", "TAKEN", "busybox:1", "sh", "-c", "echo $TAKEN"];
    host.command("davit").args(words).env("TAKEN", "from here").start().wait().ok().prints("from here");
    sh(&host, &["-w", "/var/www"], "pwd").ok().prints("/var/www");
    sh(&host, &["-w", "/made/for/this"], "pwd").ok().prints("/made/for/this");
}

#[test]
fn a_bound_directory_is_shared_and_ro_is_kept() {
    let host = Host::with_busybox();
    let dir = host.work("shared");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("from-host"), "host\n").unwrap();
    let path = dir.to_string_lossy().into_owned();
    sh(
        &host,
        &["-v", &format!("{path}:/shared")],
        "cat /shared/from-host; echo inside > /shared/from-inside",
    )
    .ok()
    .prints("host");
    assert_eq!(std::fs::read_to_string(dir.join("from-inside")).unwrap(), "inside\n");
    sh(&host, &["-v", &format!("{path}:/shared:ro")], "cat /shared/from-host; touch /shared/x")
        .exits(1)
        .says("host");
    assert!(!dir.join("x").exists());
    sh(&host, &["-v", &format!("{path}/from-host:/etc/one-file:ro")], "cat /etc/one-file")
        .ok()
        .prints("host");
    let made = format!("{path}/made/here");
    sh(&host, &["-v", &format!("{made}:/made")], "touch /made/it").ok();
    assert!(std::path::Path::new(&made).join("it").exists(), "-v makes a missing directory");
}

#[test]
fn a_read_only_container_writes_only_where_it_is_told_to() {
    let host = Host::with_busybox();
    sh(&host, &["--read-only"], "touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo shm")
        .ok()
        .prints("refused\nshm");
    sh(&host, &["--read-only", "--tmpfs", "/tmp"], "touch /tmp/x && echo written").ok().prints("written");
}

#[test]
fn an_entrypoint_replaces_the_images() {
    let host = Host::with_busybox();
    let run = |words: &[&str]| host.davit(["run", "--rm", "--net", "none"].iter().chain(words));
    run(&["--entrypoint", "echo", "busybox:1", "a", "b"]).ok().prints("a b");
    run(&["--entrypoint", "/bin/pwd", "busybox:1"]).ok().prints("/");
}

#[test]
fn a_memory_limit_holds() {
    let host = Host::with_busybox();
    let c = host.run_detached(
        "c",
        &["--net", "none", "-m", "64m", "--pids-limit", "20", "busybox:1", "sleep", "1000"],
    );
    let file = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    c.sh(file).says("67108864");
    c.sh("i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done 2>&1").says("fork");
    host.sh("find /sys/fs/cgroup -type d").ok().says(&c.id);
}

#[test]
fn other_oci_runtimes_can_be_used() {
    let host = Host::with_busybox();
    for runtime in ["runc", "/usr/sbin/runc"] {
        sh(&host, &["--runtime", runtime], "echo $$ on $(cat /proc/1/comm)").ok().prints("1 on sh");
    }
    sh(&host, &["--runtime", "/no/such/runtime"], "true").exits(125).refused(&["/no/such/runtime"]);
}
