//! Programs that try to get out of their container. docs/semantics/security.md says what stops each.
//!
//! Where it can be done without harm, the same attempt is made with the protection switched off, and must succeed: so it is known to be one.

use std::fs;

use davit_tests::{Container, Host, eventually};

/// A host whose image `attack` has busybox and perl, which can make any system call.
fn host() -> Host {
    let host = Host::new();
    host.davit(["image", "from-host", "-t", "attack", "/bin/busybox", "/usr/bin/perl", "/bin/sh"]).ok();
    host
}

fn run(host: &Host, options: &[&str], script: &str) -> davit_tests::Ran {
    host.davit(
        [&["run", "--rm", "--net", "none"], options, &["attack", "busybox", "sh", "-c", script]].concat(),
    )
}

fn victim<'a>(host: &'a Host, name: &str, options: &[&str]) -> Container<'a> {
    host.run_detached(name, &[&["--net", "none"], options, &["attack", "busybox", "sleep", "1000"]].concat())
}

/// Opened for writing and nothing written: the host survives also when the attempt succeeds.
const WRITE: &str = r#"for f in /proc/sys/kernel/core_pattern /proc/sys/vm/overcommit_memory /proc/sysrq-trigger /proc/irq/default_smp_affinity \
    $(busybox find /sys/kernel/mm /sys/module -maxdepth 3 -type f -perm -200 2>/dev/null | busybox head -3) /sys/kernel/uevent_helper \
    $(busybox find /sys/fs/cgroup -name cgroup.procs) $(busybox find /sys/fs/cgroup -name notify_on_release)
    do [ -e $f ] && if (exec 3>>$f) 2>/dev/null; then echo "OPEN $f"; else echo "kept $f"; fi; done; true"#;

#[test]
fn files_of_the_kernel_are_neither_written_nor_read() {
    let host = host();
    let kept = run(&host, &[], WRITE).ok();
    assert!(kept.stdout.lines().count() > 6 && !kept.stdout.contains("OPEN"), "{kept}");
    let open = run(&host, &["--privileged"], WRITE).ok();
    let lines = open.stdout.lines().count();
    assert!(
        open.stdout.matches("OPEN").count() + 2 >= lines,
        "a privileged container opens (nearly) all of them: {open}"
    );
    assert!(
        open.says("OPEN /proc/sys/kernel/core_pattern").says("OPEN /proc/irq/default_smp_affinity").code == 0
    );
    let read = "for f in kcore keys timer_list interrupts; do busybox head -c 1 /proc/$f 2>/dev/null | busybox wc -c; done; busybox ls /sys/firmware 2>/dev/null | busybox wc -l";
    let shown = run(&host, &[], read).ok();
    assert!(shown.stdout.split_whitespace().all(|n| n == "0"), "{shown}");
    run(&host, &["--security-opt", "unmask=ALL"], read).ok().says("1");
}

/// Numbers of x86_64 and of the generic table.
#[cfg(target_arch = "x86_64")]
const CALLS: &str = "mount 165 umount2 166 unshare 272 setns 308 keyctl 250 add_key 248 request_key 249 bpf 321 perf_event_open 298 kexec_load 246 \
    init_module 175 io_uring_setup 425 userfaultfd 323 open_by_handle_at 304 move_mount 429 fsopen 430 open_tree 428 pivot_root 155 reboot 169 \
    swapon 167 acct 163 settimeofday 164 iopl 172 quotactl 179 lookup_dcookie 212 process_madvise 440 pidfd_getfd 438 clone3 435";
#[cfg(not(target_arch = "x86_64"))]
const CALLS: &str = "mount 40 umount2 39 unshare 97 setns 268 keyctl 219 add_key 217 request_key 218 bpf 280 perf_event_open 241 kexec_load 104 \
    init_module 105 io_uring_setup 425 userfaultfd 282 open_by_handle_at 265 move_mount 429 fsopen 430 open_tree 428 pivot_root 41 reboot 142 \
    swapon 224 acct 89 settimeofday 170 quotactl 60 process_madvise 440 pidfd_getfd 438 clone3 435";

#[test]
fn system_calls_that_reach_beyond_the_container_are_refused() {
    let host = host();
    // Arguments that no call accepts: whoever gets beyond the filter sees another error than EPERM (1) or, for clone3, ENOSYS (38).
    let script = format!(
        "perl -e '%c = qw({CALLS}); for (sort keys %c) {{ syscall($c{{$_}}, -1, -1, -1, -1, -1); print \"$_ \", $!+0, \"\\n\" }}'"
    );
    let ran = run(&host, &[], &script).ok();
    assert!(ran.stdout.lines().count() > 25, "{ran}");
    for line in ran.stdout.lines() {
        let want = if line.starts_with("clone3") {
            "clone3 38".to_owned()
        } else {
            format!("{} 1", line.split(' ').next().unwrap())
        };
        assert_eq!(line, want, "{ran}");
    }
    let open = run(&host, &["--security-opt", "seccomp=unconfined"], &script).ok();
    assert!(open.stdout.lines().filter(|l| !l.ends_with(" 1")).count() > 8, "{open}");
    // Mounts: neither new ones, nor the masks and read-only ones taken away, also by root of the container with the calls allowed.
    let mounts = "busybox mount -t tmpfs x /tmp; busybox umount /proc/sys; busybox mount -o remount,rw,bind /proc/sys; busybox mount -o remount,rw /sys; \
        (exec 3>>/proc/sys/kernel/core_pattern) && echo OPEN; busybox unshare -Ur busybox sh -c 'busybox umount /proc/sys && echo OPEN'; true";
    run(&host, &["--security-opt", "seccomp=unconfined"], mounts).ok().says_not("OPEN");
    run(
        &host,
        &["--cap-add", "SYS_ADMIN"],
        "busybox umount /proc/sys && (exec 3>>/proc/sys/kernel/core_pattern) && echo OPEN",
    )
    .ok()
    .says("OPEN");
}

#[test]
fn neighbours_and_the_host_are_out_of_reach() {
    let host = host();
    let neighbour = victim(&host, "neighbour", &[]);
    let pid = neighbour.inspect(&["State", "Pid"]).as_i64().unwrap();
    // ptrace(PTRACE_ATTACH): of another pid namespace there is no process; of the host's, with its pids in sight, no right.
    let attach = |pid: i64| {
        format!(
            "perl -e 'print syscall({}, 16, {pid}, 0, 0), q( ), $!+0'",
            if cfg!(target_arch = "x86_64") { 101 } else { 117 }
        )
    };
    run(&host, &[], &attach(pid)).ok().prints("-1 3");
    let monitor = neighbour.inspect(&["MonitorPid"]).as_i64().unwrap();
    run(&host, &["--pid", "host"], &attach(monitor)).ok().prints("-1 1");
    run(
        &host,
        &["--pid", "host"],
        &format!("busybox ls /proc/{monitor}/root/ 2>&1; busybox cat /proc/{monitor}/environ 2>&1"),
    )
    .says("ermission denied");
    let seen = format!("busybox ls /proc/{monitor}/root/ > /dev/null && echo seen");
    run(&host, &["--pid", "host", "--privileged"], &seen).ok().prints("seen");
    // Devices can be made, and not opened.
    let disk = "busybox mknod /disk b 7 0; busybox mknod /mem c 1 1; busybox mknod /kmsg c 1 11; for f in /disk /mem /kmsg; do (exec 3<$f) 2>&1; done";
    let kept = run(&host, &[], disk);
    assert_eq!(kept.stdout.matches("Operation not permitted").count(), 3, "{kept}");
    let allowed = run(&host, &["--device-cgroup-rule", "c 1:11 r", "--device-cgroup-rule", "b 7:* r"], disk);
    assert!(allowed.stdout.matches("Operation not permitted").count() < 3, "{allowed}");
    // The engine's sockets and directories are not there, and a bind of one that is not there is refused.
    run(&host, &[], "busybox ls -d /run/davit /var/run/docker.sock /var/lib/davit 2>/dev/null; true")
        .ok()
        .prints("");
    let words = [
        "run",
        "--rm",
        "--net",
        "none",
        "--mount",
        "type=bind,source=/run/docker.sock,target=/run/docker.sock",
        "attack",
        "busybox",
        "true",
    ];
    host.leaves_nothing(|| host.davit(words).exits(125).refused(&["/run/docker.sock"]));
    neighbour.remove();
}

#[test]
fn a_setuid_program_gains_nothing_under_no_new_privileges() {
    let host = host();
    for (options, effective) in [(&[][..], "0"), (&["--security-opt", "no-new-privileges"], "1000")] {
        let c = victim(&host, "c", options);
        c.exec(&["busybox", "sh", "-c", "busybox cp /bin/sh /setuid; busybox chmod 4755 /setuid"]).ok();
        let script = "/setuid -p -c 'busybox grep Uid: /proc/$$/status' | busybox tr '\\t' ' '";
        let ran = host.davit(["exec", "-u", "1000:1000", "c", "busybox", "sh", "-c", script]).ok();
        ran.says(&format!("Uid: 1000 {effective} "));
        c.remove();
    }
}

#[test]
fn nothing_of_the_engine_comes_along_but_three_descriptors() {
    let host = host();
    fs::write(host.work("leak"), "secret").unwrap();
    let leak = format!("exec 3<{0} 4</ 9<{0}; ", host.work("leak").display());
    let list = "attack perl -e 'opendir D, q(/proc/self/fd); print join(q( ), sort grep(/\\d/, readdir D)), qq(\\n)'";
    // The daemons themselves are started with them now. 3 is the directory that is read.
    host.davit(["down"]).ok();
    host.sh(&format!("{leak} davit run --rm --net none {list}")).ok().prints("0 1 2 3");
    host.sh(&format!("{leak} davit run -i --rm --net none {list} < /dev/null")).ok().prints("0 1 2 3");
    host.sh(&format!("{leak} davit run -d --name c --net none attack busybox sleep 1000 > /dev/null")).ok();
    host.sh("ls /proc/$(davit inspect -f '{{.State.Pid}}' c)/fd | tr '\\n' ' '").ok().prints("0 1 2");
    let list = list.replacen("attack", "c", 1);
    host.sh(&format!("{leak} davit exec {list}")).ok().prints("0 1 2 3");
    host.sh(&format!("{leak} davit exec -i {list} < /dev/null")).ok().prints("0 1 2 3");
    // A terminal is the container's own, never the person's: nothing can be typed into the shell outside (TIOCSTI).
    let mut terminal = host.terminal(24, 80, ["exec", "-it", "c", "busybox", "sh"]);
    terminal.shows("# ");
    terminal.types(
        "busybox readlink /proc/self/fd/0 | busybox sed s/^/at:/; busybox mount | busybox grep -c devpts\n",
    );
    terminal.shows("at:/dev/pts/");
    terminal.types("perl -e 'ioctl(STDIN, 0x5412, $_) for split //, qq(touch /typed\\n)'; exit\n");
    terminal.exit_code();
    assert!(host.sh("test -e /typed").code != 0);
}

/// Keeps every foreign executable that it sees open, and then tries to write to it.
const WATCHER: &str = r#"my (%seen, @kept); $| = 1; print "watching\n";
    while (1) {
        opendir my $d, "/proc";
        for (map "/proc/$_/exe", grep /^\d+$/, readdir $d) {
            my $to = readlink or next; next if $to =~ m{^/(usr/)?bin/}; my $f; open($f, "<", $_) or next;
            next if $seen{join ",", (stat $f)[0,1]}++; push @kept, $f; print "kept $to\n";
        }
        for my $f (@kept) {
            my $n = fileno $f; next if $done{$n};
            if (sysopen(my $w, "/proc/self/fd/$n", 1)) { print "WRITABLE\n"; $done{$n} = 1 }
            elsif ($! != 26) { print "refused ", $!+0, "\n"; $done{$n} = 1 } # 26: it still runs
        }
    }"#;

#[test]
fn an_exec_does_not_hand_the_runner_to_the_container() {
    let host = host();
    let hash = || host.sh("sha256sum $(dirname $(command -v davit))/davit-runner").ok().text().to_owned();
    let before = hash();
    // With the right to look at other processes: without it not even the link can be followed.
    let c = host
        .run_detached("c", &["--net", "none", "--cap-add", "SYS_PTRACE", "attack", "perl", "-e", WATCHER]);
    c.logs_until("watching");
    c.exec(&["busybox", "sh", "-c", "echo '#!/proc/self/exe' > /evil; busybox chmod 755 /evil"]).ok();
    eventually("the runner is seen from inside, and written to", || {
        c.exec(&["/evil"]);
        let logs = host.davit(["logs", "c"]).ok();
        let tried = logs.stdout.contains("refused") || logs.stdout.contains("WRITABLE");
        if tried { Ok(()) } else { Err(logs.stdout) }
    });
    host.davit(["logs", "c"]).ok().says_not("WRITABLE");
    assert_eq!(hash(), before);
    c.remove();
}

#[test]
fn an_exec_into_a_hostile_root_ends() {
    let host = host();
    let c = victim(&host, "c", &[]);
    c.exec(&["busybox", "mkdir", "-p", "/etc"]).ok();
    for make in [
        "busybox mkfifo /etc/passwd",
        "busybox ln -s /proc/self/mem /etc/passwd",
        "busybox ln -s /dev/zero /etc/passwd",
        "busybox truncate -s 900g /etc/passwd",
        "busybox mkdir /etc/passwd",
        "busybox ln -s ../../../../../../etc/passwd /etc/passwd",
    ] {
        c.exec(&[
            "busybox",
            "sh",
            "-c",
            &format!("busybox rm -rf /etc/passwd /etc/group; {make}; busybox mkfifo /etc/group"),
        ])
        .ok();
        host.davit(["exec", "-u", "77", "c", "busybox", "grep", "Uid:", "/proc/self/status"]).ok().says("77");
        host.davit(["exec", "-u", "root-of-the-host", "c", "busybox", "true"]).code_is_not_zero();
    }
    // The working directory through a descriptor of the runner, or a link to one.
    for n in 3..20 {
        let dir = format!("/proc/self/fd/{n}");
        host.davit(["exec", "-w", &dir, "c", "busybox", "cat", "../../../../etc/hostname"])
            .code_is_not_zero();
    }
    c.exec(&["busybox", "ln", "-s", "/proc/self/fd/7/../../..", "/way-out"]).ok();
    host.davit(["exec", "-w", "/way-out", "c", "busybox", "pwd"]).code_is_not_zero();
    // Links in place of devices and of what an exec writes to.
    c.exec(&["busybox", "sh", "-c", "for f in console tty ptmx pts/ptmx; do busybox rm -f /dev/$f; busybox ln -s /victim /dev/$f; done; echo same > /victim"]).ok();
    let terminal = host.terminal(
        24,
        80,
        ["exec", "-it", "c", "busybox", "sh", "-c", "busybox tty; busybox cat /victim"],
    );
    terminal.shows("same");
    terminal.exit_code();
    c.remove();
    // A /proc of the image's own making: what is masked and what the runner reads is the real one, or nothing starts.
    let ran = run(&host, &["--tmpfs", "/proc"], "busybox ls /proc");
    assert!(ran.code != 0 || ran.stdout.trim().is_empty(), "{ran}");
}
