//! Images: where they come from, how they are listed, named and removed, and what of their layers a container sees.

use davit_tests::host::objects;
use davit_tests::{Host, fixture};

/// `repository:tag` of every image.
fn listed(host: &Host) -> Vec<String> {
    let ran = host.davit(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let mut names: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn a_docker_archive_is_loaded_under_the_name_it_carries() {
    let host = Host::new();
    host.davit(["image", "load", "-i", &fixture::busybox().archive()]).ok().says("busybox:1");
    assert_eq!(listed(&host), ["busybox:1"]);
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "cat", "/var/www/index.html"])
        .ok()
        .prints("hello from busybox");
}

#[test]
fn a_docker_archive_is_loaded_from_standard_input() {
    let host = Host::new();
    let archive = std::fs::read(fixture::busybox().archive()).unwrap();
    host.command("davit").args(["image", "load"]).stdin(archive).start().wait().ok().says("busybox:1");
    assert_eq!(listed(&host), ["busybox:1"]);
}

#[test]
fn an_oci_layout_is_loaded_as_a_directory_and_as_a_tar() {
    let host = Host::new();
    let busybox = fixture::busybox();
    host.davit(["image", "load", "-t", "from-directory", "-i", &busybox.layout()]).ok();
    host.davit(["image", "load", "-t", "from-tar:2", "-i", &busybox.layout_tar()]).ok();
    let names = listed(&host);
    for name in ["from-directory:latest", "from-tar:2"] {
        assert!(names.iter().any(|n| n == name), "{name} not in {names:?}");
        host.davit(["run", "--rm", "--net", "none", name, "true"]).ok();
    }
}

#[test]
fn a_root_file_system_is_imported_plain_compressed_and_from_standard_input() {
    let host = Host::new();
    let busybox = fixture::busybox();
    host.davit(["image", "import", &busybox.rootfs_tar(), "plain:1"]).ok();
    host.davit(["image", "import", &busybox.rootfs_tar_gz(), "gzip:1"]).ok();
    let changes = ["-c", "CMD [\"echo\", \"from cmd\"]", "-c", "ENV A=b"];
    let tar = std::fs::read(busybox.rootfs_tar()).unwrap();
    let import = host.command("davit").args(["image", "import"]).args(changes).args(["-", "stdin:1"]);
    import.stdin(tar).start().wait().ok();
    for name in ["plain:1", "gzip:1", "stdin:1"] {
        host.davit(["run", "--rm", "--net", "none", name, "cat", "/var/www/index.html"])
            .ok()
            .prints("hello from busybox");
    }
    host.davit(["run", "--rm", "--net", "none", "stdin:1"]).ok().prints("from cmd");
    host.davit(["run", "--rm", "--net", "none", "stdin:1", "sh", "-c", "echo $A"]).ok().prints("b");
}

#[test]
fn a_zstd_root_file_system_is_imported() {
    let host = Host::new();
    let packed = host.work("rootfs.tar.zst").to_string_lossy().into_owned();
    host.sh(&format!("zstd -q {} -o {packed}", fixture::busybox().rootfs_tar())).ok();
    host.davit(["image", "import", &packed, "zstd:1"]).ok();
    host.davit(["run", "--rm", "--net", "none", "zstd:1", "true"]).ok();
}

#[test]
fn programs_of_this_host_run_from_an_image_with_their_libraries() {
    let host = Host::new();
    host.davit(["image", "from-host", "-t", "tools", "/bin/sh", "/bin/ls", "/bin/cat", "/usr/bin/perl"]).ok();
    assert_eq!(listed(&host), ["tools:latest"]);
    let run = |words: &[&str]| host.davit(["run", "--rm", "--net", "none", "tools"].iter().chain(words));
    run(&["sh", "-c", "echo $((6 * 7))"]).ok().prints("42");
    run(&["perl", "-e", "print 6 * 7"]).ok().prints("42");
    run(&["ls", "/"]).ok().says("bin");
    run(&["/bin/cat", "/proc/self/comm"]).ok().prints("cat");
}

#[test]
fn a_script_of_this_host_brings_its_interpreter() {
    let host = Host::new();
    let script = host.work("greet");
    std::fs::write(&script, "#!/usr/bin/perl\nprint \"greetings\\n\";\n").unwrap();
    host.sh(&format!("chmod +x {}", script.display())).ok();
    let path = script.to_string_lossy().into_owned();
    host.davit(["image", "from-host", "-t", "greet:1", &path]).ok();
    host.davit(["run", "--rm", "--net", "none", "greet:1", &path]).ok().prints("greetings");
}

#[test]
fn a_debian_runs_and_knows_itself() {
    let host = Host::builder().on_disk().create().unwrap();
    host.davit(["image", "load", "-i", &fixture::debian().archive()]).ok();
    let run = |script: &str| host.davit(["run", "--rm", "--net", "none", "debian:1", "bash", "-c", script]);
    run(". /etc/os-release; echo $ID").ok().prints("debian");
    run("dpkg-query -W -f '${Package}\n' bash").ok().prints("bash");
    run("stat -c '%a %U %G' /tmp /usr/bin/su /usr/sbin/unix_chkpwd")
        .ok()
        .prints("1777 root root\n4755 root root\n2755 root shadow");
    run("touch /usr/bin/new && rm /usr/bin/perl && mv /usr/share/base-files /usr/share/moved && ls -d /usr/share/moved")
        .ok()
        .prints("/usr/share/moved");
}

#[test]
fn layers_cover_one_another_as_the_image_says() {
    let host = Host::new();
    host.davit(["image", "load", "-i", &fixture::layered().archive()]).ok();
    let run = |script: &str| {
        host.davit([
            "run",
            "--rm",
            "--net",
            "none",
            "-u",
            "0",
            "-w",
            "/data",
            "--entrypoint",
            "sh",
            "layered:1",
            "-c",
            script,
        ])
    };
    run("cat one two two-again two-link kept/*").ok().prints("one, changed\ntwo\ntwo\ntwo\nhigh\nlow");
    run("ls . replaced").ok().prints(".:\nkept\none\nreplaced\ntwo\ntwo-again\ntwo-link\n\nreplaced:\nnew");
    run("stat -c '%a %u %g' one; [ two -ef two-again ] && echo same; readlink two-link")
        .ok()
        .prints("640 1000 2000\nsame\ntwo");
}

#[test]
fn an_image_says_how_its_containers_start() {
    let host = Host::new();
    host.davit(["image", "load", "-i", &fixture::layered().archive()]).ok();
    let run = |words: &[&str]| host.davit(["run", "--rm", "--net", "none"].iter().chain(words));
    run(&["layered:1"]).ok().prints("entry: defaults");
    run(&["layered:1", "given"]).ok().prints("entry: given");
    run(&["--entrypoint", "pwd", "layered:1"]).ok().prints("/data/kept");
    run(&["--entrypoint", "sh", "layered:1", "-c", "id -u; echo $SHIP"]).ok().prints("1000\ndavit");
}

#[test]
fn images_are_listed_inspected_tagged_and_removed() {
    let host = Host::with_busybox();
    host.davit(["image", "tag", "busybox:1", "ship:new"]).ok();
    assert_eq!(listed(&host), ["busybox:1", "ship:new"]);
    let rows = objects(&host.davit(["image", "ls", "--format", "json"]).ok());
    assert_eq!(rows.len(), 2, "{rows:?}");
    let inspected = host.davit(["image", "inspect", "ship:new"]).ok().json();
    let id = inspected[0]["Id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(inspected[0]["Config"]["Cmd"][0], "sh");
    assert_eq!(inspected[0]["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    let short = host.davit(["image", "ls", "-q"]).ok();
    let short = short.text().lines().next().unwrap().trim_start_matches("sha256:").to_owned();
    host.davit(["image", "inspect", "--format", "{{.Id}}", &short]).ok().prints(&id);
    host.davit(["image", "rm", "busybox:1"]).ok().says("ntagged");
    assert_eq!(listed(&host), ["ship:new"]);
    host.davit(["run", "--rm", "--net", "none", "ship:new", "true"]).ok();
    host.davit(["image", "rm", "ship:new"]).ok().says("eleted");
    assert_eq!(listed(&host), Vec::<String>::new());
}

#[test]
fn history_has_a_line_for_each_step() {
    let host = Host::new();
    host.davit(["image", "load", "-i", &fixture::layered().archive()]).ok();
    let rows = objects(&host.davit(["image", "history", "--format", "json", "layered:1"]).ok());
    assert!(rows.len() >= 3, "{rows:?}");
    let table = host.davit(["image", "history", "layered:1"]).ok();
    assert!(table.stdout.lines().count() > rows.len(), "{table}");
}

#[test]
fn a_layer_of_two_images_is_kept_until_the_second_goes() {
    let host = Host::with_busybox();
    host.davit(["image", "import", &fixture::busybox().rootfs_tar(), "other:1"]).ok();
    host.davit(["image", "rm", "busybox:1"]).ok();
    host.davit(["run", "--rm", "--net", "none", "other:1", "true"]).ok();
}

#[test]
fn an_image_in_use_is_not_removed() {
    let host = Host::with_busybox();
    host.run_detached("user", &["--net", "none", "busybox:1", "sleep", "1000"]);
    host.davit(["image", "rm", "busybox:1"]).refused(&["busybox:1", "using"]);
    host.davit(["exec", "user", "true"]).ok();
    host.davit(["rm", "-f", "user"]).ok();
    host.davit(["image", "rm", "busybox:1"]).ok();
}

#[test]
fn progress_is_not_drawn_when_output_is_no_terminal() {
    let host = Host::new();
    let ran = host.davit(["image", "load", "-i", &fixture::busybox().archive()]).ok();
    assert!(!ran.stderr.contains('\u{1b}') && !ran.stdout.contains('\u{1b}'), "{ran}");
    assert!(!ran.stderr.contains('\r') && !ran.stdout.contains('\r'), "{ran}");
}

/// An image of one file, of no size to speak of.
fn small(host: &Host, name: &str, changes: &[&str]) {
    let tar = host.work(&format!("{}.tar", name.replace([':', '/'], "-")));
    let dir = host.work("small");
    host.sh(&format!(
        "mkdir -p {0} && echo {name} > {0}/file && tar -cf {1} -C {0} file",
        dir.display(),
        tar.display()
    ))
    .ok();
    let path = tar.to_string_lossy().into_owned();
    let mut words = vec!["import"];
    for change in changes {
        words.extend(["-c", change]);
    }
    words.extend([path.as_str(), name]);
    host.davit(words).ok();
}

#[test]
fn lists_are_filtered_as_docker_does() {
    let host = Host::new();
    small(&host, "team/first:1", &["LABEL a=1", "LABEL b=2"]);
    small(&host, "second:1", &["LABEL a=2"]);
    small(&host, "second:2", &[]);
    host.davit(["tag", "second:2", "also/second:x"]).ok();
    let ls = |filters: &[&str]| {
        let mut words = vec!["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"];
        for filter in filters {
            words.extend(["--filter", filter]);
        }
        let mut names: Vec<String> = host.davit(words).ok().stdout.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(ls(&["label=a"]), ["second:1", "team/first:1"]);
    assert_eq!(ls(&["label=a=1", "label=b"]), ["team/first:1"]);
    assert_eq!(ls(&["reference=second", "reference=*/first"]), ["second:1", "second:2", "team/first:1"]);
    assert_eq!(ls(&["reference=second:2"]), ["second:2"]);
    assert_eq!(ls(&["before=second:1"]), ["team/first:1"]);
    assert_eq!(ls(&["since=team/first:1", "before=second:2"]), ["second:1"]);
    assert_eq!(ls(&["until=1h"]), Vec::<String>::new());
    assert_eq!(ls(&["dangling=true"]), Vec::<String>::new());
    host.davit(["image", "ls", "--filter", "dangling=perhaps"])
        .refused(&["invalid filter 'dangling=perhaps'"]);
    host.davit(["image", "ls", "--filter", "colour=red"]).refused(&["invalid filter 'colour'"]);
    host.davit(["image", "ls", "-q", "second"]).ok();
    assert_eq!(host.davit(["images", "-q"]).ok().stdout.lines().count(), 3);
    let format = "{{.ID}}|{{.Digest}}|{{.CreatedSince}}|{{.CreatedAt}}|{{.Size}}|{{.SharedSize}}";
    let row = host.davit(["images", "--no-trunc", "--format", format, "team/first"]).ok();
    assert!(
        row.stdout.starts_with("sha256:") && row.stdout.contains("|<none>|") && row.stdout.contains(" ago|"),
        "{row}"
    );
    let object = &host.davit(["image", "inspect", "second:2"]).ok().json()[0];
    assert_eq!(object["RepoTags"], serde_json::json!(["also/second:x", "second:2"]));
    for key in ["Id", "Parent", "Created", "Architecture", "Os", "Size", "GraphDriver", "RootFS", "Config"] {
        assert!(!object[key].is_null(), "{key}: {object}");
    }
    assert!(object["Metadata"]["LastTagTime"].as_str().unwrap() > "2020");
    let human =
        host.davit(["history", "--human=false", "--format", "{{.Size}} {{.CreatedSince}}", "second:1"]).ok();
    assert!(human.text().starts_with("9 20") && human.text().ends_with('Z'), "{human}");
    host.davit(["history", "--format", "{{.ID}}", "-q", "second:1"]).ok();
}

#[test]
fn removal_speaks_dockers_words() {
    let host = Host::new();
    small(&host, "one:1", &["CMD [\"x\"]"]);
    small(&host, "two:1", &[]);
    host.davit(["tag", "two:1", "two:2"]).ok();
    host.davit(["tag", "two:1", "other:1"]).ok();
    let id = host.davit(["images", "-q", "two:1"]).ok().text().to_owned();
    host.davit(["rmi", &id]).exits(1).refused(&[
        &format!(
            "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
        ),
        "other:1",
    ]);
    host.davit(["rmi", "other:1"]).ok().prints("Untagged: other:1");
    let gone = host.davit(["rmi", "--no-prune", &id[..6]]).ok();
    assert!(gone.stdout.starts_with("Untagged: two:1\nUntagged: two:2\nDeleted: sha256:"), "{gone}");
    let container = host.davit(["create", "--net", "none", "one:1"]).ok().text().to_owned();
    let id = host.davit(["images", "-q", "one:1"]).ok().text().to_owned();
    let short = &container[..12];
    host.davit(["rmi", "one:1"]).exits(1).refused(&[&format!(
        "conflict: unable to remove repository reference \"one:1\" (must force) - container {short} is using its referenced image {id}"
    )]);
    host.davit(["rmi", &id]).exits(1).refused(&[&format!(
        "conflict: unable to delete {id} (must be forced) - image is being used by container {short}"
    )]);
    host.davit(["rmi", "-f", "one:1"]).ok().prints("Untagged: one:1");
    host.davit(["image", "ls", "-q", "--filter", "dangling=true"]).ok().prints(&id);
    host.davit(["image", "prune", "-af"]).ok().prints("Total reclaimed space: 0B");
    host.davit(["rm", &container]).ok();
    let ask =
        |answer: &str| host.command("davit").args(["image", "prune"]).stdin(answer.to_owned()).start().wait();
    ask("no\n")
        .ok()
        .prints("WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N]");
    host.davit(["image", "prune", "-f", "--filter", "until=1h"]).ok().prints("Total reclaimed space: 0B");
    host.davit(["image", "prune", "-f", "--filter", "label=x"]).ok().prints("Total reclaimed space: 0B");
    ask("y\n").ok().says("Deleted Images:\ndeleted: sha256:");
    assert!(listed(&host).is_empty());
}
