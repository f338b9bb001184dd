//! Hosts that drop by default.

use std::time::{Duration, Instant};

use crate::host::{BACKEND, BEYOND, Backend, Guest, HOST, Host};

/// What our rules in others' chains say.
const PASS: &str = "its networks pass";

/// Asks what a container user expects, from outside, from inside and by name.
fn works(host: &Host, guest: &Guest) {
    assert!(host.world.ask_tcp(&format!("{HOST}:8080")).is_some(), "published: {}", rules(host));
    assert!(host.space.ask_tcp("127.0.0.1:8080").is_some(), "from localhost");
    assert!(guest.space.ask_tcp(&format!("{BEYOND}:80")).is_some(), "out: {}", rules(host));
    assert!(!guest.space.dig("web").is_empty(), "names");
}

fn rules(host: &Host) -> String {
    host.space.run("nft list ruleset; iptables-legacy-save 2>/dev/null || true")
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn passes_a_host_that_drops(drop: &str) {
    let mut host = Host::with(drop).await;
    let before = rules(&host);
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    web.space.serve_tcp("0.0.0.0:80");
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    works(&host, &web);
    // Networks are apart all the same: what we drop is not let through by what we added.
    host.net_create("other").await;
    let stranger = host.guest("stranger", &["other"], &[]).await;
    let at = web.space.run("ip -4 -o addr show eth0").split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(stranger.space.ask_tcp(&format!("{}:80", at.split('/').next().unwrap())), None);

    let count = |host: &Host| rules(host).matches(PASS).count();
    let marked = count(&host);
    // In iptables' own chain FORWARD the iptables backend needs no rules beside its own.
    assert!(marked >= 2 || host.backend != Backend::Nftables, "{}", rules(&host));
    host.kill();
    host.start().await;
    works(&host, &web);
    assert_eq!(count(&host), marked, "found again, not doubled: {}", rules(&host));
    host.detach(&web).await;
    host.detach(&stranger).await;
    host.net_remove("other").await.unwrap();
    host.becomes_clean().await;
    if host.backend == Backend::Nftables {
        host.becomes_clean_of(&before).await;
    }
    until("our rules in others' chains go", || count(&host) == 0).await;
}

#[tokio::test]
pub async fn containers_pass_an_iptables_policy_of_drop() {
    passes_a_host_that_drops(
        "for t in iptables-nft ip6tables-nft; do $t -P FORWARD DROP; $t -P INPUT DROP; $t -A INPUT -i lo -j ACCEPT;
         $t -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; done",
    )
    .await;
}

#[tokio::test]
pub async fn containers_pass_a_policy_of_drop_of_any_table() {
    passes_a_host_that_drops(
        "nft 'table inet mine { chain f { type filter hook forward priority 5; policy drop; };
         chain i { type filter hook input priority 5; policy drop; iif lo accept; ct state established accept; }; };
         table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; reject; }; }'",
    )
    .await;
}

#[tokio::test]
pub async fn containers_pass_a_legacy_iptables_policy_of_drop() {
    passes_a_host_that_drops("for t in iptables-legacy ip6tables-legacy; do $t -P FORWARD DROP; done").await;
}

#[tokio::test]
pub async fn the_hosts_iptables_command_still_lists_its_rules() {
    let host = Host::with("iptables-nft -P FORWARD DROP").await;
    let web = host.guest("web", &["bridge"], &[]).await;
    let text = host.space.run("iptables-nft -S FORWARD");
    assert!(text.contains("-m devgroup --src-group") && text.contains("its networks pass"), "{text}");
    host.detach(&web).await;
}

#[tokio::test]
pub async fn rules_come_back_after_a_flush() {
    let host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    web.space.serve_tcp("0.0.0.0:80");
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    works(&host, &web);
    host.flush_rules();
    until("rules come back", || host.space.ask_tcp("127.0.0.1:8080").is_some()).await;
    works(&host, &web);
    host.detach(&web).await;
    host.becomes_clean().await;
}

#[tokio::test]
async fn a_flushed_chain_of_iptables_over_nf_tables_is_filled_again() {
    BACKEND.set(Backend::IptablesNft);
    own_chains_are_filled_again("iptables-nft").await;
}

#[tokio::test]
async fn a_flushed_chain_of_legacy_iptables_is_filled_again() {
    BACKEND.set(Backend::IptablesLegacy);
    own_chains_are_filled_again("iptables-legacy").await;
}

async fn own_chains_are_filled_again(command: &str) {
    let host = Host::new().await;
    host.net_create("n").await;
    let web = host.guest("web", &["n"], &["8080:80"]).await;
    web.space.serve_tcp("0.0.0.0:80");
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    let saved = || {
        let text = host.space.run(&format!("{command}-save"));
        let mut rules: Vec<String> =
            text.lines().filter(|l| l.starts_with("-A ")).map(str::to_owned).collect();
        rules.sort();
        rules
    };
    let before = saved();
    for (table, name) in [("nat", "PORTS"), ("nat", "POST"), ("filter", "FORWARD"), ("raw", "RAW")] {
        let chains = host.space.run(&format!("{command} -t {table} -S"));
        let chain =
            chains.lines().find_map(|l| l.strip_prefix("-N ").filter(|c| c.ends_with(&format!("-{name}"))));
        host.space.run(&format!("{command} -t {table} -F {}", chain.unwrap()));
        until(name, || saved() == before).await;
    }
    works(&host, &web);
    // Changes of ours are not taken for anybody else's.
    let mended = host.log().matches("they are back").count();
    let other = host.guest("other", &["n"], &["8081:80"]).await;
    host.detach(&other).await;
    assert_eq!(saved(), before);
    assert_eq!((mended, host.log().matches("they are back").count()), (4, 4), "{}", host.log());
    host.detach(&web).await;
}

#[tokio::test]
pub async fn a_policy_that_comes_later_and_rules_that_are_taken_out_are_answered() {
    let host = Host::new().await;
    let web = host.guest("web", &["bridge"], &["8080:80"]).await;
    web.space.serve_tcp("0.0.0.0:80");
    host.world.serve_tcp(&format!("{BEYOND}:80"));
    let load = "nft 'table inet mine { chain f { type filter hook forward priority 5; policy drop; }; }'";
    let count = || rules(&host).matches(PASS).count();
    host.space.run(load);
    until("a new table", || count() == 2).await;
    works(&host, &web);
    host.space.run("nft flush chain inet mine f");
    until("a flushed chain", || count() == 2).await;
    // As a firewall service loads its rules anew: everything away and back in one step.
    host.space.run("(echo flush ruleset; echo 'table inet mine { chain f { type filter hook forward priority 5; policy drop; }; }') | nft -f -");
    until("a reload", || count() == 2).await;
    works(&host, &web);
    host.detach(&web).await;
}
