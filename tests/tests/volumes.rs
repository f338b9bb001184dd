//! Volumes: how they are made, listed, mounted, shared and removed.

use davit_tests::host::objects;
use davit_tests::{Host, fixture};

/// An image with a volume at /data that holds a file and a directory, owned by uid 1000.
fn with_volume(host: &Host) {
    host.davit(["image", "load", "-i", &fixture::busybox().archive()]).ok();
    let rootfs = host.work("rootfs");
    let script = format!(
        "mkdir -p {0} && cd {0} && tar -xf {1} && mkdir -p data/sub && echo from image > data/file && chown -R 1000:1000 data && \
         chmod 2750 data && tar -cf ../image.tar .",
        rootfs.display(),
        fixture::busybox().rootfs_tar()
    );
    host.sh(&script).ok();
    let tar = host.work("image.tar").to_string_lossy().into_owned();
    host.davit(["import", "-c", "VOLUME /data", "-c", "CMD [\"sh\"]", &tar, "data:1"]).ok();
}

fn run<'a>(host: &Host, options: &[&'a str], script: &'a str) -> davit_tests::Ran {
    let tail = ["data:1", "sh", "-c", script];
    host.davit(["run", "--rm", "--net", "none"].iter().chain(options).chain(&tail).copied())
}

/// Names of all volumes.
fn volumes(host: &Host) -> Vec<String> {
    host.davit(["volume", "ls", "-q"]).ok().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_volume_is_made_listed_inspected_and_removed() {
    let host = Host::new();
    host.davit(["volume", "create", "--label", "a=1", "--label", "b", "one"]).ok().prints("one");
    host.davit(["volume", "create", "two"]).ok();
    let random = host.davit(["volume", "create"]).ok().text().to_owned();
    assert_eq!(random.len(), 64);
    let ls = |filter: &[&str]| {
        let mut words = vec!["volume", "ls", "-q"];
        for one in filter {
            words.extend(["--filter", one]);
        }
        host.davit(words).ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ls(&["label=a"]), ["one"]);
    assert_eq!(ls(&["label=a", "label=b"]), ["one"]);
    assert!(ls(&["label=a", "label=c"]).is_empty() && ls(&["driver=nfs"]).is_empty());
    assert_eq!(ls(&["name=one", "name=two"]), ["one", "two"]);
    assert_eq!(ls(&["dangling=true", "driver=local"]).len(), 3);
    assert!(ls(&["dangling=false"]).is_empty());
    host.davit(["volume", "ls", "--filter", "colour=red"]).refused(&["invalid filter", "colour"]);
    host.davit(["volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Labels}}"])
        .ok()
        .says("local one a=1,b=");
    let one = host.davit(["volume", "inspect", "one"]).ok().json();
    let one = &one[0];
    assert_eq!((one["Driver"].as_str(), one["Scope"].as_str()), (Some("local"), Some("local")));
    assert_eq!(one["Labels"]["a"], "1");
    assert!(one["Mountpoint"].as_str().unwrap().ends_with("/one/_data") && one["CreatedAt"].is_string());
    host.davit(["volume", "rm", "one", &random]).ok().says("one").says(&random);
    host.davit(["volume", "rm", "one"]).refused(&["no volume", "one"]);
    host.davit(["volume", "rm", "-f", "one", "two"]).ok().prints("one\ntwo");
    host.davit(["volume", "create", "-d", "nfs", "x"]).refused(&["no volume driver 'nfs'"]);
    assert!(volumes(&host).is_empty());
}

#[test]
fn first_use_copies_the_images_content_with_owner_and_mode() {
    let host = Host::new();
    with_volume(&host);
    run(
        &host,
        &["-v", "v:/data"],
        "cat /data/file; stat -c '%u:%g %a' /data; test -d /data/sub; echo mine > /data/file",
    )
    .ok()
    .prints("from image\n1000:1000 2750");
    // What is there is not touched again, also not by another image path.
    run(&host, &["-v", "v:/data"], "cat /data/file").ok().prints("mine");
    run(&host, &["-v", "v:/bin2:ro"], "cat /bin2/file; touch /bin2/x || echo read-only")
        .ok()
        .says("read-only");
    run(&host, &["-v", "empty:/data:nocopy"], "ls /data").ok().prints("");
    run(&host, &["--mount", "src=empty2,dst=/data,volume-nocopy"], "ls /data").ok().prints("");
    run(&host, &["--mount", "src=full,dst=/data,volume-label=k=v"], "ls /data").ok().prints("file\nsub");
    host.davit(["volume", "ls", "-q", "--filter", "label=k=v"]).ok().prints("full");
    // The image's own volume, and one asked for without a name, end with `--rm`.
    run(&host, &["-v", "/scratch"], "cat /data/file; touch /scratch/x").ok().prints("from image");
    assert_eq!(volumes(&host), ["empty", "empty2", "full", "v"]);
}

#[test]
fn a_volume_in_use_stays_and_names_its_containers() {
    let host = Host::new();
    with_volume(&host);
    let user = host.run_detached("user", &["--net", "none", "-v", "v:/v", "data:1", "sleep", "1000"]);
    host.davit(["volume", "rm", "v"]).exits(1).refused(&["volume 'v' is in use", &user.id[..12]]);
    host.davit(["volume", "rm", "-f", "v"]).exits(1).refused(&["in use"]);
    host.davit(["volume", "prune", "-af"]).ok().says_not("v\n");
    let anonymous: Vec<String> = volumes(&host).into_iter().filter(|v| v.len() == 64).collect();
    assert_eq!(anonymous.len(), 1);
    host.davit(["rm", "-f", "user"]).ok();
    // Without -v the anonymous volume stays.
    assert_eq!(volumes(&host).len(), 2);
    host.davit(["run", "-d", "--name", "again", "--net", "none", "data:1", "true"]).ok();
    assert_eq!(volumes(&host).len(), 3);
    host.davit(["rm", "-fv", "again"]).ok();
    assert_eq!(volumes(&host).len(), 2);
    let ask = |answer: &str, words: &[&str]| {
        host.command("davit").args(words).stdin(answer.to_owned()).start().wait().ok()
    };
    ask("n\n", &["volume", "prune"])
        .says("WARNING! This will remove anonymous local volumes not used by at least one container.");
    assert_eq!(volumes(&host).len(), 2);
    ask("y\n", &["volume", "prune"])
        .says("Deleted Volumes:")
        .says(&anonymous[0])
        .says("Total reclaimed space: 11B");
    assert_eq!(volumes(&host), ["v"]);
    host.davit(["volume", "prune", "-f"]).ok().prints("Total reclaimed space: 0B");
    host.davit(["volume", "prune", "-af", "--filter", "label=none"]).ok();
    assert_eq!(volumes(&host), ["v"]);
    host.davit(["volume", "prune", "-af"]).ok().says("v\n");
    assert!(volumes(&host).is_empty());
}

#[test]
fn a_part_of_a_volume_is_mounted_and_no_link_leads_out_of_it() {
    let host = Host::new();
    with_volume(&host);
    run(
        &host,
        &["-v", "v:/v"],
        "mkdir -p /v/a/b && echo deep > /v/a/b/f && ln -s /etc /v/out && ln -s a /v/in",
    )
    .ok();
    let part = |subpath: &str| format!("src=v,dst=/p,volume-subpath={subpath}");
    run(&host, &["--mount", &part("a/b")], "cat /p/f; echo new > /p/g").ok().prints("deep");
    run(&host, &["--mount", &part("a/b/f")], "cat /p").ok().prints("deep");
    run(&host, &["--runtime", "runc", "--mount", &part("a/b")], "cat /p/f").ok().prints("deep");
    run(&host, &["-v", "v:/v"], "cat /v/a/b/g").ok().prints("new");
    for bad in ["out", "in/b", "../v", "absent", "out/passwd"] {
        run(&host, &["--mount", &part(bad)], "ls /p").exits(125).refused(&["volume 'v' has no", bad]);
    }
    // The same container starts again, with another monitor.
    host.davit(["create", "--name", "twice", "--net", "none", "--mount", &part("a"), "data:1", "ls", "/p"])
        .ok();
    for _ in 0..2 {
        host.davit(["start", "-a", "twice"]).ok().prints("b");
    }
    host.davit(["rm", "-v", "twice"]).ok();
}

#[test]
fn the_local_drivers_options_are_mounted_by_the_container() {
    let host = Host::new();
    with_volume(&host);
    let create = |name: &str, options: &[&str]| {
        let mut words = vec!["volume", "create"];
        for option in options {
            words.extend(["-o", option]);
        }
        words.push(name);
        host.davit(words)
    };
    create("memory", &["type=tmpfs", "device=tmpfs", "o=size=1m,uid=7,mode=700"]).ok();
    run(&host, &["-v", "memory:/m"], "stat -c '%u %a' /m; grep ' /m ' /proc/mounts; touch /m/x")
        .ok()
        .says("7 700")
        .says("size=1024k");
    let dir = host.work("srv");
    host.sh(&format!("mkdir -p {0} && echo host > {0}/f", dir.display())).ok();
    let device = format!("device={}", dir.display());
    create("bound", &["type=none", "o=bind", &device]).ok();
    run(&host, &["-v", "bound:/b"], "cat /b/f; echo x > /b/g").ok().prints("host");
    assert!(dir.join("g").exists());
    create("fixed", &["type=none", "o=bind,ro", &device]).ok();
    run(&host, &["-v", "fixed:/b"], "cat /b/f; touch /b/h || echo read-only").ok().says("read-only");
    run(
        &host,
        &["--mount", "src=made,dst=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs"],
        "grep ' /m tmpfs' /proc/mounts",
    )
    .ok();
    create("nfs", &["type=nfs", "device=:/x", "o=addr=10.0.0.1"])
        .exits(1)
        .refused(&["cannot mount 'nfs'", "type=none"]);
    create("memory", &[]).exits(1).refused(&["exists already with other options"]);
    create("odd", &["size=1g"]).exits(1).refused(&["no option 'size'"]);
    host.davit(["volume", "rm", "bound", "fixed", "memory", "made"]).ok();
    assert!(dir.join("f").exists());
}

#[test]
fn containers_share_the_volumes_of_another() {
    let host = Host::new();
    with_volume(&host);
    let dir = host.work("bound");
    host.sh(&format!("mkdir -p {}", dir.display())).ok();
    let bind = format!("{}:/bound", dir.display());
    let words = ["create", "--name", "store", "-v", "named:/named", "-v", &bind, "data:1"];
    host.davit(words).ok();
    let anonymous = volumes(&host).into_iter().find(|v| v.len() == 64).unwrap();
    run(
        &host,
        &["--volumes-from", "store"],
        "cat /data/file; echo 1 > /named/n; echo 2 > /bound/b; echo 3 > /data/d",
    )
    .ok()
    .prints("from image");
    let script = "cat /named/n /bound/b /data/d; for d in named bound data; do touch /$d/x || echo no; done";
    run(&host, &["--volumes-from", "store:ro"], script).ok().prints("1\n2\n3\nno\nno\nno");
    // What the container asks for itself goes first.
    run(&host, &["--volumes-from", "store", "-v", "other:/named"], "ls /named").ok().prints("");
    run(&host, &["--volumes-from", "absent"], "true").exits(125).refused(&["absent"]);
    // Other users keep the anonymous volume.
    host.davit(["create", "--name", "heir", "--volumes-from", "store", "data:1"]).ok();
    host.davit(["rm", "-v", "store"]).ok();
    assert!(volumes(&host).contains(&anonymous));
    host.davit(["rm", "-v", "heir"]).ok();
    assert_eq!(volumes(&host), ["named", "other"]);
}

#[test]
fn mounts_propagate_as_asked() {
    let host = Host::new();
    with_volume(&host);
    let dir = host.work("spread");
    let (shown, options) = (dir.display().to_string(), ["rshared", "rslave", "rprivate"]);
    host.sh(&format!("mkdir -p {shown} && mount -t tmpfs none {shown} && mount --make-shared {shown} && mkdir {shown}/h {shown}/c")).ok();
    for (runtime, option) in options.iter().map(|o| ("davit", *o)).chain(options.iter().map(|o| ("runc", *o)))
    {
        let mount = format!("type=bind,src={shown},dst=/m,bind-propagation={option}");
        let mut words =
            vec!["--net", "none", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"];
        if runtime != "davit" {
            words.extend(["--runtime", runtime]);
        }
        words.extend(["--mount", &mount, "data:1", "sleep", "1000"]);
        let c = host.run_detached(&format!("{runtime}-{option}"), &words);
        host.sh(&format!("mount -t tmpfs none {shown}/h && touch {shown}/h/host")).ok();
        let arrives = c.sh("ls /m/h").ok().text() == "host";
        assert_eq!(arrives, option != "rprivate", "{runtime}, {option}: a mount of the host");
        host.sh(&format!("umount {shown}/h")).ok();
        c.sh("mount -t tmpfs none /m/c && touch /m/c/container").ok();
        let leaves = host.sh(&format!("ls {shown}/c")).ok().text() == "container";
        assert_eq!(leaves, option == "rshared", "{runtime}, {option}: a mount of the container");
        c.sh("umount /m/c").ok();
        c.remove();
    }
    let below = format!("mount -t tmpfs none {shown}/h && touch {shown}/h/below");
    host.sh(&below).ok();
    let mount = |more: &str| format!("type=bind,src={shown},dst=/m{more}");
    run(&host, &["--mount", &mount(",bind-nonrecursive")], "ls /m/h").ok().prints("");
    run(&host, &["--mount", &mount("")], "ls /m/h").ok().prints("below");
    run(&host, &["--mount", &mount(",ro")], "touch /m/h/x && rm /m/h/x; touch /m/x || echo ro")
        .ok()
        .prints("ro");
    run(&host, &["--mount", &mount(",ro,bind-recursive=readonly")], "touch /m/h/x || echo ro")
        .ok()
        .prints("ro");
    host.sh(&format!("umount {shown}/h && mount --make-private {shown}")).ok();
    run(&host, &["--mount", &mount(",bind-propagation=rshared")], "true")
        .exits(125)
        .refused(&["not a shared mount", &shown]);
    run(&host, &["--mount", &mount("/x,bind-propagation=rslave")], "true")
        .exits(125)
        .refused(&["not a shared or slave mount"]);
    host.sh(&format!("umount {shown}")).ok();
    let made = host.work("made/deep");
    let mount = |more: &str| format!("type=bind,src={},dst=/m{more}", made.display());
    run(&host, &["--mount", &mount("")], "true").exits(125).refused(&["bind source path does not exist"]);
    run(&host, &["--mount", &mount(",bind-create-src")], "touch /m/x").ok();
    assert!(made.join("x").exists());
}

#[test]
fn a_tmpfs_has_size_and_mode() {
    let host = Host::new();
    with_volume(&host);
    let script = "stat -c %a /t; grep ' /t ' /proc/mounts; dd if=/dev/zero of=/t/x bs=1M count=3 2>/dev/null || echo full";
    let ran = run(&host, &["--mount", "type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=1770"], script);
    ran.ok().says("1770").says("size=2048k").says("full");
    let listed = objects(&host.davit(["volume", "ls", "--format", "json"]).ok());
    assert!(listed.is_empty());
}
