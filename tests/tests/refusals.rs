//! Bad input: one clear line, a code that is not zero, and nothing left behind.

use std::fs;

use davit_tests::{Host, fixture};

#[test]
fn an_archive_that_is_not_there_or_none_at_all() {
    let host = Host::new();
    let text = host.work("text").to_string_lossy().into_owned();
    fs::write(&text, "no archive at all\n".repeat(100)).unwrap();
    let empty = host.work("empty").to_string_lossy().into_owned();
    fs::write(&empty, "").unwrap();
    let directory = host.work("directory").to_string_lossy().into_owned();
    fs::create_dir(&directory).unwrap();
    for path in ["/no/such/archive.tar", &text, &empty, &directory] {
        host.leaves_nothing(|| host.davit(["image", "load", "-i", path]).refused(&[path]));
    }
    for path in ["/no/such/rootfs.tar", &text] {
        host.leaves_nothing(|| host.davit(["image", "import", path, "x:1"]).refused(&[path]));
    }
    host.davit(["image", "ls", "-q"]).ok().prints("");
}

#[test]
fn an_archive_that_ends_too_early() {
    let host = Host::new();
    let whole = fs::read(fixture::busybox().archive()).unwrap();
    let cut = host.work("cut.tar").to_string_lossy().into_owned();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    host.leaves_nothing(|| host.davit(["image", "load", "-i", &cut]).refused(&[]));
    let load =
        || host.command("davit").args(["image", "load"]).stdin(&whole[..whole.len() / 2]).start().wait();
    host.leaves_nothing(|| load().refused(&[]));
    let rootfs = fs::read(fixture::busybox().rootfs_tar_gz()).unwrap();
    fs::write(&cut, &rootfs[..rootfs.len() / 2]).unwrap();
    host.leaves_nothing(|| host.davit(["image", "import", &cut, "x:1"]).refused(&[]));
}

#[test]
fn a_layer_of_another_content_than_its_digest() {
    let host = Host::new();
    let layout = host.work("layout");
    host.sh(&format!("cp -a {} {}", fixture::busybox().layout(), layout.display())).ok();
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap().flatten() {
        let mut bytes = fs::read(blob.path()).unwrap();
        if bytes.len() > 100_000 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(blob.path(), bytes).unwrap();
        }
    }
    let path = layout.to_string_lossy().into_owned();
    host.leaves_nothing(|| host.davit(["image", "load", "-i", &path]).refused(&["digest"]));
}

#[test]
fn an_unknown_image_names_the_nearest() {
    let host = Host::with_busybox();
    let words = ["run", "--rm", "--pull", "never", "--net", "none", "busybex:1", "true"];
    host.leaves_nothing(|| host.davit(words).exits(125).refused(&["busybex:1", "busybox:1"]));
    host.davit(["image", "inspect", "busybox:2"]).refused(&["busybox:2", "busybox:1"]);
    host.davit(["image", "rm", "nothing"]).refused(&["nothing"]);
    host.davit(["image", "tag", "nothing", "x"]).refused(&["nothing"]);
    host.davit(["image", "history", "nothing"]).refused(&["nothing"]);
}

#[test]
fn names_that_are_no_names() {
    let host = Host::with_busybox();
    host.davit(["image", "tag", "busybox:1", "UPPER/Case:1"]).refused(&["UPPER/Case:1"]);
    host.leaves_nothing(|| {
        host.davit(["run", "--name", "no spaces", "--net", "none", "busybox:1", "true"])
            .exits(125)
            .refused(&["no spaces"])
    });
    host.leaves_nothing(|| host.davit(["net", "create", "../up"]).refused(&["../up"]));
}

#[test]
fn an_unknown_network_and_an_unknown_container() {
    let host = Host::with_busybox();
    host.leaves_nothing(|| {
        host.davit(["run", "--rm", "--net", "nowhere", "busybox:1", "true"]).exits(125).refused(&["nowhere"])
    });
    host.leaves_nothing(|| {
        host.davit(["run", "-d", "--net", "nowhere", "busybox:1", "true"]).exits(125).refused(&["nowhere"])
    });
    for command in
        [&["start"][..], &["stop"], &["kill"], &["rm"], &["logs"], &["wait"], &["attach"], &["inspect"]]
    {
        host.davit(command.iter().chain(&["nobody"])).refused(&["nobody"]);
    }
    host.davit(["exec", "nobody", "true"]).refused(&["nobody"]);
    host.davit(["net", "rm", "nowhere"]).refused(&["nowhere"]);
    host.davit(["net", "connect", "nowhere", "nobody"]).refused(&["no"]);
}

#[test]
fn a_name_in_use() {
    let host = Host::with_busybox();
    host.run_detached("taken", &["--net", "none", "busybox:1", "sleep", "1000"]);
    host.leaves_nothing(|| {
        host.davit(["run", "--name", "taken", "--net", "none", "busybox:1", "true"])
            .exits(125)
            .refused(&["taken"])
    });
    host.leaves_nothing(|| host.davit(["create", "--name", "taken", "busybox:1"]).refused(&["taken"]));
    host.net_create("n");
    host.leaves_nothing(|| host.davit(["net", "create", "n"]).refused(&["n"]));
}

#[test]
fn a_port_in_use() {
    let host = Host::with_busybox();
    host.run_detached("first", &["-p", "8080:80", "busybox:1", "sleep", "1000"]);
    let words = ["run", "--rm", "-p", "8080:80", "busybox:1", "true"];
    host.leaves_nothing(|| host.davit(words).exits(125).refused(&["8080", "first"]));
    let server = host.command("nc").args(["-l", "127.0.0.1", "8081"]).start();
    davit_tests::eventually("nc listens", || {
        let ran = host.sh("ss -Hltn sport = 8081");
        if ran.text().is_empty() { Err(String::new()) } else { Ok(()) }
    });
    let words = ["run", "--rm", "-p", "8081:80", "busybox:1", "true"];
    host.leaves_nothing(|| host.davit(words).exits(125).refused(&["8081"]));
    drop(server);
}

#[test]
fn a_subnet_that_overlaps() {
    let host = Host::with_busybox();
    host.davit(["net", "create", "--subnet", "10.88.0.0/16", "wide"]).ok();
    host.leaves_nothing(|| {
        host.davit(["net", "create", "--subnet", "10.88.3.0/24", "narrow"]).refused(&["10.88.", "wide"])
    });
    host.sh("ip link add lan type bridge && ip addr add 10.99.0.1/24 dev lan && ip link set lan up").ok();
    host.leaves_nothing(|| {
        host.davit(["net", "create", "--subnet", "10.99.0.0/24", "lan"]).refused(&["10.99.0.0/24"])
    });
    host.sh("ip link del lan").ok();
    for subnet in ["10.1.0.0/33", "nonsense", "10.1.0.0/31"] {
        host.leaves_nothing(|| host.davit(["net", "create", "--subnet", subnet, "n"]).code_is_not_zero());
    }
    let gateway = ["net", "create", "--subnet", "10.1.0.0/24", "--gateway", "10.2.0.1", "n"];
    host.leaves_nothing(|| host.davit(gateway).refused(&["10.2.0.1"]));
}

#[test]
fn a_program_for_the_image_that_is_not_there() {
    let host = Host::new();
    host.leaves_nothing(|| {
        host.davit(["image", "from-host", "-t", "t", "/no/such/program"]).refused(&["/no/such/program"])
    });
    host.leaves_nothing(|| {
        host.davit(["image", "from-host", "-t", "t", "/etc/passwd"]).refused(&["/etc/passwd"])
    });
}

#[test]
fn a_disk_that_is_full_while_loading() {
    let host = Host::builder().disk_of("16m").create().unwrap();
    // Without an image: something small has to fit.
    host.davit(["up"]).ok();
    let debian = fixture::debian();
    host.leaves_nothing(|| host.davit(["image", "load", "-i", &debian.archive()]).refused(&["space"]));
    host.leaves_nothing(|| host.davit(["image", "import", &debian.rootfs_tar(), "x:1"]).refused(&["space"]));
    host.davit(["image", "ls", "-q"]).ok().prints("");
    host.load_busybox();
    host.davit(["run", "--rm", "--net", "none", "busybox:1", "true"]).ok();
}

#[test]
fn wrong_command_lines() {
    let host = Host::with_busybox();
    for words in [&["no-such-command"][..], &["run"], &["net", "create"], &["ps", "--no-such-flag"]] {
        host.leaves_nothing(|| host.davit(words).code_is_not_zero());
    }
    for port in ["99999:80", "80:0", "a:b", "1:2/icmp", "1.2.3.4.5:1:2"] {
        let words = ["run", "--rm", "-p", port, "busybox:1", "true"];
        host.leaves_nothing(|| host.davit(words).exits(125).refused(&[]));
    }
}
