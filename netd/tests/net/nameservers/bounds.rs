//! What asking inside costs netd: nothing while nobody asks, little whatever a container does, and nothing afterwards.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{asker, internal};
use crate::host::{Guest, Host};
use crate::upstream::Upstream;

/// Waits until netd has no more descriptors than it had.
async fn falls_to(host: &Host, before: &[String], what: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while host.descriptors().len() > before.len() {
        assert!(Instant::now() < until, "{what}: {:?}, before {before:?}", host.descriptors());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nothing_is_kept_while_nobody_asks_and_everything_closed_at_the_end() {
    let host = Host::new().await;
    internal(&host, "in", false).await;
    let server = Guest::new("server");
    let at = crate::host::ip(&host.attach(&server, &["in"], &[]).await.unwrap(), 0);
    let _upstream = Upstream::serve(&server.space, "0.0.0.0", "198.51.100.7");
    let without = host.descriptors();
    let plain = asker(&host, "plain", "in", &[]).await;
    let each = host.descriptors().len() - without.len();
    host.detach(&plain).await;
    falls_to(&host, &without, "a detach").await;

    let a = asker(&host, "a", "in", &[&at, "fe80::9%eth0", "127.0.0.1"]).await;
    assert_eq!(host.descriptors().len(), without.len() + each, "servers of its own cost nothing");
    // A thing of its namespace that can be seen from elsewhere.
    let world = host.world.pid();
    a.space.run(&format!("ip link add near type veth peer name far netns {world}"));
    assert_eq!(a.space.dig("many.example.org").lines().count(), 100);
    assert!(host.descriptors().len() >= without.len() + each + 2, "UDP and TCP: {:?}", host.descriptors());
    // A question that nobody answers is under way.
    server.space.run("ip link set eth0 down");
    let client = a.space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.send_to(&crate::names::query("other.example.", 7), "127.0.0.11:53").unwrap();
    drop(client);
    host.detach(&a).await;
    falls_to(&host, &without, "a detach").await;
    drop(a);
    let until = Instant::now() + Duration::from_secs(30);
    while host.world.attempt("ip link show far").0 {
        assert!(Instant::now() < until, "the namespace is kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A container that is its own server, answers most, and asks without end.
#[tokio::test]
async fn a_container_that_is_its_own_server_takes_a_few_descriptors_at_most() {
    let host = Host::new().await;
    let b = asker(&host, "b", "bridge", &["127.0.0.1"]).await;
    let _of_b = Upstream::serve(&b.space, "127.0.0.1", "198.51.100.2");
    let a = asker(&host, "a", "bridge", &["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await;
    let before = host.descriptors().len();
    let own = a.space.inside(|| UdpSocket::bind("127.0.0.1:53")).unwrap();
    own.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (ended, served) = (Arc::new(AtomicBool::new(false)), own.try_clone().unwrap());
    let over = ended.clone();
    let answering = std::thread::spawn(move || {
        let (mut query, mut count) = ([0; 512], 0);
        while !over.load(Ordering::SeqCst) {
            let Ok((len, from)) = served.recv_from(&mut query) else { continue };
            count += 1;
            // A few stay under way, so that a socket that is worn out is kept.
            if count % 50 > 0 {
                let reply = crate::upstream::reply_to(&query[..len], "").unwrap().to_vec().unwrap();
                let _ = served.send_to(&reply, from);
                // What nobody asked for comes with it.
                let _ = served.send_to(&reply, from);
            }
        }
        count
    });
    let client = a.space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut most = 0;
    for n in 0..6000u16 {
        client.send_to(&crate::names::query(&format!("n{n}.example."), n), "127.0.0.11:53").unwrap();
        let _ = client.recv(&mut [0; 512]);
        if n % 50 == 0 {
            most = most.max(host.descriptors().len());
        }
    }
    // Others are answered all the same.
    assert_eq!(b.space.dig("example.org"), "198.51.100.2");
    ended.store(true, Ordering::SeqCst);
    assert!(answering.join().unwrap() > 3000);
    // Each server: one socket that is used, one that is worn.
    assert!(most > before && most <= before + 7, "{before} before, {most} then");
}
