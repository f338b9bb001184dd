//! The same daemon in a user namespace, as a plain user has it: no uplink yet, everything else.

use crate::host::{Guest, Host, Space, ip};

#[tokio::test]
async fn containers_of_a_user_reach_each_other_by_name_and_publish_ports() {
    let host = Host::rootless().await;
    host.net_create("mine").await;
    let guest = |name: &str| Guest { space: Space::beneath(&host.space), ..Guest::new(name) };
    let (db, web) = (guest("db"), guest("web"));
    let db_at = host.attach(&db, &["mine"], &["8080:80"]).await.unwrap();
    host.attach(&web, &["mine"], &[]).await.unwrap();
    db.space.serve_tcp("0.0.0.0:80");
    assert_eq!(web.space.dig("db"), ip(&db_at, 0));
    assert!(web.space.ask_tcp(&format!("{}:80", ip(&db_at, 0))).is_some());
    assert!(host.space.ask_tcp("127.0.0.1:8080").is_some());
    host.detach(&db).await;
    host.detach(&web).await;
    host.net_remove("mine").await.unwrap();
    host.becomes_clean().await;
}
