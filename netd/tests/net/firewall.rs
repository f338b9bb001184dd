//! The rules as `nft` reads them back, and their cost.

use crate::host::{Guest, Host};

#[tokio::test]
async fn rules_do_not_grow_with_ports_and_a_flush_is_mended_by_the_next_change() {
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
