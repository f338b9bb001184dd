//! What containers do when nothing goes wrong.

use davit_contracts::Kind;
use davit_contracts::runtime::{
    CreateRequest, ExecCreateRequest, ExecInspectRequest, ExecStartRequest, KillRequest, LogsRequest,
    MountSpec, NetworkSpec, PauseRequest, RemoveRequest, RenameRequest, RestartRequest, StartRequest,
    StopRequest, StringList, TopRequest, UnpauseRequest, WaitRequest,
};

use super::attach::attach;
use super::world::{eventually, world};

fn network(mode: &str) -> NetworkSpec {
    NetworkSpec { mode: mode.into(), ..NetworkSpec::default() }
}

#[test]
fn an_attached_run_gets_output_and_exit_code_and_leaves_nothing() {
    world(async |w| {
        let mut spec = w.sh("hello", "echo out; echo err >&2; cat; exit 3");
        spec.open_stdin = true;
        spec.stdin_once = true;
        spec.auto_remove = true;
        let run = w.run(spec, true).await.unwrap();
        assert!(
            run.stage_us.contains_key("total") && run.stage_us.contains_key("network.veth"),
            "{:?}",
            run.stage_us
        );
        let removed = WaitRequest { container: run.id.clone(), condition: 3, states: Vec::new() };
        let mut client = w.client();
        let removed = tokio::spawn(async move { client.wait(removed).await });
        let out = attach(&run.attach_socket, None, b"in").await;
        assert_eq!((out.stdout.as_str(), out.stderr.as_str(), out.exit.code), ("out\nin", "err\n", 3));
        assert_eq!(removed.await.unwrap().unwrap().into_inner().exit_code, 3);
        assert_eq!(w.inspect("hello").await.unwrap_err().kind(), Kind::NotFound);
        w.assert_clean().await;
    });
}

#[test]
fn a_container_sees_what_docker_would_show_it() {
    world(async |w| {
        let volume = w.dir.path().join("data/new");
        let script = "echo $$; hostname; pwd; id -u; id -g; id -G; echo $HOME $A $PATH; cat /etc/resolv.conf; cat /v/f; touch /x || echo ro";
        let mut spec = w.sh("inside", script);
        spec.hostname = "harbour".into();
        spec.working_dir = "/made/for/me".into();
        spec.user = "sailor".into();
        spec.env = vec!["A=1".into()];
        spec.read_only = true;
        spec.mounts.push(MountSpec {
            r#type: "bind".into(),
            source: volume.display().to_string(),
            target: "/v".into(),
            create_source: true,
            ..MountSpec::default()
        });
        // The directory is made by the first run, the file in it is there for the second start.
        let id = w.run(spec, false).await.unwrap().id;
        w.wait(&id).await;
        std::fs::write(volume.join("f"), "bound\n").unwrap();
        w.client().start(StartRequest { container: id.clone(), hold_for_attach: false }).await.unwrap();
        w.wait(&id).await;
        let tail = LogsRequest { container: id, tail: Some(11), stdout: true, ..LogsRequest::default() };
        let text = w.logs(tail).await;
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        assert_eq!(
            lines,
            [
                "1",
                "harbour",
                "/made/for/me",
                "4242",
                "4243",
                "4243 77",
                "/home/sailor 1 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "nameserver 127.0.0.11",
                "bound",
                "ro"
            ]
        );
    });
}

#[test]
fn the_whole_life_of_a_container() {
    world(async |w| {
        let mut spec = w.sh("web", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done");
        spec.network = Some(network("none"));
        let created = w.client().create(CreateRequest { spec: Some(spec) }).await.unwrap().into_inner();
        assert_eq!(w.status("web").await, "created");
        w.client().start(StartRequest { container: "web".into(), hold_for_attach: false }).await.unwrap();
        assert_eq!(w.status(&created.id[..10]).await, "running");
        assert!(w.peers.held().sandboxes.is_empty(), "netd is not asked for network none");
        let mut c = w.client();
        let top = c.top(TopRequest { container: "web".into(), ps_args: vec![] }).await.unwrap().into_inner();
        assert!(top.processes.iter().any(|p| p.values[7].starts_with("sh -c")), "{top:?}");
        c.pause(PauseRequest { container: "web".into() }).await.unwrap();
        assert_eq!(w.status("web").await, "paused");
        c.unpause(UnpauseRequest { container: "web".into() }).await.unwrap();
        c.rename(RenameRequest { container: "web".into(), name: "front".into() }).await.unwrap();
        eventually("it traps", async || w.log_of("front").await.contains("up")).await;
        c.stop(StopRequest { container: "front".into(), timeout_s: Some(10), signal: String::new() })
            .await
            .unwrap();
        let state = w.inspect("front").await.unwrap().state.unwrap();
        assert_eq!((state.status.as_str(), state.exit_code, state.pid), ("exited", 5, 0));
        assert!(state.finished_unix_ns >= state.started_unix_ns && state.started_unix_ns > 0);
        c.stop(StopRequest { container: "front".into(), ..StopRequest::default() }).await.unwrap();
        c.restart(RestartRequest { container: "front".into(), timeout_s: None, signal: String::new() })
            .await
            .unwrap();
        assert_eq!(w.status("front").await, "running");
        let refused = c.remove(RemoveRequest { container: "front".into(), ..RemoveRequest::default() }).await;
        assert!(refused.unwrap_err().message().contains("force remove"));
        c.kill(KillRequest { container: "front".into(), signal: "9".into() }).await.unwrap();
        assert_eq!(w.wait("front").await, 137);
        assert_eq!(w.log_of("front").await, "up\nbye\nup\n");
        c.remove(RemoveRequest { container: "front".into(), ..RemoveRequest::default() }).await.unwrap();
        w.assert_clean().await;
    });
}

#[test]
fn followed_logs_end_with_the_container() {
    world(async |w| {
        w.run(w.sh("count", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done"), false).await.unwrap();
        let follow = LogsRequest { container: "count".into(), follow: true, ..LogsRequest::default() };
        assert_eq!(w.logs(follow).await, "1\n2\n3\n4\n5\n");
    });
}

#[test]
fn programs_run_inside_a_running_container() {
    world(async |w| {
        w.run(w.spec("base", &["sleep", "100"]), false).await.unwrap();
        let exec = ExecCreateRequest {
            container: "base".into(),
            command: ["sh", "-c", "id -un; pwd; echo $X; exit 4"].map(Into::into).to_vec(),
            user: "sailor".into(),
            working_dir: "/tmp".into(),
            env: vec!["X=y".into()],
            ..ExecCreateRequest::default()
        };
        let id = w.execs().create(exec).await.unwrap().into_inner().exec_id;
        let start = ExecStartRequest { exec_id: id.clone(), hold_for_attach: true };
        let socket = w.execs().start(start).await.unwrap().into_inner().attach_socket;
        let out = attach(&socket, Some(&id), b"").await;
        assert_eq!((out.stdout.as_str(), out.exit.code), ("sailor\n/tmp\ny\n", 4), "{}", out.stderr);
        eventually("the session has ended", async || {
            let answer =
                w.execs().inspect(ExecInspectRequest { exec_id: id.clone() }).await.unwrap().into_inner();
            !answer.running && answer.exit_code == 4
        })
        .await;
        let missing = ExecCreateRequest {
            container: "base".into(),
            command: vec!["/bin/nothing".into()],
            ..ExecCreateRequest::default()
        };
        let id = w.execs().create(missing).await.unwrap().into_inner().exec_id;
        let failed =
            w.execs().start(ExecStartRequest { exec_id: id, hold_for_attach: false }).await.unwrap_err();
        assert_eq!(davit_contracts::Error::from(failed).kind(), Kind::CommandNotFound);
    });
}

#[test]
fn commands_that_cannot_run_have_dockers_codes() {
    world(async |w| {
        let e = w.run(w.spec("lost", &["/bin/nothing"]), false).await.unwrap_err();
        assert_eq!((e.kind(), e.run_exit_code()), (Kind::CommandNotFound, 127), "{e}");
        let state = w.inspect("lost").await.unwrap().state.unwrap();
        assert_eq!((state.status.as_str(), state.exit_code), ("exited", 127));
        let e = w.run(w.spec("data", &["/etc/passwd"]), false).await.unwrap_err();
        assert_eq!((e.kind(), e.run_exit_code()), (Kind::CommandNotRunnable, 126), "{e}");
        let mut spec = w.spec("", &["/bin/nothing"]);
        spec.entrypoint = Some(StringList::default());
        spec.auto_remove = true;
        let e = w.run(spec, false).await.unwrap_err();
        assert_eq!(e.kind(), Kind::CommandNotFound);
        w.assert_clean().await;
        assert_eq!(w.peers.held().snapshots.len(), 2, "the two that docker would leave");
    });
}

#[test]
fn a_network_namespace_is_shared_and_none_has_loopback() {
    world(async |w| {
        let mut spec = w.spec("first", &["sleep", "100"]);
        spec.network = Some(network("none"));
        w.run(spec, false).await.unwrap();
        let mut spec = w.sh("second", "ip addr show lo | cat; hostname");
        spec.network = Some(network("container:first"));
        w.run(spec, false).await.unwrap();
        w.wait("second").await;
        let text = w.log_of("second").await;
        assert!(text.contains("127.0.0.1/8") && text.contains("LOOPBACK,UP"), "{text}");
        let first = w.inspect("first").await.unwrap();
        assert!(text.ends_with(&format!("{}\n", &first.id[..12])), "{text}");
    });
}

#[test]
fn a_rename_reaches_the_network_or_does_not_happen() {
    world(async |w| {
        let id = w.run(w.sh("web", "sleep 60"), false).await.unwrap().id;
        let mut c = w.client();
        c.rename(RenameRequest { container: "web".into(), name: "front".into() }).await.unwrap();
        assert_eq!(w.peers.held().sandboxes[&id].name, "front");
        let shown = w.inspect("front").await.unwrap();
        assert!(shown.endpoints.iter().all(|e| e.name == "front"), "{:?}", shown.endpoints);
        let refused = RenameRequest { container: "front".into(), name: "refused".into() };
        c.rename(refused).await.unwrap_err();
        assert_eq!(w.inspect("front").await.unwrap().name, "front");
        assert_eq!(w.inspect("refused").await.unwrap_err().kind(), Kind::NotFound);
        c.remove(RemoveRequest { container: id, force: true, ..RemoveRequest::default() }).await.unwrap();
        w.assert_clean().await;
    });
}
