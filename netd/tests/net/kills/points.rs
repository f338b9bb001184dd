//! Every point of every operation, one after another.

use davit_contracts::network as proto;

use super::{Doomed, endpoint};
use crate::host::{Guest, Host};

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Create,
    Remove,
    Attach,
    Detach,
    /// The same on two networks.
    AttachBoth,
    DetachBoth,
    Connect,
    Disconnect,
    Rename,
    /// The start of netd, with containers and after a kill half way.
    Start,
}

impl Act {
    /// Whether the guest is attached before.
    fn attached(self) -> bool {
        !matches!(self, Self::Attach | Self::AttachBoth)
    }
}

/// Does it; whether it was acknowledged.
async fn act(doomed: &Doomed, what: Act, guest: &Guest) -> bool {
    let id = guest.id.clone();
    let host = &doomed.host;
    match what {
        Act::Create => {
            let request =
                proto::CreateNetworkRequest { name: "new".into(), ipv6: true, ..Default::default() };
            host.create(request).await.is_ok()
        }
        Act::Remove => host.net_remove("new").await.is_ok(),
        Act::Attach => attach(doomed, guest).await,
        Act::AttachBoth => attach_both(doomed, guest).await,
        Act::Detach | Act::DetachBoth => {
            host.endpoints().detach(proto::DetachRequest { sandbox_id: id }).await.is_ok()
        }
        Act::Connect => {
            let request = proto::ConnectRequest { sandbox_id: id, endpoint: Some(endpoint("m")) };
            host.endpoints().connect(request).await.is_ok()
        }
        Act::Disconnect => {
            let request =
                proto::DisconnectRequest { sandbox_id: id, network: "m".into(), ..Default::default() };
            host.endpoints().disconnect(request).await.is_ok()
        }
        Act::Rename => {
            let request = proto::RenameSandboxRequest { sandbox_id: id, name: "renamed".into() };
            host.endpoints().rename(request).await.is_ok()
        }
        Act::Start => true,
    }
}

async fn attach(doomed: &Doomed, guest: &Guest) -> bool {
    doomed.host.attach(guest, &["n"], &["9090:90", "9091:91/tcp"]).await.is_ok()
}

async fn attach_both(doomed: &Doomed, guest: &Guest) -> bool {
    let bandwidth = Some(proto::Bandwidth { ingress_rate: 80_000_000, ..Default::default() });
    let limited = proto::EndpointSpec { bandwidth, ..endpoint("m") };
    let request = Host::request(guest, vec![endpoint("n"), limited], &["9090:90"]);
    doomed.host.attach_request(request).await.is_ok()
}

/// Brings about what the operation starts from.
async fn prepare(doomed: &Doomed, what: Act, guest: &Guest) {
    let host = &doomed.host;
    let names: Vec<String> = doomed.networks().await.into_iter().map(|n| n.name).collect();
    let new = names.iter().any(|n| n == "new");
    match what {
        Act::Remove if !new => drop(host.net_create("new").await),
        Act::Create if new => host.net_remove("new").await.unwrap(),
        _ => {}
    }
    let record = doomed.sandboxes().await.into_iter().find(|s| s.id == guest.id);
    if what == Act::DetachBoth && record.is_none() {
        assert!(attach_both(doomed, guest).await);
    } else if what.attached() && record.is_none() {
        assert!(attach(doomed, guest).await);
    } else if !what.attached() && record.is_some() {
        host.detach(guest).await;
    }
    let on_m = record.is_some_and(|s| s.endpoints.iter().any(|e| e.network == "m"));
    match what {
        Act::Connect if on_m => assert!(act(doomed, Act::Disconnect, guest).await),
        Act::Disconnect if !on_m => assert!(act(doomed, Act::Connect, guest).await),
        Act::Rename => {
            let request = proto::RenameSandboxRequest { sandbox_id: guest.id.clone(), name: "g".into() };
            host.endpoints().rename(request).await.unwrap();
        }
        _ => {}
    }
}

/// Whether what the operation brings about is there.
async fn done(doomed: &Doomed, what: Act, guest: &Guest) -> bool {
    let record = doomed.sandboxes().await.into_iter().find(|s| s.id == guest.id);
    let on_m = record.as_ref().is_some_and(|s| s.endpoints.iter().any(|e| e.network == "m"));
    let new = doomed.networks().await.iter().any(|n| n.name == "new");
    match what {
        Act::Create => new,
        Act::Remove => !new,
        Act::Attach | Act::AttachBoth => record.is_some(),
        Act::Detach | Act::DetachBoth => record.is_none(),
        Act::Connect => on_m,
        Act::Disconnect => !on_m,
        Act::Rename => record.is_some_and(|s| s.name == "renamed"),
        Act::Start => true,
    }
}

async fn killed_everywhere(what: Act) {
    killed_with(what, "bridge").await;
}

/// The network `m` has the driver.
async fn killed_with(what: Act, driver: &str) {
    let mut doomed = Doomed::new().await;
    assert!(doomed.start(1).await);
    doomed.host.net_create("n").await;
    let mut m = proto::CreateNetworkRequest { name: "m".into(), driver: driver.into(), ..Default::default() };
    if driver == "macvlan" {
        m.options = [("parent".to_owned(), "uplink".to_owned())].into();
    }
    doomed.host.create(m).await.unwrap();
    let witness = doomed.host.guest("witness", &["n"], &["8080:80"]).await;
    witness.space.serve_tcp("0.0.0.0:80");
    let guest = Guest::new("g");
    let mut died = 0;
    for n in 1.. {
        assert!(n < 200, "{what:?} does not come to an end");
        prepare(&doomed, what, &guest).await;
        let acknowledged = if what == Act::Start {
            doomed.host.kill();
            if n % 2 == 0 {
                doomed.host.space.run("nft flush ruleset");
            }
            doomed.arm();
            doomed.start(n).await
        } else {
            doomed.arm();
            let acknowledged = act(&doomed, what, &guest).await;
            settle(&mut doomed).await;
            acknowledged
        };
        doomed.disarm();
        let ended = doomed.host.has_ended();
        if ended {
            died += 1;
            assert!(doomed.start(n + 1).await, "it does not start after dying at point {n} of {what:?}");
        }
        let when = format!("{what:?} killed at point {n}");
        doomed.agrees(&[&witness, &guest], &when).await;
        assert!(done(&doomed, what, &guest).await || !acknowledged, "{when}: an acknowledged change is lost");
        assert!(!witness.space.dig("witness").is_empty(), "{when}: names");
        let port = format!("{}:8080", crate::host::HOST);
        assert!(doomed.host.world.ask_tcp(&port).is_some(), "{when}: published port");
        if !ended {
            break;
        }
        // Again, to the end: what is half done must not be in the way.
        if !done(&doomed, what, &guest).await {
            assert!(act(&doomed, what, &guest).await, "{when}: it cannot be repeated: {}", doomed.host.log());
        }
    }
    assert!(died >= 2, "{what:?} passed {died} points");
    doomed.ends_clean().await;
}

/// Work behind the answer (interfaces are swept) dies too: waits until there is none.
async fn settle(doomed: &mut Doomed) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !doomed.host.has_ended() && std::time::Instant::now() < until {
        // A connect or an attach waits for the sweeper; the list that netd gives tells nothing of it, the kernel does.
        let there = doomed.host.traces().iter().filter(|t| t.starts_with("dvh")).count();
        let Ok(list) = doomed.host.endpoints().list(proto::ListSandboxesRequest {}).await else {
            continue;
        };
        let sandboxes = list.into_inner().sandboxes;
        let wired =
            sandboxes.iter().flat_map(|s| &s.endpoints).filter(|e| !e.host_interface.is_empty()).count();
        if there == wired {
            return;
        }
    }
}

#[tokio::test]
async fn create() {
    killed_everywhere(Act::Create).await;
}

#[tokio::test]
async fn remove() {
    killed_everywhere(Act::Remove).await;
}

#[tokio::test]
async fn attach_and_publish() {
    killed_everywhere(Act::Attach).await;
}

#[tokio::test]
async fn detach() {
    killed_everywhere(Act::Detach).await;
}

#[tokio::test]
async fn connect() {
    killed_everywhere(Act::Connect).await;
}

#[tokio::test]
async fn disconnect() {
    killed_everywhere(Act::Disconnect).await;
}

#[tokio::test]
async fn rename() {
    killed_everywhere(Act::Rename).await;
}

#[tokio::test]
async fn start() {
    killed_everywhere(Act::Start).await;
}

/// The other way round: no point is in the list that nothing passes.
#[tokio::test]
async fn every_point_is_passed() {
    for point in davit_netd::failpoint::POINTS {
        let mut doomed = Doomed::new().await;
        let started = doomed.host.try_start(&[("DAVIT_FAILPOINT", point)]).await;
        if started {
            let guest = Guest::new("g");
            for what in [Act::Create, Act::Remove, Act::Attach, Act::Detach] {
                if what == Act::Attach {
                    let request = proto::CreateNetworkRequest { name: "n".into(), ..Default::default() };
                    let _ = doomed.host.create(request).await;
                }
                act(&doomed, what, &guest).await;
            }
        }
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !doomed.host.has_ended() {
            assert!(std::time::Instant::now() < until, "nothing passes the point {point}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn attach_to_a_wire() {
    killed_with(Act::AttachBoth, "macvlan").await;
}

#[tokio::test]
async fn detach_from_a_wire() {
    killed_with(Act::DetachBoth, "macvlan").await;
}

#[tokio::test]
async fn connect_to_a_wire() {
    killed_with(Act::Connect, "macvlan").await;
}

#[tokio::test]
async fn disconnect_from_a_wire() {
    killed_with(Act::Disconnect, "macvlan").await;
}
