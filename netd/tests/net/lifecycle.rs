//! What is left, and what goes on, when things end.

use davit_contracts::Kind;
use davit_contracts::network as proto;

use crate::host::{BACKEND, BEYOND, Backend, Guest, HOST, Host, ip};

#[tokio::test]
pub async fn nothing_is_left_after_the_last_container() {
    let host = Host::new().await;
    assert_eq!(host.traces(), Vec::<String>::new());
    host.net_create("my-bridge").await;
    let a = host.guest("a", &["bridge"], &["8080:80"]).await;
    let b = host.guest("b", &["my-bridge", "bridge"], &["8081:80"]).await;
    assert!(host.traces().len() >= 5, "{:?}", host.traces());
    assert_eq!(host.space.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
    host.detach(&a).await;
    host.detach(&b).await;
    host.detach(&b).await;
    host.net_remove("my-bridge").await.unwrap();
    host.becomes_clean().await;
    // Others may have come to need it: what was turned on stays on.
    assert_eq!(host.space.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
}

#[tokio::test]
pub async fn attach_repeated_answers_the_same_and_needs_a_living_holder() {
    let host = Host::new().await;
    let guest = Guest::new("g");
    let first = host.attach(&guest, &["bridge"], &["80"]).await.unwrap();
    let again = host.attach(&guest, &["bridge"], &["80"]).await.unwrap();
    assert_eq!((&first.endpoints, &first.ports), (&again.endpoints, &again.ports));

    let mut request = Host::request(&Guest::new("other"), vec![], &[]);
    request.holder.as_mut().unwrap().start_time += 1;
    assert_eq!(host.attach_request(request).await.unwrap_err().kind(), Kind::WrongState);
}

#[tokio::test]
pub async fn a_killed_daemon_comes_back_to_working_containers() {
    let mut host = Host::new().await;
    host.net_create("my-bridge").await;
    let db = Guest::new("db");
    let db_at = host.attach(&db, &["my-bridge"], &["8080:80"]).await.unwrap();
    let web = host.guest("web", &["my-bridge"], &[]).await;
    let gone = host.guest("gone", &["my-bridge"], &["9090:80"]).await;
    db.space.serve_tcp("0.0.0.0:80");
    host.kill();
    drop(gone);
    // Without a daemon containers reach each other, and published ports answer.
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    // What a kill half way leaves: an interface with our mark that no record names, and flushed rules.
    let group = host.space.run("ip -d -o link show type bridge");
    let group = group.split("group ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    host.space.run(&format!("ip link add dvhffffffffffff group {group} type dummy 2>/dev/null || ip link add dvhffffffffffff group {group} type bridge"));
    host.space.run("ip link add dvh-not-ours type bridge");
    host.flush_rules();

    host.start().await;
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some(), "rules are back");
    assert_eq!(web.space.dig("db"), ip(&db_at, 0));
    assert_eq!(web.space.dig("+tcp db"), ip(&db_at, 0));
    assert_eq!(web.space.dig("gone"), "", "its holder died");
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert!(web.space.ask_tcp(&format!("{BEYOND}:80")).is_some());
    let traces = host.traces();
    assert!(!traces.iter().any(|t| t == "dvhffffffffffff"), "{traces:?}");
    assert!(traces.iter().any(|t| t == "dvh-not-ours"), "another's interface was removed: {traces:?}");
    // Reservations are back, addresses are known, and everything can still be removed.
    assert!(host.space.inside(|| std::net::TcpListener::bind("0.0.0.0:8080")).is_err());
    let next = Guest::new("next");
    let next_at = host.attach(&next, &["my-bridge"], &["9090:80"]).await.unwrap();
    assert!(ip(&next_at, 0) != ip(&db_at, 0));
    for guest in [&db, &web, &next] {
        host.detach(guest).await;
    }
    host.space.run("ip link del dvh-not-ours");
    host.net_remove("my-bridge").await.unwrap();
    host.becomes_clean().await;
}

/// A process that holds a lock until it is dropped.
struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A lock of all commands of iptables that somebody does not let go of: attaching fails in time and says why, without the
/// network being taken for known; netd starts.
#[tokio::test]
async fn a_firewall_that_refuses_is_told_and_tried_again() {
    BACKEND.set(Backend::IptablesLegacy);
    let mut host = Host::with("mount -t tmpfs tmpfs /run").await;
    let hold = |host: &Host| {
        let pid = host.space.pid().to_string();
        let held = ["-t", &pid, "-m", "flock", "--no-fork", "/run/xtables.lock", "sleep", "1000"];
        let child = Holder(std::process::Command::new("nsenter").args(held).spawn().unwrap());
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while host.space.attempt("flock -n /run/xtables.lock true").0 {
            assert!(std::time::Instant::now() < until, "the lock is not held");
        }
        child
    };
    let bridge = host.net_create("n").await.interface;
    let known = |host: &Host| {
        host.space.run("iptables-legacy -S").contains(&format!("-i {bridge} -o {bridge} -j ACCEPT"))
    };
    let a = host.guest("a", &["bridge"], &[]).await;
    let holder = hold(&host);
    let b = Guest::new("b");
    let e = host.attach(&b, &["n"], &[]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    assert!(format!("{e:?}").contains("/run/xtables.lock"), "{e:?}");
    drop(holder);
    host.attach(&b, &["n"], &[]).await.unwrap();
    assert!(known(&host), "a container is on a network that the rules do not name");

    host.kill();
    host.flush_rules();
    let holder = hold(&host);
    host.start().await;
    assert!(host.log().contains("firewall rules could not be written"), "{}", host.log());
    drop(holder);
    let c = host.guest("c", &["bridge"], &[]).await;
    assert!(known(&host), "all rules are back");
    for guest in [&a, &b, &c] {
        host.detach(guest).await;
    }
}

#[tokio::test]
pub async fn a_stopped_daemon_leaves_containers_wired_and_a_dead_host_is_cleaned() {
    let mut host = Host::new().await;
    let a = host.guest("a", &["bridge"], &["8080:80"]).await;
    a.space.serve_tcp("0.0.0.0:80");
    host.stop();
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    host.start().await;
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    host.kill();
    drop(a);
    host.start().await;
    host.becomes_clean().await;
    let all = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    assert!(all.is_empty());
}

#[tokio::test]
pub async fn a_second_daemon_is_refused_in_one_line() {
    let host = Host::new().await;
    let out = host.command().output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && text.lines().count() == 1 && text.contains("another daemon"), "{text}");
}

/// Kills the daemon at many moments of attach and detach; whatever was acknowledged works, all else is gone.
#[tokio::test]
pub async fn kills_at_any_moment_leak_nothing() {
    let mut host = Host::new().await;
    host.net_create("n").await;
    let witness = host.guest("witness", &["n"], &["8080:80"]).await;
    witness.space.serve_tcp("0.0.0.0:80");
    for round in 0..12u64 {
        let guest = Guest::new(&format!("g{round}"));
        let request = Host::request(
            &guest,
            vec![proto::EndpointSpec { network: "n".into(), ..Default::default() }],
            &["9090:90"],
        );
        let mut client = host.endpoints();
        let call = tokio::spawn(async move { client.attach(request).await.is_ok() });
        tokio::time::sleep(std::time::Duration::from_micros(300 * round)).await;
        host.kill();
        let acknowledged = call.await.unwrap();
        host.start().await;
        let listed =
            host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
        let known = listed.iter().any(|s| s.id == guest.id);
        assert!(known || !acknowledged, "round {round}: an acknowledged attach was lost");
        let veths = host.traces().iter().filter(|t| t.starts_with("dvh")).count();
        assert_eq!(veths, listed.len(), "round {round}");
        assert_eq!(guest.space.run("ip -o link").contains("eth0"), known, "round {round}");
        assert!(!witness.space.dig("witness").is_empty());
        assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
        host.detach(&guest).await;
    }
    host.detach(&witness).await;
    host.net_remove("n").await.unwrap();
    host.becomes_clean().await;
}

#[tokio::test]
pub async fn a_log_that_cannot_be_written_does_not_end_the_daemon() {
    let mut host = Host::new().await;
    host.stop();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut daemon = host.command().env("DAVIT_LOG", "debug").stderr(full).spawn().unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while davit_contracts::client::connect(&host.socket()).await.is_err() {
        assert_eq!(daemon.try_wait().unwrap(), None, "it ended");
        assert!(std::time::Instant::now() < until, "it does not answer");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    host.net_create("n").await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// A table that a process owns is nobody else's to delete (nft(8), "flags owner").
#[tokio::test]
async fn a_container_that_owns_the_resolvers_table_is_detached_all_the_same() {
    let host = Host::new().await;
    host.net_create("n").await;
    let guest = host.guest("holder", &["n"], &[]).await;
    guest.space.run(
        "mkfifo /tmp/words-$$; (nft -i </tmp/words-$$ >/dev/null 2>&1 &); exec 9>/tmp/words-$$; rm /tmp/words-$$
         echo 'delete table ip davit' >&9; echo 'add table ip davit { flags owner; }' >&9
         (sleep 30 >&9 2>/dev/null </dev/null &) >/dev/null
         until nft list tables | grep -q 'ip davit' && nft list table ip davit | grep -q owner; do sleep 0.05; done",
    );
    host.detach(&guest).await;
    assert!(
        host.endpoints()
            .list(proto::ListSandboxesRequest {})
            .await
            .unwrap()
            .into_inner()
            .sandboxes
            .is_empty()
    );
}
