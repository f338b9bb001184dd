//! User namespaces: made by the container, joined by it, and around the runner itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, RUNNER, text};

fn mapped(script: &str) -> Bundle {
    let b = Bundle::new(script).with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
    });
    // Its root must be able to walk to the bundle and to write there.
    Command::new("chown").args(["-R", "200000:200000"]).arg(b.rootfs()).status().unwrap();
    b
}

#[test]
fn root_inside_is_nobody_outside() {
    let b = mapped(
        "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo devices; touch /f && echo written; exec sleep 1000",
    );
    b.create();
    b.start();
    b.await_out("written");
    let out = b.out();
    assert!(out.starts_with("0\n") && out.contains("200000") && out.contains("devices"), "{out}");
    let status = fs::read_to_string(format!("/proc/{}/status", b.pid())).unwrap();
    assert!(status.contains("Uid:\t200000\t200000"), "{status}");
    let out = b.ok(&[
        "exec",
        "--user",
        "7:8",
        &b.id,
        "sh",
        "-c",
        "id -u; id -g; cat /proc/self/uid_map; echo $$; ls -l /proc/self/ns/user",
    ]);
    assert!(out.starts_with("7\n8\n") && out.contains("200000"), "{out}");
    let link = fs::read_link(format!("/proc/{}/ns/user", b.pid())).unwrap();
    assert!(out.contains(link.to_str().unwrap()));
    b.delete();
}

#[test]
fn a_bind_source_that_its_root_cannot_reach_is_bound_all_the_same() {
    let b = mapped("cat /data/f");
    let closed = b.dir.join("closed/data");
    fs::create_dir_all(&closed).unwrap();
    fs::write(closed.join("f"), "reached\n").unwrap();
    fs::set_permissions(b.dir.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    let b = b.mount(
        json!({"destination": "/data", "type": "bind", "source": "closed/data", "options": ["rbind"]}),
    );
    assert_eq!(b.says(), "reached\n");
}

#[test]
fn the_user_namespace_of_another_container_can_be_joined() {
    let first = mapped("exec sleep 1000");
    first.create();
    first.start();
    let path = format!("/proc/{}/ns/user", first.pid());
    let second = Bundle::new("ls -l /proc/self/ns/user; id -u").with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": path}));
    });
    Command::new("chown").args(["-R", "200000:200000"]).arg(second.rootfs()).status().unwrap();
    let out = second.says();
    let link = fs::read_link(&path).unwrap();
    assert!(out.contains(link.to_str().unwrap()) && out.ends_with("0\n"), "{out}");
    first.delete();
}

/// The runner as `nobody`, root of a user namespace that it shares with nothing else: one id mapped, no cgroups, no mknod.
fn as_nobody(b: &Bundle, args: &[&str]) -> (i32, String, String) {
    let state = b.dir.join("state");
    let out = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "--net",
            "--pid",
            "--fork",
        ])
        .arg("--mount-proc")
        .arg("--")
        .arg(RUNNER)
        .arg("--root")
        .arg(&state)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

fn unprivileged(script: &str) -> Bundle {
    let b = Bundle::new(script).with(|c| {
        c["mounts"].as_array_mut().unwrap().iter_mut().for_each(|m| {
            if let Some(options) = m.get_mut("options").and_then(Value::as_array_mut) {
                options.retain(|o| o != "gid=5");
            }
        });
    });
    Command::new("chown").args(["-R", "65534:65534"]).arg(&b.dir).status().unwrap();
    b
}

#[test]
fn a_plain_user_runs_containers_in_its_own_user_namespace() {
    let b = unprivileged(
        "id -u; echo x > /dev/null; ls /dev; hostname; cat /proc/1/comm; touch /f && echo written; exit 6",
    );
    b.write();
    let (code, out, err) = as_nobody(&b, &["run", "--bundle", b.dir.to_str().unwrap(), &b.id]);
    assert_eq!(code, 6, "{out}{err}");
    assert!(
        out.starts_with("0\n")
            && out.contains("\nnull\n")
            && out.contains("\nboat\n")
            && out.ends_with("written\n"),
        "{out}{err}"
    );
    b.assert_nothing_left();
}

#[test]
fn a_plain_user_without_a_namespace_makes_one_of_a_single_id() {
    let b = unprivileged("id -u; cat /proc/self/uid_map; touch /f && echo written").with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 65534, "size": 1}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
    });
    b.write();
    let out = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", RUNNER, "--root"])
        .arg(b.dir.join("state"))
        .args(["run", "--bundle", b.dir.to_str().unwrap(), &b.id])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.starts_with("0\n") && stdout.ends_with("written\n"), "{stdout}");
    b.assert_nothing_left();
}

#[test]
fn a_limit_that_a_plain_user_cannot_have_is_a_clear_error() {
    let b = unprivileged("true").with(|c| c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20}));
    b.write();
    let (code, _, err) = as_nobody(&b, &["run", "--bundle", b.dir.to_str().unwrap(), &b.id]);
    assert_eq!(code, 1);
    assert!(err.contains("cgroup") && err.contains("denied"), "{err}");
    b.assert_nothing_left();
}
