//! Plugins that do not come to an end.

use davit_contracts::network as proto;

use super::{RESULT, odd, on, with_plugin};
use crate::host::{Guest, Host};

/// How many processes of the host run this.
fn running(host: &Host, what: &str) -> usize {
    host.space.run(&format!("pgrep -c -f '{what}' || true")).trim().parse().unwrap()
}

#[tokio::test]
async fn a_gc_that_hangs_keeps_netd_from_nothing_and_ends() {
    let script = format!("case $CNI_COMMAND in ADD) {RESULT};; GC) sleep 4711; echo;; esac");
    let mut host = with_plugin(&script).await;
    for name in ["one", "two", "three", "four", "five"] {
        let mut request = odd(name);
        request.cni_config = request.cni_config.replace("1.0.0", "1.1.0");
        request.options.insert("gc".into(), "true".into());
        host.create(request).await.unwrap();
    }
    host.kill();
    // The plugins' own patience is a minute each.
    host.start().await;
    host.guest("g", &["one"], &[]).await;
    assert_eq!(running(&host, "sleep 471[1]"), 0, "what was given up is left");
}

#[tokio::test]
async fn an_orderly_end_of_netd_ends_its_plugins_and_what_they_run() {
    let script = format!("[ $CNI_COMMAND = ADD ] || exit 0; sleep 4712; {RESULT}");
    let mut host = with_plugin(&script).await;
    host.create(odd("slow")).await.unwrap();
    let slow = Guest::new("slow");
    let (mut client, request) = (host.endpoints(), Host::request(&slow, vec![on("slow")], &[]));
    let attach = tokio::spawn(async move { client.attach(request).await });
    host.eventually("the plugin runs", || running(&host, "sleep 471[2]") == 1).await;
    host.stop();
    attach.await.unwrap().unwrap_err();
    host.eventually("nothing of it runs", || running(&host, "sleep 471[2]") == 0).await;
    host.start().await;
}

#[tokio::test]
async fn a_network_can_be_removed_while_its_last_container_is_leaving() {
    let script = format!(
        "case $CNI_COMMAND in ADD) {RESULT};; DEL) while [ ! -e /run/go ]; do sleep 0.05; done;; esac"
    );
    let host = with_plugin(&script).await;
    host.create(odd("slow")).await.unwrap();
    let guest = host.guest("g", &["slow"], &[]).await;
    let (mut client, sandbox_id) = (host.endpoints(), guest.id.clone());
    let detach = tokio::spawn(async move { client.detach(proto::DetachRequest { sandbox_id }).await });
    host.eventually("the plugin runs", || host.space.attempt("test -e /run/last-DEL").0).await;
    let (removed, ()) = tokio::join!(host.net_remove("slow"), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        host.space.run("touch /run/go");
    });
    removed.unwrap();
    detach.await.unwrap().unwrap();
}
