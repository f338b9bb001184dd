//! How long ADD and DEL take, from the start of the process to its end, beside Debian's bridge plugin: printed, for a
//! person to read.

use std::time::Instant;

use serde_json::json;

use super::call::{PLACES, Plugin};
use crate::host::Host;

fn median(mut times: Vec<u128>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn add_and_del() {
    let host = Host::with(&format!("{PLACES}; ip netns add c1")).await;
    host.net_create("n").await;
    let _keep = host.guest("keep", &["n"], &[]).await;
    let ipam = json!({"type": "host-local", "subnet": "10.92.0.0/24"});
    let theirs =
        json!({"bridge": "cni9", "isGateway": true, "isDefaultGateway": true, "ipMasq": true, "ipam": ipam});
    for plugin in [
        Plugin::davit(&host, "1.0.0", json!({"network": "n"})),
        Plugin::debian(&host, "1.0.0", "bridge", theirs),
    ] {
        let (mut add, mut del) = (Vec::new(), Vec::new());
        for _ in 0..15 {
            let start = Instant::now();
            plugin.add("c1").result();
            add.push(start.elapsed().as_micros());
            let start = Instant::now();
            plugin.del("c1").result();
            del.push(start.elapsed().as_micros());
        }
        // davit's interface is removed behind the answer.
        let links = || host.space.run("ip netns exec c1 ip -o link");
        host.eventually("the interface is gone", || !links().contains("eth0")).await;
        println!("{}: ADD {} us, DEL {} us", plugin.config["type"], median(add), median(del));
    }
}
