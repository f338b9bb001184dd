//! A daemon on a real socket: what it answers about itself, who is refused, how it ends.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::path::Path;
use std::sync::Arc;

use davit_contracts::plugin::plugin_client::PluginClient;
use davit_contracts::plugin::{Contract, HealthRequest, InfoRequest, ShutdownRequest};
use davit_contracts::version::STORAGE;
use davit_contracts::{Error, Kind, client};
use davit_daemon_kit::daemon::{Daemon, HealthSource, Listener, degraded, ok};
use davit_daemon_kit::paths::Layout;
use tonic::service::Routes;

struct Sick;

impl HealthSource for Sick {
    fn checks(&self) -> Vec<davit_contracts::plugin::health_response::Check> {
        vec![ok("disk"), degraded("uplink", "no route")]
    }
}

fn layout(dir: &Path) -> Layout {
    Layout { state: dir.join("state"), run: dir.join("run"), config: dir.join("config"), rootless: false }
}

#[tokio::test]
async fn it_answers_refuses_strangers_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path());
    let listener = Listener::bind(&layout, "storaged").unwrap();
    let second = Listener::bind(&layout, "storaged").unwrap_err();
    assert!(second.to_string().contains("already served"), "{second}");

    let daemon = Daemon::new("davit-storaged", "9.9.9", &[STORAGE]).with_capability("driver:overlay");
    let serving = tokio::spawn(daemon.serve(listener, Routes::default(), Arc::new(Sick)));
    let channel = client::connect(&layout.socket("storaged")).await.unwrap();
    let mut plugin = PluginClient::new(channel);

    let info = plugin.info(InfoRequest { contracts: vec![STORAGE.into()] }).await.unwrap().into_inner();
    assert_eq!((info.name.as_str(), info.version.as_str()), ("davit-storaged", "9.9.9"));
    assert!(info.contracts.iter().any(|c| c.name == "davit.plugin"));
    let health = plugin.health(HealthRequest {}).await.unwrap().into_inner();
    assert_eq!((health.status, health.checks.len()), (2, 2));

    let newer = vec![Contract { name: "davit.storage".into(), major: 7, minor: 0 }];
    let refused = Error::from(plugin.info(InfoRequest { contracts: newer }).await.unwrap_err());
    assert_eq!(refused.kind(), Kind::Unsupported);
    assert!(refused.to_string().contains("7.0") && refused.to_string().contains("1.2"), "{refused}");

    plugin.shutdown(ShutdownRequest {}).await.unwrap();
    drop(plugin);
    tokio::time::timeout(std::time::Duration::from_secs(20), serving)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    let down = client::connect(&layout.socket("storaged")).await.unwrap_err();
    assert_eq!(down.kind(), Kind::Unavailable);
}

async fn served_to_its_end(layout: &Layout, meanwhile: impl FnOnce()) {
    let listener = Listener::bind(layout, "netd").unwrap();
    let daemon = Daemon::new("davit-netd", "9.9.9", &[]);
    let serving = tokio::spawn(daemon.serve(listener, Routes::default(), Arc::new(Sick)));
    let mut plugin = PluginClient::new(client::connect(&layout.socket("netd")).await.unwrap());
    meanwhile();
    plugin.shutdown(ShutdownRequest {}).await.unwrap();
    drop(plugin);
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, serving).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn one_that_nobody_supervises_takes_its_socket_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path());
    served_to_its_end(&layout, || {}).await;
    assert!(!layout.socket("netd").exists());
}

#[tokio::test]
async fn the_socket_of_a_successor_stays() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path());
    let socket = layout.socket("netd");
    let mut successor = None;
    served_to_its_end(&layout, || {
        std::fs::remove_file(&socket).unwrap();
        successor = Some(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    })
    .await;
    std::os::unix::net::UnixStream::connect(&socket).expect("it is the successor's");
}
