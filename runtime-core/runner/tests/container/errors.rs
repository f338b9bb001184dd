//! What is refused, in which words, and that nothing is left then.

use serde_json::json;

use crate::bundle::Bundle;

fn create_fails(b: &Bundle) -> String {
    b.write();
    let message = b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]);
    b.assert_nothing_left();
    message
}

fn with_args(args: &[&str]) -> Bundle {
    Bundle::new("").with(|c| c["process"]["args"] = json!(args))
}

#[test]
fn a_missing_or_unusable_command_is_refused_at_create_in_runcs_words() {
    let message = create_fails(&with_args(&["frob"]));
    assert!(message.ends_with("exec: \"frob\": executable file not found in $PATH"), "{message}");
    let message = create_fails(&with_args(&["/bin/frob"]));
    assert!(message.ends_with("exec: \"/bin/frob\": stat /bin/frob: no such file or directory"), "{message}");
    let b = with_args(&["/etc/plain"]);
    std::fs::write(b.rootfs().join("etc/plain"), "").unwrap();
    let message = create_fails(&b);
    assert!(message.ends_with("exec: \"/etc/plain\": permission denied"), "{message}");
    let message = create_fails(&with_args(&["/etc"]));
    assert!(message.ends_with("is a directory"), "{message}");
}

#[test]
fn a_command_that_only_root_may_run_is_refused_to_a_user() {
    use std::os::unix::fs::PermissionsExt;
    let b = with_args(&["/bin/private"]).with(|c| c["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    std::fs::copy("/bin/busybox", b.rootfs().join("bin/private")).unwrap();
    std::fs::set_permissions(b.rootfs().join("bin/private"), PermissionsExt::from_mode(0o700)).unwrap();
    assert!(create_fails(&b).ends_with("permission denied"));
}

#[test]
fn a_file_that_is_no_program_fails_at_start_and_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let b = with_args(&["/bin/garbage"]);
    std::fs::write(b.rootfs().join("bin/garbage"), "\x7fELFgarbage").unwrap();
    std::fs::set_permissions(b.rootfs().join("bin/garbage"), PermissionsExt::from_mode(0o755)).unwrap();
    b.create();
    let message = b.refused(&["start", &b.id]);
    assert!(message.contains("exec /bin/garbage: exec format error"), "{message}");
    b.delete();
}

#[test]
fn bad_configs_are_named() {
    let cases: [(&str, serde_json::Value, &str); 8] = [
        ("/process/cwd", json!("relative"), "must be an absolute path"),
        ("/process/args", json!([]), "args must not be empty"),
        ("/process/cwd", json!("/bin/sh"), "chdir to cwd"),
        ("/ociVersion", json!("2.0"), "follows version 1"),
        ("/root/path", json!("nowhere"), "no such file or directory"),
        ("/mounts/0/type", json!("frobfs"), "mount frobfs at /proc: no such device"),
        ("/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "unknown rlimit"),
        ("/linux/sysctl", json!({"vm.swappiness": "1"}), "not in a separate kernel namespace"),
    ];
    for (member, value, part) in cases {
        let b = Bundle::new("true").with(|c| {
            if let Some(place) = c.pointer_mut(member) {
                *place = value;
            } else {
                c["linux"]["sysctl"] = value;
            }
        });
        let message = create_fails(&b);
        assert!(message.contains(part), "{member}: {message}");
    }
}

#[test]
fn a_bad_mount_option_is_explained_by_the_kernel() {
    let b = Bundle::new("true")
        .mount(json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["size=frob"]}));
    let message = create_fails(&b);
    assert!(message.contains("mount tmpfs at /x") && message.contains("size"), "{message}");
}

#[test]
fn a_file_bound_to_a_directory_is_explained_and_so_is_the_reverse() {
    for (source, target, words) in [
        ("/etc/passwd", "/etc", "/etc/passwd is a file on the host and /etc is a directory in the container"),
        ("/etc", "/etc/plain", "/etc is a directory on the host and /etc/plain is a file in the container"),
    ] {
        let b = Bundle::new("true").mount(
            json!({"destination": target, "type": "bind", "source": source, "options": ["bind", "ro"]}),
        );
        std::fs::write(b.rootfs().join("etc/plain"), "").unwrap();
        let message = create_fails(&b);
        assert!(message.ends_with(words), "{message}");
    }
}

#[test]
fn a_missing_bundle_or_config_is_named() {
    let b = Bundle::new("true");
    assert!(b.refused(&["create", "--bundle", "/nowhere", "x"]).contains("find the bundle /nowhere"));
    std::fs::write(b.dir.join("config.json"), "{").unwrap();
    let message = b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]);
    assert!(message.contains("cannot parse") && message.contains("config.json"), "{message}");
    for command in ["start", "kill", "pause", "resume", "ps"] {
        assert!(b.refused(&[command, "nobody"]).contains("container does not exist"), "{command}");
    }
}

#[test]
fn systemd_cgroups_are_refused_clearly() {
    let b = Bundle::new("true");
    let message = b.refused(&["--systemd-cgroup", "create", "--bundle", "/x", &b.id]);
    assert!(message.contains("cgroupfs driver"), "{message}");
}
