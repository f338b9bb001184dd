//! kill -9 of runtimed loses neither containers nor logs.

use std::time::Duration;

use davit_contracts::Kind;
use davit_contracts::runtime::{LogsRequest, RunRequest};

use super::attach::attach;
use super::world::{entries, eventually, world};

#[test]
fn a_running_container_is_adopted() {
    world(async |w| {
        let script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 6";
        let run = w.run(w.sh("steady", script), false).await.unwrap();
        w.kill_daemon();
        w.start().await;
        let c = w.inspect("steady").await.unwrap();
        assert_eq!((c.state.as_ref().unwrap().pid, c.id.as_str()), (run.pid, run.id.as_str()));
        assert!(w.peers.held().sandboxes.contains_key(&run.id), "it is still attached");
        assert_eq!(w.wait("steady").await, 6);
        let numbers: Vec<i32> = w.log_of("steady").await.lines().map(|l| l.parse().unwrap()).collect();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
        w.assert_clean().await;
    });
}

#[test]
fn what_ended_meanwhile_is_known() {
    world(async |w| {
        w.run(w.sh("short", "sleep 0.3; echo done; exit 9"), false).await.unwrap();
        let mut spec = w.sh("brief", "sleep 0.3");
        spec.auto_remove = true;
        w.run(spec, false).await.unwrap();
        let pids: Vec<i32> = [w.inspect("short").await, w.inspect("brief").await]
            .into_iter()
            .map(|c| c.unwrap().state.unwrap().pid)
            .collect();
        w.kill_daemon();
        eventually("both have ended", async || {
            pids.iter().all(|p| !std::fs::exists(format!("/proc/{p}")).unwrap())
        })
        .await;
        w.start().await;
        assert_eq!(w.wait("short").await, 9);
        assert_eq!(w.log_of("short").await, "done\n");
        eventually("it was removed", async || {
            w.inspect("brief").await.is_err_and(|e| e.kind() == Kind::NotFound)
        })
        .await;
        w.assert_clean().await;
    });
}

#[test]
fn a_held_container_waits_on_for_its_client() {
    world(async |w| {
        let run = w.run(w.sh("held", "echo hi"), true).await.unwrap();
        w.kill_daemon();
        w.start().await;
        let out = attach(&run.attach_socket, None, b"").await;
        assert_eq!((out.stdout.as_str(), out.exit.code), ("hi\n", 0));
        eventually("its end is known", async || w.status("held").await == "exited").await;
    });
}

#[test]
fn a_start_that_was_cut_off_leaves_nothing() {
    world(async |w| {
        w.peers.held().slow_prepare = Duration::from_secs(2);
        let (mut client, spec) = (w.client(), w.spec("half", &["sleep", "100"]));
        let cut =
            tokio::spawn(
                async move { client.run(RunRequest { spec: Some(spec), hold_for_attach: false }).await },
            );
        eventually("its monitor runs", async || !w.processes().is_empty()).await;
        w.kill_daemon();
        assert!(cut.await.unwrap().is_err());
        eventually("storaged has prepared it all the same", async || !w.peers.held().snapshots.is_empty())
            .await;
        w.peers.held().slow_prepare = Duration::ZERO;
        w.start().await;
        w.assert_clean().await;
        assert!(w.peers.held().snapshots.is_empty());
        w.run(w.spec("half", &["true"]), false).await.unwrap();
    });
}

#[test]
fn a_lost_monitor_is_noticed_at_the_next_start() {
    world(async |w| {
        w.run(w.spec("lost", &["sleep", "100"]), false).await.unwrap();
        let c = w.inspect("lost").await.unwrap();
        w.kill_daemon();
        let kill =
            |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        kill(c.monitor_pid).unwrap();
        eventually("the monitor is gone", async || w.processes().is_empty()).await;
        w.start().await;
        assert_eq!(w.wait("lost").await, 137);
        let pid = c.state.unwrap().pid;
        eventually("its program is dead", async || !std::fs::exists(format!("/proc/{pid}")).unwrap()).await;
        w.assert_clean().await;
    });
}

#[test]
fn peers_may_be_swapped_under_runtimed() {
    world(async |w| {
        w.run(w.sh("one", "true"), false).await.unwrap();
        drop(w.storage.take());
        std::fs::remove_file(w.storage_socket()).unwrap();
        let e = w.run(w.sh("two", "true"), false).await.unwrap_err();
        assert_eq!((e.kind(), e.subject()), (Kind::Unavailable, "storaged"), "{e}");
        assert!(e.hint().contains("davit up"), "{}", e.hint());
        w.storage = Some(w.peers.serve_storage(&w.storage_socket()));
        w.run(w.sh("two", "echo back"), false).await.unwrap();
        w.wait("two").await;
        let follow = LogsRequest { container: "two".into(), follow: true, ..LogsRequest::default() };
        assert_eq!(w.logs(follow).await, "back\n");
        assert_eq!(entries(&w.state_dir().join("containers")).len(), 2);
    });
}
