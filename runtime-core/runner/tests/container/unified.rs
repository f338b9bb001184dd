//! A machine with cgroup v2 alone: on a hybrid one made by hiding the v1 mounts in a private mount namespace.

use std::fs;
use std::process::{Command, Stdio};

use crate::bundle::{Bundle, text};

/// Runs a script with $R (the runner on this bundle's state) where /sys/fs/cgroup is the unified hierarchy.
fn on_v2(b: &Bundle, script: &str) -> (i32, String, String) {
    b.write();
    let hide = "set -e
        if [ -d /sys/fs/cgroup/unified ]; then
            mkdir -p \"$D/v2\"; mount --move /sys/fs/cgroup/unified \"$D/v2\"
            for m in $(awk '$3 == \"cgroup\" {print $2}' /proc/self/mounts); do umount $m; done
            mount --bind \"$D/v2\" /sys/fs/cgroup; umount \"$D/v2\"
        fi
        set +e\n";
    let out = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{hide}{script}")])
        .env("D", &b.dir)
        .env("R", format!("{} --root {}/state", crate::bundle::RUNNER, b.dir.display()))
        .env("ID", &b.id)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn the_program_is_born_in_its_cgroup_which_is_all_it_sees() {
    let b = Bundle::new(
        "cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/cgroup.procs; echo 1 > /sys/fs/cgroup/cgroup.freeze || echo denied",
    );
    let (code, out, err) = on_v2(&b, "$R run --bundle $D $ID");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("0::/\n") && out.contains("cgroup.events") && out.contains("\n1\n"), "{out}{err}");
    assert!(out.ends_with("denied\n"), "{out}");
    b.assert_nothing_left();
}

#[test]
fn pause_exec_and_kill_all_work() {
    let b = Bundle::new("sleep 1000 & sleep 1000 & wait");
    let script = "$R create --bundle $D $ID >/dev/null 2>&1 && $R start $ID || exit 1
        $R exec $ID cat /proc/self/cgroup
        $R pause $ID && $R state $ID | grep status && $R resume $ID && $R state $ID | grep status
        $R ps --format json $ID | tr ',' '\\n' | wc -l
        $R kill --all $ID KILL
        while ! $R state $ID | grep -q stopped; do sleep 0.01; done
        $R delete $ID; echo deleted $?";
    let (code, out, err) = on_v2(&b, script);
    let squeezed = out.replace([' ', '"'], "");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        squeezed.contains("0::/\n")
            && squeezed.contains("status:paused")
            && squeezed.contains("status:running"),
        "{out}{err}"
    );
    assert!(squeezed.contains("\n3\n") && squeezed.ends_with("deleted0\n"), "{out}{err}");
    b.assert_nothing_left();
}

#[test]
fn a_limit_whose_controller_is_missing_is_a_clear_error() {
    let b = Bundle::new("true")
        .with(|c| c["linux"]["resources"]["memory"] = serde_json::json!({"limit": 64 << 20}));
    let has_memory =
        fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|c| c.contains("memory"));
    let (code, _, err) = on_v2(&b, "$R run --bundle $D $ID");
    assert_eq!(code == 0, has_memory, "{err}");
    assert!(
        has_memory || err.contains("cannot limit memory.max: this machine has no such cgroup controller"),
        "{err}"
    );
    b.assert_nothing_left();
}

#[test]
fn devices_are_what_a_program_allows_and_update_exchanges_it() {
    // hpet, fuse and the like may be missing: what counts is EPERM (the program) against anything else (the driver).
    let b = Bundle::new("exec sleep 1000").with(|c| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(serde_json::json!("CAP_MKNOD"));
        }
    });
    let script = r#"$R create --bundle $D $ID >/dev/null 2>&1 && $R start $ID || exit 1
        x() { $R exec $ID sh -c "$1" 2>&1; }
        x 'mknod /dev/mine c 10 229; mknod /dev/disk b 254 0; head -c 1 /dev/zero > /dev/null && echo defaults'
        x 'head -c 1 /dev/mine'
        x 'head -c 1 /dev/disk'
        echo '{"devices":[{"allow":false},{"allow":true,"type":"c","major":10,"minor":229,"access":"r"}]}' | $R update --resources - $ID || exit 1
        x 'exec 3< /dev/mine; echo read $?'
        x 'echo > /dev/mine'
        x 'head -c 1 /dev/zero > /dev/null && echo defaults again'
        $R delete --force $ID; echo deleted $?"#;
    let (code, out, err) = on_v2(&b, script);
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.first(), Some(&"defaults"), "{out}{err}");
    assert!(lines[1].contains("not permitted") && lines[2].contains("not permitted"), "{out}{err}");
    let after = &out[out.find("/dev/disk").unwrap()..];
    assert!(after.contains("read 0") || after.contains("No such device"), "{out}{err}");
    assert!(after.contains("/dev/mine: Operation not permitted"), "writing was not allowed: {out}{err}");
    assert!(after.ends_with("defaults again\ndeleted 0\n"), "{out}{err}");
    b.assert_nothing_left();
}

#[test]
fn a_privileged_container_has_no_device_program() {
    let b = Bundle::new(
        "head -c 1 /dev/zero > /dev/null; cat /sys/fs/cgroup/cgroup.procs > /dev/null && echo fine",
    )
    .with(|c| {
        c["linux"]["resources"]["devices"] = serde_json::json!([{"allow": true, "access": "rwm"}]);
    });
    let (code, out, err) = on_v2(&b, "$R run --bundle $D $ID");
    assert_eq!((code, out.as_str()), (0, "fine\n"), "{err}");
}
