//! What takes space, and removing what nothing uses.

use davit_tests::host::objects;
use davit_tests::{Host, fixture};

/// The row of `system df` for one kind of thing.
fn row(host: &Host, kind: &str) -> serde_json::Value {
    let rows = objects(&host.davit(["system", "df", "--format", "json"]).ok());
    rows.into_iter().find(|r| r["Type"] == kind).unwrap_or_else(|| panic!("no row for {kind}"))
}

#[test]
fn df_counts_what_would_be_freed() {
    let host = Host::with_busybox();
    host.davit(["image", "load", "-i", &fixture::layered().archive()]).ok();
    host.davit(["system", "df"]).ok().says("TYPE").says("RECLAIMABLE").says("Local Volumes");
    let images = row(&host, "Images");
    assert_eq!((&images["TotalCount"], &images["Active"]), (&"2".into(), &"0".into()));
    assert!(images["Reclaimable"].as_str().unwrap().ends_with("(100%)"), "{images}");
    // `layered` stands on busybox's layer: with a container of it nothing of what they share can go.
    host.davit(["create", "--name", "user", "--net", "none", "-v", "v:/v", "layered:1"]).ok();
    let images = row(&host, "Images");
    assert_eq!(images["Active"], "1");
    let reclaimable = images["Reclaimable"].as_str().unwrap().split(' ').next().unwrap().to_owned();
    let containers = row(&host, "Containers");
    assert_eq!((&containers["TotalCount"], &containers["Active"]), (&"1".into(), &"0".into()));
    assert_eq!(row(&host, "Local Volumes")["Active"], "1");
    let verbose = host.davit(["system", "df", "-v"]).ok();
    for part in [
        "Images space usage:",
        "Containers space usage:",
        "Local Volumes space usage:",
        "UNIQUE SIZE",
        "user",
    ] {
        assert!(verbose.stdout.contains(part), "{part}: {verbose}");
    }
    let ran = host.davit(["image", "prune", "-af"]).ok();
    ran.says(&format!("Total reclaimed space: {reclaimable}\n"));
    assert!(row(&host, "Images")["Reclaimable"].as_str().unwrap().starts_with("0B"));
    host.davit(["rm", "user"]).ok();
    host.davit(["volume", "rm", "v"]).ok();
}

#[test]
fn what_a_container_wrote_is_counted() {
    let host = Host::with_busybox();
    let script = "dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; echo ready; exec sleep 1000";
    let c = host.run_detached("big", &["--net", "none", "busybox:1", "sh", "-c", script]);
    c.logs_until("ready");
    host.davit(["ps", "-s", "--format", "{{.Names}} {{.Size}}"]).ok().says("big 3.1").says("(virtual ");
    let containers = row(&host, "Containers");
    assert_eq!((&containers["Active"], &containers["Reclaimable"]), (&"1".into(), &"0B (0%)".into()));
    host.davit(["kill", "big"]).ok();
    host.davit(["wait", "big"]).ok();
    assert!(row(&host, "Containers")["Reclaimable"].as_str().unwrap().ends_with("(100%)"));
    host.davit(["container", "prune", "-f"])
        .ok()
        .says(&format!("Deleted Containers:\n{}\n", c.id))
        .says("Total reclaimed space: 3.1");
}

#[test]
fn system_prune_asks_and_removes_in_dockers_order() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "unused"]).ok();
    host.davit(["net", "create", "used"]).ok();
    host.davit(["volume", "create", "named"]).ok();
    let volume = host.davit(["volume", "create"]).ok().text().to_owned();
    let tar = host.work("one.tar").to_string_lossy().into_owned();
    host.sh(&format!("cd {} && echo x > one && tar -cf one.tar one", host.work("").display())).ok();
    host.davit(["import", &tar, "old:1"]).ok();
    host.davit(["import", &tar]).ok();
    host.davit(["create", "--name", "stopped", "--net", "none", "busybox:1"]).ok();
    let kept = host.run_detached("kept", &["--net", "used", "--label", "keep", "busybox:1", "sleep", "1000"]);
    let ask = |answer: &str, words: &[&str]| {
        host.command("davit").args(words).stdin(answer.to_owned()).start().wait().ok()
    };
    let refused = ask("n\n", &["system", "prune", "--volumes"]);
    let warning = "WARNING! This will remove:
  - all stopped containers
  - all networks not used by at least one container
  - all anonymous volumes not used by at least one container
  - all dangling images

Are you sure you want to continue? [y/N] ";
    assert_eq!(refused.stdout, warning);
    host.davit(["inspect", "stopped"]).ok();
    host.davit(["system", "prune", "-f", "--filter", "label=none"]).ok().prints("Total reclaimed space: 0B");
    host.davit(["system", "prune", "-f", "--volumes", "--filter", "until=1h"])
        .exits(1)
        .refused(&["until", "--volumes"]);
    let ran = ask("y\n", &["system", "prune", "--volumes"]);
    let places: Vec<_> = [
        "Deleted Containers:",
        "Deleted Networks:\nunused\n",
        "Deleted Volumes:",
        "Deleted Images:",
        "Total reclaimed space: ",
    ]
    .iter()
    .map(|part| ran.stdout.find(part).unwrap_or_else(|| panic!("no {part}: {ran}")))
    .collect();
    assert!(places.is_sorted(), "{ran}");
    assert!(ran.stdout.contains(&format!("Deleted Volumes:\n{volume}\n")), "{ran}");
    host.davit(["volume", "ls", "-q"]).ok().prints("named");
    host.davit(["image", "ls", "--format", "{{.Repository}}"]).ok().says("busybox").says("old");
    host.davit(["system", "prune", "-af"]).ok().says("untagged: old:1");
    host.davit(["image", "ls", "--format", "{{.Repository}}"]).ok().prints("busybox");
    host.davit(["net", "inspect", "used"]).ok();
    host.davit(["system", "info", "--format", "{{.Images}}"]).ok().prints("1");
    kept.remove();
    host.davit(["volume", "rm", "named"]).ok();
}
