//! What a person meets in the first minutes: mistyped flags, names of images, platforms, and starts and ends at the same time.

use davit_tests::{Host, Registry, fixture};

#[test]
fn a_mistyped_flag_is_named_and_not_taken_for_an_image() {
    let host = Host::new();
    let ran = host.davit(["run", "--rm", "--nme=x", "busybox:1"]).refused(&["--nme", "--name"]);
    assert_eq!(ran.code, 125, "{ran}");
    let ran = host.davit(["exec", "--wrkdir", "/", "c", "ls"]).refused(&["--wrkdir", "--workdir"]);
    assert_eq!(ran.code, 125, "{ran}");
}

#[test]
fn the_word_davit_alone_explains_itself() {
    let host = Host::new();
    host.sh("davit 2>&1").ok().says("Usage: davit [OPTIONS] <COMMAND>");
}

#[test]
fn a_list_of_one_repository_shows_no_other_names() {
    let host = Host::with_busybox();
    host.davit(["tag", "busybox:1", "other:2"]).ok();
    host.davit(["images", "other", "--format", "{{.Repository}}:{{.Tag}}"]).ok().prints("other:2");
}

#[test]
fn an_image_known_by_tag_and_digest_is_removed_by_its_id() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let tagged = registry.image("busybox:1");
    host.davit(["pull", &tagged]).ok();
    let by_digest = host.davit(["image", "inspect", "-f", "{{index .RepoDigests 0}}", &tagged]).ok();
    host.davit(["pull", by_digest.text()]).ok();
    let id = host.davit(["images", "-q"]).ok();
    host.davit(["rmi", id.text()]).ok();
    host.davit(["images", "-q"]).ok().prints("");
}

#[test]
fn an_image_of_another_platform_is_refused() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let busybox = registry.image("busybox:1");
    host.leaves_nothing(|| {
        host.davit(["pull", "--platform", "linux/s390x", &busybox]).refused(&["linux/s390x", "linux/"])
    });
}

#[test]
fn an_image_here_does_not_run_as_one_of_another_platform() {
    let host = Host::new();
    let registry = Registry::http(&host);
    let busybox = registry.image("busybox:1");
    host.davit(["pull", &busybox]).ok();
    let ran = host.davit(["run", "--rm", "--net", "none", "--platform", "linux/s390x", &busybox, "true"]);
    assert_eq!(ran.refused(&["linux/s390x"]).code, 125);
    host.davit(["run", "--rm", "--net", "none", &busybox, "true"]).ok();
}

#[test]
fn a_wrong_argument_is_not_said_of_the_archive() {
    let host = Host::new();
    let rootfs = fixture::busybox().rootfs_tar();
    let ran = host.davit(["import", "-c", "RUN true", &rootfs, "x"]).refused(&["RUN"]);
    assert!(!ran.stderr.contains(&rootfs), "{ran}");
}

#[test]
fn ups_and_downs_at_the_same_time_know_one_another() {
    let host = Host::new();
    for _ in 0..4 {
        let ran = host.sh("for n in 1 2 3 4; do davit up & davit down & done 2>&1; wait").ok();
        for wrong in ["own supervisor", "closed the connection", "again and again", "does not answer"] {
            assert!(!ran.text().contains(wrong), "{ran}");
        }
    }
    host.davit(["image", "ls"]).ok();
}
