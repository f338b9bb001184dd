//! Containers' files: diff, commit, export, cp and save, with the whole suite and beside third-party tools.

use davit_tests::{Host, fixture};

/// A container that runs and one that has ended, of the same making.
fn two(host: &Host) {
    let made =
        "mkdir /made; echo text > /made/file; ln -s /made/file /made/link; rm /etc/group; chown -R web /made";
    let wait = format!("{made}; touch /ready; exec sleep 1000");
    host.run_detached("runs", &["--net", "none", "-v", "vol:/vol", "busybox:1", "sh", "-c", &wait]);
    davit_tests::eventually("it has made its files", || {
        let ran = host.davit(["exec", "runs", "test", "-e", "/ready"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    let end = format!("{made}; touch /ready; echo in > /vol/in");
    host.davit(["run", "--name", "ended", "--net", "none", "-v", "vol:/vol", "busybox:1", "sh", "-c", &end])
        .ok();
}

#[test]
fn diff_prints_dockers_lines() {
    let host = Host::with_busybox();
    two(&host);
    for name in ["runs", "ended"] {
        host.davit(["diff", name])
            .ok()
            .prints("C /etc\nD /etc/group\nA /made\nA /made/file\nA /made/link\nA /ready\nA /vol");
    }
    host.davit(["run", "--name", "same", "--net", "none", "busybox:1", "true"]).ok();
    host.davit(["diff", "same"]).ok().prints("");
    host.davit(["diff", "nobody"]).exits(1).refused(&["nobody"]);
}

#[test]
fn an_exported_tree_is_imported_the_same() {
    let host = Host::with_busybox();
    two(&host);
    for name in ["runs", "ended"] {
        let tar = host.work(&format!("{name}.tar")).display().to_string();
        host.davit(["export", "-o", &tar, name]).ok();
        host.davit(["import", &tar, &format!("{name}:again")]).ok();
        let image = format!("{name}:again");
        let list = "find / -xdev -name proc -prune -o -xdev ! -path '/etc/*' ! -path '/dev*' ! -path '/sys*' -print | sort";
        let run = ["run", "--rm", "--net", "none", &image, "sh", "-c", list];
        host.davit(run).ok().says("/made/link").says("/bin/busybox");
        host.davit(["run", "--rm", "--net", "none", &image, "stat", "-c", "%U %a", "/made/file"])
            .ok()
            .prints("web 644");
    }
    host.sh("davit export runs | tar -tf - | grep -x made/link").ok();
}

#[test]
fn a_committed_image_runs_with_the_files_and_the_command_of_the_container() {
    let host = Host::with_busybox();
    two(&host);
    let commit = ["commit", "-a", "me", "-m", "why", "-c", "LABEL a=b", "runs", "made:1"];
    let id = host.davit(commit).ok().text().to_owned();
    host.davit(["inspect", "-f", "{{.State.Status}}", "runs"]).ok().prints("running");
    host.davit(["image", "inspect", "-f", "{{.Id}}", "made:1"]).ok().prints(&id);
    let inspected = host.davit(["image", "inspect", "made:1"]).ok().json();
    assert_eq!(inspected[0]["Config"]["Labels"]["a"], "b");
    assert_eq!(inspected[0]["Config"]["Cmd"][0], "sh");
    let script = "cat /made/link; test ! -e /etc/group; stat -c %U /made";
    host.davit(["run", "--rm", "--net", "none", "made:1", "sh", "-c", script]).ok().prints("text\nweb");
    host.davit(["commit", "-c", "RUN x", "ended", "bad:1"]).exits(1).refused(&["RUN"]);
    host.davit(["commit", "nobody", "bad:1"]).exits(1).refused(&["nobody"]);
}

#[test]
fn files_are_copied_both_ways_whether_it_runs_or_not() {
    let host = Host::with_busybox();
    two(&host);
    let path = |name: &str| host.work(name).display().to_string();
    host.sh(&format!("mkdir -p {0}/sub; echo mine > {0}/sub/f; echo one > {1}", path("dir"), path("one")))
        .ok();
    for name in ["runs", "ended"] {
        let at = |p: &str| format!("{name}:{p}");
        // A file to a directory, to a new name, over a file; a directory to a new name and into one.
        let ran = host.davit(["cp", &path("one"), &at("/made")]).ok();
        assert!(ran.stderr.starts_with("Successfully copied 2.05kB to "), "{ran}");
        host.davit(["cp", "-q", &path("one"), &at("/made/new")]).ok();
        host.davit(["cp", "-q", &path("one"), &at("/made/file")]).ok();
        host.davit(["cp", "-q", &path("dir"), &at("/made/tree")]).ok();
        host.davit(["cp", "-q", &path("dir"), &at("/made/tree")]).ok();
        host.davit(["cp", "-q", &format!("{}/.", path("dir")), &at("/vol")]).ok();
        let out = path(&format!("out-{name}"));
        host.davit(["cp", "-q", &at("/made"), &out]).ok();
        host.sh(&format!("cd {out}; cat one new file tree/sub/f tree/dir/sub/f"))
            .ok()
            .prints("one\none\none\nmine\nmine");
        host.davit(["cp", "-q", &at("/vol/sub/f"), &format!("{out}/from-volume")]).ok();
        host.sh(&format!("cat {out}/from-volume")).ok().prints("mine");
        // A link as it is, and what it names.
        host.davit(["cp", "-q", &at("/made/link"), &format!("{out}/l")]).ok();
        host.sh(&format!("readlink {out}/l")).ok().prints("/made/file");
        host.davit(["cp", "-qL", &at("/made/link"), &format!("{out}/followed")]).ok();
        host.sh(&format!("test ! -L {out}/followed && cat {out}/followed")).ok().prints("one");
        // Streams.
        host.sh(&format!(
            "davit cp {} - | tar -xOf - link 2>/dev/null; davit cp {} - | tar -tf -",
            at("/made/link"),
            at("/made/tree/.")
        ))
        .ok()
        .says("./sub/f");
        host.sh(&format!("tar -C {} -cf - sub | davit cp - {}", path("dir"), at("/made/tree/dir"))).ok();
        host.sh(&format!("tar -cf - -C / etc/hosts | davit cp - {}", at("/made/file")))
            .refused(&["must be a directory"]);
        host.davit(["cp", &at("/nope"), &out])
            .exits(1)
            .refused(&["Could not find the file /nope in container", name]);
        host.davit(["cp", &path("one"), &at("/nope/deeper")])
            .exits(1)
            .refused(&["Could not find the file", name]);
        host.davit(["cp", &path("one"), &at("/made/nope/")]).exits(1).refused(&["no such directory"]);
        host.davit(["cp", &path("dir"), &at("/made/one")]).exits(1).refused(&["cannot copy directory"]);
        host.davit(["cp", &at("/made"), &path("no/such/dir")]).exits(1).refused(&["does not exist"]);
    }
    host.davit(["exec", "runs", "stat", "-c", "%u", "/made/one"]).ok().prints("0");
    host.davit(["cp", "runs:/a", "ended:/b"])
        .exits(1)
        .refused(&["copying between containers is not supported"]);
    host.davit(["cp", "a", "b"]).exits(1).refused(&["must specify at least one container source"]);
}

#[test]
fn hostile_links_lead_nowhere_and_read_only_is_respected() {
    let host = Host::with_busybox();
    let secret = host.work("secret").display().to_string();
    let one = host.work("one").display().to_string();
    host.sh(&format!("mkdir {secret}; echo host > {secret}/file; echo one > {one}")).ok();
    let script =
        format!("ln -s {secret} /out; ln -s ../../../../../..{secret} /up; mkdir -p /d; exec sleep 1000");
    host.run_detached("c", &["--net", "none", "busybox:1", "sh", "-c", &script]);
    davit_tests::eventually("its links are there", || {
        let ran = host.davit(["exec", "c", "test", "-d", "/d"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
    for link in ["out", "up"] {
        host.davit(["cp", &format!("c:/{link}/file"), &format!("{one}.x")])
            .exits(1)
            .refused(&["Could not find"]);
        host.davit(["cp", &one, &format!("c:/{link}/made")]).exits(1).refused(&["Could not find"]);
    }
    host.sh(&format!("ls {secret}")).ok().prints("file");
    for running in [true, false] {
        let name = format!("ro-{running}");
        let volume = format!("{secret}:/ro:ro");
        let end = if running { "1000" } else { "0" };
        let run = ["--read-only", "--net", "none", "-v", &volume, "-v", "w:/w", "busybox:1", "sleep", end];
        host.run_detached(&name, &run);
        if !running {
            host.davit(["wait", &name]).ok();
        }
        host.davit(["cp", &one, &format!("{name}:/tmp")])
            .exits(1)
            .refused(&["container rootfs is marked read-only"]);
        host.davit(["cp", &one, &format!("{name}:/ro")])
            .exits(1)
            .refused(&["mounted volume is marked read-only"]);
        host.davit(["cp", "-q", &one, &format!("{name}:/w")]).ok();
        host.davit(["cp", "-q", &format!("{name}:/ro/file"), &format!("{one}.{name}")]).ok();
    }
}

#[test]
fn a_saved_image_is_read_by_podman_and_skopeo_and_by_ourselves() {
    let host = Host::with_busybox();
    host.davit(["load", "-i", &fixture::layered().layout_tar(), "-t", "layered:1"]).ok();
    let id = host.davit(["image", "inspect", "-f", "{{.Id}}", "layered:1"]).ok().text().to_owned();
    for format in ["docker-archive", "oci-archive"] {
        let tar = host.work(&format!("{format}.tar")).display().to_string();
        host.davit(["save", "-o", &tar, "--format", format, "layered:1", "busybox:1"]).ok();
        host.sh(&format!("tar -tf {tar}")).ok().says("index.json").says("oci-layout");
        host.davit(["rmi", "layered:1"]).ok();
        host.davit(["load", "-i", &tar]).ok().says("layered:1");
        host.davit(["image", "inspect", "-f", "{{.Id}}", "layered:1"]).ok().prints(&id);
    }
    let tar = host.work("docker-archive.tar").display().to_string();
    host.sh(&format!("skopeo inspect --config --raw docker-archive:{tar}:layered:1 | sha256sum"))
        .ok()
        .says(&id["sha256:".len()..]);
    let podman = format!(
        "podman --root {0}/p --runroot {0}/r --storage-driver vfs",
        host.path().join("state").display()
    );
    host.sh(&format!("{podman} load -q -i {tar} && {podman} images --no-trunc")).ok().says(&id);
    host.davit(["save", "nothing:1", "-o", &format!("{tar}.no")]).exits(1).refused(&["nothing:1"]);
    host.sh(&format!("test ! -e {tar}.no")).ok();
}
