//! Filters in force.

use serde_json::json;

use crate::bundle::Bundle;

fn with_filter(script: &str, no_new_privileges: bool) -> Bundle {
    Bundle::new(script).with(|c| {
        c["process"]["noNewPrivileges"] = json!(no_new_privileges);
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}
            ]
        });
    })
}

#[test]
fn calls_fail_as_the_profile_says_with_and_without_no_new_privs() {
    for no_new_privileges in [true, false] {
        let b = with_filter(
            "grep Seccomp: /proc/self/status; grep NoNew /proc/self/status; mkdir /x; echo done",
            no_new_privileges,
        );
        std::os::unix::fs::symlink("busybox", b.rootfs().join("bin/mkdir")).unwrap();
        let (code, out, err) = b.run();
        let nnp = u8::from(no_new_privileges);
        assert_eq!((code, out), (0, format!("Seccomp:\t2\nNoNewPrivs:\t{nnp}\ndone\n")), "{err}");
        assert!(err.contains("No space left on device"), "{err}");
    }
}

#[test]
fn a_killing_rule_kills_and_exec_has_the_same_filter() {
    let b = with_filter("exec sleep 1000", true);
    b.create();
    b.start();
    assert_eq!(b.output(&["exec", &b.id, "hostname", "x"]).status.code(), Some(128 + libc::SIGSYS));
    assert!(b.ok(&["exec", &b.id, "grep", "Seccomp:", "/proc/self/status"]).contains('2'));
    b.delete();
}

#[test]
fn a_plain_user_gets_the_filter_without_no_new_privs() {
    let b = with_filter("grep Seccomp: /proc/self/status; grep CapPrm /proc/self/status", false).with(|c| {
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    assert_eq!(b.says(), "Seccomp:\t2\nCapPrm:\t0000000000000000\n");
}

#[test]
fn an_unknown_action_is_refused() {
    let b = Bundle::new("true")
        .with(|c| c["linux"]["seccomp"] = json!({"defaultAction": "FROB", "syscalls": []}));
    b.write();
    let message = b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]);
    assert!(message.contains("unknown action \"FROB\""), "{message}");
    b.assert_nothing_left();
}
