//! Checking credentials.

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use crate::fake::{Fake, answer, ok};
use crate::host::Host;
use crate::real::{Registry, htpasswd};
use crate::{auth, log_in};

#[tokio::test]
async fn a_password_is_checked_by_the_registry() {
    let host = Host::new().await;
    let dir = host.tmp.path();
    let registry = Registry::start(dir, None, Some(&htpasswd(dir)));
    let login = |password: &str| pb::LoginRequest {
        registry: format!("127.0.0.1:{}", registry.port),
        auth: auth("user", password),
        ..Default::default()
    };
    assert_eq!(log_in(&host, login("secret")).await.unwrap(), "");
    let e = log_in(&host, login("wrong")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthenticated);
    assert!(e.to_string().contains("refuses the login: unauthorized: authentication required"), "{e}");
    for (name, kind) in [
        ("a/b", Kind::InvalidArgument),
        ("http://x", Kind::InvalidArgument),
        ("127.0.0.1:9", Kind::Unavailable),
    ] {
        let e =
            log_in(&host, pb::LoginRequest { registry: name.into(), ..login("secret") }).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{name}: {e}");
    }
}

#[tokio::test]
async fn a_token_server_gives_a_token_to_keep_or_says_what_is_wrong() {
    let host = Host::new().await;
    let fake = Fake::start(|asked| {
        let basic = asked.header("authorization");
        match asked.path.split('?').next().unwrap() {
            "/token" if basic == Some("Basic dXNlcjpzZWNyZXQ=") => {
                assert!(asked.path.contains("offline_token=true") && asked.path.contains("account=user"));
                ok(br#"{"token":"tok","refresh_token":"keep-me"}"#)
            }
            "/token" => answer("401 Unauthorized", "", br#"{"details":"incorrect username or password"}"#),
            "/v2/" if basic == Some("Bearer tok") => ok(b"{}"),
            "/v2/" => {
                let realm = format!("http://{}/token", asked.header("host").unwrap());
                answer(
                    "401 Unauthorized",
                    &format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n"),
                    b"",
                )
            }
            _ => answer("404 Not Found", "", b""),
        }
    });
    let login = |password: &str| pb::LoginRequest {
        registry: format!("127.0.0.1:{}", fake.port),
        auth: auth("user", password),
        ..Default::default()
    };
    assert_eq!(log_in(&host, login("secret")).await.unwrap(), "keep-me");
    let e = log_in(&host, login("wrong")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthenticated);
    assert!(e.to_string().contains("incorrect username or password"), "{e}");
}
