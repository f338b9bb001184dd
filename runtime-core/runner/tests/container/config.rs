//! Members of the config that few engines write, and commands that only look.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use crate::bundle::Bundle;

#[test]
fn scheduling_and_personality_are_taken_on() {
    let b = Bundle::new("cut -d' ' -f19 /proc/self/stat; cat /proc/self/personality; exec sleep 1000").with(
        |c| {
            c["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
            c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 4});
            c["linux"]["personality"] = json!({"domain": "LINUX32"});
            c["linux"]["intelRdt"] = json!({"closID": "x"});
        },
    );
    std::os::unix::fs::symlink("busybox", b.rootfs().join("bin/cut")).unwrap();
    b.create();
    b.start();
    b.await_out("00000008");
    assert_eq!(b.out(), "7\n00000008\n");
    let stat = fs::read_to_string(format!("/proc/{}/stat", b.pid())).unwrap();
    // Field 41, counted after the name: the policy.
    assert_eq!(stat.rsplit(") ").next().unwrap().split(' ').nth(38), Some("3"), "{stat}");
    let io = std::process::Command::new("ionice").args(["-p", &b.pid().to_string()]).output().unwrap();
    assert_eq!(crate::bundle::text(&io.stdout).trim(), "idle");
    // A process of exec is bound to its CPUs.
    let process = b.dir.join("process.json");
    let mut p = b.config["process"].clone();
    p["args"] = json!(["grep", "Cpus_allowed_list", "/proc/self/status"]);
    p["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    fs::write(&process, p.to_string()).unwrap();
    let out = b.ok(&["exec", "--process", process.to_str().unwrap(), &b.id]);
    assert!(out.ends_with("\t0\n"), "{out}");
    b.delete();
}

#[test]
fn an_id_mapped_bind_shows_and_stores_owners_through_its_map() {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let source = |b: &Bundle| {
        let dir = b.dir.join("data");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("f"), "").unwrap();
        chown(&dir, Some(0), Some(0)).unwrap();
        chown(dir.join("f"), Some(7), Some(8)).unwrap();
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o711)).unwrap();
        dir
    };
    // A map of its own: what is 7 on disk is shown as 100007.
    let b = Bundle::new("stat -c %u:%g /data/f").mount(json!({
        "destination": "/data", "type": "bind", "source": "data", "options": ["rbind"], "uidMappings": map, "gidMappings": map
    }));
    source(&b);
    assert_eq!(b.says(), "100007:100008\n");
    // The container's: its root is root of the files, and what it writes is stored as root's.
    let b = Bundle::new("stat -c %u:%g /data/f && echo x > /data/new && stat -c %u /data/new").with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map.clone();
    });
    let b = b.mount(
        json!({"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ridmap"]}),
    );
    let dir = source(&b);
    // Nobody but root may walk to the bundle: the runner brings the root there all the same.
    std::process::Command::new("chown").args(["-R", "100000:100000"]).arg(b.rootfs()).status().unwrap();
    fs::set_permissions(&b.dir, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(b.says(), "7:8\n0\n");
    assert_eq!(fs::metadata(dir.join("new")).unwrap().uid(), 0);
}

#[test]
fn what_is_wrong_is_named_by_its_path_in_the_config() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let b = Bundle::new("true").with(change);
        b.write();
        let message = b.refused(&["create", "--bundle", b.dir.to_str().unwrap(), &b.id]);
        b.assert_nothing_left();
        message
    };
    let limit = refused(&|c| c["linux"]["resources"]["memory"] = json!({"limit": "64m"}));
    assert!(limit.contains("config.json: linux.resources.memory.limit: invalid type"), "{limit}");
    let kind = refused(&|c| c["linux"]["namespaces"][1]["type"] = json!("nonesuch"));
    assert!(kind.contains("linux.namespaces[1].type: unknown variant"), "{kind}");
    let policy = refused(&|c| c["process"]["scheduler"] = json!({"policy": "SCHED_MAGIC"}));
    assert!(policy.contains("process.scheduler.policy: unknown value \"SCHED_MAGIC\""), "{policy}");
    let level = refused(&|c| c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 9}));
    assert!(level.contains("process.ioPriority.priority"), "{level}");
    let domain = refused(&|c| c["linux"]["personality"] = json!({"domain": "BSD"}));
    assert!(domain.contains("linux.personality.domain"), "{domain}");
    let idmap = refused(&|c| {
        let mount =
            json!({"destination": "/d", "type": "bind", "source": "/etc", "options": ["bind", "idmap"]});
        c["mounts"].as_array_mut().unwrap().push(mount);
    });
    assert!(idmap.contains("mount /d: idmap needs uidMappings"), "{idmap}");
    let tmpfs = refused(&|c| {
        let mount = json!({"destination": "/d", "type": "tmpfs", "source": "t", "options": ["idmap"]});
        c["mounts"].as_array_mut().unwrap().push(mount);
    });
    assert!(tmpfs.contains("only a bind mount can be id-mapped"), "{tmpfs}");
}

#[test]
fn statistics_and_lists_have_the_shape_of_runcs() {
    let b = Bundle::new("exec sleep 1000").with(|c| {
        c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        c["linux"]["resources"]["pids"] = json!({"limit": 50});
    });
    b.create();
    b.start();
    let event: Value = serde_json::from_str(&b.ok(&["events", "--stats", &b.id])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(b.id)));
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["pids"], json!({"current": 1, "limit": 50}));
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
    let list = b.ok(&["list"]);
    let mut lines = list.lines();
    let titles: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(titles, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..4], [&b.id, &b.pid().to_string(), "running", b.dir.to_str().unwrap()]);
    assert_eq!(row[5], "root");
    for command in ["checkpoint", "restore"] {
        assert!(b.refused(&[command, &b.id]).contains("is not supported"), "{command}");
    }
    assert!(b.refused(&["events", "--interval", "0s", &b.id]).contains("--interval 0s"));
    b.ok(&["kill", &b.id, "KILL"]);
    b.await_status("stopped");
    assert!(b.refused(&["events", "--stats", &b.id]).contains("stopped"));
    b.delete();
}
