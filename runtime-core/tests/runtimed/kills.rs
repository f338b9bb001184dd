//! runtimed dies at every point of a container's life, one after another: nothing is lost, and nothing is left over.

use davit_contracts::Error;
use davit_contracts::runtime::{ListRequest, RemoveRequest, StartRequest, StopRequest};
use davit_runtime_core::failpoint::POINTS;

use super::world::{World, entries, eventually, world};

/// A whole life; how far it was acknowledged.
async fn live(w: &World) -> Result<(), (usize, Error)> {
    let at = |step: usize| move |e: tonic::Status| (step, Error::from(e));
    let mut spec = w.sh("web", "trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done");
    spec.stop_timeout_s = Some(10);
    w.run(spec, false).await.map_err(|e| (0, e))?;
    let name = || "web".to_owned();
    w.client().stop(StopRequest { container: name(), ..StopRequest::default() }).await.map_err(at(1))?;
    w.client().start(StartRequest { container: name(), ..StartRequest::default() }).await.map_err(at(2))?;
    let remove = RemoveRequest { container: name(), force: true, volumes: true };
    w.client().remove(remove).await.map_err(at(3))?;
    Ok(())
}

#[test]
fn death_at_every_point_loses_nothing_and_leaves_nothing() {
    world(async |w: &mut World| {
        for point in POINTS {
            for nth in [1, 2] {
                w.kill_daemon();
                w.start_with(&[("DAVIT_FAILPOINT", &format!("{point}:{nth}"))]).await;
                let lived = live(w).await;
                // The last teardown goes on behind the answer; points that a life passes once only are through then.
                if lived.is_ok() && nth == 2 {
                    let trash = w.state_dir().join("trash");
                    eventually("it dies or is done", async || w.is_dead() || entries(&trash).is_empty())
                        .await;
                    if !w.is_dead() {
                        w.assert_clean().await;
                        continue;
                    }
                }
                w.died(&format!("it dies at {point}")).await;
                w.start().await;
                let status = w.status("web").await;
                match lived {
                    // Acknowledged: it is there, running or ended as it did.
                    Err((1 | 2, _)) => {
                        eventually("it runs or has ended", async || {
                            matches!(w.status("web").await.as_str(), "running" | "exited")
                        })
                        .await;
                        if w.status("web").await == "exited" {
                            let code = w.inspect("web").await.unwrap().state.unwrap().exit_code;
                            assert!(matches!(code, 4 | 143), "{point}:{nth}: {code}");
                        }
                    }
                    Ok(()) => assert!(status.contains("no such container"), "{point}:{nth}: {status}"),
                    Err(_) => {}
                }
                let all = ListRequest { all: true, ..ListRequest::default() };
                for c in w.client().list(all).await.unwrap().into_inner().containers {
                    let request = RemoveRequest { container: c.id, force: true, volumes: true };
                    w.client().remove(request).await.unwrap();
                }
                w.assert_clean().await;
            }
        }
    });
}
