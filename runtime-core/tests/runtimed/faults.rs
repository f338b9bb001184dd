//! What is left when something goes wrong: nothing.

use davit_contracts::network::EndpointSpec;
use davit_contracts::runtime::wait_request::Condition;
use davit_contracts::runtime::{
    ConnectNetworkRequest, CreateRequest, DisconnectNetworkRequest, InspectRequest, NetworkSpec,
    RemoveRequest, StartRequest, WaitRequest,
};
use davit_contracts::{Error, Kind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{eventually, world};

#[test]
fn a_refused_attachment_unwinds_everything() {
    world(async |w| {
        w.peers.held().refuse_attach =
            Some(Error::new(Kind::InUse, "port 80/tcp is in use").with_hint("choose another port"));
        let e = w.run(w.spec("web", &["sleep", "100"]), false).await.unwrap_err();
        assert_eq!(
            (e.kind(), e.message(), e.hint()),
            (Kind::InUse, "port 80/tcp is in use", "choose another port")
        );
        assert_eq!(w.inspect("web").await.unwrap_err().kind(), Kind::NotFound);
        w.assert_clean().await;
        // A container that was created before stays, not started, and can be started later.
        w.client().create(CreateRequest { spec: Some(w.spec("web", &["sleep", "100"])) }).await.unwrap();
        let start = StartRequest { container: "web".into(), hold_for_attach: false };
        w.client().start(start.clone()).await.unwrap_err();
        let state = w.inspect("web").await.unwrap().state.unwrap();
        assert_eq!((state.status.as_str(), state.error.as_str()), ("created", "port 80/tcp is in use"));
        w.assert_clean().await;
        w.peers.held().refuse_attach = None;
        w.client().start(start).await.unwrap();
        assert_eq!(w.status("web").await, "running");
    });
}

#[test]
fn bad_requests_say_why_and_make_nothing() {
    world(async |w| {
        let mut spec = w.spec("a", &["true"]);
        spec.image = "busibox".into();
        let e = w.run(spec.clone(), false).await.unwrap_err();
        assert_eq!((e.kind(), e.hint()), (Kind::NotFound, "did you mean busybox?"));
        w.client().create(CreateRequest { spec: Some(spec) }).await.unwrap_err();
        let mut spec = w.spec("a", &["true"]);
        spec.network = Some(NetworkSpec { mode: "missing".into(), ..NetworkSpec::default() });
        let e = Error::from(w.client().create(CreateRequest { spec: Some(spec) }).await.unwrap_err());
        assert_eq!(e.kind(), Kind::NotFound);
        let mut spec = w.spec("a", &["true"]);
        spec.user = "nosuch".into();
        let e = w.run(spec, false).await.unwrap_err();
        assert_eq!(e.message(), "unable to find user nosuch: no matching entries in passwd file");
        let mut spec = w.spec("a", &["true"]);
        spec.runtime = "/nonexistent/oci".into();
        let e = w.run(spec, false).await.unwrap_err();
        assert!(e.message().contains("/nonexistent/oci"), "{e}");
        let e = w.run(w.spec("a", &[]), false).await.unwrap_err();
        assert!(e.message().starts_with("no command specified"), "{e}");
        w.assert_clean().await;
        assert!(w.peers.held().snapshots.is_empty());
    });
}

#[test]
fn a_name_is_given_once_however_many_ask_at_once() {
    world(async |w| {
        let all = (0..8).map(|_| {
            let (mut client, spec) = (w.client(), w.spec("same", &["true"]));
            async move { client.create(CreateRequest { spec: Some(spec) }).await }
        });
        let results = futures::future::join_all(all).await;
        let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 1);
        for status in refused.into_iter().map(Result::unwrap_err) {
            assert_eq!(Error::from(status.clone()).kind(), Kind::AlreadyExists);
            assert!(status.message().starts_with("Conflict. The container name \"/same\" is already in use"));
        }
        let e =
            Error::from(w.client().inspect(InspectRequest { container: "smae".into() }).await.unwrap_err());
        assert_eq!((e.message(), e.hint()), ("no such container: smae", "did you mean same?"));
    });
}

#[test]
fn a_dead_monitor_ends_its_container() {
    world(async |w| {
        w.run(w.spec("orphan", &["sleep", "100"]), false).await.unwrap();
        let before = w.inspect("orphan").await.unwrap();
        kill(Pid::from_raw(before.monitor_pid), Signal::SIGKILL).unwrap();
        eventually("it counts as exited", async || w.status("orphan").await == "exited").await;
        let state = w.inspect("orphan").await.unwrap().state.unwrap();
        assert_eq!(state.exit_code, 137);
        assert!(state.error.contains("monitor died"), "{}", state.error);
        let pid = before.state.unwrap().pid;
        eventually("its program is dead", async || !std::fs::exists(format!("/proc/{pid}")).unwrap()).await;
        w.assert_clean().await;
        w.client().start(StartRequest { container: "orphan".into(), hold_for_attach: false }).await.unwrap();
        assert_eq!(w.status("orphan").await, "running");
    });
}

#[test]
fn a_removal_is_done_at_once_for_its_caller_and_finished_later() {
    world(async |w| {
        w.run(w.spec("gone", &["sleep", "100"]), false).await.unwrap();
        w.peers.held().refuse_detach = true;
        let remove = RemoveRequest { container: "gone".into(), force: true, volumes: false };
        w.client().remove(remove).await.unwrap();
        assert_eq!(w.inspect("gone").await.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(super::world::entries(&w.state_dir().join("trash")).len(), 1);
        w.kill_daemon();
        w.peers.held().refuse_detach = false;
        w.start().await;
        w.run(w.spec("gone", &["sleep", "100"]), false).await.unwrap();
        eventually("the old one is finished", async || w.peers.held().snapshots.len() == 1).await;
        assert_eq!(w.status("gone").await, "running");
    });
}

#[test]
fn the_networks_of_what_is_gone_are_free() {
    world(async |w| {
        w.peers.held().slow_detach = std::time::Duration::from_millis(300);
        let remove = |name: &str| RemoveRequest { container: name.into(), force: true, volumes: false };
        w.run(w.spec("web", &["sleep", "100"]), false).await.unwrap();
        w.client().remove(remove("web")).await.unwrap();
        assert!(w.peers.held().sandboxes.is_empty(), "rm answered before netd did");
        // Long enough to be waited for.
        let mut spec = w.spec("brief", &["sleep", "2"]);
        spec.auto_remove = true;
        w.run(spec, false).await.unwrap();
        let gone = WaitRequest {
            container: "brief".into(),
            condition: Condition::Removed.into(),
            states: Vec::new(),
        };
        w.client().wait(gone).await.unwrap();
        assert!(w.peers.held().sandboxes.is_empty(), "it counted as gone before netd answered");
    });
}

#[test]
fn a_removal_does_not_wait_for_ever_for_the_network() {
    world(async |w| {
        w.run(w.spec("gone", &["sleep", "100"]), false).await.unwrap();
        w.peers.held().hang_detach = true;
        let remove = RemoveRequest { container: "gone".into(), force: true, volumes: false };
        w.client().remove(remove).await.unwrap();
        assert_eq!(w.peers.held().sandboxes.len(), 1);
        assert!(w.peers.held().snapshots.is_empty(), "what does not hang is done");
        w.peers.held().hang_detach = false;
        w.assert_clean().await;
    });
}

#[test]
fn networks_are_connected_now_and_at_the_next_start() {
    world(async |w| {
        w.run(w.spec("web", &["sleep", "100"]), false).await.unwrap();
        let connect = |network: &str| ConnectNetworkRequest {
            container: "web".into(),
            endpoint: Some(EndpointSpec { network: network.into(), ..EndpointSpec::default() }),
        };
        w.client().connect_network(connect("blue")).await.unwrap();
        let e = Error::from(w.client().connect_network(connect("blue")).await.unwrap_err());
        assert_eq!(e.kind(), Kind::AlreadyExists);
        let networks = |c: davit_contracts::runtime::Container| {
            c.endpoints.into_iter().map(|e| e.network).collect::<Vec<_>>()
        };
        assert_eq!(networks(w.inspect("web").await.unwrap()), ["bridge", "blue"]);
        let restart = davit_contracts::runtime::RestartRequest {
            container: "web".into(),
            timeout_s: Some(0),
            signal: String::new(),
        };
        w.client().restart(restart).await.unwrap();
        assert_eq!(networks(w.inspect("web").await.unwrap()), ["bridge", "blue"]);
    });
}

#[test]
fn links_lead_to_containers_that_exist() {
    world(async |w| {
        let db = w.run(w.spec("db", &["sleep", "100"]), false).await.unwrap().id;
        w.run(w.spec("web", &["sleep", "100"]), false).await.unwrap();
        let connect = |network: &str, link: &str| ConnectNetworkRequest {
            container: "web".into(),
            endpoint: Some(EndpointSpec {
                network: network.into(),
                links: vec![link.into()],
                ..EndpointSpec::default()
            }),
        };
        let e = Error::from(w.client().connect_network(connect("blue", "nobody:x")).await.unwrap_err());
        assert!(e.kind() == Kind::NotFound && e.to_string().contains("nobody"), "{e}");
        let mut spec = w.spec("late", &["sleep", "100"]);
        spec.network = Some(NetworkSpec {
            endpoints: connect("blue", "nobody:x").endpoint.into_iter().collect(),
            ..NetworkSpec::default()
        });
        assert_eq!(w.run(spec, false).await.unwrap_err().kind(), Kind::NotFound);
        w.client().connect_network(connect("blue", "db:x")).await.unwrap();
        w.client().connect_network(connect("green", &format!("{}:x", &db[..7]))).await.unwrap();
        let links: Vec<_> = w.inspect("web").await.unwrap().spec.unwrap().network.unwrap().endpoints;
        let links: Vec<_> = links.into_iter().flat_map(|e| e.links).collect();
        assert_eq!(links, ["db:x".to_owned(), format!("{}:x", &db[..12])]);
    });
}

#[test]
fn a_container_without_its_last_network_can_be_connected_again() {
    world(async |w| {
        w.run(w.spec("web", &["sleep", "100"]), false).await.unwrap();
        let connect = |network: &str| ConnectNetworkRequest {
            container: "web".into(),
            endpoint: Some(EndpointSpec { network: network.into(), ..EndpointSpec::default() }),
        };
        let disconnect = |network: &str| DisconnectNetworkRequest {
            container: "web".into(),
            network: network.into(),
            force: false,
        };
        let networks = async || {
            let endpoints = w.inspect("web").await.unwrap().endpoints;
            endpoints.into_iter().map(|e| e.network).collect::<Vec<_>>()
        };
        let restart = davit_contracts::runtime::RestartRequest {
            container: "web".into(),
            timeout_s: Some(0),
            signal: String::new(),
        };
        w.client().disconnect_network(disconnect("bridge")).await.unwrap();
        w.client().connect_network(connect("blue")).await.unwrap();
        assert_eq!(networks().await, ["blue"]);
        // Without any it stays without, and attached: netd can connect it.
        w.client().disconnect_network(disconnect("blue")).await.unwrap();
        w.client().restart(restart.clone()).await.unwrap();
        assert_eq!(networks().await, Vec::<String>::new());
        assert_eq!(w.peers.held().sandboxes.len(), 1);
        w.client().connect_network(connect("bridge")).await.unwrap();
        w.client().restart(restart).await.unwrap();
        assert_eq!(networks().await, ["bridge"]);
        let mut spec = w.spec("alone", &["sleep", "100"]);
        spec.network = Some(NetworkSpec { mode: "none".into(), ..NetworkSpec::default() });
        w.run(spec, false).await.unwrap();
        let to_none = ConnectNetworkRequest { container: "alone".into(), ..connect("blue") };
        assert!(w.client().connect_network(to_none).await.is_err(), "asked for with none");
    });
}

#[test]
fn a_network_that_was_asked_for_by_its_id_is_known_by_its_name() {
    world(async |w| {
        let asked = |mode: &str| Some(NetworkSpec { mode: mode.into(), ..NetworkSpec::default() });
        let connect = |container: &str, network: &str| ConnectNetworkRequest {
            container: container.into(),
            endpoint: Some(EndpointSpec { network: network.into(), ..EndpointSpec::default() }),
        };
        let disconnect = |container: &str, network: &str| DisconnectNetworkRequest {
            container: container.into(),
            network: network.into(),
            force: false,
        };
        let mut spec = w.spec("made", &["sleep", "100"]);
        spec.network = asked("id-bl");
        w.client().create(CreateRequest { spec: Some(spec) }).await.unwrap();
        let mut spec = w.spec("runs", &["sleep", "100"]);
        spec.network = asked("id-bl");
        w.run(spec, false).await.unwrap();
        for container in ["made", "runs"] {
            assert_eq!(w.inspect(container).await.unwrap().spec.unwrap().network.unwrap().mode, "blue");
            let e = Error::from(w.client().connect_network(connect(container, "blue")).await.unwrap_err());
            assert_eq!(e.kind(), Kind::AlreadyExists, "{container}: {e}");
            w.client().disconnect_network(disconnect(container, "id-b")).await.unwrap_err();
            w.client().disconnect_network(disconnect(container, "id-blue")).await.unwrap();
        }
        let mut spec = w.spec("twice", &["sleep", "100"]);
        spec.network = asked("blue");
        spec.network.as_mut().unwrap().endpoints.extend(connect("", "id-bl").endpoint);
        let e = Error::from(w.client().create(CreateRequest { spec: Some(spec) }).await.unwrap_err());
        assert!(e.to_string().contains("blue is given twice"), "{e}");
    });
}

#[test]
fn a_stopped_container_lets_go_of_a_network_that_was_removed() {
    world(async |w| {
        let mut spec = w.spec("web", &["sleep", "100"]);
        let endpoint = |n: &str| EndpointSpec { network: n.into(), ..EndpointSpec::default() };
        spec.network = Some(NetworkSpec {
            endpoints: vec![endpoint("blue"), endpoint("green")],
            ..NetworkSpec::default()
        });
        w.client().create(CreateRequest { spec: Some(spec) }).await.unwrap();
        w.peers.held().removed_networks.insert("blue".into());
        let start = StartRequest { container: "web".into(), hold_for_attach: false };
        let disconnect = |network: &str| DisconnectNetworkRequest {
            container: "web".into(),
            network: network.into(),
            force: false,
        };
        let e = Error::from(w.client().disconnect_network(disconnect("missing")).await.unwrap_err());
        assert_eq!(e.kind(), Kind::NotFound, "{e}");
        w.client().disconnect_network(disconnect("blue")).await.unwrap();
        w.client().start(start).await.unwrap();
        let networks = w.inspect("web").await.unwrap().endpoints;
        assert_eq!(networks.iter().map(|e| e.network.as_str()).collect::<Vec<_>>(), ["green"]);
    });
}

#[test]
fn a_record_with_the_beginning_of_a_networks_id_is_understood() {
    world(async |w| {
        let mut spec = w.spec("web", &["sleep", "100"]);
        spec.network = Some(NetworkSpec { mode: "blue".into(), ..NetworkSpec::default() });
        let create = CreateRequest { spec: Some(spec) };
        let id = w.client().create(create).await.unwrap().into_inner().id;
        w.kill_daemon();
        // As it was written before names were looked up.
        let record = w.state_dir().join("containers").join(id).join("container.json");
        let text = std::fs::read_to_string(&record).unwrap();
        std::fs::write(&record, text.replace("\"blue\"", "\"id-bl\"")).unwrap();
        w.start().await;
        assert_eq!(w.inspect("web").await.unwrap().spec.unwrap().network.unwrap().mode, "id-bl");
        let connect = ConnectNetworkRequest {
            container: "web".into(),
            endpoint: Some(EndpointSpec { network: "blue".into(), ..EndpointSpec::default() }),
        };
        let e = Error::from(w.client().connect_network(connect).await.unwrap_err());
        assert_eq!(e.kind(), Kind::AlreadyExists, "{e}");
        let disconnect =
            DisconnectNetworkRequest { container: "web".into(), network: "blue".into(), force: false };
        w.client().disconnect_network(disconnect).await.unwrap();
    });
}
