//! `davit clone`: a container that begins as another one is now.

use davit_tests::{Host, Ran, eventually};

/// Counts in a file of its own.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i > /counter; sleep 0.02; done";

fn field(host: &Host, format: &str, name: &str) -> String {
    host.davit(["inspect", "-f", format, name]).ok().text().to_owned()
}

fn sh(host: &Host, name: &str, script: &str) -> Ran {
    host.davit(["exec", name, "sh", "-c", script])
}

fn snapshots(host: &Host) -> usize {
    host.sh("ls -A \"$DAVIT_STATE_DIR/storage/snapshots\" | wc -l")
        .ok()
        .text()
        .parse()
        .expect("a number of wc")
}

#[test]
fn a_clone_begins_as_its_source_and_is_a_container_of_its_own() {
    let host = Host::with_busybox();
    host.net_create("n");
    host.davit(["volume", "create", "named"]).ok();
    let words = [
        "run",
        "-d",
        "--name",
        "src",
        "--net",
        "n",
        "--ip",
        "10.89.0.77",
        "-v",
        "named:/named",
        "-v",
        "/anon",
    ];
    let more =
        ["-p", "8080:80", "--label", "a=b", "-e", "SHIP=davit", "-m", "64m", "busybox:1", "sleep", "1000"];
    let subnet = host.davit(["net", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "n"]).ok();
    let address = format!("{}.77", subnet.text().rsplit_once('.').unwrap().0);
    let words: Vec<&str> = words.iter().map(|w| if *w == "10.89.0.77" { &address } else { *w }).collect();
    host.davit([&words[..], &more].concat()).ok();
    let changes = "echo one > /one; ln /one /two; rm /etc/plain; rm -r /var/www; mkdir /var/www; echo v > /anon/f; echo n > /named/f";
    sh(&host, "src", changes).ok();

    // Of one that runs, which runs on.
    let ran = host.davit(["clone", "-p", "8081:80", "--cpus", "0.5", "src", "copy"]).ok();
    assert_eq!(ran.text().len(), 64, "{ran}");
    assert_eq!(field(&host, "{{.State.Status}}", "src"), "running");
    assert_eq!(field(&host, "{{.State.Status}} {{.Name}} {{.Config.Labels.a}}", "copy"), "created /copy b");
    assert_eq!(field(&host, "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", "copy"), "67108864 500000000");
    sh(&host, "src", "echo later > /one; echo later > /anon/f").ok();
    host.davit(["start", "copy"]).ok();
    let look = "cat /one /two /anon/f /named/f; ls /etc/plain /var/www 2>&1; echo $SHIP; stat -c %h /one";
    sh(&host, "copy", look)
        .ok()
        .prints("one\none\nv\nn\nls: /etc/plain: No such file or directory\n/var/www:\ndavit\n2");
    // Named volumes are one, what nobody named is two; neither sees what the other does to its own files.
    sh(&host, "copy", "echo mine > /one; echo mine > /anon/f; echo both > /named/f").ok();
    sh(&host, "src", "cat /one /anon/f /named/f").ok().prints("later\nlater\nboth");
    let identity = "{{.Config.Hostname}} {{.NetworkSettings.Networks.n.IPAddress}} {{.NetworkSettings.Networks.n.MacAddress}}";
    let (a, b) = (field(&host, identity, "src"), field(&host, identity, "copy"));
    for (a, b) in a.split(' ').zip(b.split(' ')) {
        assert!(a != b && !b.is_empty(), "{a} {b}");
    }
    host.davit(["exec", "copy", "nslookup", "src"]).ok().says(&address);

    // A clone of a clone that has ended, under a name that is found; its port is another's.
    host.davit(["stop", "-t", "0", "copy"]).ok();
    host.davit(["clone", "copy"]).ok().says("");
    let ran = host.davit(["clone", "--run", "copy"]);
    assert!(ran.code == 0 && ran.stderr.contains("8081"), "{ran}");
    sh(&host, "copy-clone1", "cat /one /anon/f").ok().prints("mine\nmine");
    let ran = host.davit(["start", "copy-clone"]);
    assert!(ran.code != 0 && ran.stderr.contains("8081"), "{ran}");
    // In the place of its source.
    host.davit(["clone", "--destroy", "copy-clone1", "new"]).refused(&["copy-clone1", "--force"]);
    host.davit(["clone", "--destroy", "--force", "--run", "copy-clone1", "new"]).ok();
    sh(&host, "new", "cat /one").ok().prints("mine");
    host.davit(["inspect", "copy-clone1"]).code_is_not_zero();

    // What cannot be leaves nothing.
    host.leaves_nothing(|| {
        host.davit(["clone", "nobody"]).refused(&["no such container", "nobody"]);
        host.davit(["clone", "src", "copy"]).refused(&["already in use", "copy"]);
        host.davit(["clone", "src", "-bad-"]).code_is_not_zero();
        host.davit(["clone", "-p", "x", "src", "y"]).code_is_not_zero();
    });
    host.davit(["rm", "-fv", "src", "copy", "copy-clone", "new"]).ok();
    assert_eq!(snapshots(&host), 0);
    assert_eq!(host.davit(["volume", "ls", "-q"]).ok().text(), "named");
    host.davit(["net", "rm", "n"]).ok();
}

/// storaged waits in the middle of a copy, with everything copied, for as long as a file is there.
fn stalling() -> (Host, String) {
    let host = Host::new();
    let point = host.work("stall").to_string_lossy().into_owned();
    host.command("davit")
        .args(["up"])
        .env("DAVIT_STALLPOINT", format!("snapshot.copied={point}"))
        .start()
        .wait()
        .ok();
    host.load_busybox();
    (host, point)
}

fn reached(host: &Host, point: &str) {
    eventually("the copy stands still", || {
        let ran = host.sh(&format!("test -e {point}.reached"));
        if ran.code == 0 { Ok(()) } else { Err(ran.to_string()) }
    });
}

fn counter(host: &Host, pid: &str) -> String {
    host.sh(&format!("cat /proc/{pid}/root/counter")).text().to_owned()
}

#[test]
fn a_running_source_is_frozen_meanwhile_and_thawed_whatever_happens() {
    let (host, point) = stalling();
    host.davit(["run", "-d", "--name", "src", "--net", "none", "busybox:1", "sh", "-c", COUNTER]).ok();
    let pid = field(&host, "{{.State.Pid}}", "src");
    let goes_on = || {
        let before = counter(&host, &pid);
        eventually("the source goes on", || {
            let now = counter(&host, &pid);
            if now != before && !now.is_empty() { Ok(()) } else { Err(now) }
        });
    };
    for killed in ["", "davit-storaged", "davit-runtimed"] {
        host.sh(&format!("rm -f {point}.reached; touch {point}")).ok();
        let clone = host.start_davit(["clone", "src", &format!("copy-{killed}")]);
        reached(&host, &point);
        let one = counter(&host, &pid);
        host.sh("sleep 0.2").ok();
        assert_eq!(counter(&host, &pid), one, "it stands still");
        if !killed.is_empty() {
            host.sh(&format!("pkill -9 -x {killed}")).ok();
        }
        if killed == "davit-runtimed" {
            // The next one finds it frozen, and does not wait for a copy that nobody waits for.
            goes_on();
        }
        host.sh(&format!("rm {point}")).ok();
        let ran = clone.wait();
        assert!(killed == "davit-runtimed" || ran.code == 0, "{killed}: {ran}");
        eventually("it runs", || match field(&host, "{{.State.Status}}", "src").as_str() {
            "running" => Ok(()),
            other => Err(other.to_owned()),
        });
        goes_on();
    }
    // Of a copy whose runtimed was killed either all is there or nothing.
    let all = host.davit(["ps", "-aq"]).ok().stdout.lines().count();
    eventually("nothing is left over", || match snapshots(&host) {
        n if n == all => Ok(()),
        n => Err(format!("{n} snapshots of {all} containers")),
    });
    host.davit(["rm", "-f", "src", "copy-", "copy-davit-storaged"]).ok();
    host.davit(["container", "prune", "-f"]).ok();
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let host = Host::builder().disk_of("96m").create().unwrap();
    host.load_busybox();
    host.davit(["run", "-d", "--name", "src", "--net", "none", "busybox:1", "sleep", "1000"]).ok();
    sh(&host, "src", "head -c 60000000 /dev/urandom > /large").ok();
    let before = snapshots(&host);
    host.leaves_nothing(|| {
        let ran = host.davit(["clone", "src", "copy"]);
        assert!(ran.code != 0 && ran.stderr.to_lowercase().contains("space"), "{ran}");
    });
    assert_eq!(snapshots(&host), before);
    assert_eq!(field(&host, "{{.State.Status}}", "src"), "running");
    sh(&host, "src", "rm /large").ok();
    host.davit(["clone", "src", "copy"]).ok();
    host.davit(["rm", "-f", "src", "copy"]).ok();
}
