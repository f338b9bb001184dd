//! Kernels without what davit likes to have: it does without, or says what is missing.

use std::os::unix::fs::symlink;

use davit_contracts::network as proto;
use davit_contracts::{Error, Kind};

use crate::host::{BEYOND, Guest, HOST, Host, ip};

async fn deny(host: &Host) -> Error {
    let request =
        proto::SetPolicyRequest { network: "n".into(), default_action: "deny".into(), ..Default::default() };
    host.networks().set_policy(request).await.map_err(Error::from).unwrap_err()
}

#[tokio::test]
async fn without_br_netfilter_there_are_networks_and_no_policies() {
    // An empty directory in place of the settings is there all the same, so all of them are covered.
    let hide = "mkdir -p /run/without && mount -t tmpfs tmpfs /run/without && mkdir /run/without/sys && \
        mount --rbind /proc/sys /run/without/sys && mount -t tmpfs tmpfs /proc/sys/net && mkdir /proc/sys/net/ipv4 \
        /proc/sys/net/ipv6 && for n in ipv4 ipv6; do mount --bind /run/without/sys/net/$n /proc/sys/net/$n; done";
    let host = Host::with(hide).await;
    host.net_create("n").await;
    let (a, b) = (host.guest("a", &["n"], &[]).await, Guest::new("b"));
    let at = host.attach(&b, &["n"], &[]).await.unwrap();
    let e = deny(&host).await;
    assert_eq!(e.kind(), Kind::Unsupported, "{e}");
    assert!(e.message().contains("'n'") && e.message().contains("does not filter packets on bridges"), "{e}");
    assert_eq!(host.inspect("n").await.policy_default, "allow", "nothing was recorded");
    b.space.serve_tcp("0.0.0.0:80");
    assert!(a.space.ask_tcp(&format!("{}:80", ip(&at, 0))).is_some());
}

/// A host whose netd has not run yet on a kernel without nf_tables, and a directory for its PATH.
async fn without_nf_tables() -> (Host, std::path::PathBuf) {
    let mut host = Host::new().await;
    host.net_create("n").await;
    host.stop();
    host.flush_rules();
    let bin = host.config().with_file_name("bin");
    std::fs::create_dir_all(&bin).unwrap();
    (host, bin)
}

#[tokio::test]
async fn without_nf_tables_iptables_does_all_but_policies() {
    let (mut host, bin) = without_nf_tables().await;
    for (name, end) in
        [("iptables", ""), ("iptables", "-restore"), ("ip6tables", ""), ("ip6tables", "-restore")]
    {
        symlink(format!("/usr/sbin/{name}-legacy{end}"), bin.join(format!("{name}{end}"))).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let lacking = [("DAVIT_KERNEL_LACKS", "nf_tables"), ("PATH", path.as_str())];
    assert!(host.try_start(&lacking).await, "{}", host.log());
    let db = Guest::new("db");
    let at = host.attach(&db, &["n"], &["8080:80"]).await.unwrap();
    let web = host.guest("web", &["n"], &[]).await;
    assert!(web.space.run("iptables-legacy-save -t nat").contains("DAVIT-NAMES"));
    assert_eq!(web.space.dig("db"), ip(&at, 0));
    assert_eq!(web.space.dig("+tcp db"), ip(&at, 0));
    db.space.serve_tcp("0.0.0.0:80");
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some());
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    assert_eq!(web.space.ask_tcp(&format!("{BEYOND}:80")).as_deref(), Some(HOST));
    let e = deny(&host).await;
    assert_eq!(e.kind(), Kind::Unsupported, "{e}");
    assert_eq!(host.inspect("n").await.policy_default, "allow", "nothing was recorded");
    assert_eq!(host.space.run("nft list ruleset").trim(), "");
}

#[tokio::test]
async fn without_nf_tables_and_iptables_it_is_said_what_is_missing() {
    let (mut host, bin) = without_nf_tables().await;
    // What the test itself starts netd with.
    symlink("/usr/bin/nsenter", bin.join("nsenter")).unwrap();
    let path = bin.display().to_string();
    let came = host.try_start(&[("DAVIT_KERNEL_LACKS", "nf_tables"), ("PATH", path.as_str())]).await;
    let log = host.log();
    assert!(!came && log.contains("iptables"), "{log}");
}
