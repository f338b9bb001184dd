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

#[cfg(target_arch = "x86_64")]
const KEYS: (u32, u32) = (248, 250);
#[cfg(not(target_arch = "x86_64"))]
const KEYS: (u32, u32) = (217, 219);

#[test]
fn the_keys_of_the_callers_session_stay_outside() {
    let b = Bundle::new("cat /proc/keys; exec sleep 1000").with(|c| {
        c["linux"]["maskedPaths"] = json!([]);
    });
    b.write();
    // A session of its own with a key that only who has it can see, then the runner: what an engine's session may hold.
    let (add_key, keyctl) = KEYS;
    let session = format!(
        "my ($type, $name, $data) = ('user', 'davit-secret', 'x'); syscall({keyctl}, 1, 0) >= 0 or die 'join'; \
         my $key = syscall({add_key}, $type, $name, $data, 1, -3); $key >= 0 or die 'add'; \
         syscall({keyctl}, 5, $key, 0x3f000000) >= 0 or die 'setperm'; \
         open(K, '</proc/keys'); print STDERR grep(/davit-secret/, <K>); exec @ARGV"
    );
    let with_key = |args: &[&str]| {
        let runner = b.command(args);
        let mut command = Command::new("perl");
        command.args(["-e", &session]).arg(runner.get_program()).args(runner.get_args()).stdin(Stdio::null());
        command
    };
    let bundle = b.dir.to_str().unwrap().to_owned();
    let out = fs::File::create(b.dir.join("out")).unwrap();
    let created =
        with_key(&["create", "--bundle", &bundle, &b.id]).stdout(out).stderr(Stdio::null()).status();
    assert!(created.unwrap().success());
    b.start();
    b.await_out("keyring");
    assert!(!b.out().contains("davit-secret"), "{}", b.out());
    let exec = with_key(&["exec", &b.id, "cat", "/proc/keys"]).output().unwrap();
    let (shown, noted) = (String::from_utf8_lossy(&exec.stdout), String::from_utf8_lossy(&exec.stderr));
    assert!(noted.contains("davit-secret"), "the key was never there: {noted}");
    assert!(exec.status.success() && shown.contains("keyring") && !shown.contains("davit-secret"), "{shown}");
    b.delete();
}

#[test]
fn descriptors_that_the_caller_left_open_do_not_come_along() {
    let b = Bundle::new("ls /proc/self/fd; echo listed; exec sleep 1000");
    b.write();
    fs::write(b.dir.join("leak"), "").unwrap();
    let leak = format!("exec 3<'{0}/leak' 4<'{0}' 17<'{0}/leak'; exec \"$@\"", b.dir.display());
    let leaky = |args: &[&str]| {
        let runner = b.command(args);
        let mut command = Command::new("bash");
        command
            .args(["-c", &leak, "leaky"])
            .arg(runner.get_program())
            .args(runner.get_args())
            .stdin(Stdio::null());
        command
    };
    let out = fs::File::create(b.dir.join("out")).unwrap();
    let created = leaky(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id])
        .stdout(out)
        .stderr(Stdio::null())
        .status();
    assert!(created.unwrap().success());
    b.start();
    b.await_out("listed");
    let exec = leaky(&["exec", &b.id, "ls", "/proc/self/fd"]).output().unwrap();
    for shown in [b.out().replace("listed\n", ""), String::from_utf8_lossy(&exec.stdout).into_owned()] {
        assert_eq!(shown, "0\n1\n2\n3\n", "3 is the directory that ls lists");
    }
    b.delete();
}

#[test]
fn a_passwd_that_is_a_fifo_or_endless_hangs_nothing() {
    for make in ["mkfifo", "ln -s /dev/zero", "ln -s /proc/self/mem", "truncate -s 1T"] {
        let b = Bundle::new("echo home $HOME").with(|c| c["process"]["env"] = json!(["PATH=/bin"]));
        let made =
            Command::new("sh").args(["-c", &format!("{make} etc/passwd")]).current_dir(b.rootfs()).status();
        assert!(made.unwrap().success());
        assert_eq!(b.says(), "home /\n", "{make}");
    }
}

#[test]
fn mount_targets_that_are_swapped_meanwhile_stay_inside() {
    let b = Bundle::new("true");
    let outside = b.dir.join("outside");
    fs::create_dir_all(&outside).unwrap();
    for dir in ["a/real/one", "a/real/two", "a/real/three"] {
        fs::create_dir_all(b.rootfs().join(dir)).unwrap();
    }
    symlink(&outside, b.rootfs().join("a/link")).unwrap();
    fs::write(b.dir.join("source"), "").unwrap();
    let bind = |to: &str| json!({"destination": to, "type": "bind", "source": "source", "options": ["bind"]});
    // `a/t` is a directory or a way out, and changes all the time.
    let b = b.mount(bind("/a/t/one/file")).mount(bind("/a/t/two/file")).mount(bind("/a/t/file"));
    symlink("real", b.rootfs().join("a/t")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let a = b.rootfs().join("a");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for target in ["link", "real", "../a/link", "../../outside"] {
                    let _ = symlink(target, a.join("new"));
                    let _ = fs::rename(a.join("new"), a.join("t"));
                }
            }
        });
        for _ in 0..40 {
            // Whether it starts is a matter of the moment; where its mounts go is not.
            b.run();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
}

#[test]
fn landlock_leaves_what_it_names() {
    let script = "cat /etc/seen; cat /secret/file || echo denied; echo x > /etc/new || echo read-only; echo x > /tmp/new && echo written";
    let b = Bundle::new(script).with(|c| {
        c["annotations"] = json!({"org.davit.landlock": "ro:/bin,ro:/etc,rw:/tmp,rw:/dev"});
    });
    for dir in ["secret", "tmp"] {
        fs::create_dir_all(b.rootfs().join(dir)).unwrap();
    }
    fs::write(b.rootfs().join("etc/seen"), "seen\n").unwrap();
    fs::write(b.rootfs().join("secret/file"), "secret\n").unwrap();
    let b = b.with(|c| c["process"]["noNewPrivileges"] = json!(true));
    assert_eq!(b.says(), "seen\ndenied\nread-only\nwritten\n");
    let b = b.with(|c| c["process"]["args"] = json!(["sleep", "1000"]));
    b.create();
    b.start();
    let exec = b.output(&["exec", &b.id, "cat", "/secret/file"]);
    assert!(!exec.status.success() && exec.stdout.is_empty(), "an exec is under the same rules");
    b.delete();
    let b = b.with(|c| c["annotations"] = json!({"org.davit.landlock": "ro:/nowhere"}));
    b.write();
    let message = b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]);
    assert!(message.contains("open /nowhere for Landlock"), "{message}");
    b.assert_nothing_left();
}
