//! Whom a registry must be, and who it wants us to be.

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use crate::host::{Host, busybox_layout, sh};
use crate::real::Registry;
use crate::{configure, push_to, request, tag};

/// ca.crt, srv.crt signed by it, self.crt signed by itself, client.cert signed by ca.crt, all with keys.
fn certificates(dir: &std::path::Path) {
    sh(&format!(
        "cd {}; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=ca -addext basicConstraints=critical,CA:TRUE 2>/dev/null
         openssl req -newkey rsa:2048 -nodes -keyout srv.key -out srv.csr -subj /CN=localhost 2>/dev/null
         printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext
         openssl x509 -req -in srv.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out srv.crt 2>/dev/null
         openssl req -newkey rsa:2048 -nodes -keyout client.key -out client.csr -subj /CN=client 2>/dev/null
         printf 'extendedKeyUsage=clientAuth' > cext
         openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile cext -out client.cert 2>/dev/null
         openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout self.key -out self.crt -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 2>/dev/null",
        dir.display()
    ));
}

#[tokio::test]
async fn certificates_are_verified_unless_told_otherwise() {
    let mut host = Host::new().await;
    let dir = host.tmp.path().to_path_buf();
    let layout = busybox_layout(&dir);
    certificates(&dir);
    let registry = Registry::start(&dir, Some((&dir.join("srv.crt"), &dir.join("srv.key"))), None);
    registry.fill(&layout, "two", "app:1");
    let name = registry.name("app:1");

    let e = host.pull(request(&name)).await.unwrap_err();
    assert!(e.message().contains("certificate that is not trusted"), "{e}");
    assert!(e.hint().contains(&format!("certs.d/127.0.0.1:{}/ca.crt", registry.port)), "{}", e.hint());
    let e = host.pull(pb::PullRequest { ca_pem: b"nonsense".to_vec(), ..request(&name) }).await.unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");

    let ca_pem = std::fs::read(dir.join("ca.crt")).unwrap();
    host.pull(pb::PullRequest { ca_pem, ..request(&name) }).await.unwrap();
    host.remove(&name, false).await.unwrap();
    host.pull(pb::PullRequest { skip_tls_verify: true, ..request(&name) }).await.unwrap();
    host.remove(&name, false).await.unwrap();
    let table = format!("[registries.\"127.0.0.1:{}\"]\n", registry.port);
    configure(&mut host, &format!("{table}ca_file = \"{}/ca.crt\"", dir.display())).await;
    host.pull(request(&name)).await.unwrap();
    // Pushing trusts the same.
    push_to(&host, &name).await.unwrap();
    host.remove(&name, false).await.unwrap();
    configure(&mut host, &format!("{table}skip_tls_verify = true")).await;
    host.pull(request(&name)).await.unwrap();
    host.remove(&name, false).await.unwrap();
    configure(&mut host, "").await;
    let certs = dir.join(format!("config/certs.d/127.0.0.1:{}", registry.port));
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::copy(dir.join("ca.crt"), certs.join("ca.crt")).unwrap();
    host.pull(request(&name)).await.unwrap();
    host.remove(&name, false).await.unwrap();
    host.assert_empty();

    // A certificate that is its own authority, as `openssl req -x509` makes them.
    let own = Registry::start(&dir, Some((&dir.join("self.crt"), &dir.join("self.key"))), None);
    own.fill(&layout, "two", "app:1");
    let ca_pem = std::fs::read(dir.join("self.crt")).unwrap();
    host.pull(pb::PullRequest { ca_pem, ..request(&own.name("app:1")) }).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_wants_a_certificate_of_ours_gets_it() {
    let host = Host::new().await;
    let dir = host.tmp.path();
    let layout = busybox_layout(dir);
    certificates(dir);
    let clients = format!("    clientcas: [{}/ca.crt]", dir.display());
    let registry =
        Registry::start_with(dir, Some((&dir.join("srv.crt"), &dir.join("srv.key"))), None, &clients);
    let certs = dir.join(format!("config/certs.d/127.0.0.1:{}", registry.port));
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::copy(dir.join("ca.crt"), certs.join("ca.crt")).unwrap();
    let name = registry.name("app:1");
    let done = host.load(&layout).await.unwrap();
    tag(&host, &done[0].image_id, &name).await;
    let e = push_to(&host, &name).await.err().unwrap();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    std::fs::copy(dir.join("client.cert"), certs.join("client.cert")).unwrap();
    let e = push_to(&host, &name).await.err().unwrap();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("client.key"), "{e}");
    std::fs::copy(dir.join("client.key"), certs.join("client.key")).unwrap();
    push_to(&host, &name).await.unwrap();
    host.pull(request(&name)).await.unwrap();
}
