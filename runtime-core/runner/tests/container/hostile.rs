//! Images and programs that try to get out.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::bundle::{Bundle, RUNNER};

#[test]
fn mount_targets_behind_links_stay_inside() {
    let b = Bundle::new("cat /inside/file; ls /tmp");
    let outside = b.dir.join("outside");
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, b.rootfs().join("abs")).unwrap();
    symlink("../../../../../..", b.rootfs().join("up")).unwrap();
    symlink("/inside/file", b.rootfs().join("dangling")).unwrap();
    fs::write(b.dir.join("source"), "bound\n").unwrap();
    let bind = |to: &str| json!({"destination": to, "type": "bind", "source": "source", "options": ["bind"]});
    let up = format!("/up{}/escaped", outside.display());
    let b = b.mount(bind("/abs/escaped")).mount(bind(&up)).mount(bind("/dangling"));
    let out = b.says();
    assert!(out.starts_with("bound\n"), "{out}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
}

#[test]
fn a_proc_that_is_a_link_does_not_redirect_masks() {
    let b = Bundle::new("cat /proc/version > /dev/null && echo real");
    symlink("/etc", b.rootfs().join("proc")).unwrap();
    // The link's target is inside the root: /etc gets the mount, and /proc leads there.
    assert_eq!(b.says(), "real\n");
    assert!(fs::metadata("/etc/self").is_err());
}

#[test]
fn a_working_directory_through_a_leaked_descriptor_is_refused() {
    for n in 3..24 {
        let b = Bundle::new("cat /proc/1/root/etc/hostname; pwd; ls ../../../../..").with(|c| {
            c["process"]["cwd"] = json!(format!("/proc/self/fd/{n}"));
        });
        b.write();
        let message = b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]);
        let known = ["outside of the container's root", "chdir to cwd"].iter().any(|k| message.contains(k));
        assert!(known, "{n}: {message}");
        b.assert_nothing_left();
    }
}

#[test]
fn the_runner_cannot_be_overwritten_through_proc_self_exe() {
    // While a container is created its first process is the runner. Whoever keeps that executable open could open it for writing
    // once nobody executes it any more; a copy of its own makes that moment certain.
    let b = Bundle::new("true");
    b.write();
    let runner = b.dir.join("runner");
    fs::copy(RUNNER, &runner).unwrap();
    let state = b.dir.join("state");
    let pid_file = b.dir.join("pid");
    let mut create = Command::new(&runner);
    create
        .arg("--root")
        .arg(&state)
        .args(["create", "--bundle"])
        .arg(&b.dir)
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(&b.id);
    let quiet = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(quiet.status().unwrap().success());
    let kept = fs::File::open(format!("/proc/{}/exe", b.pid())).unwrap();
    b.delete();
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
    let refused = fs::OpenOptions::new().write(true).open(&through).unwrap_err();
    assert!(matches!(refused.raw_os_error(), Some(libc::EROFS | libc::EPERM)), "{refused}");
    // The file itself is an ordinary one: only this way to it is closed.
    fs::OpenOptions::new().write(true).open(&runner).unwrap();
}

#[test]
fn a_program_that_names_the_runner_by_proc_self_exe_gets_nothing_writable() {
    let b = Bundle::new("").with(|c| c["process"]["args"] = json!(["/evil", "--version"]));
    fs::write(b.rootfs().join("evil"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(b.rootfs().join("evil"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    // What matters is that it ends and leaves nothing: it is the runner, without its libraries, in the container.
    b.run();
}

#[test]
fn a_fake_device_in_the_image_is_replaced() {
    let b = Bundle::new("echo x > /dev/null; stat -c %F /dev/null").with(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    });
    fs::create_dir(b.rootfs().join("dev")).unwrap();
    fs::write(b.rootfs().join("dev/null"), "").unwrap();
    assert_eq!(b.says(), "character special file\n");
}

#[test]
fn devices_that_are_not_allowed_cannot_be_opened_though_made() {
    let b = Bundle::new("mknod /dev/disk b 254 0 && cat /dev/disk > /dev/null || echo denied").with(|c| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_MKNOD"));
        }
    });
    let (_, out, err) = b.run();
    assert_eq!(out, "denied\n", "{err}");
    assert!(err.contains("not permitted"), "{err}");
}

#[test]
fn mounts_of_the_container_do_not_reach_the_host_nor_the_reverse() {
    let b = Bundle::new("mount -t tmpfs none /etc && echo mounted").with(|c| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
        }
    });
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    assert_eq!(b.says(), "mounted\n");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), before);
}
