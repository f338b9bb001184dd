//! `--security-opt`, capabilities, `--privileged`: what each gives and takes.

use std::fs;

use davit_tests::Host;

fn run(host: &Host, options: &[&str], script: &str) -> davit_tests::Ran {
    host.davit([&["run", "--rm", "--net", "none"], options, &["busybox:1", "sh", "-c", script]].concat())
}

fn opt(host: &Host, option: &str, script: &str) -> davit_tests::Ran {
    run(host, &["--security-opt", option], script)
}

const MKDIR_IS_FULL: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                 {"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS", "includes": {"minKernel": "99.0"}}]}"#;

#[test]
fn a_profile_of_ones_own_is_applied_or_refused() {
    let host = Host::with_busybox();
    let file = |name: &str, content: &str| {
        fs::write(host.work(name), content).unwrap();
        format!("seccomp={}", host.work(name).display())
    };
    let mine = file("mine.json", MKDIR_IS_FULL);
    opt(&host, &mine, "mkdir /x 2>&1; sync && mount -t tmpfs x /tmp 2>&1")
        .says("No space left")
        .says("denied");
    run(&host, &["--cap-add", "SYS_ADMIN", "--security-opt", &mine], "mkdir /x && echo made")
        .ok()
        .prints("made");
    run(&host, &["--privileged", "--security-opt", &mine], "mkdir /x && grep Seccomp: /proc/self/status")
        .ok()
        .says("2");
    // The daemon keeps the content: the file may go, and an exec is under the profile too.
    let c = host.run_detached("c", &["--net", "none", "--security-opt", &mine, "busybox:1", "sleep", "1000"]);
    fs::remove_file(host.work("mine.json")).unwrap();
    c.sh("mkdir /x 2>&1").exits(1).says("No space left");
    host.davit(["kill", "c"]).ok();
    host.davit(["wait", "c"]).ok();
    host.davit(["start", "c"]).ok();
    c.sh("mkdir /x 2>&1").exits(1).says("No space left");
    assert!(
        c.inspect(&["HostConfig", "SecurityOpt"])[0].as_str().unwrap().starts_with("seccomp={\"archMap\"")
    );
    c.remove();
    opt(&host, "seccomp=unconfined", "grep Seccomp: /proc/self/status").ok().says("0");
    opt(&host, "seccomp=builtin", "grep Seccomp: /proc/self/status").ok().says("2");
    let bad = [
        ("seccomp=/no/such/file".to_owned(), "opening seccomp profile (/no/such/file) failed"),
        (file("cut.json", "{"), "compacting json for seccomp profile"),
        (
            file("action.json", r#"{"defaultAction": "SCMP_ACT_PERHAPS"}"#),
            "unknown action \"SCMP_ACT_PERHAPS\"",
        ),
        (
            file("shape.json", r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 3}"#),
            "decoding seccomp profile failed",
        ),
        ("frobnicate".to_owned(), "invalid --security-opt: \"frobnicate\""),
        ("frob=x".to_owned(), "invalid --security-opt 2: \"frob=x\""),
        ("label=colour:red".to_owned(), "bad label option \"colour:red\""),
        ("landlock=/etc".to_owned(), "ro:/PATH or rw:/PATH is expected"),
    ];
    host.leaves_nothing(|| {
        for (option, says) in &bad {
            opt(&host, option, "true").exits(125).refused(&[says]);
        }
        opt(&host, "landlock=ro:/no/such", "true").exits(125).refused(&["/no/such for Landlock"]);
        run(&host, &["--runtime", "runc", "--security-opt", "landlock=ro:/"], "true")
            .exits(125)
            .refused(&["runc"]);
        if host.sh("grep -q Y /sys/module/apparmor/parameters/enabled").code != 0 {
            opt(&host, "apparmor=mine", "true").exits(125).refused(&["AppArmor is not enabled"]);
        }
        run(&host, &["--cap-add", "FLY"], "true").exits(125).refused(&["FLY"]);
        run(&host, &["--user", "0", "--group-add", "nobody-here"], "true")
            .exits(125)
            .refused(&["nobody-here"]);
    });
    // Where there is no SELinux its words mean nothing, as docker has it.
    run(
        &host,
        &[
            "--security-opt",
            "label=disable",
            "--security-opt",
            "label:type:x_t",
            "--security-opt",
            "apparmor=unconfined",
        ],
        "true",
    )
    .ok();
}

#[test]
fn privileges_are_given_and_taken_as_asked_for() {
    let host = Host::with_busybox();
    let paths = "grep -c -E '^[^ ]+ (/proc/|/sys/firmware)' /proc/mounts; true";
    let covered = |option: &str| opt(&host, option, paths).ok().text().parse::<u32>().unwrap();
    assert!(covered("no-new-privileges=false") > 5);
    assert_eq!(covered("systempaths=unconfined"), 0);
    assert_eq!(covered("unmask=ALL"), 0);
    opt(&host, "mask=/etc/passwd", "cat /etc/passwd | wc -c").ok().prints("0");
    opt(&host, "unmask=/proc/sys", "grep -c ' /proc/sys ' /proc/mounts; ls / >/dev/null").ok().prints("0");
    let cgroups = "d=$(ls -d /sys/fs/cgroup/pids 2>/dev/null || echo /sys/fs/cgroup); mkdir $d/sub && rmdir $d/sub && echo made";
    opt(&host, "writable-cgroups", cgroups).ok().prints("made");
    run(&host, &[], cgroups).exits(1);
    // Everything, and no mask: but what the host keeps from davit itself.
    let all = host.sh("grep CapBnd /proc/self/status | cut -f2").ok().text().to_owned();
    run(&host, &["--privileged"], "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status")
        .ok()
        .says(&all)
        .says("0");
    run(&host, &["--privileged"], paths).ok().prints("0");
    let devices = "ls -R /dev | grep -v -e pts -e shm -e mqueue | wc -l";
    let count = |options: &[&str]| run(&host, options, devices).ok().text().parse::<u32>().unwrap();
    assert!(count(&["--privileged"]) > count(&[]), "the host's devices");
    run(&host, &["--privileged"], &format!("mount -t tmpfs x /tmp && {cgroups}")).ok().prints("made");
    // Capabilities in docker's spellings.
    let effective = |options: &[&str]| {
        run(&host, options, "grep CapEff /proc/self/status | cut -f2").ok().text().to_owned()
    };
    assert_eq!(
        effective(&["--cap-drop", "all", "--cap-add", "cap_chown", "--cap-add", "Kill"]),
        "0000000000000021"
    );
    assert_eq!(
        effective(&["--cap-add", "ALL", "--cap-drop", "CAP_NET_RAW"]),
        effective(&["--cap-add", "all", "--cap-drop", "net_raw"])
    );
    run(&host, &["-u", "web", "--group-add", "77", "--group-add", "ships"], "id -G").ok().says("77");
    run(&host, &["--tmpfs", "/t:size=64k,mode=1700,exec"], "grep ' /t ' /proc/mounts")
        .ok()
        .says("size=64k")
        .says("mode=1700")
        .says_not("noexec");
    run(&host, &["--tmpfs", "/t"], "grep ' /t ' /proc/mounts")
        .ok()
        .says("noexec")
        .says("nosuid")
        .says("nodev");
}

#[test]
fn landlock_leaves_what_it_names_to_the_program_and_to_execs() {
    let host = Host::with_busybox();
    let rules = "landlock=ro:/,rw:/tmp,rw:/dev,rw:/proc";
    let c = host.run_detached("c", &["--net", "none", "--security-opt", rules, "busybox:1", "sleep", "1000"]);
    c.sh("cat /etc/passwd > /tmp/copy && mkdir /tmp/d && echo written").ok().prints("written");
    for script in
        ["echo x > /etc/new", "mkdir /new", "rm /etc/passwd", "ln /tmp/copy /etc/link", "mv /tmp/copy /etc/"]
    {
        c.sh(script).code_is_not_zero();
    }
    c.sh("grep NoNewPrivs /proc/1/status").ok().says("1");
    c.remove();
    let ran = opt(
        &host,
        "landlock=ro:/bin,ro:/lib,ro:/proc",
        "cat /etc/passwd; cat /proc/version > /dev/null; ls / && echo listed",
    );
    ran.code_is_not_zero().says_not("root:").says_not("listed");
}
