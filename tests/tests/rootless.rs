//! The same as a plain user, as far as rootless goes: no way out to other machines, ports inside the user's own network.

use davit_tests::sailor::BUSYBOX;
use davit_tests::{Host, Sailor, eventually};

#[test]
fn a_plain_user_runs_containers_that_find_each_other() {
    let sailor = Sailor::new();
    let before = sailor.host.inventory();
    sailor.davit(&["image", "load", "-i", BUSYBOX]).ok();
    sailor.davit(&["run", "--rm", "--net", "none", "busybox:1", "id", "-u"]).ok().prints("0");
    sailor.davit(&["net", "create", "my-bridge"]).ok();
    let server = [
        "run",
        "-d",
        "--name",
        "db",
        "--net",
        "my-bridge",
        "busybox:1",
        "nc",
        "-ll",
        "-p",
        "80",
        "-e",
        "hostname",
    ];
    sailor.davit(&server).ok();
    let ask = "for i in 1 2 3 4 5 6 7 8 9; do nc -w 5 db 80 </dev/null && exit; sleep 0.3; done; exit 1";
    sailor.davit(&["run", "--rm", "--net", "my-bridge", "busybox:1", "sh", "-c", ask]).ok();
    sailor.davit(&["exec", "db", "sh", "-c", "touch /x && ls /x"]).ok().prints("/x");
    sailor.davit(&["logs", "db"]).ok();
    sailor.davit(&["status"]).ok().says("rootless");
    sailor.davit(&["rm", "-f", "db"]).ok();
    sailor.davit(&["net", "rm", "my-bridge"]).ok();
    sailor.davit(&["down"]).ok();
    eventually("nothing is left", || {
        let left = sailor.host.inventory().beyond(&before);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
}

#[test]
fn a_plain_users_root_is_not_the_hosts() {
    let sailor = Sailor::new();
    sailor.davit(&["image", "load", "-i", BUSYBOX]).ok();
    let volume = format!("{}:/shared", sailor.host.path().join("home").display());
    sailor.davit(&["run", "--rm", "--net", "none", "-v", &volume, "busybox:1", "touch", "/shared/made"]).ok();
    let made = sailor.host.path().join("home/made");
    sailor.host.sh(&format!("stat -c %u {}", made.display())).ok().prints("4242");
    let secret = "/root:/secret";
    let ran = sailor.davit(&["run", "--rm", "--net", "none", "-v", secret, "busybox:1", "ls", "/secret"]);
    assert!(ran.code != 0, "a plain user must not read root's files: {ran}");
    sailor.davit(&["down"]).ok();
}

#[test]
fn a_plain_user_without_subordinate_ids_gets_along_with_one() {
    let host = Host::builder().unchecked().etc("subuid", "").etc("subgid", "").create().unwrap();
    let sailor = Sailor::on(host);
    sailor.davit(&["image", "from-host", "-t", "tools", "/bin/sh", "/usr/bin/id"]).ok();
    sailor.davit(&["run", "--rm", "--net", "none", "tools", "id", "-u"]).ok().prints("0");
    sailor.davit(&["down"]).ok();
}
