//! Networks of the driver `cni`, made by Debian's plugins and by scripts that misbehave.

mod claims;
mod hangs;
mod routes;

use davit_contracts::Kind;
use davit_contracts::network as proto;
use serde_json::{Value, json};

use crate::host::{BEYOND, Guest, HOST, Host, WORLD, ip};

/// Plugins keep their state below /var/lib/cni and /run.
const PLACES: &str = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib";

#[allow(clippy::needless_pass_by_value, reason = "what json! makes is given away")]
fn list(name: &str, version: &str, plugins: Value) -> String {
    json!({"cniVersion": version, "name": name, "plugins": plugins}).to_string()
}

fn bridge(subnet: &str) -> Value {
    json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
    "capabilities": {"ips": true, "mac": true}, "ipam": {
        "type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]
    }})
}

fn request(name: &str, config: String) -> proto::CreateNetworkRequest {
    proto::CreateNetworkRequest {
        name: name.into(),
        driver: "cni".into(),
        cni_config: config,
        ..Default::default()
    }
}

fn on(network: &str) -> proto::EndpointSpec {
    proto::EndpointSpec { network: network.into(), ..Default::default() }
}

/// What host-local has given out.
fn reserved(host: &Host, list: &str) -> usize {
    let text = host.space.run(&format!("ls /var/lib/cni/networks/{list} 2>/dev/null || true"));
    text.lines().filter(|l| l.contains('.') && !l.starts_with("last")).count()
}

#[tokio::test]
async fn containers_on_debians_bridge_have_names_addresses_and_ports() {
    for version in ["0.4.0", "1.0.0"] {
        let host = Host::with(PLACES).await;
        let plugins = json!([bridge("10.92.0.0/24"), {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}]);
        let made = host.create(request("theirs", list("deb", version, plugins))).await.unwrap();
        assert_eq!((made.driver.as_str(), made.subnets.len()), ("cni", 0));
        assert!(made.cni_config.contains("host-local"));
        let db = Guest::new("db");
        let at = host.attach(&db, &["theirs"], &["8080:80"]).await.unwrap();
        assert_eq!(at.endpoints[0].gateway, "10.92.0.1");
        assert_eq!(at.ports[0].host_port, 8080);
        let web = host.guest("web", &["theirs"], &[]).await;
        assert_eq!(web.space.dig("db"), ip(&at, 0));
        assert!(db.space.run("ip -o addr show eth0").contains(&at.endpoints[0].ip));
        assert!(db.space.run("ip link show eth0").contains(&at.endpoints[0].mac));
        db.space.serve_tcp("0.0.0.0:80");
        assert!(web.space.ask_tcp(&format!("{}:80", ip(&at, 0))).is_some());
        assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
        host.world.serve_tcp(&format!("{BEYOND}:80"));
        assert_eq!(web.space.ask_tcp(&format!("{BEYOND}:80")).as_deref(), Some(HOST));
        let listed = host.inspect("theirs").await;
        assert_eq!(listed.endpoints.len(), 2);
        // It leaves and comes back while it runs.
        let (sandbox_id, network) = (db.id.clone(), "theirs".to_owned());
        let leave = proto::DisconnectRequest { sandbox_id, network, force: false };
        host.endpoints().disconnect(leave).await.unwrap();
        assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")), None);
        let connect = proto::ConnectRequest { sandbox_id: db.id.clone(), endpoint: Some(on("theirs")) };
        let back = host.endpoints().connect(connect).await.unwrap().into_inner();
        assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some(), "its port is lost");
        assert_eq!(reserved(&host, "deb"), 2);

        let e = host.net_remove("theirs").await.unwrap_err();
        assert_eq!(e.kind(), Kind::InUse);
        // Repeated, the same.
        let again = host.attach(&db, &["theirs"], &["8080:80"]).await.unwrap();
        assert_eq!(again.endpoints, [back]);
        host.detach(&db).await;
        host.detach(&db).await;
        assert_eq!(host.world.ask_tcp(&format!("{HOST}:8080")), None);
        assert_eq!(web.space.dig("db"), "");
        let force = proto::RemoveNetworkRequest { name: "theirs".into(), force: true };
        host.networks().remove(force).await.unwrap();
        assert_eq!(reserved(&host, "deb"), 0);
        assert!(!host.space.run("ip -o link").contains("veth"));
    }
}

#[tokio::test]
async fn ptp_and_macvlan_work_beside_davits_own_networks() {
    let host = Host::with(PLACES).await;
    let ptp = json!([{"type": "ptp", "ipMasq": true, "ipam": {
        "type": "host-local", "subnet": "10.93.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]);
    host.create(request("ptp", list("ptp", "1.0.0", ptp))).await.unwrap();
    let macvlan = json!({"cniVersion": "1.0.0", "name": "mac", "type": "macvlan", "master": "uplink", "ipam": {
        "type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24", "rangeStart": "10.99.0.50"}]]}});
    host.create(request("mac", macvlan.to_string())).await.unwrap();
    host.net_create("ours").await;
    let a = Guest::new("a");
    // A gateway of ours, and one of theirs: theirs are their plugins'.
    let at = host.attach(&a, &["ours", "mac"], &[]).await.unwrap();
    assert_eq!(at.endpoints[1].interface, "eth1");
    host.world.serve_tcp(&format!("{WORLD}:90"));
    assert_eq!(a.space.ask_tcp(&format!("{WORLD}:90")), Some(ip(&at, 1)));
    let b = host.guest("b", &["ptp"], &[]).await;
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert_eq!(b.space.ask_tcp(&format!("{BEYOND}:80")).as_deref(), Some(HOST));

    // Connected and disconnected while it runs.
    let connect = proto::ConnectRequest { sandbox_id: b.id.clone(), endpoint: Some(on("mac")) };
    let endpoint = host.endpoints().connect(connect).await.unwrap().into_inner();
    assert!(endpoint.ip.starts_with("10.99.0.5") && endpoint.interface == "eth1", "{endpoint:?}");
    assert_eq!(b.space.dig("a.mac"), ip(&at, 1));
    let leave = proto::DisconnectRequest { sandbox_id: b.id.clone(), network: "mac".into(), force: false };
    host.endpoints().disconnect(leave).await.unwrap();
    assert!(!b.space.run("ip -o link").contains("eth1"));
    assert_eq!((reserved(&host, "mac"), reserved(&host, "ptp")), (1, 1));
    host.detach(&a).await;
    host.detach(&b).await;
    assert_eq!((reserved(&host, "mac"), reserved(&host, "ptp")), (0, 0));
}

#[tokio::test]
async fn wishes_are_given_to_plugins_that_take_them_and_refused_otherwise() {
    let host = Host::with(PLACES).await;
    host.create(request("theirs", list("deb", "1.0.0", json!([bridge("10.92.0.0/24")])))).await.unwrap();
    let wish =
        proto::EndpointSpec { ip: "10.92.0.77".into(), mac: "02:00:00:00:00:77".into(), ..on("theirs") };
    let a = Guest::new("a");
    let at = host.attach_request(Host::request(&a, vec![wish], &[])).await.unwrap();
    assert_eq!((ip(&at, 0).as_str(), at.endpoints[0].mac.as_str()), ("10.92.0.77", "02:00:00:00:00:77"));
    let b = Guest::new("b");
    let e = host.attach(&b, &["theirs"], &["8080:80"]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(
        e.to_string().contains("published ports") && e.hint().contains("portMappings"),
        "{e} {}",
        e.hint()
    );
    // An address that is taken is the plugin's to refuse; nothing is left of the attempt.
    let wish = proto::EndpointSpec { ip: "10.92.0.77".into(), ..on("theirs") };
    let e = host.attach_request(Host::request(&b, vec![wish], &[])).await.unwrap_err();
    assert!(e.to_string().contains("10.92.0.77"), "{e}");
    assert_eq!(reserved(&host, "deb"), 1);
    assert!(!b.space.run("ip -o link").contains("eth0"));
    assert_eq!(host.inspect("theirs").await.endpoints.len(), 1);
}

#[tokio::test]
async fn lists_that_cannot_work_are_refused_with_a_reason() {
    let host = Host::with(PLACES).await;
    let good = list("n", "1.0.0", json!([bridge("10.92.0.0/24")]));
    let option = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    for (request, part) in [
        (request("n", String::new()), "empty"),
        (request("n", "{".into()), "JSON"),
        (request("n", list("n", "9.0.0", json!([{"type": "bridge"}]))), "9.0.0"),
        (request("n", list("n", "1.0.0", json!([]))), "plugins"),
        (request("n", list("n", "1.0.0", json!([{"type": "no-such"}]))), "no-such"),
        (proto::CreateNetworkRequest { ipv6: true, ..request("n", good.clone()) }, "IP version"),
        (proto::CreateNetworkRequest { internal: true, ..request("n", good.clone()) }, "internal"),
        (
            proto::CreateNetworkRequest {
                options: option("plugin-path", "/nowhere"),
                ..request("n", good.clone())
            },
            "/nowhere",
        ),
        (
            proto::CreateNetworkRequest { options: option("plugin-pat", "/x"), ..request("n", good.clone()) },
            "plugin-pat",
        ),
    ] {
        let e = host.create(request).await.unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(part), "{part}: {e}");
    }
    let all =
        host.networks().list(proto::ListNetworksRequest::default()).await.unwrap().into_inner().networks;
    assert_eq!(all.len(), 3);
}

/// A host with plugins of one's own in /run/bin.
async fn with_plugin(script: &str) -> Host {
    Host::with(&format!(
        "{PLACES}; mkdir /run/bin; cat > /run/bin/odd <<'END'\n#!/bin/sh\ncat > /run/last-$CNI_COMMAND\n{script}\nEND\nchmod 755 /run/bin/odd"
    ))
    .await
}

fn odd(name: &str) -> proto::CreateNetworkRequest {
    let options = [("plugin-path".to_owned(), "/run/bin:/usr/lib/cni".to_owned())].into();
    let config = list(name, "1.0.0", json!([{"type": "odd"}]));
    proto::CreateNetworkRequest { options, ..request(name, config) }
}

const RESULT: &str = r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.94.0.2/24"}]}'"#;

#[tokio::test]
async fn a_slow_plugin_keeps_nobody_else_waiting() {
    let host = with_plugin(&format!(
        "if [ $CNI_COMMAND = ADD ]; then while [ ! -e /run/go ]; do sleep 0.05; done; {RESULT}; fi"
    ))
    .await;
    host.create(odd("slow")).await.unwrap();
    let slow = Guest::new("slow");
    let attach = tokio::spawn({
        let (mut client, request) = (host.endpoints(), Host::request(&slow, vec![on("slow")], &[]));
        async move { client.attach(request).await }
    });
    host.eventually("the plugin runs", || host.space.attempt("test -e /run/last-ADD").0).await;
    let other = host.guest("other", &["bridge"], &[]).await;
    host.detach(&other).await;
    assert!(!attach.is_finished());
    // Who comes for the same sandbox waits for its turn.
    let detach = tokio::spawn({
        let (mut client, sandbox_id) = (host.endpoints(), slow.id.clone());
        async move { client.detach(proto::DetachRequest { sandbox_id }).await }
    });
    host.space.run("touch /run/go");
    let answer = attach.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.endpoints[0].ip, "10.94.0.2/24");
    detach.await.unwrap().unwrap();
    assert!(host.space.run("cat /run/last-DEL").contains("10.94.0.2"), "DEL is told what ADD answered");
}

#[tokio::test]
async fn a_plugin_that_fails_is_quoted_and_undone() {
    let host = with_plugin("[ $CNI_COMMAND = ADD ] || exit 0; echo no such wire >&2; exit 4").await;
    host.create(odd("broken")).await.unwrap();
    let guest = Guest::new("g");
    let e = host.attach(&guest, &["bridge", "broken"], &["8080:80"]).await.unwrap_err();
    assert!(e.to_string().contains("no such wire") && e.to_string().contains("broken"), "{e}");
    assert!(host.space.attempt("test -e /run/last-DEL").0, "after a failed ADD comes DEL");
    let all = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    assert!(all.is_empty());
    host.net_remove("broken").await.unwrap();
    host.becomes_clean().await;
}

#[tokio::test]
async fn a_del_that_fails_can_be_repeated() {
    let host =
        with_plugin(&format!("case $CNI_COMMAND in ADD) {RESULT};; DEL) test -e /run/go || exit 1;; esac"))
            .await;
    host.create(odd("stubborn")).await.unwrap();
    let guest = host.guest("g", &["stubborn"], &[]).await;
    let request = proto::DetachRequest { sandbox_id: guest.id.clone() };
    assert!(host.endpoints().detach(request.clone()).await.is_err());
    assert_eq!(host.inspect("stubborn").await.endpoints.len(), 1);
    host.space.run("touch /run/go");
    host.endpoints().detach(request).await.unwrap();
    host.net_remove("stubborn").await.unwrap();
}

#[tokio::test]
async fn what_was_attached_outlives_netd_and_what_was_not_is_deleted() {
    let mut host = with_plugin(&format!(
        "if [ $CNI_COMMAND = ADD ]; then while [ ! -e /run/go ]; do sleep 0.05; done; {RESULT}; fi; echo $CNI_CONTAINERID >> /run/said-$CNI_COMMAND"
    ))
    .await;
    let plugins =
        json!([bridge("10.92.0.0/24"), {"type": "portmap", "capabilities": {"portMappings": true}}]);
    host.create(request("theirs", list("deb", "1.0.0", plugins))).await.unwrap();
    host.create(odd("slow")).await.unwrap();
    let kept = Guest::new("kept");
    let at = host.attach(&kept, &["theirs"], &["8080:80"]).await.unwrap();
    kept.space.serve_tcp("0.0.0.0:80");
    let gone = host.guest("gone", &["theirs"], &[]).await;
    let gone_id = gone.id.clone();
    let half = Guest::new("half");
    let (mut client, request) = (host.endpoints(), Host::request(&half, vec![on("theirs"), on("slow")], &[]));
    let attach = tokio::spawn(async move { client.attach(request).await.is_ok() });
    host.eventually("the plugin runs", || host.space.attempt("test -e /run/last-ADD").0).await;
    host.kill();
    assert!(!attach.await.unwrap());
    drop(gone);
    host.space.run("touch /run/go");
    host.start().await;
    host.eventually("DEL was called", || host.space.attempt("test -e /run/said-DEL").0).await;
    assert_eq!(host.space.run("cat /run/said-DEL").trim(), half.id);
    host.eventually("addresses are free", || reserved(&host, "deb") == 1).await;
    assert!(!host.space.run("ls /var/lib/cni/results 2>/dev/null || true").contains(&gone_id));
    assert!(!half.space.run("ip -o link").contains("eth0"));
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    let web = host.guest("web", &["theirs"], &[]).await;
    assert_eq!(web.space.dig("kept"), ip(&at, 0));
    // The same sandbox can be attached afresh.
    host.attach(&half, &["theirs", "slow"], &[]).await.unwrap();
    for guest in [&half, &kept, &web] {
        host.detach(guest).await;
    }
    assert_eq!(reserved(&host, "deb"), 0);
}

#[tokio::test]
async fn a_check_asks_the_plugins_and_is_clean_where_all_is_well() {
    let host = Host::with(&format!("{PLACES}; mkdir /run/netns; ip netns add pod")).await;
    host.create(request("theirs", list("deb", "1.0.0", json!([bridge("10.92.0.0/24")])))).await.unwrap();
    let guest = host.guest("g", &["theirs", "bridge"], &[]).await;
    let config = json!({"cniVersion": "1.0.0", "name": "x", "type": "davit-cni", "network": "bridge", "socket": host.socket()});
    host.space.run(&format!(
        "echo '{config}' | CNI_COMMAND=ADD CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 {}",
        crate::cni::davit_cni().display()
    ));
    let check = async |repair| {
        let answer = host
            .networks()
            .check(proto::CheckRequest { repair, ..Default::default() })
            .await
            .unwrap()
            .into_inner();
        answer.drifts.into_iter().map(|d| format!("{d:?}")).collect::<Vec<_>>()
    };
    assert_eq!(check(false).await, Vec::<String>::new());
    host.space.run("ip link del cni0");
    let found = check(true).await;
    assert!(
        found.len() == 1 && found[0].contains("attachment eth0") && found[0].contains("theirs"),
        "{found:?}"
    );
    assert!(guest.space.run("ip -o addr show eth0").contains("10.92.0."));
}

#[tokio::test]
async fn an_add_that_outlives_netd_is_ended_before_del() {
    // It takes its time, and then makes a link of the host; by a child, as plugins run plugins.
    let mut host = with_plugin(
        "case $CNI_COMMAND in
        ADD) sh -c 'echo $$ > /run/pid; while [ ! -e /run/go ]; do sleep 0.02; done; ip link add late type veth peer name late1'; exit 1;;
        DEL) readlink /proc/$(cat /run/pid)/exe && touch /run/beside; touch /run/go;; esac",
    )
    .await;
    host.create(odd("slow")).await.unwrap();
    let guest = Guest::new("g");
    let (mut client, request) = (host.endpoints(), Host::request(&guest, vec![on("slow")], &[]));
    let attach = tokio::spawn(async move { client.attach(request).await.is_ok() });
    host.eventually("the plugin runs", || host.space.attempt("test -s /run/pid").0).await;
    let plugins = host.file("run/network/plugins");
    assert_eq!(std::fs::read_dir(&plugins).unwrap().count(), 1);
    host.kill();
    assert!(!attach.await.unwrap());
    host.start().await;
    host.eventually("DEL has ended", || {
        let none = |folder: &str| std::fs::read_dir(host.file(folder)).unwrap().count() == 0;
        none("run/network/leftovers") && none("run/network/plugins")
    })
    .await;
    assert!(!host.space.attempt("test -e /run/beside").0, "the ADD went on beside the DEL");
    assert!(!host.space.run("ip -o link").contains("late"));
}

async fn drifts(host: &Host, repair: bool) -> Vec<proto::Drift> {
    let mut all = host
        .networks()
        .check(proto::CheckRequest { repair, ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .drifts;
    all.retain(|d| d.object.contains("plugins"));
    all
}

#[tokio::test]
async fn what_plugins_do_not_remove_outlives_its_network_and_is_removed_by_a_repair() {
    let host = with_plugin(&format!(
        "echo $CNI_CONTAINERID $CNI_IFNAME >> /run/said-$CNI_COMMAND; case $CNI_COMMAND in ADD) {RESULT};; DEL) test -e /run/go || {{ echo not now >&2; exit 1; }};; esac"
    ))
    .await;
    host.create(odd("stubborn")).await.unwrap();
    let guest = host.guest("g", &["stubborn"], &[]).await;
    let force = proto::RemoveNetworkRequest { name: "stubborn".into(), force: true };
    host.networks().remove(force).await.unwrap();
    let found = drifts(&host, false).await;
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((one.kind.as_str(), one.network.as_str(), one.sandbox.as_str()), ("stray", "stubborn", "g"));
    assert!(!one.repaired);
    let found = drifts(&host, true).await;
    assert!(!found[0].repaired && found[0].error.contains("not now"), "{found:?}");
    host.space.run("touch /run/go; rm /run/said-DEL");
    assert!(drifts(&host, true).await[0].repaired);
    assert_eq!(host.space.run("cat /run/said-DEL").trim(), format!("{} eth0", guest.id));
    assert!(host.space.run("cat /run/last-DEL").contains("10.94.0.2"), "DEL is told what ADD answered");
    assert!(drifts(&host, false).await.is_empty());
}

#[tokio::test]
async fn a_container_whose_plugin_is_gone_can_be_removed() {
    let host = with_plugin(&format!("case $CNI_COMMAND in ADD) {RESULT};; esac")).await;
    host.create(odd("gone")).await.unwrap();
    let forced = host.guest("forced", &["bridge", "gone"], &[]).await;
    let dead = host.guest("dead", &["gone"], &[]).await;
    let ghost = host.guest("ghost", &["gone"], &[]).await;
    host.space.run("mv /run/bin/odd /run/odd");
    let leave =
        |force| proto::DisconnectRequest { sandbox_id: forced.id.clone(), network: "gone".into(), force };
    let e = davit_contracts::Error::from(host.endpoints().disconnect(leave(false)).await.unwrap_err());
    assert!(e.to_string().contains("odd"), "{e}");
    host.endpoints().disconnect(leave(true)).await.unwrap();
    // Nobody holds it any more: nothing that is left of it can be of use.
    let dead_id = dead.id.clone();
    drop(dead);
    host.endpoints().detach(proto::DetachRequest { sandbox_id: dead_id }).await.unwrap();
    drop(ghost);
    host.networks().check(proto::CheckRequest { repair: true, ..Default::default() }).await.unwrap();
    let all = host.endpoints().list(proto::ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes;
    assert_eq!(all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["forced"]);
    host.net_remove("gone").await.unwrap();
    let mut left: Vec<_> = drifts(&host, false).await.into_iter().map(|d| d.sandbox).collect();
    left.sort();
    assert_eq!(left, ["dead", "forced", "ghost"]);
    host.space.run("mv /run/odd /run/bin/odd");
    assert!(drifts(&host, true).await.iter().all(|d| d.repaired));
    assert!(drifts(&host, false).await.is_empty());
}

#[tokio::test]
async fn gc_is_sent_only_where_the_list_is_davits_alone() {
    let mut host =
        with_plugin(&format!("case $CNI_COMMAND in ADD) {RESULT};; esac; touch /run/$CNI_COMMAND")).await;
    let newest = |name: &str, gc: &str| {
        let mut request = odd(name);
        request.cni_config = request.cni_config.replace("1.0.0", "1.1.0");
        request.options.insert("gc".into(), gc.into());
        request
    };
    assert!(host.create(newest("n", "maybe")).await.unwrap_err().to_string().contains("gc"));
    host.create(newest("shared", "false")).await.unwrap();
    assert!(host.space.attempt("test -e /run/STATUS").0);
    let guest = host.guest("g", &["shared"], &[]).await;
    host.kill();
    host.start().await;
    host.create(newest("alone", "true")).await.unwrap();
    host.attach(&Guest::new("h"), &["alone"], &[]).await.unwrap();
    assert!(!host.space.attempt("test -e /run/GC").0);
    host.kill();
    host.start().await;
    host.eventually("GC was called", || host.space.attempt("test -e /run/GC").0).await;
    let said: Value = serde_json::from_str(&host.space.run("cat /run/last-GC")).unwrap();
    // Whoever holds "h" is gone, so nothing is to stay.
    assert_eq!((&said["name"], &said["cni.dev/valid-attachments"]), (&json!("alone"), &json!([])));
    host.detach(&guest).await;
}

#[tokio::test]
async fn davits_own_plugin_is_one_as_any_other() {
    let host = Host::with(PLACES).await;
    host.net_create("ours").await;
    let bin = crate::cni::davit_cni();
    let plugins = json!([{"type": "davit-cni", "network": "ours", "socket": host.socket()}]);
    let options = [("plugin-path".to_owned(), bin.parent().unwrap().display().to_string())].into();
    let made = proto::CreateNetworkRequest { options, ..request("loop", list("loop", "1.1.0", plugins)) };
    host.create(made.clone()).await.unwrap();
    // A list of 1.1 is asked whether it is ready.
    let broken = made.cni_config.replace("\"ours\"", "\"absent\"");
    let e =
        host.create(proto::CreateNetworkRequest { name: "other".into(), cni_config: broken, ..made }).await;
    assert!(e.unwrap_err().to_string().contains("not ready"));
    let a = host.guest("a", &["loop"], &[]).await;
    let b = host.guest("b", &["ours"], &[]).await;
    a.space.serve_tcp("0.0.0.0:80");
    let at = host.inspect("loop").await.endpoints[0].ip.clone();
    assert!(b.space.ask_tcp(&format!("{}:80", at.split('/').next().unwrap())).is_some());
    host.detach(&a).await;
    host.detach(&b).await;
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
