//! The rules as `nft` reads them back, and their cost.

use std::time::{Duration, Instant};

use crate::host::{Guest, Host};

#[tokio::test]
pub async fn rules_do_not_grow_with_ports_and_a_flush_is_mended_by_the_next_change() {
    let host = Host::new().await;
    let a = host.guest("a", &["bridge"], &["8080:80"]).await;
    let rules = |text: &str| text.matches(" comment ").count();
    let before = rules(&host.space.run("nft list ruleset"));
    let many: Vec<String> = (0..300).map(|n| format!("{}:80", 20000 + n)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let b = host.guest("b", &["bridge"], &many).await;
    let text = host.space.run("nft list ruleset");
    assert_eq!(rules(&text), before);
    assert!(text.contains("tcp . 20299 : "), "{text}");
    host.space.run("nft flush ruleset");
    let c = Guest::new("c");
    host.attach(&c, &["bridge"], &["8081:80"]).await.unwrap();
    a.space.serve_tcp("0.0.0.0:80");
    assert!(host.space.ask_tcp("127.0.0.1:8080").is_some());
    for guest in [&a, &b, &c] {
        host.detach(guest).await;
    }
    host.becomes_clean().await;
}

#[tokio::test]
pub async fn rules_that_somebody_removes_come_back_by_themselves() {
    let host = Host::new().await;
    let a = host.guest("a", &["bridge"], &["8080:80"]).await;
    a.space.serve_tcp("0.0.0.0:80");
    let whole = host.space.run("nft list ruleset");
    let name = whole.split_whitespace().find(|w| w.starts_with("davit") && !w.ends_with("-guard")).unwrap();
    for damage in
        ["flush ruleset".to_owned(), format!("flush table inet {name}"), format!("delete table inet {name}")]
    {
        host.space.run(&format!("nft {damage}"));
        let until = Instant::now() + Duration::from_secs(20);
        while host.space.run("nft list ruleset") != whole {
            assert!(Instant::now() < until, "after '{damage}': {}", host.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(host.space.ask_tcp("127.0.0.1:8080").is_some(), "{damage}");
    }
    assert_eq!(host.log().matches("they are back").count(), 3, "mending causes no mending");
    host.detach(&a).await;
    host.becomes_clean().await;
}
