//! The private host itself: what it promises to every other test.

use davit_tests::internet::{self, Internet};
use davit_tests::{Host, Registry, fixture};
use nix::sys::signal::Signal;

/// A host without davit in it.
fn bare() -> Host {
    Host::builder().unchecked().create().expect("tests run as root")
}

#[test]
fn a_host_is_alone() {
    let host = bare();
    // By itself: what a pipe leads to may not have become its program yet.
    host.sh("all=$(ps -eo comm=); echo \"$all\" | sort -u | tr '\\n' ' '")
        .ok()
        .prints("davit-test-init ps sh");
    host.sh("ls /sys/class/net /proc/self/net >/dev/null; cut -d: -f1 /proc/net/dev | tail -n +3")
        .ok()
        .prints("lo");
    host.sh("sort -u -t: -k3 /proc/self/cgroup | cut -d: -f3 | sort -u").ok().prints("/");
    host.sh("find /sys/fs/cgroup -mindepth 2 -type d").ok().prints("");
    host.sh("ls -A /run | grep -v '^davit$'").prints("");
}

#[test]
fn what_stays_behind_is_noticed() {
    let host = bare();
    let before = host.inventory();
    host.sh("sleep 4321 > /dev/null 2>&1 & mkdir /sys/fs/cgroup/*/left; ip link add left type bridge; mount -t tmpfs left /mnt").ok();
    host.sh("nft add table ip left; ip netns add left").ok();
    let left = host.inventory().beyond(&before).join("\n");
    for thing in
        ["sleep 4321", "/left", "link left", "mount /mnt tmpfs", "table ip left", "netns /run/netns/left"]
    {
        assert!(left.contains(thing), "{thing} not noticed in:\n{left}");
    }
}

#[test]
fn commands_end_with_their_own_code_and_signals_arrive() {
    let host = bare();
    host.sh("exit 7").exits(7);
    let running = host
        .command("sh")
        .args(["-c", "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.01; done"]);
    let running = running.start();
    running.until("up");
    running.signal(Signal::SIGTERM);
    running.wait().exits(3).says("got");
    let mut cat = host.command("cat").open_stdin().start();
    cat.write("typed\n");
    cat.until("typed");
    cat.wait().ok();
}

#[test]
fn an_orphan_is_reaped() {
    let host = bare();
    host.sh("sh -c 'sleep 0.05 &' ").ok();
    davit_tests::eventually("no zombie", || {
        let zombies = host.sh("ps -eo stat= | grep -c Z").text().to_owned();
        if zombies == "0" { Ok(()) } else { Err(zombies) }
    });
}

#[test]
fn a_host_reaches_the_internet_and_nothing_else() {
    let host = bare();
    let far = Internet::of(&host);
    far.serve_tcp(80);
    host.sh("curl -s http://198.51.100.1/").ok().prints(&format!("you are {}", internet::HOST_ADDRESS));
    far.serve_dns("far.example");
    host.sh("dig +short @198.51.100.1 far.example").ok().prints(internet::ADDRESS);
    host.sh("dig +noall +comments @198.51.100.1 other.example").ok().says("NXDOMAIN");
}

#[test]
fn images_and_registries_can_be_made() {
    fixture::make_all();
    let host = bare();
    let http = Registry::http(&host);
    let https = Registry::https(&host);
    let reference = http.image("layered:1");
    let inspect = format!("skopeo inspect --tls-verify=false docker://{reference} | jq '.Layers | length'");
    host.sh(&inspect).ok().prints("3");
    host.sh("curl -s https://registry.test:5443/v2/").exits(60);
    host.sh(&format!(
        "curl -s --cacert {} https://registry.test:5443/v2/_catalog",
        https.authority().display()
    ))
    .ok()
    .says("busybox");
    host.sh(&format!("tar -tf {} | grep bin/busybox", fixture::busybox().rootfs_tar())).ok();
}
